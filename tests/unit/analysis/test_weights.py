"""What is left of layers: against numpy's own norms, counts by definition, and the MLP study's table."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from raypruning.analysis.weights import (
    MOST_BINS,
    aligned,
    bin_width,
    histogram,
    in_order,
    layer_weights,
    norm_histograms,
    num_bins,
    weight_histograms,
)
from raypruning.compaction.plan import build_bare
from raypruning.core.records import ModelChoice

# Of 32 bits, as weights are stored; without numbers so small that a quotient of two of them overflows.
WEIGHTS = st.floats(-1e6, 1e6, width=32).map(lambda value: 0.0 if abs(value) < 1e-6 else value)
VALUES = arrays(np.float64, st.integers(0, 60), elements=WEIGHTS)

# Layers of the MLP study, (out, in); the last one is never pruned.
MLP_SHAPES = ((1000, 784), (1000, 1000), (500, 1000), (200, 500), (10, 200))


@pytest.fixture(scope="module")
def mlp() -> list[np.ndarray]:
    # Doubles: of a million single floats some are equal, and the study keeps ties.
    generator = np.random.default_rng(0)
    return [generator.normal(size=shape) for shape in MLP_SHAPES]


def cut_lowest(values: np.ndarray, k: float) -> np.ndarray:
    """The study's rule: what is below the value at place int(n k) of the ascending order goes."""
    return values >= np.sort(values, axis=None)[int(values.size * k)]


# k, zeros, overall sparsity, units cut: the study's algorithm, whatever the weights are.
@pytest.mark.parametrize(
    ("k", "zeros", "sparsity", "units"),
    [
        (0.25, 596_000, 0.249790, [250, 250, 125, 50]),
        (0.5, 1_192_000, 0.499581, [500, 500, 250, 100]),
        (0.9, 2_145_600, 0.899246, [900, 900, 450, 180]),
        (0.995, 2_372_080, 0.994166, [995, 995, 497, 199]),
        (0.999, 2_381_616, 0.998163, [999, 999, 499, 199]),
    ],
)
def test_counts_of_the_mlp_study_fall_out_of_its_layers(mlp, k: float, zeros: int, sparsity: float, units: list[int]):
    by_weight, by_unit = [], []
    for place, weight in enumerate(mlp):
        is_last = place == len(mlp) - 1
        of_weights = None if is_last else cut_lowest(np.abs(weight), k)
        kept_units = np.ones(len(weight), bool) if is_last else cut_lowest(np.linalg.norm(weight, axis=1), k)
        of_units = np.repeat(kept_units[:, None], weight.shape[1], axis=1)
        by_weight.append(layer_weights("layer", weight, of_weights, width=bin_width(weight)))
        by_unit.append(layer_weights("layer", weight, of_units, width=bin_width(weight)))
    assert sum(one.num_params for one in by_weight) == 2_386_000
    assert sum(one.num_params - one.num_kept for one in by_weight) == zeros
    # The table has six decimals.
    assert zeros / 2_386_000 == pytest.approx(sparsity, abs=5e-7)
    assert [one.ratio for one in by_weight[:-1]] == pytest.approx([k] * 4)
    assert [one.num_dead for one in by_unit] == [*units, 0]
    assert [one.weights.total for one in by_weight] == [one.num_kept for one in by_weight]


def test_norms_are_those_of_numpy_also_of_a_layer_read_in_blocks():
    generator = np.random.default_rng(1)
    weight = generator.normal(size=(5, 30, 100, 100)).astype(np.float32)  # each unit 300 000 weights: two blocks
    mask = generator.random(weight.shape) < 0.3
    mask[3] = False
    found = layer_weights("conv", weight, mask, width=bin_width(weight))
    whole = np.where(mask, weight, 0).astype(np.float64)
    # Sums of 300 000 squares of doubles in another order: relative errors of some 300 000 x 1e-16.
    np.testing.assert_allclose(found.unit_norms_U, np.linalg.norm(whole.reshape(5, -1), axis=1), rtol=1e-10)
    assert found.norm == pytest.approx(float(np.linalg.norm(whole)), rel=1e-10)
    assert found.mean_magnitude == pytest.approx(float(np.abs(whole).sum() / mask.sum()), rel=1e-10)
    assert found.weights.total == found.num_kept == mask.sum()
    assert found.is_dead_U.tolist() == [False, False, False, True, False]


def test_removed_weights_do_not_count_even_if_stored_and_kept_zeros_do():
    weight = np.array([[5.0, 0.0], [1.0, 2.0]], np.float32)
    mask = np.array([[False, True], [False, False]])
    found = layer_weights("fc", weight, mask, width=1.0)
    assert (found.num_kept, found.ratio, found.norm, found.mean_magnitude) == (1, 0.75, 0.0, 0.0)
    assert found.is_dead_U.tolist() == [False, True]


def test_removed_layer_is_empty_and_has_no_nan():
    weight = np.ones((3, 2), np.float32)
    found = layer_weights("fc", weight, np.zeros((3, 2), bool), width=0.1)
    assert (found.ratio, found.num_dead, found.mean_magnitude, found.weights.total) == (1.0, 3, 0.0, 0)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weight_that_is_not_finite_is_refused_unless_it_was_removed(value: float):
    weight = np.array([[value, 1.0]], np.float32)
    with pytest.raises(ValueError, match="layer fc"):
        layer_weights("fc", weight, None, width=1.0)
    assert layer_weights("fc", weight, np.array([[False, True]]), width=1.0).num_kept == 1


@given(VALUES, st.floats(0.01, 1e6))
def test_histogram_counts_each_value_in_the_bin_it_lies_in(values: np.ndarray, width: float):
    found = histogram(values, width=width)
    counts: dict[int, int] = {}
    for value in values:
        place = math.floor(value / found.width)
        counts[place] = counts.get(place, 0) + 1
    filled = {found.first + place: int(count) for place, count in enumerate(found.counts_B) if count}
    assert filled == counts
    assert len(found.edges) == len(found.counts_B) + 1


@given(st.lists(VALUES, min_size=1, max_size=4), st.integers(0, 5), st.integers(2, 40))
def test_aligned_histograms_share_few_bins_and_count_as_if_made_with_them(lists, doublings: int, most: int):
    # The first in wider bins than the others, as one of a network with large weights is.
    made = [histogram(values, width=0.5 * 2.0 ** (doublings if i == 0 else 0)) for i, values in enumerate(lists)]
    found = aligned(made, most=most)
    assert len({(one.width, one.first, len(one.counts_B)) for one in found}) == 1
    assert len(found[0].counts_B) <= most
    for values, one in zip(lists, found, strict=True):
        assert one.total == len(values)
        places = np.floor(values / one.width).astype(int) - one.first
        assert np.array_equal(np.bincount(places, minlength=len(one.counts_B)), one.counts_B)


def test_one_huge_weight_does_not_take_memory_and_is_still_counted():
    weight = np.full((4, 1000), 0.01, np.float32)
    grown = weight.copy()
    grown[0, 0] = 1e9
    dense, pruned = (layer_weights("fc", one, None, width=bin_width(weight)) for one in (weight, grown))
    both = weight_histograms([dense, pruned])
    assert [one.total for one in both] == [4000, 4000]
    assert len(both[0].counts_B) <= MOST_BINS


def test_norm_histograms_count_units_that_live_from_zero_to_the_largest_norm():
    weight = np.diag([1.0, 2.0, 3.0, 4.0]).astype(np.float32)
    mask = np.ones(weight.shape, bool)
    mask[1] = False
    layers = [layer_weights("fc", weight, one, width=1.0) for one in (None, mask)]
    dense, pruned = norm_histograms(layers)
    assert (dense.total, pruned.total) == (4, 3)
    assert dense.edges[0] == 0.0 and dense.edges[-1] == pytest.approx(4.0)
    # The largest belongs to the last bin.
    assert dense.counts_B[-1] == pruned.counts_B[-1] == 1


def test_bins_of_a_parent_reach_from_end_to_end_and_grow_with_its_size():
    weight = np.array([[-0.5, 0.25]], np.float32)
    assert bin_width(weight) * num_bins(2) == pytest.approx(1.0)
    assert num_bins(250) < num_bins(16_000) < num_bins(1_000_000) < num_bins(10**9) == MOST_BINS
    assert bin_width(np.zeros((2, 2), np.float32)) > 0


@pytest.mark.parametrize(
    "name",
    [
        *("lenet5", "mlp", "resnet20", "resnet56", "vgg16", "densenet22", "wrn16_8"),
        *("torchvision/resnet50", "torchvision/mobilenet_v2", "torchvision/convnext_tiny"),
    ],
)
def test_layers_come_in_the_order_in_which_the_model_has_them(name: str):
    is_grey = name in ("lenet5", "mlp")
    with torch.device("meta"):
        model = build_bare(
            ModelChoice(name=name), num_classes=10, in_channels=1 if is_grey else 3, image_size=28 if is_grey else 32
        )
    expected = [one for one, weight in model.named_parameters() if one.endswith(".weight") and weight.ndim > 1]
    shuffled = random.Random(0).sample(expected, len(expected))
    assert in_order(shuffled) == expected
