"""What a unit is: the granularities, by name."""

# O out, I in channels, K weights of a filter, G groups, M weights of a group; U units of a layer

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from raypruning.errors import SpecError
from raypruning.methods.method import Granularity, Network, Units
from raypruning.models.heads import logit_layers

_DEFAULT_M = 4
_DEFAULT_BLOCK = 4


def make_granularity(name: str, parameters: Mapping[str, int | None]) -> Granularity:
    """The granularity of that name. `parameters`: `n`, `m` of n_m; `block`, its rows and columns; None by default."""
    return _MAKERS[name](parameters)


def _weight(parameters: Mapping[str, int | None]) -> Granularity:
    def units(network: Network, layer: str, score: Tensor) -> Units:
        return Units(score.flatten())

    return Granularity(
        name="weight", score_by="weight", units=units, mask=lambda keep_U, score, weight: keep_U.view_as(weight)
    )


def _filter(parameters: Mapping[str, int | None]) -> Granularity:
    return _rows("filter", only_linear=False)


def _unit(parameters: Mapping[str, int | None]) -> Granularity:
    return _rows("unit", only_linear=True)


def _rows(name: str, *, only_linear: bool) -> Granularity:
    def units(network: Network, layer: str, score_O: Tensor) -> Units:
        # What the network answers with stays.
        is_kept = layer in logit_layers(network.model) or (
            only_linear and not isinstance(network.layers[layer], nn.Linear)
        )
        return Units(score_O, is_kept)

    def mask(keep_O: Tensor, score: Tensor, weight: Tensor) -> Tensor:
        return keep_O.view(-1, *[1] * (weight.ndim - 1)).expand(weight.shape)

    return Granularity(name=name, score_by="filter", units=units, mask=mask, is_structured=True)


def _channel(parameters: Mapping[str, int | None]) -> Granularity:
    def units(network: Network, layer: str, score_I: Tensor) -> Units:
        # The first layer's channels are the image's.
        return Units(score_I, layer == next(iter(network.all_layers)))

    def mask(keep_I: Tensor, score: Tensor, weight: Tensor) -> Tensor:
        return keep_I.view(1, -1, *[1] * (weight.ndim - 2)).expand(weight.shape)

    return Granularity(name="channel", score_by="channel", units=units, mask=mask, is_structured=True)


def _n_m(parameters: Mapping[str, int | None]) -> Granularity:
    """The k-th lowest weight of every group of M consecutive input channels is one unit: all groups go together.

    Source: Mishra et al. 2021 (N:M sparsity); groups lie along the input channels, as accelerators read them.
    """
    m, n = parameters.get("m") or _DEFAULT_M, parameters.get("n") or 1
    if not 1 <= n < m:
        raise SpecError(f"granularity n_m keeps n of every m weights: 1 <= n < m, got n={n} and m={m}")

    def groups(score: Tensor, layer: str) -> Tensor:
        if score.shape[1] % m:
            raise SpecError(
                f"granularity n_m with m={m} does not divide the {score.shape[1]} input channels of layer {layer}; "
                f"take another m, or skip={layer}"
            )
        return score.transpose(0, 1).flatten(1).T.reshape(-1, m)

    def units(network: Network, layer: str, score: Tensor) -> Units:
        ordered_GM = groups(score, layer).sort(1).values
        # Where an earlier prune took a slot from every group, its mean is -inf, and it goes first.
        return Units(ordered_GM.mean(0)[: m - n])

    def mask(keep_U: Tensor, score: Tensor, weight: Tensor) -> Tensor:
        scores_GM = groups(score, "")
        # A sort from the back keeps the lower index of equal ones.
        order = m - 1 - scores_GM.flip(1).argsort(dim=1, stable=True)
        keep_M = torch.cat([keep_U, keep_U.new_ones(n)])
        keep_GM = torch.zeros_like(scores_GM, dtype=torch.bool).scatter_(1, order, keep_M.expand(len(order), m))
        shape = score.transpose(0, 1).shape
        return keep_GM.reshape(-1, shape[0]).T.reshape(shape).transpose(0, 1)

    return Granularity(name="n_m", score_by="weight", units=units, mask=mask)


def _block(parameters: Mapping[str, int | None]) -> Granularity:
    """Blocks of rows and columns of the weight as a matrix (O, K), scored by their mean; smaller at the edges.

    Source: Narang et al. 2017, block-sparse networks; the PIE study's block pooling.
    """
    side = parameters.get("block") or _DEFAULT_BLOCK

    def index(weight: Tensor) -> Tensor:
        rows, columns = weight.shape[0], weight[0].numel()
        num_across = math.ceil(columns / side)
        return (torch.arange(rows)[:, None] // side) * num_across + torch.arange(columns)[None, :] // side

    def units(network: Network, layer: str, score: Tensor) -> Units:
        blocks = index(score).flatten()
        num = int(blocks.max()) + 1
        flat = score.flatten()
        is_alive = ~torch.isneginf(flat)
        sizes_U = torch.bincount(blocks, minlength=num)
        sums_U = torch.zeros(num, dtype=flat.dtype).index_add_(0, blocks[is_alive], flat[is_alive])
        num_alive_U = torch.bincount(blocks[is_alive], minlength=num)
        return Units((sums_U / sizes_U).masked_fill(num_alive_U == 0, -math.inf))

    def mask(keep_U: Tensor, score: Tensor, weight: Tensor) -> Tensor:
        return keep_U[index(weight)].view_as(weight)

    return Granularity(name="block", score_by="weight", units=units, mask=mask)


_MAKERS: dict[str, Callable[[Mapping[str, int | None]], Granularity]] = {
    "weight": _weight,
    "filter": _filter,
    "channel": _channel,
    "unit": _unit,
    "n_m": _n_m,
    "block": _block,
}
GRANULARITY_NAMES = tuple(_MAKERS)
