"""How far an order of units is followed: asked and reached ratios, what goes along, chains, what is refused."""

from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import prune as torch_prune

from raypruning.errors import MethodError
from raypruning.methods.prune import apply_masks, check_method
from raypruning.methods.selection import RATIO_TOLERANCE
from raypruning.models.layers import prunable_layers

from .networks import (
    SMALL,
    WIDE,
    build,
    images,
    kept,
    masks_of,
    method_of,
    num_params,
    num_removed,
    small_network,
    wide_network,
)

WEIGHT_METHODS = ["wt", "random", "layer_magnitude", "snip", "sipp", "wanda"]
STRUCTURED = [
    ("ft", {}),
    ("random_filter", {}),
    ("ft", {"scope": "global", "score": "l2"}),
    ("unit_l2", {}),
    ("pfp", {}),
    ("pfp", {"score": "l1", "scope": "layer"}),
]
RATIO = re.compile(r"a ratio of (0\.\d+)")


# --- Weights --------------------------------------------------------------------------------------------------------


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
    for name, mask in kept(masks, model).items():
        assert torch.equal(mask, layers[name].weight_mask.bool())
    assert masks.keys() <= {f"{name}.weight" for name in layers}


@settings(max_examples=40)
@given(st.sampled_from(WEIGHT_METHODS), st.floats(0.001, 0.9))
def test_weight_masks_remove_exactly_the_asked_fraction_of_all_parameters(method, ratio):
    model = small_network()
    masks = masks_of(method, model, ratio, shape=SMALL, samples=images(SMALL))
    assert num_removed(masks) == round(ratio * num_params(model))


@settings(max_examples=20)
@given(st.sampled_from(WEIGHT_METHODS), st.lists(st.floats(0.01, 0.9), min_size=2, max_size=2))
def test_weight_masks_nest_as_the_ratio_grows(method, ratios):
    model = small_network()
    low, high = (masks_of(method, model, ratio, shape=SMALL, samples=images(SMALL)) for ratio in sorted(ratios))
    for name, mask in low.items():
        assert not bool((high[name] & ~mask).any())


def test_weight_masks_are_exact_when_every_score_is_the_same():
    model = small_network()
    for layer in prunable_layers(model).values():
        torch.nn.init.constant_(layer.weight, 0.5)
    masks = masks_of("wt", model, 0.5, shape=SMALL)
    assert num_removed(masks) == round(0.5 * num_params(model))
    # Earlier layers have the lower indices, so the last weights go.
    flat = torch.cat([mask.flatten() for mask in kept(masks, model).values()])
    assert flat.tolist() == sorted(flat.tolist(), reverse=True)


# --- Whole channels --------------------------------------------------------------------------------------------------


@settings(max_examples=25)
@given(st.sampled_from(STRUCTURED), st.floats(0.02, 0.97))
def test_structured_masks_reach_the_ratio_within_half_a_point_or_say_what_can_be_reached(method, ratio):
    name, parameters = method
    model, samples = wide_network(), images(WIDE)
    try:
        masks = masks_of(name, model, ratio, shape=WIDE, samples=samples, **parameters)
    except MethodError as error:
        highest = float(re.search(r"set search.high to at most (0\.\d+)", str(error))[1])
        assert highest < ratio
        masks, ratio = masks_of(name, model, highest, shape=WIDE, samples=samples, **parameters), highest
    assert abs(num_removed(masks) / num_params(model) - ratio) <= RATIO_TOLERANCE


def wide_kept(conv1: int, conv2: int, hidden: int) -> int:
    """Parameters of a `wide_network` that is built so many channels and units wide."""
    return (18 * conv1 + conv1 + 2 * conv1) + (9 * conv1 * conv2 + conv2) + (hidden * conv2 + hidden) + 10 * hidden + 10


def lenet5_kept(conv1: int, conv2: int, hidden: int) -> int:
    """Parameters of a LeNet-5 that is built so many filters and units wide."""
    return (conv1 * 25 + conv1) + (conv2 * conv1 * 25 + conv2) + (hidden * conv2 * 16 + hidden) + (10 * hidden + 10)


@settings(max_examples=20)
@given(st.sampled_from([each for each in STRUCTURED if each[0] != "unit_l2"]), st.floats(0.02, 0.9))
def test_structured_masks_leave_as_many_parameters_as_a_network_built_that_narrow(method, ratio):
    name, parameters = method
    networks = [(wide_network(), WIDE, wide_kept)]
    if name != "pfp":  # the inputs of fc1, sixteen to a filter of conv2, are channels of their own
        networks.append((build("lenet5"), (1, 1, 28, 28), lenet5_kept))
    for model, shape, count in networks:
        assert count(*(len(layer.weight) for layer in list(prunable_layers(model).values())[:-1])) == num_params(model)
        masks = masks_of(name, model, ratio, shape=shape, samples=images(shape), **parameters)
        *widths, num_logits = (int(mask.flatten(1).any(1).sum()) for mask in kept(masks, model).values())
        assert num_logits == 10
        assert num_params(model) - num_removed(masks) == count(*widths)


@pytest.mark.parametrize(("method", "parameters"), STRUCTURED)
def test_outputs_of_the_last_layer_and_channels_of_the_first_stay(method, parameters):
    model = wide_network()
    ratio = 0.3 if method == "unit_l2" else 0.8
    masks = masks_of(method, model, ratio, shape=WIDE, samples=images(WIDE), **parameters)
    first, *_, last = kept(masks, model).values()
    assert first.transpose(0, 1).flatten(1).any(1).all()
    assert last.any(1).all()
    assert "10.bias" not in masks


@pytest.mark.parametrize(("name", "channels", "px"), [("lenet5", 1, 28), ("resnet20", 3, 8), ("densenet22", 3, 8)])
def test_filters_of_largest_l1_norm_stay(name, channels, px):
    model = build(name, in_channels=channels, image_size=px)
    masks = masks_of("ft", model, 0.5, shape=(1, channels, px, px))
    for layer_name, mask in list(kept(masks, model).items())[:-1]:
        norms_O = prunable_layers(model)[layer_name].weight.detach().abs().flatten(1).sum(1)
        kept_O = mask.flatten(1).any(1)
        assert kept_O.any()
        if not kept_O.all():
            assert norms_O[kept_O].min() >= norms_O[~kept_O].max()


@settings(max_examples=20)
@given(st.sampled_from(["ft", "random_filter"]), st.floats(0.05, 0.9))
def test_filters_of_the_scope_layer_go_by_one_fraction_of_every_layer(method, ratio):
    """Up to the one unit by which the counts of the layers whose turn it is about may be changed to meet the ratio."""
    model = wide_network()
    masks = kept(masks_of(method, model, ratio, shape=WIDE), model)
    counts = [(int(mask.flatten(1).any(1).sum()), len(mask)) for mask in list(masks.values())[:-1]]
    # `kept` of `num` are the rounded survivors of some fractions; one fraction must be among all layers'.
    least = max((num - num_kept - 1.5) / num for num_kept, num in counts)
    most = min(1.0 if num_kept == 1 else (num - num_kept + 1.5) / num for num_kept, num in counts)
    assert least <= most


def test_removed_filter_goes_with_its_bias_its_norms_entries_and_its_readers():
    model = wide_network()
    masks = masks_of("ft", model, 0.4, shape=WIDE)
    kept_O = masks["0.weight"].flatten(1).any(1)
    assert not bool(kept_O.all())
    for entry in ("0.bias", "1.weight", "1.bias"):
        assert torch.equal(masks[entry], kept_O)
    # The next convolution reads nothing from it.
    assert torch.equal(masks["4.weight"].flatten(2).any(2).any(0), kept_O)


def test_removed_channel_goes_with_the_filter_that_makes_it():
    model = wide_network()
    masks = masks_of("pfp", model, 0.4, shape=WIDE, score="l1", scope="layer")
    kept_I = masks["4.weight"].flatten(2).any(2).any(0)
    assert not bool(kept_I.all())
    for entry in ("0.bias", "1.weight", "1.bias"):
        assert torch.equal(masks[entry], kept_I)
    assert torch.equal(masks["0.weight"].flatten(1).any(1), kept_I)


def test_a_parameter_that_is_kept_whole_has_no_mask():
    for method in ("ft", "wt", "layer_magnitude"):
        masks = masks_of(method, wide_network(), 0.3, shape=WIDE)
        assert masks
        assert all(not bool(mask.all()) for mask in masks.values())
        assert "10.bias" not in masks


def test_units_too_coarse_for_the_tolerance_are_met_by_other_counts_near_by():
    """A filter of conv1 or conv2 of LeNet-5 is one to three points; units of fc1, a third of one, make it good."""
    model = build("lenet5")
    for ratio in torch.linspace(0.05, 0.9, 18).tolist():
        masks = masks_of("ft", model, ratio)
        assert abs(num_removed(masks) / num_params(model) - ratio) <= RATIO_TOLERANCE


def test_ratio_between_two_units_that_nothing_fills_is_refused_with_what_is_near():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.Linear(3, 2)).eval()
    # A hidden unit is 4 + 1 + 2 of 23 parameters.
    with pytest.raises(MethodError, match=r"a ratio of 0.4348 is more than half a point .* 0.3043 and 0.6087 are near"):
        masks_of("ft", model, 10 / 23, shape=(1, 1, 2, 2))
    assert num_removed(masks_of("ft", model, 14 / 23, shape=(1, 1, 2, 2))) == 14


# --- Plain rules ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("amount", [0.2, 0.55])
def test_plain_rules_remove_the_rows_alone_as_torchs_structured_pruning_does(amount):
    model = wide_network()
    expected = {}
    for name, layer in list(prunable_layers(model).items())[:-1]:
        pruned = nn.Linear(1, 1)
        pruned.weight = nn.Parameter(layer.weight.detach().clone())
        expected[name] = torch_prune.ln_structured(pruned, "weight", amount=amount, n=1, dim=0).weight_mask.bool()
    ratio = sum(int((~mask).sum()) for mask in expected.values()) / num_params(model)
    masks = masks_of("filter_l1_layer", model, ratio, shape=WIDE)
    assert masks.keys() == {f"{name}.weight" for name in expected}
    assert all(torch.equal(masks[f"{name}.weight"], mask) for name, mask in expected.items())


@pytest.mark.parametrize("method", ["ft", "pfp"])
def test_plain_rules_may_empty_a_layer(method):
    model = wide_network()
    masks = masks_of(method, model, 0.9, shape=WIDE, samples=images(WIDE), score="l1", scope="layer", rules="plain")
    assert abs(num_removed(masks) / num_params(model) - 0.9) <= RATIO_TOLERANCE
    assert all(key.endswith(".weight") for key in masks)


# --- Chains ---------------------------------------------------------------------------------------------------------

CHAINED = [
    *((method, {}) for method in WEIGHT_METHODS),
    *STRUCTURED,
    ("layer_magnitude_of_alive", {}),
    ("wt", {"granularity": "block"}),
    ("wt", {"granularity": "block", "block": 3, "scope": "layer"}),
]


@pytest.mark.parametrize(("method", "parameters"), CHAINED)
def test_chain_keeps_removed_what_was_and_counts_it_in_the_ratio(method, parameters):
    model, samples = wide_network(), images(WIDE)
    alive: dict = {}
    # Units of linear layers hold a third of this network.
    for step, ratio in enumerate((0.1, 0.2, 0.3) if method == "unit_l2" else (0.2, 0.45, 0.6)):
        before = {name: mask.clone() for name, mask in alive.items()}
        # Another seed for each link: what goes at random must still not come back.
        masks = masks_of(method, model, ratio, shape=WIDE, seed=step, alive=alive, samples=samples, **parameters)
        assert all(torch.equal(alive[name], mask) for name, mask in before.items())  # the caller's masks are its own
        for name, mask in alive.items():
            assert not bool((masks[name] & ~mask).any())
        reached = num_removed(masks)
        if method_of(method, **parameters).granularity.name == "weight":
            assert reached == round(ratio * num_params(model))
        else:
            assert abs(reached / num_params(model) - ratio) <= RATIO_TOLERANCE
        apply_masks(model, masks)
        with torch.no_grad():  # what retraining does to the rest
            for parameter in model.parameters():
                parameter.mul_(1.0 + 0.5 * torch.rand(parameter.shape, generator=torch.Generator().manual_seed(step)))
        alive = masks


def test_chain_of_slots_removes_one_after_the_other_from_the_same_groups():
    model = wide_network()
    num_groups = sum(prunable_layers(model)[name].weight.numel() for name in ("4", "8", "10")) // 4
    parameters = {"granularity": "n_m", "n": 1, "m": 4, "skip": ("0",), "scope": "layer"}
    alive: dict = {}
    for slots in (1, 2, 3):
        ratio = slots * num_groups / num_params(model)
        alive = masks_of("wt", model, ratio, shape=WIDE, alive=alive, **parameters)
        for mask in alive.values():
            assert set(mask.transpose(0, 1).flatten(1).T.reshape(-1, 4).sum(1).tolist()) == {4 - slots}
        apply_masks(model, alive)


@pytest.mark.parametrize("skip", ["4", "8"])
def test_chain_that_skips_a_layer_which_was_pruned_before_leaves_the_callers_masks_alone(skip):
    model = wide_network()
    first = masks_of("ft", model, 0.3, shape=WIDE)
    apply_masks(model, first)
    before = {name: mask.clone() for name, mask in first.items()}
    masks = masks_of("ft", model, 0.5, shape=WIDE, alive=first, skip=(skip,))
    assert all(torch.equal(first[name], mask) for name, mask in before.items())
    assert torch.equal(masks[f"{skip}.weight"].flatten(1).any(1), first[f"{skip}.weight"].flatten(1).any(1))
    *widths, _ = (int(mask.flatten(1).any(1).sum()) for mask in kept(masks, model).values())
    # Nothing but what belongs to the widths has gone, also on the way to them.
    assert num_params(model) - num_removed(masks) == wide_kept(*widths)


@pytest.mark.parametrize("method", ["wt", "ft"])
def test_ratio_below_what_is_removed_already_is_refused_with_it(method):
    model = wide_network()
    alive = masks_of(method, model, 0.5, shape=WIDE)
    apply_masks(model, alive)
    gone = num_removed(alive) / num_params(model)
    with pytest.raises(MethodError, match=f"a ratio of 0.3000 is below the {gone:.4f} that is removed already"):
        masks_of(method, model, 0.3, shape=WIDE, alive=alive)


@pytest.mark.parametrize("method", ["wt", "ft"])
def test_ratio_that_is_reached_already_is_refused_because_nothing_would_go(method):
    model = wide_network()
    alive = masks_of(method, model, 0.5, shape=WIDE)
    apply_masks(model, alive)
    with pytest.raises(MethodError, match=f"{method} removed nothing at a ratio of"):
        masks_of(method, model, num_removed(alive) / num_params(model), shape=WIDE, alive=alive)


def test_weights_that_another_method_removed_are_counted_and_stay_removed():
    """A filter prune removes biases and norms too; a weight prune after it counts these without touching them."""
    model = wide_network()
    filters = masks_of("ft", model, 0.4, shape=WIDE)
    apply_masks(model, filters)
    masks = masks_of("wt", model, 0.7, shape=WIDE, alive=filters)
    assert num_removed(masks) == round(0.7 * num_params(model))
    assert all(torch.equal(masks[name], mask) for name, mask in filters.items() if not name.endswith("weight"))
    assert all(not bool((masks[name] & ~mask).any()) for name, mask in filters.items())


# --- Ratios that cannot be reached -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        *((method, {}) for method in WEIGHT_METHODS),
        # One channel a layer is less than half a point of this network, so some more must stay.
        *((method, {**parameters, "skip": ("4",)}) for method, parameters in STRUCTURED),
        ("filter_l1_layer", {}),
        ("wt", {"skip": ("4",)}),
        ("wt", {"scope": "map", "map": {"8": 0}}),
        ("wt", {"granularity": "n_m", "n": 1, "m": 2}),
    ],
)
def test_unreachable_ratio_is_refused_with_the_highest_one_and_that_advice_works(method, parameters):
    model, samples = wide_network(), images(WIDE)
    with pytest.raises(MethodError, match=r"a ratio of 0.9990 cannot be reached: at most \d+ of \d+ param") as caught:
        masks_of(method, model, 0.999, shape=WIDE, samples=samples, **parameters)
    most = int(re.search(r"at most (\d+) of", str(caught.value))[1])
    advice = float(re.search(r"set search.high to at most (0\.\d+)", str(caught.value))[1])
    assert advice == pytest.approx(most / num_params(model), abs=1e-4)  # it is given to four places
    masks = masks_of(method, model, advice, shape=WIDE, samples=samples, **parameters)
    assert num_removed(masks) <= most
    if parameters.get("scope") != "map" and method in WEIGHT_METHODS and not parameters:
        assert most == sum(layer.weight.numel() for layer in prunable_layers(model).values())


@pytest.mark.parametrize(("method", "parameters"), [("wt", {}), ("wt", {"skip": ("4",)}), ("ft", {"skip": ("4",)})])
def test_what_is_tried_before_a_sweep_is_what_a_prune_can_reach(method, parameters):
    model, example_NCHW = wide_network(), torch.zeros(WIDE)
    resolved = method_of(method, **parameters)
    with pytest.raises(Exception, match="cannot be reached") as caught:
        check_method(resolved, model, 0.999, example_NCHW=example_NCHW)
    assert caught.value.exit_code == 2  # a sweep that asks for it is wrong
    advice = float(re.search(r"at most (0\.\d+)", str(caught.value))[1])
    check_method(resolved, model, advice, example_NCHW=example_NCHW)
    assert num_removed(masks_of(resolved, model, advice, shape=WIDE)) > 0
    beyond = advice + RATIO_TOLERANCE + 0.001
    with pytest.raises(Exception, match="cannot be reached"):
        check_method(resolved, model, beyond, example_NCHW=example_NCHW)
    with pytest.raises(MethodError, match="cannot be reached"):
        masks_of(resolved, model, beyond, shape=WIDE)


def test_one_channel_a_layer_is_the_least_that_filters_leave():
    model = small_network()
    # Widths of 1: two convolutions of 3 x 3 pixels with a norm between them, sixteen pixels, one unit, three logits.
    left = (2 * 9 + 1 + 2) + (9 + 1) + (16 + 1) + (3 + 3)
    most = num_params(model) - left
    with pytest.raises(MethodError, match=f"at most {most} of {num_params(model)} parameters can be removed as filter"):
        masks_of("ft", model, 0.99, shape=SMALL)


def test_network_too_small_for_a_ratio_is_refused_instead_of_left_whole():
    with pytest.raises(MethodError, match=r"ft removed nothing at a ratio of 0.001: the network is too small for it"):
        masks_of("ft", small_network(), 0.001, shape=SMALL)
    with pytest.raises(MethodError, match=r"wt removed nothing at a ratio of 1e-09"):
        masks_of("wt", wide_network(), 1e-9, shape=WIDE)


def test_network_of_one_layer_has_no_filter_that_could_go():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    for ratio in (0.5, 1e-6):
        with pytest.raises(MethodError):
            masks_of("ft", model, ratio, shape=(1, 1, 2, 2))


# --- Layers to skip --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", WEIGHT_METHODS)
def test_skipped_layers_are_whole_and_the_others_pay(method):
    model = wide_network()
    masks = masks_of(method, model, 0.3, shape=WIDE, samples=images(WIDE), skip=("0", "8"))
    assert masks.keys() <= {"4.weight", "10.weight"}
    assert num_removed(masks) == round(0.3 * num_params(model))


@pytest.mark.parametrize(("method", "parameters"), STRUCTURED[:3])
def test_skipped_layers_keep_every_filter_and_lose_but_what_they_read_of_others(method, parameters):
    model = wide_network()
    masks = kept(masks_of(method, model, 0.3, shape=WIDE, skip=("0", "4"), **parameters), model)
    assert masks["0"].all() and masks["4"].all()
    assert not masks["8"].all()
    masks = kept(masks_of(method, model, 0.3, shape=WIDE, skip=("4",), **parameters), model)
    kept_I = masks["0"].flatten(1).any(1)
    assert not kept_I.all()
    assert torch.equal(masks["4"], kept_I.view(1, -1, 1, 1).expand(masks["4"].shape))


def test_the_last_layers_outputs_stay_when_it_is_the_only_one_left():
    with pytest.raises(MethodError, match="cannot be reached: at most 0 of"):
        masks_of("ft", wide_network(), 0.1, shape=WIDE, skip=("0", "4", "8"))
