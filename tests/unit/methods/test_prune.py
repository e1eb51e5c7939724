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
from raypruning.methods import scopes, scores
from raypruning.methods.method import Method
from raypruning.methods.prune import apply_masks, make_masks, resolve_method

from .networks import masks_of, num_params, num_removed, small_network

SMALL = (1, 2, 6, 6)
METHODS = ["wt", "ft", "random", "random_filter"]
WT = resolve_method(MethodChoice(name="wt"))


def masks_by(method, model, *, ratio=0.5):
    return make_masks(method, model, ratio, example_NCHW=torch.zeros(SMALL), seed=0)


def scored_by(score):
    return dataclasses.replace(WT, name="mine", score=score)


@pytest.mark.parametrize("method", METHODS)
def test_ratio_zero_keeps_everything(method):
    assert masks_of(method, small_network(), 0.0, shape=SMALL) == {}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("is_training", [True, False])
def test_network_is_left_as_it_was(method, is_training):
    model = small_network().train(is_training)
    model[1].eval()  # a frozen norm in a network that trains
    modes = [module.training for module in model.modules()]
    weights = {key: value.clone() for key, value in model.state_dict().items()}
    torch.manual_seed(7)
    state = torch.random.get_rng_state()
    masks_of(method, model, 0.5, shape=SMALL)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.random.get_rng_state(), state)


def test_network_is_left_as_it_was_when_the_ratio_is_refused():
    model = small_network().train()
    with pytest.raises(MethodError):
        masks_of("wt", model, 0.99, shape=SMALL)
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("method", METHODS)
def test_masks_are_booleans_of_the_parameters_shapes(method):
    model = small_network()
    parameters = dict(model.named_parameters())
    for name, mask in masks_of(method, model, 0.5, shape=SMALL).items():
        assert (mask.dtype, mask.device.type, mask.shape) == (torch.bool, "cpu", parameters[name].shape)


@pytest.mark.parametrize("method", ["random", "random_filter"])
def test_seed_decides_what_goes_at_random(method):
    first, same, other = (masks_of(method, small_network(), 0.5, shape=SMALL, seed=seed) for seed in (1, 1, 2))
    assert all(torch.equal(mask, same[name]) for name, mask in first.items())
    assert any(not torch.equal(mask, other[name]) for name, mask in first.items())


@pytest.mark.parametrize("method", ["random", "random_filter"])
def test_what_goes_at_random_does_not_depend_on_the_weights(method):
    one, other = (masks_of(method, small_network(seed=seed), 0.5, shape=SMALL) for seed in (1, 2))
    assert all(torch.equal(mask, other[name]) for name, mask in one.items())


@pytest.mark.parametrize("method", ["wt", "ft"])
def test_magnitude_methods_do_not_depend_on_the_seed(method):
    one, other = (masks_of(method, small_network(), 0.5, shape=SMALL, seed=seed) for seed in (1, 2))
    assert all(torch.equal(mask, other[name]) for name, mask in one.items())


def test_random_weights_go_evenly_from_all_layers():
    model = nn.Sequential(nn.Flatten(), nn.Linear(100, 100, bias=False), nn.Linear(100, 100, bias=False))
    masks = masks_of("random", model, 0.5, shape=(1, 1, 10, 10))
    # Hypergeometric: 10 000 of 20 000 drawn, so a layer's count has a spread of sqrt(10 000 / 8) = 35; four of them.
    assert int(masks["1.weight"].sum()) == pytest.approx(5000, abs=141)


def test_applied_masks_set_what_is_removed_to_zero_and_leave_the_rest():
    model = small_network()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    masks = masks_of("ft", model, 0.5, shape=SMALL)
    apply_masks(model, masks)
    for name, parameter in model.named_parameters():
        kept = masks.get(name, torch.ones_like(parameter, dtype=torch.bool))
        assert torch.equal(parameter.detach(), torch.where(kept, before[name], torch.zeros(())))
    num_zeros = sum(int((parameter == 0).sum()) for parameter in model.parameters())
    assert num_zeros == num_removed(masks) < num_params(model)


def test_method_of_an_unknown_name_is_refused_with_a_near_one():
    with pytest.raises(UnknownNameError, match=r"no method is called 'randon': did you mean random"):
        resolve_method(MethodChoice(name="randon"))


def test_plugin_that_gives_something_else_than_a_method_is_refused_by_name(monkeypatch):
    monkeypatch.setattr(registry, "methods", registry.Registry("method", known=[EntryPoint("odd", "builtins:str", "")]))
    with pytest.raises(MethodError, match="method odd gave a str where a Method was expected"):
        resolve_method(MethodChoice(name="odd"))


@pytest.mark.parametrize("method", METHODS)
def test_parameter_that_a_method_does_not_have_is_refused(method):
    with pytest.raises(SpecError, match=f"method {method} has no parameter 'power': it has none"):
        resolve_method(MethodChoice(name=method, parameters={"power": 2}))


def test_network_without_a_prunable_layer_is_refused():
    with pytest.raises(MethodError, match="no prunable layer"):
        masks_by(WT, nn.Sequential(nn.Conv2d(2, 2, 3, groups=2), nn.BatchNorm2d(2)))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_score_that_is_not_finite_is_refused_naming_the_layer(value):
    def score(network, granularity):
        found = scores.magnitude(network, granularity)
        found["3"][0, 0] = value
        return found

    with pytest.raises(MethodError, match="mine gave layer 3 a score that is not finite"):
        masks_by(scored_by(score), small_network())


def test_score_of_the_wrong_shape_is_refused_with_the_right_one():
    with pytest.raises(
        MethodError, match=r"mine scored layer 0 with shape \(4,\); one score per weight has shape \(4, 2, 3, 3\)"
    ):
        masks_by(scored_by(lambda network, granularity: scores.magnitude(network, "filter")), small_network())


def test_score_that_leaves_a_layer_out_is_refused():
    def score(network, granularity):
        return {name: value for name, value in scores.magnitude(network, granularity).items() if name != "3"}

    with pytest.raises(MethodError, match="mine must score every prunable layer, in order; it scored 0, 6, 8"):
        masks_by(scored_by(score), small_network())


def test_method_made_of_our_parts_works_like_one_of_ours():
    mine = Method(
        name="mine", score=scores.magnitude, scope=scopes.uniform_filters, granularity="filter", source="a test"
    )
    ours = masks_of("ft", small_network(), 0.5, shape=SMALL)
    assert all(torch.equal(mask, ours[name]) for name, mask in masks_by(mine, small_network()).items())


def test_larger_score_means_keep():
    def score(network, granularity):
        return {name: -value for name, value in scores.magnitude(network, granularity).items()}

    model = small_network()
    masks = masks_by(scored_by(score), model)
    weights = dict(model.named_parameters())
    kept = torch.cat([weights[name].detach()[mask].abs() for name, mask in masks.items()])
    gone = torch.cat([weights[name].detach()[~mask].abs() for name, mask in masks.items()])
    assert kept.max() < gone.min()
