"""The printed tables of the LeNet study and the MLP study, which hang on counts alone and not on training."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import prune as torch_prune

from raypruning.core.records import MethodChoice
from raypruning.methods.method import Masks
from raypruning.methods.prune import apply_masks, make_masks, num_removed, resolve_method
from raypruning.models.layers import layer_positions, prunable_layers, same_padding_positions

from .networks import build, num_params

EXAMPLE = torch.zeros(1, 1, 28, 28)
CYCLES = 3

# The LeNet study, utils/plots.ipynb: amount -> speed-up and compression, unstructured and structured.
LENET = {
    0.1: (1.3706, 1.3695, 1.4268, 1.3561),
    0.2: (1.9531, 1.9455, 1.9976, 1.8934),
    0.3: (2.9137, 2.8927, 2.94, 2.78),
    0.4: (4.6296, 4.5614, 4.98, 4.23),
    0.5: (8.0134, 7.7750, 7.15, 6.06),
    0.6: (15.625, 14.7368, 16.34, 11.97),
    0.7: (36.75, 32.2124, 25.33, 18.83),
}
# Live rows of conv1, conv2 and fc1 after the three cycles.
LENET_ROWS = {
    0.1: (7, 14, 37),
    0.2: (5, 10, 26),
    0.3: (3, 7, 17),
    0.4: (2, 4, 11),
    0.5: (1, 3, 7),
    0.6: (1, 1, 3),
    0.7: (0, 1, 1),
}


def printed(value: float, like: float) -> bool:
    """Whether a value rounds to a printed one at the digits that were printed (two at least)."""
    digits = max(2, len(f"{like:.10f}".rstrip("0").split(".")[1]))
    return round(value, digits) == pytest.approx(like, abs=1e-9)


def cycles(method: str, amount: float, prune_torch) -> tuple[nn.Module, Masks]:
    """A LeNet-5 after three cycles by our method, each checked against torch's own pruning of the same weights."""
    resolved = resolve_method(MethodChoice(name=method))
    model = build("lenet5")
    theirs = copy.deepcopy(model)
    masks: Masks = {}
    for _ in range(CYCLES):
        pruned = prune_torch(theirs, amount)
        num = sum(int((layer.weight_mask == 0).sum()) for layer in pruned.values())
        masks = make_masks(resolved, model, num / num_params(model), example_NCHW=EXAMPLE, seed=0, alive=masks)
        for name, layer in pruned.items():
            found = masks.get(f"{name}.weight", torch.ones_like(layer.weight_mask, dtype=torch.bool))
            assert torch.equal(found, layer.weight_mask.bool()), name
        apply_masks(model, masks)
    return model, masks


def speed_up(model: nn.Module, masks: Masks, positions: dict[str, int]) -> float:
    layers = prunable_layers(model)
    all_macs = {name: layer.weight.numel() * positions[name] for name, layer in layers.items()}
    left = sum(
        macs * float(masks[f"{name}.weight"].float().mean()) if f"{name}.weight" in masks else macs
        for name, macs in all_macs.items()
    )
    return sum(all_macs.values()) / left


def compression(model: nn.Module, masks: Masks) -> float:
    return num_params(model) / (num_params(model) - num_removed(masks))


def unstructured(model: nn.Module, amount: float) -> dict[str, nn.Module]:
    layers = prunable_layers(model)
    for layer in layers.values():
        torch_prune.l1_unstructured(layer, "weight", amount)
    return layers


def structured(model: nn.Module, amount: float) -> dict[str, nn.Module]:
    layers = dict(list(prunable_layers(model).items())[:-1])
    for layer in layers.values():
        torch_prune.ln_structured(layer, "weight", amount, n=1, dim=0)
    return layers


@pytest.mark.parametrize("amount", LENET)
def test_lenet_study_unstructured(amount: float):
    model, masks = cycles("layer_magnitude_of_alive", amount, unstructured)
    assert printed(speed_up(model, masks, same_padding_positions(model, 1, 28)), LENET[amount][0])
    assert printed(compression(model, masks), LENET[amount][1])


@pytest.mark.parametrize("amount", LENET)
def test_lenet_study_structured(amount: float):
    model, masks = cycles("filter_l1_layer", amount, structured)
    rows = [int(masks[f"{name}.weight"].flatten(1).any(1).sum()) for name in list(prunable_layers(model))[:-1]]
    assert tuple(rows) == LENET_ROWS[amount]
    assert printed(speed_up(model, masks, same_padding_positions(model, 1, 28)), LENET[amount][2])
    assert printed(compression(model, masks), LENET[amount][3])


def test_lenet_true_macs_are_half_of_those_by_the_studys_rule():
    model = build("lenet5")
    weights = {name: layer.weight.numel() for name, layer in prunable_layers(model).items()}
    macs = [
        sum(weights[name] * num for name, num in positions(model, 1, 28).items())
        for positions in (layer_positions, same_padding_positions)
    ]
    assert macs == [480_500, 932_500]


@pytest.mark.parametrize(("amount", "expected"), [(0.7, 28.57), (0.6, 15.08)])
def test_lenet_true_speed_ups_differ_from_the_studys(amount: float, expected: float):
    model, masks = cycles("filter_l1_layer", amount, structured)
    assert printed(speed_up(model, masks, layer_positions(model, 1, 28)), expected)


# The MLP study: amount k -> zeros by single weights, units cut of each hidden layer, parameters left when rows that
# read a cut unit go as well.
MLP = {
    0.25: (596_000, (250, 250, 125, 50), 1_489_500),
    0.5: (1_192_000, (500, 500, 250, 100), 793_000),
    0.6: (1_430_400, (600, 600, 300, 120), 570_400),
    0.7: (1_668_800, (700, 700, 350, 140), 379_800),
    0.8: (1_907_200, (800, 800, 400, 160), 221_200),
    0.9: (2_145_600, (900, 900, 450, 180), 94_600),
    0.95: (2_264_800, (950, 950, 475, 190), 43_300),
    0.97: (2_312_480, (970, 970, 485, 194), 25_020),
    0.99: (2_360_160, (990, 990, 495, 198), 8_020),
    0.995: (2_372_080, (995, 995, 497, 199), 3_973),
    0.999: (2_381_616, (999, 999, 499, 199), 797),
}


@pytest.fixture(scope="module")
def mlp() -> nn.Module:
    return build("mlp")


@pytest.mark.parametrize("k", MLP)
def test_mlp_study_weights(mlp: nn.Module, k: float):
    """The study cuts int(k * size) weights of every layer but the last."""
    *hidden, last = prunable_layers(mlp)
    method = resolve_method(MethodChoice(name="layer_magnitude", parameters={"skip": (last,)}))
    zeros, _, _ = MLP[k]
    masks = make_masks(method, mlp, zeros / num_params(mlp), example_NCHW=EXAMPLE, seed=0)
    for name in hidden:
        weight = dict(mlp.named_parameters())[f"{name}.weight"].detach().abs()
        kept = masks[f"{name}.weight"]
        assert int((~kept).sum()) == int(weight.numel() * k), name
        assert weight[~kept].max() <= weight[kept].min(), name
    assert num_removed(masks) == zeros
    assert f"{last}.weight" not in masks


@pytest.mark.parametrize("k", MLP)
def test_mlp_study_units(mlp: nn.Module, k: float):
    *hidden, _ = prunable_layers(mlp)
    _, cut, left = MLP[k]
    method = resolve_method(MethodChoice(name="unit_l2"))
    masks = make_masks(method, mlp, 1.0 - left / num_params(mlp), example_NCHW=EXAMPLE, seed=0)
    assert num_params(mlp) - num_removed(masks) == left
    for name, num_cut in zip(hidden, cut, strict=True):
        norms = dict(mlp.named_parameters())[f"{name}.weight"].detach().norm(dim=1)
        kept = masks[f"{name}.weight"].any(1)
        assert int((~kept).sum()) == num_cut
        assert norms[~kept].max() <= norms[kept].min()
