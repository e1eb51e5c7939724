"""From scores to masks: exact counts, ties, whole filters."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.utils import prune as torch_prune

from raypruning.errors import MethodError
from raypruning.methods.scopes import keep_highest
from raypruning.models.layers import prunable_layers

from .networks import build, masks_of, num_params, num_removed, small_network

SMALL = (1, 2, 6, 6)
scores = st.lists(st.sampled_from([-1.5, -0.0, 0.0, 0.25, 0.25, 3.0, math.inf]), min_size=1, max_size=40)


# --- Weights ------------------------------------------------------------------------------------------------------


@given(scores, st.integers(0, 40))
def test_keep_highest_under_ties_keeps_the_exact_count_and_the_lower_index(values, num_keep):
    num_keep = min(num_keep, len(values))
    kept = sorted(range(len(values)), key=lambda index: (-values[index], index))[:num_keep]
    mask = keep_highest(torch.tensor(values), num_keep)
    assert mask.dtype == torch.bool
    assert mask.nonzero().flatten().tolist() == sorted(kept)


@given(scores)
def test_kept_units_nest_as_fewer_are_kept(values):
    masks = [keep_highest(torch.tensor(values), num_keep) for num_keep in range(len(values) + 1)]
    for fewer, more in pairwise(masks):
        assert not bool((fewer & ~more).any())


@given(scores, st.integers(0, 40))
def test_nan_score_has_no_order_whatever_is_kept(values, num_keep):
    with pytest.raises(MethodError, match="NaN"):
        keep_highest(torch.tensor([*values, math.nan]), num_keep)


def test_kept_units_have_the_shape_of_the_scores():
    assert keep_highest(torch.tensor([[1.0, 4.0], [3.0, 2.0]]), 2).tolist() == [[False, True], [True, False]]


@settings(max_examples=25)
@given(st.integers(0, 1000), st.floats(0.01, 0.9))
def test_magnitude_masks_are_those_of_torchs_global_l1_pruning(seed, ratio):
    model = small_network(seed=seed)
    masks = masks_of("wt", model, ratio, shape=SMALL)
    layers = prunable_layers(model)
    amount = round(ratio * num_params(model))
    torch_prune.global_unstructured(
        [(layer, "weight") for layer in layers.values()], pruning_method=torch_prune.L1Unstructured, amount=amount
    )
    assert masks.keys() == {f"{name}.weight" for name in layers}
    for name, layer in layers.items():
        assert torch.equal(masks[f"{name}.weight"], layer.weight_mask.bool())


@settings(max_examples=25)
@given(st.sampled_from(["wt", "random"]), st.floats(0.001, 0.9))
def test_weight_masks_remove_exactly_the_asked_fraction_of_all_parameters(method, ratio):
    model = small_network()
    assert num_removed(masks_of(method, model, ratio, shape=SMALL)) == round(ratio * num_params(model))


def test_weight_masks_are_exact_when_every_score_is_the_same():
    model = small_network()
    for layer in prunable_layers(model).values():
        torch.nn.init.constant_(layer.weight, 0.5)
    masks = masks_of("wt", model, 0.5, shape=SMALL)
    assert num_removed(masks) == round(0.5 * num_params(model))
    # Earlier layers have the lower indices, so the last weights go.
    flat = torch.cat([masks[f"{name}.weight"].flatten() for name in prunable_layers(model)])
    assert flat.tolist() == sorted(flat.tolist(), reverse=True)


@pytest.mark.parametrize("method", ["wt", "random"])
def test_ratio_that_weights_cannot_reach_is_refused_with_the_largest_that_they_can(method):
    model = small_network()
    num_prunable = sum(layer.weight.numel() for layer in prunable_layers(model).values())
    with pytest.raises(MethodError, match=r"a ratio of 0.99\d\d cannot be reached") as caught:
        masks_of(method, model, 0.99, shape=SMALL)
    assert "set search.high to at most 0." in str(caught.value)
    assert f"only {num_prunable} of {num_params(model)} parameters" in str(caught.value)
    advice = float(str(caught.value).rsplit(" ", 1)[1])
    assert num_removed(masks_of(method, model, advice, shape=SMALL)) <= num_prunable
    assert advice == pytest.approx(num_prunable / num_params(model), abs=1e-4)  # it is given to four places


# --- Filters ------------------------------------------------------------------------------------------------------


def kept_filters(model, masks):
    """Kept and all filters of each prunable layer: those with any weight left."""
    counts = {}
    for name, layer in prunable_layers(model).items():
        mask = masks.get(f"{name}.weight", torch.ones_like(layer.weight, dtype=torch.bool))
        counts[name] = (int(mask.flatten(1).any(1).sum()), mask.shape[0])
    return counts


@settings(max_examples=20)
@given(st.sampled_from(["ft", "random_filter"]), st.floats(0.05, 0.97))
def test_filter_masks_remove_one_fraction_of_every_layer_but_the_last(method, ratio):
    model = build("lenet5")
    *counts, (kept_last, all_last) = kept_filters(model, masks_of(method, model, ratio)).values()
    assert kept_last == all_last
    # `kept` of `num` are the rounded survivors of some fractions; one fraction must be among all layers'.
    least = max((num - kept - 0.5) / num for kept, num in counts)
    most = min(1.0 if kept == 1 else (num - kept + 0.5) / num for kept, num in counts)
    assert least <= most
    assert min(kept for kept, _ in counts) >= 1


def lenet5_kept(kept: tuple[int, int, int]) -> int:
    """Parameters of a LeNet-5 that is built so many filters and units wide."""
    conv1, conv2, hidden = kept
    return (conv1 * 25 + conv1) + (conv2 * conv1 * 25 + conv2) + (hidden * conv2 * 16 + hidden) + (10 * hidden + 10)


@settings(max_examples=40)
@given(st.sampled_from(["ft", "random_filter"]), st.floats(0.01, 0.98))
def test_filter_masks_come_as_near_to_the_ratio_as_any_common_fraction_does(method, ratio):
    model = build("lenet5")
    fractions = [i / 2000 for i in range(2001)]
    widths = {tuple(max(1, round((1 - fraction) * num)) for num in (10, 20, 50)) for fraction in fractions}
    target = round(ratio * num_params(model))
    nearest = min(abs(num_params(model) - lenet5_kept(kept) - target) for kept in widths)
    assert abs(num_removed(masks_of(method, model, ratio)) - target) == nearest


def test_filter_masks_leave_as_many_parameters_as_a_network_built_that_narrow():
    model = build("lenet5")
    masks = masks_of("ft", model, 0.6)
    kept = tuple(num for num, _ in list(kept_filters(model, masks).values())[:-1])
    assert num_params(model) - num_removed(masks) == lenet5_kept(kept)


@pytest.mark.parametrize(("name", "channels", "px"), [("lenet5", 1, 28), ("resnet20", 3, 8), ("densenet22", 3, 8)])
def test_filters_of_largest_l1_norm_stay(name, channels, px):
    model = build(name, in_channels=channels, image_size=px)
    masks = masks_of("ft", model, 0.5, shape=(1, channels, px, px))
    for layer_name, layer in list(prunable_layers(model).items())[:-1]:
        norms_O = layer.weight.detach().abs().flatten(1).sum(1)
        kept_O = masks[f"{layer_name}.weight"].flatten(1).any(1)
        assert norms_O[kept_O].min() >= norms_O[~kept_O].max()


def test_removed_filter_goes_with_its_bias_and_its_norms_entries():
    model = small_network()
    masks = masks_of("ft", model, 0.4, shape=SMALL)
    kept_O = masks["0.weight"].flatten(1).any(1)
    assert not bool(kept_O.all())
    for entry in ("0.bias", "1.weight", "1.bias"):
        assert torch.equal(masks[entry], kept_O)
    # The next convolution reads nothing from it.
    assert torch.equal(masks["3.weight"].flatten(2).any(2).any(0), kept_O)


def test_a_parameter_that_is_kept_whole_has_no_mask():
    model = small_network()
    masks = masks_of("ft", model, 0.3, shape=SMALL)
    assert masks
    assert all(not bool(mask.all()) for mask in masks.values())
    assert "8.bias" not in masks


@pytest.mark.parametrize("method", ["ft", "random_filter"])
def test_ratio_that_filters_cannot_reach_is_refused_with_what_one_filter_a_layer_gives(method):
    model = build("lenet5")
    most = 1 - lenet5_kept((1, 1, 1)) / num_params(model)
    with pytest.raises(MethodError, match=f"a ratio of 0.9990 cannot be reached: .* it is {most:.4f}; set search.high"):
        masks_of(method, model, 0.999)


def test_network_too_small_for_a_ratio_is_refused_instead_of_left_whole():
    with pytest.raises(MethodError, match=r"ft removed nothing at a ratio of 0.001: the network is too small for it"):
        masks_of("ft", small_network(), 0.001, shape=SMALL)


def test_network_of_one_layer_has_no_filter_that_could_go():
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3))
    for ratio in (0.5, 1e-6):
        with pytest.raises(MethodError):
            masks_of("ft", model, ratio, shape=(1, 1, 2, 2))


# --- All methods --------------------------------------------------------------------------------------------------


@settings(max_examples=25)
@given(st.sampled_from(["wt", "ft", "random", "random_filter"]), st.lists(st.floats(0.3, 0.9), min_size=2, max_size=2))
def test_masks_nest_as_the_ratio_grows(method, ratios):
    model = small_network()
    low, high = (masks_of(method, model, ratio, shape=SMALL) for ratio in sorted(ratios))
    for name, kept in low.items():
        assert not bool((high[name] & ~kept).any())
