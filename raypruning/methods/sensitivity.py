"""Sensitivities: the largest share that a weight, or a channel, has in any output of its layer, over a set of images.

For an image, the inputs a >= 0 of a layer, unfolded to patches A, and its weights of one sign: the share of weight
W[o, k] in output o at position p is g = W[o, k] A[k, p] / sum_k W[o, k] A[k, p], in [0, 1]. Inputs of both signs are
taken as two images, max(a, 0) and max(-a, 0). Biases are left out.
"""

# B images of a batch, S half filters (the positive, then the negative parts), K weights of a filter: I input channels
# times D kernel pixels, P positions, X combinations that are looked at

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from raypruning.methods.layer_inputs import visit_inputs
from raypruning.methods.method import Network
from raypruning.methods.scores import per_unit

# A sum below this counts as 0, and then no weight has a share in it.
SMALLEST_SUM = torch.finfo(torch.float32).eps
# Of the products that are looked through at once: they should stay in a CPU's cache, or fill a GPU.
CACHE_BYTES, GPU_BYTES = 1 << 20, 1 << 30


def sipp(network: Network) -> dict[str, Tensor]:
    """Per weight the share averaged over positions, the largest over images and signs; summed over filters or channels.

    Source: Baykal et al. 2019 (SiPP), Definition 1, with the mean over patches of Lost in Pruning's code.
    """
    parts = _weights_by_sign(network)
    found: dict[str, Tensor] = {}

    def look(name: str, patches_BKP: Tensor) -> None:
        for inputs_BKP in _inputs_by_sign(patches_BKP):
            # Nothing here is negative, so that the weight can be multiplied in when the maximum is known.
            scaled_BSP = _inverse_sums(parts[name], inputs_BKP).div_(inputs_BKP.shape[2])
            largest_SK = (scaled_BSP @ inputs_BKP.transpose(1, 2)).amax(0)
            found[name] = torch.maximum(found[name], largest_SK) if name in found else largest_SK

    visit_inputs(network, look)
    # A weight has one sign, and its share is 0 in the other half.
    halves = {name: (found[name] * part_SK).view(2, *network.weight(name).shape) for name, part_SK in parts.items()}
    return per_unit(network, {name: half[0] + half[1] for name, half in halves.items()})


def pfp(network: Network) -> dict[str, Tensor]:
    """Per input channel the largest share of any of its weights in any output, over images and signs.

    Source: Liebenwein et al. 2020 (PFP), Definition 1, with the maximum over patches of Lost in Pruning's code.
    """
    parts = _weights_by_sign(network)
    found = {name: parts[name].new_zeros(network.weight(name).shape[1]) for name in parts}

    def look(name: str, patches_BKP: Tensor) -> None:
        for inputs_BKP in _inputs_by_sign(patches_BKP):
            inverse_BSP = _inverse_sums(parts[name], inputs_BKP)
            found[name] = _largest_shares(parts[name], inverse_BSP, inputs_BKP, at_least_I=found[name])

    visit_inputs(network, look)
    # Where one weight makes a whole sum its share is 1; rounding must not break such ties at random.
    return {name: torch.where(score_I > 1.0 - 4 * SMALLEST_SUM, 1.0, score_I) for name, score_I in found.items()}


def _weights_by_sign(network: Network) -> dict[str, Tensor]:
    """By layer the positive weights of all filters above the absolute values of the negative ones, (S, K)."""
    flat = {name: network.weight(name).flatten(1) for name in network.layers}
    return {name: torch.cat([weight.clamp(min=0.0), (-weight).clamp(min=0.0)]) for name, weight in flat.items()}


def _inputs_by_sign(patches_BKP: Tensor) -> Iterator[Tensor]:
    """The inputs as non-negative ones: themselves, or their positive and their negative part."""
    if float(patches_BKP.min()) >= 0.0:
        yield patches_BKP
        return
    yield patches_BKP.clamp(min=0.0)
    yield (-patches_BKP).clamp(min=0.0)


def _inverse_sums(part_SK: Tensor, inputs_BKP: Tensor) -> Tensor:
    """1 / (sum of weight * input) of each half filter, (B, S, P); 0 where the sum is as good as 0."""
    sums_BSP = part_SK @ inputs_BKP
    return sums_BSP.reciprocal().masked_fill_(sums_BSP <= SMALLEST_SUM, 0.0)


def _largest_shares(part_SK: Tensor, inverse_BSP: Tensor, inputs_BKP: Tensor, *, at_least_I: Tensor) -> Tensor:
    """Max over b, s, d, p of W[s, id] A[b, id, p] / z[b, s, p], of shape (I,), or `at_least_I` where that is more.

    For every half filter and channel the largest weight and the largest inputs of its kernel give a bound, which costs
    a D-th of the shares. Only the few channels whose bound is above the best share so far are looked at closely.
    """
    num_images, _, num_positions = inverse_BSP.shape
    weight_SID = part_SK.view(len(part_SK), len(at_least_I), -1)
    inputs_BIDP = inputs_BKP.view(num_images, len(at_least_I), -1, num_positions)
    bound_BSI = _largest_products(inputs_BIDP.amax(2), inverse_BSP).mul_(weight_SID.amax(2))
    if weight_SID.shape[2] == 1:
        return torch.maximum(at_least_I, bound_BSI.amax((0, 1)))
    best_I = at_least_I.clone()
    bound_X = bound_BSI.flatten()
    # From the highest bound down, each chunk raises the bar for the next.
    waiting_X = (bound_BSI > best_I).flatten().nonzero().flatten()
    waiting_X = waiting_X[bound_X[waiting_X].argsort(descending=True)]
    num_together = max(1, _room(part_SK) // (4 * weight_SID.shape[2] * num_positions))
    while len(waiting_X):
        now_X, waiting_X = waiting_X[:num_together], waiting_X[num_together:]
        b, s, i = torch.unravel_index(now_X, bound_BSI.shape)
        products_XD = (inputs_BIDP[b, i] * inverse_BSP[b, s][:, None]).amax(2)
        shares_X = products_XD.mul_(weight_SID[s, i]).amax(1)
        best_I = best_I.scatter_reduce(0, i, shares_X, "amax")
        waiting_X = waiting_X[bound_X[waiting_X] > best_I[waiting_X % len(best_I)]]
    return best_I


def _largest_products(inputs_BIP: Tensor, inverse_BSP: Tensor) -> Tensor:
    """Max over p of A[b, i, p] / z[b, s, p], of shape (B, S, I)."""
    num_images, num_halves, num_positions = inverse_BSP.shape
    fitting = _room(inputs_BIP) // (4 * inputs_BIP.shape[1] * num_positions)
    rows = min(num_halves, max(1, fitting))
    images = max(1, fitting // rows)
    return torch.cat(
        [
            torch.cat(
                [
                    (inputs_BIP[first : first + images, None] * half[:, :, None]).amax(-1)
                    for half in inverse_BSP[first : first + images].split(rows, dim=1)
                ],
                dim=1,
            )
            for first in range(0, num_images, images)
        ]
    )


def _room(like: Tensor) -> int:
    return GPU_BYTES if like.is_cuda else CACHE_BYTES
