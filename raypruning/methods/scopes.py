"""Scopes: from scores to masks. Counts are exact, and equal scores keep the lower index.

The count of removed parameters that a scope is given is out of all parameters of the network.
"""

# O out, I in channels, S all scores

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from raypruning.errors import MethodError
from raypruning.methods.dead_channels import PathWalker
from raypruning.methods.method import Masks, Network


def keep_highest(scores_S: Tensor, num_keep: int) -> Tensor:
    """True at the `num_keep` highest scores; among equal ones the lower index is kept.

    Raises: MethodError: a score is NaN, so no order exists.
    Source: the tie rule of jaxpruner, mask_calculator.py.
    """
    if bool(torch.isnan(scores_S).any()):
        raise MethodError("a score is NaN, so there is no order to prune by")
    if num_keep <= 0 or num_keep >= scores_S.numel():
        return torch.full_like(scores_S, num_keep > 0, dtype=torch.bool)
    flat = scores_S.flatten()
    threshold = flat.kthvalue(flat.numel() - num_keep + 1).values if flat.is_cuda else _nth_highest(flat, num_keep)
    keep = flat > threshold
    ties = (flat == threshold).nonzero().flatten()
    keep[ties[: num_keep - int(keep.sum())]] = True
    return keep.view_as(scores_S)


def global_weights(network: Network, scores: Mapping[str, Tensor], num_remove: int) -> Masks:
    """Remove exactly `num_remove` weights, the lowest of all prunable layers together; biases and norms stay.

    Raises: MethodError: more is asked for than the prunable layers hold.
    """
    sizes = {name: score.numel() for name, score in scores.items()}
    num_prunable = sum(sizes.values())
    if num_remove > num_prunable:
        num_params = sum(parameter.numel() for parameter in network.model.parameters())
        raise MethodError(
            f"a ratio of {num_remove / num_params:.4f} cannot be reached: only {num_prunable} of {num_params} "
            f"parameters can be removed; set search.high to at most {math.floor(1e4 * num_prunable / num_params) / 1e4}"
        )
    flat_S = torch.cat([score.flatten() for score in scores.values()])
    keep = keep_highest(flat_S, num_prunable - num_remove).split(list(sizes.values()))
    return {f"{name}.weight": part.view_as(scores[name]) for (name, part) in zip(scores, keep, strict=True)}


def uniform_filters(network: Network, scores: Mapping[str, Tensor], num_remove: int) -> Masks:
    """Remove the same fraction of the filters of every layer but the last, at least one staying in each.

    A filter goes with its bias, its norm's entries and the weights that read its output. The fraction is the one that
    comes nearest to `num_remove` parameters: filters are coarse, so the reached count differs from it.

    Raises: MethodError: even one filter a layer is more than may be left.
    Source: FT of Lost in Pruning (section 4), with what is counted following skip connections instead of a chain.
    """
    names = list(scores)
    ranked = {name: scores[name].argsort(descending=True, stable=True) for name in names[:-1]}
    with PathWalker(network.model, network.example_NCHW) as walker:

        def masks_at(fraction: float) -> Masks:
            return _filter_masks(network, ranked, fraction=fraction, walker=walker)

        best, most = masks_at(0.0), masks_at(1.0)
        if num_removed(most) < num_remove:
            num_params = sum(parameter.numel() for parameter in network.model.parameters())
            raise MethodError(
                f"a ratio of {num_remove / num_params:.4f} cannot be reached: with one filter left in each layer it is "
                f"{num_removed(most) / num_params:.4f}; set search.high below it"
            )
        # Counts only grow with the fraction. Halve until no layer's count of filters changes in between.
        fractions = _fractions_between_steps([len(order) for order in ranked.values()])
        low, high = 0, len(fractions) - 1
        while high - low > 1:
            middle = (low + high) // 2
            masks = masks_at(fractions[middle])
            if num_removed(masks) <= num_remove:
                low, best = middle, masks
            else:
                high, most = middle, masks
    is_nearer = num_removed(most) - num_remove < num_remove - num_removed(best)
    return most if is_nearer else best


def num_removed(masks: Mapping[str, Tensor]) -> int:
    """Parameters that the masks remove."""
    return sum(int((~mask).sum()) for mask in masks.values())


def _fractions_between_steps(num_filters: Sequence[int]) -> list[float]:
    """One removed fraction for every set of counts that there is, from all filters kept to one a layer, ascending."""
    # A layer's count, rounded, changes where half a filter more would go. Equal quotients are equal floats.
    steps = sorted({(i + 0.5) / num for num in num_filters for i in range(num)})
    return [0.0, *((a + b) / 2 for a, b in itertools.pairwise(steps)), 1.0]


def _filter_masks(network: Network, ranked: Mapping[str, Tensor], *, fraction: float, walker: PathWalker) -> Masks:
    parameters = dict(network.model.named_parameters())
    masks: Masks = {}
    for name in network.layers:
        keep_O = torch.ones(parameters[f"{name}.weight"].shape[0], dtype=torch.bool)
        if name in ranked:
            num_keep = max(1, round((1.0 - fraction) * len(keep_O)))
            keep_O[ranked[name][num_keep:].cpu()] = False
        shape = parameters[f"{name}.weight"].shape
        masks[f"{name}.weight"] = keep_O.view(-1, *[1] * (len(shape) - 1)).expand(shape).clone()
        if f"{name}.bias" in parameters:
            masks[f"{name}.bias"] = keep_O
    dead = walker.dead({name: mask.to(parameters[name].device) for name, mask in masks.items()})
    for name, dead_I in dead.inputs.items():
        masks[f"{name}.weight"][:, dead_I.cpu()] = False
    for name, dead_C in dead.norms.items():
        for part in ("weight", "bias"):
            if f"{name}.{part}" in parameters:
                masks[f"{name}.{part}"] = ~dead_C.cpu()
    return {name: mask for name, mask in masks.items() if not bool(mask.all())}


def _nth_highest(flat: Tensor, num_keep: int) -> Tensor:
    # numpy's introselect is twenty times faster than torch's kthvalue on a CPU.
    values = flat.cpu().numpy()
    index = len(values) - num_keep
    return torch.as_tensor(np.partition(values, index)[index])
