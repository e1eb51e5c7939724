"""From a method's name to masks on a network, and what is refused on the way."""

from __future__ import annotations

import dataclasses
from importlib.metadata import EntryPoint

import pytest
import torch
from torch import nn

from raypruning import registry
from raypruning.core.records import MethodChoice
from raypruning.errors import MethodError, SpecError, UnknownNameError
from raypruning.methods import scores
from raypruning.methods.granularity import make_granularity
from raypruning.methods.method import Method
from raypruning.methods.prune import (
    apply_masks,
    check_method,
    enforced,
    make_masks,
    num_samples,
    resolve_method,
)
from raypruning.methods.scopes import make_scope
from raypruning.models.layers import prunable_layers
from raypruning.models.resolve import build_model

from .networks import SMALL, WIDE, images, masks_of, method_of, num_params, num_removed, small_network, wide_network

METHODS = ["wt", "sipp", "ft", "pfp", "snip", "wanda", "random", "random_filter", "unit_l2", "filter_l1_layer"]
LOOKING = ["sipp", "pfp", "snip", "wanda"]
RATIO = 0.3


def masks_by(method, model=None, *, ratio=RATIO, samples=None):
    return make_masks(method, model or small_network(), ratio, example_NCHW=torch.zeros(SMALL), seed=0, samples=samples)


def scored_by(score):
    return dataclasses.replace(method_of("wt"), name="mine", score=score)


# --- What any method does -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_ratio_zero_keeps_everything(method):
    assert masks_of(method, wide_network(), 0.0, shape=WIDE) == {}


def test_ratio_zero_keeps_removed_what_was():
    alive = masks_of("wt", wide_network(), RATIO, shape=WIDE)
    masks = masks_of("wt", wide_network(), 0.0, shape=WIDE, alive=alive)
    assert masks.keys() == alive.keys()
    assert all(torch.equal(mask, alive[name]) for name, mask in masks.items())


@pytest.mark.parametrize("ratio", [-0.1, 1.0, 1.5, float("nan")])
def test_ratio_outside_of_0_to_1_is_refused(ratio):
    with pytest.raises(SpecError, match=r"a ratio must be in \[0, 1\), got"):
        masks_by(method_of("wt"), ratio=ratio)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("is_training", [True, False])
def test_network_is_left_as_it_was(method, is_training):
    model = wide_network().train(is_training)
    model[1].eval()  # a frozen norm in a network that trains
    modes = [module.training for module in model.modules()]
    weights = {key: value.clone() for key, value in model.state_dict().items()}
    torch.manual_seed(7)
    state = torch.random.get_rng_state()
    masks_of(method, model, RATIO, shape=WIDE, samples=images(WIDE))
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("rules", ["corrected", "paper"])
def test_paper_rules_leave_the_network_as_it_was(rules):
    model = wide_network().train()
    weights = {key: value.clone() for key, value in model.state_dict().items()}
    masks_of("ft", model, RATIO, shape=WIDE, samples=images(WIDE), rules=rules)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())


def test_network_is_left_as_it_was_when_the_ratio_is_refused():
    model = small_network().train()
    with pytest.raises(MethodError):
        masks_of("wt", model, 0.99, shape=SMALL)
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("method", METHODS)
def test_masks_are_booleans_of_the_parameters_shapes(method):
    model = wide_network()
    parameters = dict(model.named_parameters())
    masks = masks_of(method, model, RATIO, shape=WIDE, samples=images(WIDE))
    assert masks
    for name, mask in masks.items():
        assert (mask.dtype, mask.device.type, mask.shape) == (torch.bool, "cpu", parameters[name].shape)


@pytest.mark.parametrize("method", METHODS)
def test_masks_do_not_hang_on_whether_the_network_is_in_training_mode(method):
    """The scores are those of the network as it answers, with its norms' running statistics."""
    evaluated, training = (
        masks_of(method, wide_network().train(mode), RATIO, shape=WIDE, samples=images(WIDE)) for mode in (False, True)
    )
    assert evaluated.keys() == training.keys()
    assert all(torch.equal(mask, training[name]) for name, mask in evaluated.items())


@pytest.mark.parametrize("method", ["random", "random_filter"])
def test_seed_decides_what_goes_at_random(method):
    first, same, other = (masks_of(method, wide_network(), 0.5, shape=WIDE, seed=seed) for seed in (1, 1, 2))
    assert all(torch.equal(mask, same[name]) for name, mask in first.items())
    assert any(not torch.equal(mask, other[name]) for name, mask in first.items())


@pytest.mark.parametrize("method", ["random", "random_filter"])
def test_what_goes_at_random_does_not_depend_on_the_weights(method):
    one, other = (masks_of(method, wide_network(seed=seed), 0.5, shape=WIDE) for seed in (1, 2))
    assert all(torch.equal(mask, other[name]) for name, mask in one.items())


@pytest.mark.parametrize("method", [name for name in METHODS if "random" not in name])
def test_other_methods_do_not_depend_on_the_seed(method):
    one, other = (
        masks_of(method, wide_network(), RATIO, shape=WIDE, seed=seed, samples=images(WIDE)) for seed in (1, 2)
    )
    assert all(torch.equal(mask, other[name]) for name, mask in one.items())


def test_random_weights_go_evenly_from_all_layers():
    model = nn.Sequential(nn.Flatten(), nn.Linear(100, 100, bias=False), nn.Linear(100, 100, bias=False))
    masks = masks_of("random", model, 0.5, shape=(1, 1, 10, 10))
    # Hypergeometric: 10 000 of 20 000 drawn, so a layer's count has a spread of sqrt(10 000 / 8) = 35; four of them.
    assert int(masks["1.weight"].sum()) == pytest.approx(5000, abs=141)


def test_applied_masks_set_what_is_removed_to_zero_and_leave_the_rest():
    model = wide_network()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    masks = masks_of("ft", model, 0.5, shape=WIDE)
    apply_masks(model, masks)
    for name, parameter in model.named_parameters():
        kept = masks.get(name, torch.ones_like(parameter, dtype=torch.bool))
        assert torch.equal(parameter.detach(), torch.where(kept, before[name], torch.zeros(())))
    num_zeros = sum(int((parameter == 0).sum()) for parameter in model.parameters())
    assert num_zeros == num_removed(masks) < num_params(model)


def test_larger_score_means_keep():
    def score(network):
        return {name: -value for name, value in scores.magnitude(network).items()}

    model = small_network()
    masks = masks_by(scored_by(score), model, ratio=0.5)
    weights = dict(model.named_parameters())
    kept = torch.cat([weights[name].detach()[mask].abs() for name, mask in masks.items()])
    gone = torch.cat([weights[name].detach()[~mask].abs() for name, mask in masks.items()])
    assert kept.max() < gone.min()


# --- Methods by name ------------------------------------------------------------------------------------------------


def test_method_of_an_unknown_name_is_refused_with_a_near_one():
    with pytest.raises(UnknownNameError, match=r"no method is called 'randon': did you mean random"):
        resolve_method(MethodChoice(name="randon"))


def test_plugin_that_gives_something_else_than_a_method_is_refused_by_name(monkeypatch):
    monkeypatch.setattr(registry, "methods", registry.Registry("method", known=[EntryPoint("odd", "builtins:str", "")]))
    with pytest.raises(MethodError, match="method odd gave a str where a Method was expected"):
        resolve_method(MethodChoice(name="odd"))


def test_method_made_of_our_parts_works_like_one_of_ours():
    mine = Method(
        name="mine",
        score=scores.magnitude,
        scope=make_scope("layer", {}),
        granularity=make_granularity("filter", {}),
        source="a test",
    )
    ours = masks_of("ft", wide_network(), 0.5, shape=WIDE)
    masks = masks_of(mine, wide_network(), 0.5, shape=WIDE)
    assert masks.keys() == ours.keys()
    assert all(torch.equal(mask, ours[name]) for name, mask in masks.items())


# --- Networks and scores that are refused -----------------------------------------------------------------------------


def test_network_without_a_prunable_layer_is_refused():
    with pytest.raises(SpecError, match="no prunable layer"):
        masks_by(method_of("wt"), nn.Sequential(nn.Conv2d(2, 2, 3, groups=2), nn.BatchNorm2d(2)))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_score_that_is_not_finite_is_refused_naming_the_layer(value):
    def score(network):
        found = scores.magnitude(network)
        found["3"][0, 0] = value
        return found

    with pytest.raises(MethodError, match="mine gave layer 3 a score that is not finite"):
        masks_by(scored_by(score))


def test_infinite_scores_that_cancel_are_refused_too():
    def score(network):
        found = scores.magnitude(network)
        found["3"][0, 0, 0, 0], found["3"][0, 0, 0, 1] = float("inf"), -float("inf")
        return found

    with pytest.raises(MethodError, match="mine gave layer 3 a score that is not finite"):
        masks_by(scored_by(score))


def test_finite_scores_whose_sum_is_not_are_taken():
    def score(network):
        return {name: value * 3e38 for name, value in scores.magnitude(network).items()}

    assert num_removed(masks_by(scored_by(score))) == round(RATIO * num_params(small_network()))


def test_score_of_the_wrong_shape_is_refused_with_the_right_one():
    def score(network):
        return {name: value.flatten(1).sum(1) for name, value in scores.magnitude(network).items()}

    with pytest.raises(
        MethodError, match=r"mine scored layer 0 with shape \(4,\); one score per weight has shape \(4, 2, 3, 3\)"
    ):
        masks_by(scored_by(score))


@pytest.mark.parametrize(
    ("granularity", "expected"), [("filter", r"one score per filter has shape \(4,\)"), ("channel", r"\(2,\)")]
)
def test_score_of_weights_where_others_are_asked_for_is_refused_with_the_right_shape(granularity, expected):
    def score(network):
        return {name: network.weight(name) for name in network.layers}

    method = dataclasses.replace(scored_by(score), granularity=make_granularity(granularity, {}))
    with pytest.raises(MethodError, match=rf"mine scored layer 0 with shape \(4, 2, 3, 3\); .*{expected}"):
        masks_by(method)


def test_score_that_is_no_tensor_is_refused_by_its_type():
    with pytest.raises(MethodError, match="mine scored layer 0 with shape list; one score per weight"):
        masks_by(scored_by(lambda network: {name: [1.0] for name in network.layers}))


@pytest.mark.parametrize(
    ("score", "found"),
    [
        (lambda network: {name: network.weight(name) for name in network.layers if name != "3"}, "0, 6, 8"),
        (lambda network: {name: network.weight(name) for name in reversed(network.layers)}, "8, 6, 3, 0"),
        (lambda network: {**scores.magnitude(network), "9": torch.zeros(1)}, "0, 3, 6, 8, 9"),
        (lambda network: [network.weight(name) for name in network.layers], "list"),
        (lambda network: None, "NoneType"),
    ],
)
def test_score_of_other_layers_than_the_networks_is_refused_with_what_it_gave(score, found):
    with pytest.raises(MethodError, match=f"mine must score every prunable layer, in order; it gave {found}$"):
        masks_by(scored_by(score))


def test_skipped_layers_are_not_to_be_scored():
    method = dataclasses.replace(scored_by(scores.magnitude), skip=("3",))
    assert masks_by(method).keys() <= {"0.weight", "6.weight", "8.weight"}
    whole = dataclasses.replace(
        method, score=lambda network: {name: layer.weight.abs() for name, layer in network.all_layers.items()}
    )
    with pytest.raises(MethodError, match="it gave 0, 3, 6, 8"):
        masks_by(whole)


@pytest.mark.parametrize("score", [lambda network: None, lambda network: {}])
def test_what_is_wrong_with_a_method_is_found_before_a_sweep(score):
    with pytest.raises(SpecError, match="mine must score every prunable layer"):
        check_method(scored_by(score), small_network(), RATIO, example_NCHW=torch.zeros(SMALL))


# --- Images ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", LOOKING)
@pytest.mark.parametrize("num", [None, 0, 1])
def test_method_that_looks_at_images_needs_two(method, num):
    samples = None if num is None else images(SMALL, num=num)
    with pytest.raises(MethodError, match=f"{method} looks at images, and got fewer than two"):
        masks_by(method_of(method), samples=samples)


@pytest.mark.parametrize("method", [name for name in METHODS if name not in LOOKING])
def test_method_that_looks_at_weights_needs_no_images(method):
    resolved = method_of(method)
    assert num_samples(resolved, small_network(), torch.zeros(SMALL)) == 0
    assert masks_of(resolved, wide_network(), RATIO, shape=WIDE)


@pytest.mark.parametrize("method", LOOKING)
def test_methods_that_look_at_images_hang_on_them(method):
    one, other = (
        masks_of(method, wide_network(), RATIO, shape=WIDE, samples=images(WIDE, seed=seed)) for seed in (0, 1)
    )
    assert any(not torch.equal(mask, other[name]) for name, mask in one.items())


# As the paper's code computes them for CIFAR-10: reference, section 2.0.
SAMPLES = {"resnet20": 183, "densenet22": 188, "vgg16": 188, "resnet56": 194, "wrn16_8": 195, "resnet110": 196}


@pytest.mark.parametrize("name", SAMPLES)
def test_sample_set_is_as_large_as_that_of_the_paper(name):
    with torch.device("meta"):
        model = build_model(name, num_classes=10, in_channels=3, image_size=32, options={})
    example_NCHW = torch.zeros(1, 3, 32, 32)
    assert num_samples(method_of("sipp"), model, example_NCHW) == SAMPLES[name]
    assert num_samples(method_of("ft", rules="paper"), model, example_NCHW) == SAMPLES[name]


def test_number_of_samples_is_what_a_person_asked_for_where_one_did():
    model, example_NCHW = small_network(), torch.zeros(SMALL)
    assert num_samples(method_of("sipp", samples=17), model, example_NCHW) == 17
    assert num_samples(method_of("wt"), model, example_NCHW) == 0


# --- Masks that hold ------------------------------------------------------------------------------------------------


def test_all_masks_hold_while_retraining_but_those_of_norms_by_the_papers_rules():
    model, samples = wide_network(), images(WIDE)
    corrected, paper = method_of("ft"), method_of("ft", rules="paper")
    masks = masks_of(corrected, model, 0.5, shape=WIDE)
    assert {"1.weight", "1.bias"} <= masks.keys()
    assert enforced(corrected, model, masks) == masks
    layers = {f"{name}.{part}" for name in prunable_layers(model) for part in ("weight", "bias")}
    assert enforced(paper, model, masks).keys() == masks.keys() & layers
    assert enforced(paper, model, masks).keys() == masks.keys() - {"1.weight", "1.bias"}
    found = masks_of(paper, model, 0.5, shape=WIDE, samples=samples)
    assert all(enforced(paper, model, found)[name] is mask for name, mask in found.items() if name in layers)


class Attentive(nn.Module):
    """Linear layers over tokens, and an attention that uses the weight of a layer without calling it."""

    def __init__(self, *, has_attention: bool):
        super().__init__()
        self.embed = nn.Linear(28, 16)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True) if has_attention else None
        self.inner = nn.Linear(16, 24)
        self.head = nn.Linear(24, 10)

    def forward(self, x):
        tokens = torch.relu(self.embed(x[:, 0]))
        if self.attention is not None:
            tokens = self.attention(tokens, tokens, tokens, need_weights=True)[0]
        return self.head(torch.relu(self.inner(tokens)).mean(1))


@pytest.mark.parametrize("name", ["ft", "pfp"])
def test_paper_rules_know_the_channels_of_linear_layers_over_tokens(name):
    torch.manual_seed(0)
    model = Attentive(has_attention=False)
    masks = make_masks(
        method_of(name, rules="paper"),
        model,
        0.3,
        example_NCHW=torch.zeros(1, 1, 28, 28),
        seed=0,
        samples=images((1, 1, 28, 28)),
    )
    assert 0.2 < num_removed(masks) / num_params(model) < 0.5


def test_paper_rules_refuse_a_layer_that_is_never_called_by_its_name():
    with pytest.raises(SpecError, match=r"without calling the layers?, .* add skip=attention.out_proj"):
        check_method(
            method_of("ft", rules="paper"),
            Attentive(has_attention=True),
            0.3,
            example_NCHW=torch.zeros(1, 1, 28, 28),
            samples=images((1, 1, 28, 28)),
        )


def test_half_precision_scores_are_ordered_as_numbers():
    def halves(network):
        return {name: network.weight(name).abs().bfloat16() for name in network.layers}

    masks = masks_by(scored_by(halves))
    assert num_removed(masks) == round(RATIO * num_params(small_network()))
