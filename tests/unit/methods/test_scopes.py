"""Scopes: in which order units of several layers go, by cuts through that order."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from torch import Tensor, nn
from torch.nn.utils import prune as torch_prune

from raypruning.errors import SpecError
from raypruning.methods.method import Units
from raypruning.methods.scopes import make_scope
from raypruning.models.layers import prunable_layers

from .networks import (
    WIDE,
    build,
    images,
    kept,
    masks_of,
    method_of,
    network_of,
    num_params,
    num_removed,
    wide_network,
)

LAYERS = ("0", "4", "8", "10")


def units_of(scores: dict[str, Tensor]) -> dict[str, Units]:
    return {name: Units(score) for name, score in scores.items()}


def chain_of(sizes: list[int]) -> nn.Module:
    """One linear layer for each number of units."""
    return nn.Sequential(*(nn.Linear(1, size) for size in sizes))


def times_of(scope: str, sizes: list[int], scores: list[list[float]] | None = None, **parameters) -> list[Tensor]:
    """Times of layers "0", "1", ... with so many units, the lowest score first in each unless given."""
    values = scores or [list(range(size)) for size in sizes]
    network = network_of(chain_of(sizes), (1, 1))
    units = units_of({str(i): torch.tensor(each, dtype=torch.float32) for i, each in enumerate(values)})
    return list(make_scope(scope, parameters)(network, units).values())


tied_scores = st.lists(st.sampled_from([0.0, 0.5, 0.5, 1.0, 7.0]), min_size=1, max_size=12)


@pytest.mark.parametrize("scope", ["global", "layer", "erk", "map"])
@given(scores=st.lists(tied_scores, min_size=1, max_size=4))
def test_order_within_a_layer_is_that_of_the_scores_with_the_higher_index_first_among_equals(scope, scores):
    parameters = {"map": {"map": {"0": 0.5}}}.get(scope, {})
    for values, times in zip(
        scores, times_of(scope, [len(each) for each in scores], scores, **parameters), strict=True
    ):
        # Where a scope leaves equal times, what follows it takes the higher index first.
        order = sorted(range(len(values)), key=lambda i, times=times: (float(times[i]), -i))
        assert order == sorted(range(len(values)), key=lambda i, values=values: (values[i], -i))


def test_global_compares_the_scores_themselves():
    times = times_of("global", [3, 2], [[0.3, 0.1, 0.9], [0.2, 0.8]])
    order = sorted([(float(time), layer, i) for layer, own in enumerate(times) for i, time in enumerate(own)])
    assert [(layer, i) for _, layer, i in order] == [(0, 1), (1, 0), (0, 0), (1, 1), (0, 2)]


# --- The same fraction of every layer --------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 60), min_size=1, max_size=5), st.floats(0.0, 1.0))
def test_layer_has_removed_the_rounded_fraction_of_every_layer(sizes, fraction):
    for size, times in zip(sizes, times_of("layer", sizes), strict=True):
        # Half a unit is a matter of rounding; those exactly at it have their own test.
        if abs(fraction * size % 1 - 0.5) > 1e-6:
            assert int((times < fraction).sum()) == round(fraction * size)


@pytest.mark.parametrize("size", [1, 2, 4, 10, 32, 50, 250])
def test_half_a_unit_is_rounded_as_torchs_pruning_rounds_it(size):
    (times,) = times_of("layer", [size])
    for i in range(size):
        layer = nn.Linear(1, size)
        fraction = (i + 0.5) / size
        if fraction * size != i + 0.5:
            continue  # Not half a unit as torch computes it.
        torch_prune.l1_unstructured(layer, "weight", amount=fraction)
        assert int((times < fraction).sum()) == int((layer.weight_mask == 0).sum()), (i, size)


@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(1, 30)), min_size=1, max_size=4),
    st.integers(0, 30),
)
def test_layer_of_alive_takes_its_fraction_of_what_is_left(layers, tenths):
    fraction = (tenths + 0.137) / 30.3
    scores = [[*[-math.inf] * num_gone, *range(num_left)] for num_gone, num_left in layers]
    of_alive = times_of("layer", [len(each) for each in scores], scores, of_alive=True)
    of_all = times_of("layer", [len(each) for each in scores], scores)
    for (num_gone, num_left), alive_times, times in zip(layers, of_alive, of_all, strict=True):
        if abs(fraction * num_left % 1 - 0.5) > 1e-6:
            assert int((alive_times[num_gone:] < fraction).sum()) == round(fraction * num_left)
        num_all = num_gone + num_left
        if abs(fraction * num_all % 1 - 0.5) > 1e-6:
            assert int((times[num_gone:] < fraction).sum()) == max(0, round(fraction * num_all) - num_gone)


@pytest.mark.parametrize("amount", [0.1, 0.5, 0.87])
def test_layer_magnitude_masks_are_those_of_torchs_pruning_of_each_layer(amount):
    model = wide_network()
    layers = prunable_layers(model)
    expected = {}
    for name, layer in layers.items():
        pruned = nn.Linear(1, 1)
        pruned.weight = nn.Parameter(layer.weight.detach().clone())
        expected[name] = torch_prune.l1_unstructured(pruned, "weight", amount=amount).weight_mask.bool()
    ratio = sum(int((~mask).sum()) for mask in expected.values()) / num_params(model)
    masks = masks_of("layer_magnitude", model, ratio, shape=WIDE)
    assert all(torch.equal(mask, expected[name]) for name, mask in kept(masks, model).items())


# --- Erdos-Renyi -----------------------------------------------------------------------------------------------------


def rigl_densities(shapes: dict[str, tuple[int, ...]], density: float) -> dict[str, float]:
    """Evci et al. 2020: layers whose density would be above 1 are dense, the others share what is left.

    As RigL's own code does it: with a growing set of dense layers.
    """
    dense: set[str] = set()
    while True:
        sizes = {name: math.prod(shape) for name, shape in shapes.items()}
        left = density * sum(sizes.values()) - sum(sizes[name] for name in dense)
        raw = {name: sum(shape) / math.prod(shape) for name, shape in shapes.items() if name not in dense}
        epsilon = left / sum(raw[name] * sizes[name] for name in raw)
        if not (above := {name for name in raw if epsilon * raw[name] > 1.0}):
            return {name: 1.0 if name in dense else epsilon * raw[name] for name in shapes}
        # One after the other, the densest first.
        dense.add(max(above, key=lambda name: raw[name]))


@pytest.mark.parametrize("density", [0.02, 0.1, 0.3, 0.6, 0.9])
def test_erk_gives_layers_the_densities_of_rigl(density):
    model = wide_network()
    shapes = {name: tuple(layer.weight.shape) for name, layer in prunable_layers(model).items()}
    num_prunable = sum(math.prod(shape) for shape in shapes.values())
    num_remove = num_prunable - round(density * num_prunable)
    masks = kept(masks_of("wt", model, num_remove / num_params(model), shape=WIDE, scope="erk"), model)
    densities = rigl_densities(shapes, density)
    assert (density < 0.2) == (max(densities.values()) < 1.0)  # both sides of the cap are seen
    for name, shape in shapes.items():
        # Each of four counts is rounded; what the roundings add up to is made good again by them together.
        assert int(masks[name].sum()) == pytest.approx(densities[name] * math.prod(shape), abs=0.5 + 4 * 0.5)


@given(st.lists(st.integers(4, 40), min_size=2, max_size=4), st.floats(0.05, 0.95))
def test_erk_of_whole_filters_cuts_at_one_density_factor(sizes, share):
    """At any cut: the counts are the rounded densities of one factor, by a solver of its own."""
    times = times_of("erk", sizes)
    raws = [(size + 1) / size for size in sizes]
    cut = float(torch.cat(times).quantile(share)) + 1e-12

    def expected(factor: float) -> list[float]:
        return [min(1.0, factor * raw) * size for raw, size in zip(raws, sizes, strict=True)]

    num_kept = [int((own >= cut).sum()) for own in times]
    most = sum(expected(1.0))
    factor = brentq(lambda factor: sum(expected(factor)) - min(sum(num_kept), most), 0.0, 1.0)
    for num, value in zip(num_kept, expected(factor), strict=True):
        assert num == pytest.approx(value, abs=0.5 + 0.5 * len(sizes))


def test_erk_keeps_the_small_layer_whole_while_the_large_one_can_pay():
    shapes = {"0": (2, 2), "1": (100, 100)}
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(100, 100))
    network = network_of(model, (1, 2))
    times = make_scope("erk", {})(
        network, units_of({name: torch.arange(math.prod(shape)).float() for name, shape in shapes.items()})
    )
    # Raw densities 1 and 0.02: the first weight of the small layer goes when the large one has lost 98 %.
    num_before = int((times["1"] < times["0"].min()).sum())
    assert num_before == pytest.approx(10_000 * (1 - 0.02 * 3.5 / 4), abs=1)


# --- A map ----------------------------------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.integers(1, 50), st.floats(0.1, 4.0)), min_size=1, max_size=4),
    st.floats(0.01, 0.99),
)
def test_map_removes_fractions_in_proportion_to_its_numbers(layers, t):
    numbers = {str(i): number for i, (_, number) in enumerate(layers)}
    sizes = [size for size, _ in layers]
    for size, number, times in zip(sizes, numbers.values(), times_of("map", sizes, map=numbers), strict=True):
        expected = min(1.0, t * number) * size
        if abs(expected % 1 - 0.5) > 1e-6:
            assert int((times < t).sum()) == round(expected)


def test_map_leaves_layers_of_0_whole_and_takes_those_it_does_not_name_as_1():
    model = wide_network()
    masks = kept(masks_of("wt", model, 0.3, shape=WIDE, scope="map", map={"0": 0, "4": 0.5}), model)
    gone = {name: 1 - float(mask.float().mean()) for name, mask in masks.items()}
    assert gone["0"] == 0.0
    # To the rounding of a layer's count to whole weights.
    assert gone["8"] == pytest.approx(gone["10"], abs=1 / masks["10"].numel())
    assert gone["4"] == pytest.approx(gone["8"] / 2, abs=1 / masks["8"].numel())


def test_map_of_ones_is_the_scope_layer():
    model = wide_network()
    by_map = masks_of("wt", model, 0.4, shape=WIDE, scope="map", map={"0": 1.0})
    by_layer = masks_of("wt", model, 0.4, shape=WIDE, scope="layer")
    assert by_map.keys() == by_layer.keys()
    assert all(torch.equal(mask, by_layer[name]) for name, mask in by_map.items())


def test_layer_that_a_map_names_and_the_network_does_not_have_is_refused():
    with pytest.raises(SpecError, match="map: there is no prunable layer '7': 0, 4, 8, 10"):
        masks_of("wt", wide_network(), 0.3, shape=WIDE, scope="map", map={"0": 1.0, "7": 2.0})


@pytest.mark.parametrize("bad", [None, {}, {"0": -1.0}])
def test_map_without_numbers_from_0_is_refused(bad):
    with pytest.raises(SpecError, match=r"scope map needs map, numbers from 0 by layer, such as map = \{conv1 = 0.5\}"):
        method_of("wt", scope="map", **({} if bad is None else {"map": bad}))


# --- Error bounds ----------------------------------------------------------------------------------------------------


def channels_by_bound(sensitivities: list[float], *, positions: int, kernel: int, epsilon: float) -> int:
    """Channels that a sample for the bound is expected to hold: reference, 2.4, with its constants."""
    total = sum(sensitivities)
    alpha = 2 * 3 * math.log(8 * (positions + 1) * kernel / 1e-16)
    draws = max(1, math.ceil(3 * (6 + 2 * epsilon) * total * alpha / epsilon**2))
    return math.ceil(sum(1 - (1 - share / total) ** draws for share in sensitivities))


class ThreeConvolutions(nn.Module):
    """Of different numbers of positions and sizes of the kernel."""

    def __init__(self, widths: list[int]):
        super().__init__()
        first, second, third = widths
        self.a = nn.Conv2d(first, second, 3, padding=1)
        self.b = nn.Conv2d(second, third, 1, stride=2)
        self.c = nn.Linear(third, 3)

    def forward(self, x):
        return self.c(torch.relu(self.b(torch.relu(self.a(x)))).mean((2, 3)))


GEOMETRY = {"a": (64, 9), "b": (16, 1), "c": (1, 1)}  # positions, kernel
# Bounds that the scope tells apart: four hundred from 1e-4 to 1e8.
BOUNDS = np.geomspace(1e-4, 1e8, 400)
STEP = BOUNDS[1] / BOUNDS[0]


@settings(max_examples=40)
@given(st.lists(st.integers(2, 12), min_size=3, max_size=3), st.integers(0, 1000))
def test_error_bound_keeps_as_many_as_one_common_bound_asks_for_at_any_cut(widths, seed):
    generator = torch.Generator().manual_seed(seed)
    scores = {name: torch.rand(width, generator=generator) ** 3 for name, width in zip(GEOMETRY, widths, strict=True)}
    network = network_of(ThreeConvolutions(widths), (1, widths[0], 8, 8), granularity="channel")
    times = make_scope("error_bound", {})(network, units_of(scores))
    for name, own in times.items():
        assert own.argsort().tolist() == scores[name].argsort().tolist()
    # Units that go at one bound go one after the other, by less than a millionth; the last bound is beyond the grid.
    bounds = [bound for bound in BOUNDS if any(((own / bound - 1).abs() < 1e-6).any() for own in times.values())]
    assert len(bounds) >= max(widths) // 2
    for bound in bounds:
        for name, own in times.items():
            positions, kernel = GEOMETRY[name]
            expected = channels_by_bound(
                scores[name].double().tolist(), positions=positions, kernel=kernel, epsilon=bound
            )
            assert int((own > bound * (1 + 1e-6)).sum()) == expected


def test_error_bound_of_the_whole_pipeline_is_one_bound_for_all_layers():
    """Of a real prune: one bound explains the counts of all layers, up to the last step of the grid."""
    model, samples = build("lenet5"), images((1, 1, 28, 28), num=8)
    network = network_of(model, (1, 1, 28, 28), granularity="channel", samples=samples)
    method = method_of("pfp")
    scores = method.score(network)
    masks = kept(masks_of(method, model, 0.5, shape=(1, 1, 28, 28), samples=samples), model)
    positions = {"conv1": 576, "conv2": 64, "fc1": 1, "fc2": 1}
    lowest, highest = 0.0, math.inf
    for name in ("conv2", "fc2"):  # each of their channels is one filter of the layer before
        num_kept = int(masks[name].transpose(0, 1).flatten(1).any(1).sum())
        kernel = prunable_layers(model)[name].weight[0, 0].numel()
        counts = {
            epsilon: channels_by_bound(
                scores[name].double().tolist(), positions=positions[name], kernel=kernel, epsilon=epsilon
            )
            for epsilon in np.geomspace(1e-3, 1e6, 2000).tolist()
        }
        lowest = max(lowest, min(epsilon for epsilon, num in counts.items() if num <= num_kept))
        highest = min(highest, max(epsilon for epsilon, num in counts.items() if num >= num_kept))
    # Two steps: one of our grid, one for those of the scan above, which are finer.
    assert lowest <= highest * STEP**2


def test_layer_whose_channels_carry_nothing_goes_first():
    widths = [4, 5, 6]
    scores = {"a": torch.rand(4), "b": torch.zeros(5), "c": torch.rand(6)}
    network = network_of(ThreeConvolutions(widths), (1, 4, 8, 8), granularity="channel")
    times = make_scope("error_bound", {})(network, units_of(scores))
    assert float(times["b"].max()) < min(float(times["a"].min()), float(times["c"].min()))


def test_plain_counts_are_exact_in_every_scope():
    model = wide_network()
    for parameters in ({"scope": "layer"}, {"scope": "erk"}, {"scope": "map", "map": {"4": 0.3}}):
        for ratio in (0.123, 0.789):
            masks = masks_of("wt", model, ratio, shape=WIDE, **parameters)
            assert num_removed(masks) == round(ratio * num_params(model))
