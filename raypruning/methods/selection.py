"""From the order in which units go to masks that reach the asked ratio.

The corrected rules: what a removed channel leaves without purpose goes along and is counted, and the reached ratio is
within half a point of the asked one or the prune fails. The plain rules count the removed units alone.
"""

# U units of a layer, S units of all layers

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from raypruning.errors import RatioError
from raypruning.methods.method import Masks, Network, Scores, Units
from raypruning.methods.paths import PathWalker
from raypruning.methods.ranking import keep_highest, num_true, removal_order

# Between the asked and the reached ratio.
RATIO_TOLERANCE = 0.005
# Layers whose counts are tried one up and one down when single units are too coarse for the tolerance.
MAX_VARIED_LAYERS = 3


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What a prune chooses among: units, in the order of their times.

    Attributes:
        takes_along: whether what a removed channel leaves without purpose goes with it.
    """

    network: Network
    scores: Scores  # by layer, for the granularity's masks
    units: Mapping[str, Units]
    times: Mapping[str, Tensor]
    takes_along: bool

    def masks(self, num_remove: int) -> Masks:
        """Masks that remove `num_remove` of all the network's parameters, what an earlier prune removed included.

        Raises: RatioError: the ratio cannot be reached within half a point, and why.
        """
        if self.network.granularity.name == "weight":
            return _exactly(self.network, self.times, num_remove)
        with self._builder() as builder:
            return _nearest(builder, num_remove)

    def check_reachable(self, num_remove: int) -> None:
        """Raise RatioError if so much cannot be removed even when every unit that may go is gone."""
        with self._builder() as builder:
            most = builder.count(builder.order.keep(builder.order.ascending()))
        tolerance = 0.0 if self.network.granularity.name == "weight" else RATIO_TOLERANCE * builder.num_params
        if num_remove > most + tolerance:
            raise _unreachable(builder.num_params, num_remove, highest=most, unit=builder.unit)

    @contextmanager
    def _builder(self) -> Iterator[_Builder]:
        order = _Order(self.units, self.times, may_empty_layers=not self.takes_along)
        builder = _Builder(self.network, self.scores, order)
        if not self.takes_along:
            yield builder
            return
        with PathWalker(self.network.model, self.network.example_NCHW) as builder.walker:
            yield builder


def num_removed(masks: Mapping[str, Tensor]) -> int:
    """Parameters that the masks remove."""
    return sum(mask.numel() - num_true(mask) for mask in masks.values())


class _Order:
    """All units of all layers, numbered through, and the order in which they go."""

    def __init__(self, units: Mapping[str, Units], times: Mapping[str, Tensor], *, may_empty_layers: bool) -> None:
        self.sizes = {name: len(own.scores_U) for name, own in units.items()}
        parts = []
        for name, own in units.items():
            times_U = times[name].masked_fill(torch.isneginf(own.scores_U), -math.inf)
            if own.is_kept_whole:
                times_U = torch.full_like(times_U, math.inf)
            elif not may_empty_layers:
                times_U[removal_order(times_U)[-1]] = math.inf
            parts.append(times_U)
        self.times_S = torch.cat(parts)
        self.layer_S = torch.repeat_interleave(torch.arange(len(parts)), torch.tensor(list(self.sizes.values())))

    def ascending(self) -> Tensor:
        """Indices of the units that may go, from the first to the last."""
        order_S = removal_order(self.times_S)
        return order_S[~torch.isposinf(self.times_S[order_S])]

    def keep(self, removed: Tensor) -> Tensor:
        keep_S = torch.ones(len(self.times_S), dtype=torch.bool)
        keep_S[removed] = False
        return keep_S

    def by_layer(self, keep_S: Tensor) -> dict[str, Tensor]:
        return dict(zip(self.sizes, keep_S.split(list(self.sizes.values())), strict=True))


class _Builder:
    """Masks for which units stay."""

    def __init__(self, network: Network, scores: Scores, order: _Order) -> None:
        self._network, self._scores, self.order = network, scores, order
        self._parameters = dict(network.model.named_parameters())
        self._alive = {name: mask.cpu() for name, mask in network.alive.items()}
        self.num_params = sum(value.numel() for value in self._parameters.values())
        self.unit = network.granularity.name
        self.walker: PathWalker | None = None

    def masks(self, keep_S: Tensor) -> Masks:
        masks = dict(self._alive)
        for name, keep_U in self.order.by_layer(keep_S).items():
            weight = self._parameters[f"{name}.weight"]
            mask = self._network.granularity.mask(keep_U, self._scores[name], weight)
            masks[f"{name}.weight"] = mask & masks[f"{name}.weight"] if f"{name}.weight" in masks else mask.clone()
        if self.walker is not None:
            self._take_along(masks, self.walker)
        return masks

    def count(self, keep_S: Tensor) -> int:
        return num_removed(self.masks(keep_S))

    def _take_along(self, masks: Masks, walker: PathWalker) -> None:
        for name in self._network.all_layers:
            if f"{name}.bias" in self._parameters:
                mask = masks.get(f"{name}.weight")
                rows = torch.ones(len(self._parameters[f"{name}.bias"]), dtype=torch.bool)
                masks[f"{name}.bias"] = rows if mask is None else mask.flatten(1).any(1)
        dead = walker.dead(masks)
        for name in dead.inputs:
            mask = masks.get(f"{name}.weight")
            if mask is None:
                mask = torch.ones(self._parameters[f"{name}.weight"].shape, dtype=torch.bool)
            elif name not in self._scores:
                mask = mask.clone()  # Of an earlier prune, in a layer that is skipped now: it is the caller's.
            mask[:, dead.inputs[name]] = False
            mask[dead.outputs[name]] = False
            masks[f"{name}.weight"] = mask
            if f"{name}.bias" in masks:
                masks[f"{name}.bias"] = masks[f"{name}.bias"] & ~dead.outputs[name]
        for name, dead_C in dead.norms.items():
            for part in ("weight", "bias"):
                if f"{name}.{part}" in self._parameters:
                    masks[f"{name}.{part}"] = ~dead_C


def _exactly(network: Network, times: Mapping[str, Tensor], num_remove: int) -> Masks:
    """Single weights: the count is exact, and one partition of all times is enough."""
    own = {f"{name}.weight" for name in times}
    gone = {name: mask.cpu() for name, mask in network.alive.items()}
    times = {
        name: time.masked_fill(~gone[f"{name}.weight"].flatten(), -math.inf) if f"{name}.weight" in gone else time
        for name, time in times.items()
    }
    num_gone = num_removed(gone)
    # What an earlier prune took elsewhere, from biases or layers that are skipped now.
    num_elsewhere = num_removed({name: mask for name, mask in gone.items() if name not in own})
    num_params = sum(value.numel() for value in network.model.parameters())
    flat_S = torch.cat(list(times.values()))
    if num_remove < num_gone:
        raise _below_start(num_params, num_remove, lowest=num_gone)
    keep_S = keep_highest(flat_S, len(flat_S) - (num_remove - num_elsewhere))
    num_never = int(torch.isposinf(flat_S).count_nonzero()) if math.isinf(float(flat_S.max())) else 0
    num_most = len(flat_S) - num_never + num_elsewhere
    if num_remove > num_most:
        raise _unreachable(num_params, num_remove, highest=num_most, unit="weight")
    parts = keep_S.split([len(time) for time in times.values()])
    kept = {f"{name}.weight": part.view_as(network.weight(name)) for name, part in zip(times, parts, strict=True)}
    return {**gone, **kept}


def _nearest(builder: _Builder, num_remove: int) -> Masks:
    """Units one after the other until the count is nearest; then neighbouring counts of a few layers, if need be."""
    order = builder.order
    ascending = order.ascending()
    # Half a parameter less: the count that is asked for was rounded.
    tolerance = max(0.0, RATIO_TOLERANCE * builder.num_params - 0.5)

    def count(num_units: int) -> int:
        return builder.count(order.keep(ascending[:num_units]))

    low, high = int(torch.isneginf(order.times_S).sum()), len(ascending)
    at_low, at_high = count(low), count(high)
    if num_remove > at_high + tolerance:
        raise _unreachable(builder.num_params, num_remove, highest=at_high, unit=builder.unit)
    if num_remove < at_low - tolerance:
        raise _below_start(builder.num_params, num_remove, lowest=at_low)
    for step in itertools.count():
        if high - low <= 1:
            break
        # The count is nearly straight: interpolation finds it in a few steps, halving is there for when it is not.
        share = (num_remove - at_low) / max(1, at_high - at_low) if step % 3 < 2 else 0.5
        middle = min(max(low + round(share * (high - low)), low + 1), high - 1)
        if (found := count(middle)) <= num_remove:
            low, at_low = middle, found
        else:
            high, at_high = middle, found
    is_high_nearer = abs(at_high - num_remove) < abs(at_low - num_remove)
    keep_S = order.keep(ascending[: high if is_high_nearer else low])
    if abs((at_high if is_high_nearer else at_low) - num_remove) <= tolerance:
        return builder.masks(keep_S)
    # The unit whose turn it is is too large: take the next smaller ones, then with a few counts changed by one.
    reached = at_low
    for counts in _neighbours(order, ascending, low):
        keep_S, reached = _filled(builder, ascending, counts, num_remove)
        if abs(reached - num_remove) <= tolerance:
            return builder.masks(keep_S)
    raise RatioError(
        f"a ratio of {num_remove / builder.num_params:.4f} is more than half a point from what whole "
        f"{builder.unit}s of this network allow: {at_low / builder.num_params:.4f} and "
        f"{at_high / builder.num_params:.4f} are near"
    )


def _neighbours(order: _Order, ascending: Tensor, num_units: int) -> Iterator[list[int]]:
    """Units to remove from each layer: as the order has it, then one less or more in those whose turn it is about."""
    layers_S = order.layer_S[ascending]
    num_own = torch.bincount(layers_S[:num_units], minlength=len(order.sizes)).tolist()
    num_most = torch.bincount(layers_S, minlength=len(order.sizes)).tolist()
    before, after = layers_S[:num_units].flip(0).tolist(), layers_S[num_units:].tolist()
    near = itertools.chain.from_iterable(itertools.zip_longest(after, before))
    layers = list(dict.fromkeys(layer for layer in near if layer is not None))[:MAX_VARIED_LAYERS]
    for changes in itertools.product((0, -1, 1), repeat=len(layers)):
        counts = list(num_own)
        for layer, change in zip(layers, changes, strict=True):
            counts[layer] += change
        if all(0 <= counts[layer] <= num_most[layer] for layer in layers):
            yield counts


def _filled(builder: _Builder, ascending: Tensor, counts: list[int], num_remove: int) -> tuple[Tensor, int]:
    """What stays when so many units of each layer go and then, in the order, those that still fit; and its count."""
    order = builder.order
    layers_S = order.layer_S[ascending]
    own = [ascending[layers_S == layer] for layer in range(len(counts))]
    counts = list(counts)

    def keep() -> Tensor:
        return order.keep(torch.cat([units[:num] for units, num in zip(own, counts, strict=True)]))

    reached = builder.count(keep())
    does_fit = [True] * len(counts)
    while reached < num_remove:
        following = [
            (float(order.times_S[units[num]]), layer)
            for layer, (units, num) in enumerate(zip(own, counts, strict=True))
            if does_fit[layer] and num < len(units)
        ]
        if not following:
            break
        layer = min(following)[1]
        counts[layer] += 1
        if (found := builder.count(keep())) > num_remove:
            counts[layer] -= 1
            does_fit[layer] = False
        else:
            reached = found
    return keep(), reached


def _unreachable(num: int, num_remove: int, *, highest: int, unit: str) -> RatioError:
    return RatioError(
        f"a ratio of {num_remove / num:.4f} cannot be reached: at most {highest} of {num} parameters can be removed "
        f"as {unit}s; set search.high to at most {math.floor(1e4 * highest / num) / 1e4}"
    )


def _below_start(num: int, num_remove: int, *, lowest: int) -> RatioError:
    return RatioError(
        f"a ratio of {num_remove / num:.4f} is below the {lowest / num:.4f} that is removed already: a chain only grows"
    )
