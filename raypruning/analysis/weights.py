"""What a prune leaves of each layer: how much, which weights, and how long the weights of a unit are.

Source: network-pruning (Cosentino), `visualization`: histograms of the weights that are left, zeros left out, in 300
bins, and of the L2 norms of units in 100, for each ratio.
"""

# U units of a layer (filters, neurons), W weights of a unit, N weights that are kept, B bins, H histograms

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from raypruning.core.records import Curve, Probe, ProbeResult

# At most the study's 300: fewer for fewer values, or each bin would hold one.
FEWEST_BINS, MOST_BINS = 10, 300
# A layer that grew beyond this many of its parent's bins gets wider ones: memory must not follow one large weight.
_BINS_IN_MEMORY = 1 << 14
_BLOCK_WEIGHTS = 1 << 20  # are turned into float64 at once
MAX_SHOWN = 12  # layers that a person compares at a glance

# Layers are stored by name, without an order. First parts of names of those that images enter by, and that answer.
_FIRST = re.compile(r"stem|conv_?1|conv_proj")
_LAST = re.compile(r"fc|head|heads|.*classifier|linear|output|logits")


class Histogram(NamedTuple):
    """How many values lie in bins of one width; bin i is [first + i, first + i + 1) x width, which may be below 0.

    Attributes:
        counts_B: integers; none where there are no values.
    """

    width: float
    first: int
    counts_B: np.ndarray

    @property
    def total(self) -> int:
        """How many values there are."""
        return int(self.counts_B.sum())

    @property
    def edges(self) -> np.ndarray:
        """Ends of the bins, one more than bins."""
        return (self.first + np.arange(len(self.counts_B) + 1)) * self.width


class LayerWeights(NamedTuple):
    """What is left of a layer's weights. Biases and norms are no part of it.

    Attributes:
        name: of the layer, such as `conv1`.
        mean_magnitude: of the kept weights; 0 where none is kept.
        unit_norms_U: L2 norm of each unit's kept weights; a unit is a filter or neuron, the weight's first axis.
        is_dead_U: whether none of a unit's weights is kept.
        weights: of the kept ones, those included that are 0 by chance.
    """

    name: str
    num_params: int
    num_kept: int
    mean_magnitude: float
    unit_norms_U: np.ndarray
    is_dead_U: np.ndarray
    weights: Histogram

    @property
    def ratio(self) -> float:
        """The fraction that is removed, in [0, 1]."""
        return 1.0 - self.num_kept / self.num_params

    @property
    def norm(self) -> float:
        """L2 norm of all kept weights."""
        return float(np.linalg.norm(self.unit_norms_U))

    @property
    def num_units(self) -> int:
        """Filters or neurons, dead ones included."""
        return len(self.is_dead_U)

    @property
    def num_dead(self) -> int:
        """Units without a weight."""
        return int(self.is_dead_U.sum())


class NetworkWeights(NamedTuple):
    """A measured network, layer by layer, in the order of the network. The parent's have nothing removed."""

    result: ProbeResult
    layers: tuple[LayerWeights, ...]

    @property
    def ratio(self) -> float:
        """Of all parameters, as it was reached."""
        return self.result.ratio_reached

    @property
    def num_dead(self) -> int:
        """Units without a weight, over layers."""
        return sum(layer.num_dead for layer in self.layers)

    @property
    def removed_layers(self) -> tuple[str, ...]:
        """Layers without a weight."""
        return tuple(layer.name for layer in self.layers if not layer.num_kept)


class CurveWeights(NamedTuple):
    """The networks of a curve, of ascending ratios, at least one, and the parent they were pruned from."""

    curve: Curve
    parent: NetworkWeights
    networks: tuple[NetworkWeights, ...]

    @property
    def all_networks(self) -> tuple[NetworkWeights, ...]:
        """The parent first."""
        return (self.parent, *self.networks)

    def layer(self, index: int) -> list[LayerWeights]:
        """One layer in all networks, the parent first."""
        return [network.layers[index] for network in self.all_networks]


class SweepWeights(NamedTuple):
    """The weights of some curves of a sweep.

    Attributes:
        methods: of the whole sweep.
        task: the nominal one whose error is shown beside a ratio.
        curves: at least one; all of the same layers.
        missing: probes that were asked for and are not in the store.
        failed: probes that measured nothing.
    """

    sweep: str
    storage: str
    methods: tuple[str, ...]
    task: str
    curves: tuple[CurveWeights, ...]
    missing: tuple[Probe, ...] = ()
    failed: tuple[Probe, ...] = ()


# -- of a layer ------------------------------------------------------------------------------------------------------


def layer_weights(name: str, weight: np.ndarray, mask: np.ndarray | None, *, width: float) -> LayerWeights:
    """Read a layer in blocks of units, so that little more is held than its own weights.

    Args:
        name: of the layer.
        weight: of shape (units, ...).
        mask: of the same shape, True where kept; None keeps all.
        width: of bins; see `bin_width`.

    Raises: ValueError: a kept weight is not finite.
    """
    weight_UW = weight.reshape(len(weight), -1)
    mask_UW = None if mask is None else mask.reshape(weight_UW.shape)
    squares, dead, histograms = [], [], []
    num_kept, magnitude = 0, 0.0
    for rows in _blocks(weight_UW):
        block_UW = weight_UW[rows].astype(np.float64)
        kept_UW = np.ones(block_UW.shape, bool) if mask_UW is None else mask_UW[rows]
        kept_N = block_UW[kept_UW]
        if not np.isfinite(kept_N).all():
            raise ValueError(f"layer {name} has weights that are not finite")
        num_kept += len(kept_N)
        magnitude += float(np.abs(kept_N).sum())
        squares.append(np.square(block_UW).sum(axis=1, where=kept_UW))
        dead.append(~kept_UW.any(axis=1))
        histograms.append(histogram(kept_N, width=width))
    return LayerWeights(
        name=name,
        num_params=weight.size,
        num_kept=num_kept,
        mean_magnitude=magnitude / num_kept if num_kept else 0.0,
        unit_norms_U=np.sqrt(np.concatenate(squares)),
        is_dead_U=np.concatenate(dead),
        weights=_sum(histograms),
    )


def _blocks(weight_UW: np.ndarray) -> Iterator[slice]:
    step = max(1, _BLOCK_WEIGHTS // weight_UW.shape[1])
    return (slice(start, start + step) for start in range(0, len(weight_UW), step))


def bin_width(weight: np.ndarray) -> float:
    """The width of bins for a layer, from its parent's weights: so that `num_bins` of them reach from end to end."""
    largest = max(float(weight.max()), -float(weight.min()))
    return 2.0 * largest / num_bins(weight.size) if 0.0 < largest < math.inf else 1.0


def num_bins(num_values: int) -> int:
    """Bins that so many values fill: twice the cube root of their number (Rice's rule), within limits."""
    return min(MOST_BINS, max(FEWEST_BINS, round(2.0 * math.cbrt(num_values))))


# -- histograms ------------------------------------------------------------------------------------------------------


def histogram(values_N: np.ndarray, *, width: float) -> Histogram:
    """Count values in bins; in wider ones, by a power of two, where that would take too many. Values are finite."""
    if not len(values_N):
        return Histogram(width, 0, np.zeros(0, np.int64))
    low, high = float(values_N.min()), float(values_N.max())
    while high / width - low / width > _BINS_IN_MEMORY:
        width *= 2.0
    index_N = np.floor(values_N / width).astype(np.int64)
    first = int(index_N.min())
    return Histogram(width, first, np.bincount(index_N - first))


def aligned(histograms: Sequence[Histogram], *, most: int) -> list[Histogram]:
    """The same counts in bins that all share, at most so many. Widths must differ by powers of two.

    Every second border goes until the bins are few enough, so that no count is split.
    """
    width = max((one.width for one in histograms), default=1.0)
    found = [_widened(one, width) for one in histograms]
    while _span(found)[1] - _span(found)[0] > most:
        width *= 2.0
        found = [_widened(one, width) for one in found]
    first, end = _span(found)
    return [_padded(one, first, end) for one in found]


def _sum(histograms: Sequence[Histogram]) -> Histogram:
    same = aligned(histograms, most=_BINS_IN_MEMORY)
    return same[0]._replace(counts_B=np.sum([one.counts_B for one in same], axis=0))


def _span(histograms: Sequence[Histogram]) -> tuple[int, int]:
    """The first bin of all, and the one after the last; empty ones have none."""
    filled = [one for one in histograms if len(one.counts_B)]
    first = min((one.first for one in filled), default=0)
    return first, max((one.first + len(one.counts_B) for one in filled), default=first)


def _widened(one: Histogram, width: float) -> Histogram:
    while one.width < width:
        first = one.first // 2
        even_B = _padded(one, 2 * first, one.first + len(one.counts_B) + (one.first + len(one.counts_B)) % 2).counts_B
        one = Histogram(2.0 * one.width, first, even_B.reshape(-1, 2).sum(axis=1))
    return one


def _padded(one: Histogram, first: int, end: int) -> Histogram:
    counts_B = np.zeros(end - first, np.int64)
    if len(one.counts_B):
        counts_B[one.first - first : one.first - first + len(one.counts_B)] = one.counts_B
    return Histogram(one.width, first, counts_B)


def weight_histograms(layers: Sequence[LayerWeights]) -> list[Histogram]:
    """Of the kept weights of one layer in several networks, in bins that all share."""
    return aligned([layer.weights for layer in layers], most=MOST_BINS)


def norm_histograms(layers: Sequence[LayerWeights]) -> list[Histogram]:
    """Of the norms of a layer's units in several networks, from 0 on, in bins that all share. Dead units are none."""
    alive = [layer.unit_norms_U[~layer.is_dead_U] for layer in layers]
    largest = max((float(norms_U.max()) for norms_U in alive if len(norms_U)), default=0.0)
    bins = num_bins(max((layer.num_units for layer in layers), default=0))
    width = largest / bins if largest > 0.0 else 1.0
    # The largest lies on the border after the last bin, to which it belongs.
    counted = [np.minimum(np.floor(norms_U / width).astype(np.int64), bins - 1) for norms_U in alive]
    return [Histogram(width, 0, np.bincount(index_U, minlength=bins)) for index_U in counted]


# -- of networks -----------------------------------------------------------------------------------------------------


def in_order(names: Sequence[str]) -> list[str]:
    """Names of layers as images pass them, as far as names tell: numbers as numbers, what answers last."""
    return sorted(names, key=_place)


def _place(name: str) -> tuple[int, list[tuple[int, str]]]:
    top = name.partition(".")[0]
    group = 0 if _FIRST.fullmatch(top) else 2 if _LAST.fullmatch(top) else 1
    parts = re.findall(r"\d+|[^\d.]+", name)
    return group, [(int(part), "") if part.isdigit() else (-1, part.lower()) for part in parts]


def is_layer(name: str, array: np.ndarray) -> bool:
    """Whether a stored array is the weight of a layer with units: no bias, no norm, no running mean."""
    return name.endswith(".weight") and array.ndim > 1 and array.size > 0


def shown_layers(curves: Sequence[CurveWeights]) -> list[int]:
    """Places of the layers that a figure shows: all if they are few; else first, last and those cut the most.

    How much a layer is cut is told at each curve's largest ratio, and averaged over curves.
    """
    num = len(curves[0].parent.layers)
    if num <= MAX_SHOWN:
        return list(range(num))
    cut = mean_ratios([one.networks[-1] for one in curves])
    by_cut = sorted(range(1, num - 1), key=lambda index: (-cut[index], index))
    return sorted([0, *by_cut[: MAX_SHOWN - 2], num - 1])


def mean_ratios(networks: Sequence[NetworkWeights]) -> list[float]:
    """What is removed of each layer, over networks."""
    return [float(ratio) for ratio in np.mean([[one.ratio for one in network.layers] for network in networks], axis=0)]


def by_population(curves: Sequence[CurveWeights]) -> Mapping[tuple[str, int, float], list[NetworkWeights]]:
    """Networks that differ in their seed alone, by method, budget and the ratio that was asked for, ascending."""
    groups: dict[tuple[str, int, float], list[NetworkWeights]] = {}
    for one in curves:
        for network in one.networks:
            key = (one.curve.method, one.curve.budget, network.result.probe.ratio)
            groups.setdefault(key, []).append(network)
    order = list(dict.fromkeys((one.curve.method, one.curve.budget) for one in curves))
    return dict(sorted(groups.items(), key=lambda item: (order.index(item[0][:2]), item[0][2])))
