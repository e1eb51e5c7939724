"""Networks whose constants are not zero by luck, masks that leave dead filters, and what the tests ask of both."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from raypruning.compaction.compact import Compacted, compact, largest_difference, masked_copy
from raypruning.models.layers import prunable_layers
from raypruning.models.resolve import build_model


def build(name: str, *, image_size: int = 64, in_channels: int = 3, seed: int = 0) -> nn.Module:
    """A network as training would leave it: no zero bias, no unit scale, no layer that starts at zero."""
    torch.manual_seed(seed)
    options = {"dropout": 0.0} if name == "lenet5" else {}
    model = build_model(name, num_classes=10, in_channels=in_channels, image_size=image_size, options=options)
    randomise(model)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    if norms:
        # Running statistics of real activations: without them little of an image would reach the logits.
        for norm in norms:
            norm.momentum = 1.0
        with torch.no_grad():
            model.train()(images(4, in_channels, image_size, image_size, seed=2))
    return model.eval()


def randomise(model: nn.Module, *, seed: int = 0) -> nn.Module:
    """Biases, norms and whatever starts at zero or nearly so, drawn anew; in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(tensor: Tensor, low: float, high: float) -> None:
        tensor.copy_(torch.rand(tensor.shape, generator=generator) * (high - low) + low)

    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
                uniform(module.weight, 0.5, 1.5)
                uniform(module.bias, -0.3, 0.5)
            if isinstance(module, nn.BatchNorm2d):
                uniform(module.running_mean, -0.2, 0.2)
                uniform(module.running_var, 0.5, 1.5)
            elif isinstance(module, nn.Conv2d | nn.Linear):
                if not module.weight.any():  # a transformer's head
                    uniform(module.weight, -0.1, 0.1)
                if module.bias is not None:
                    uniform(module.bias, -0.2, 0.4)
        for name, parameter in model.named_parameters():
            if name.endswith("layer_scale"):  # 1e-6 at first, which would hide all errors behind it
                uniform(parameter, 0.5, 1.0)
    return model.eval()


def filter_masks(model: nn.Module, ratio: float = 0.5, *, seed: int = 0, with_bias: bool = False) -> dict[str, Tensor]:
    """Filters and units removed at random in every prunable layer but the last: their rows alone, or the bias too.

    Norms keep their entries, so that what is removed puts out constants.
    """
    generator = torch.Generator().manual_seed(seed)
    layers = prunable_layers(model)
    masks: dict[str, Tensor] = {}
    for name in list(layers)[:-1]:
        weight = layers[name].weight
        keeps_O = torch.rand(len(weight), generator=generator) >= ratio
        masks[f"{name}.weight"] = keeps_O.view(-1, *[1] * (weight.ndim - 1)).expand_as(weight).clone()
        if with_bias and layers[name].bias is not None:
            masks[f"{name}.bias"] = keeps_O
    return masks


def images(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def assert_equal_outputs(model: nn.Module, masks: dict[str, Tensor], inputs: Tensor) -> Compacted:
    """Compact, and compare with the masked network.

    The tolerance is relative to the largest logit: sums of up to a few thousand float32 numbers in another order differ
    by a few dozen roundings (6e-8 each), through up to a hundred layers.
    """
    found = compact(model, masks, inputs)
    masked = masked_copy(model, masks)
    with torch.no_grad():
        logits = masked(inputs)
    assert logits.std(0).max() > 1e-4 * logits.abs().max(), "the logits must depend on the image"
    difference, num = largest_difference(masked, found.model, [inputs])
    assert num == len(inputs)
    assert difference <= 2e-5 * max(1.0, float(logits.abs().max()))
    assert {type(module) for module in found.model.modules()} == {type(module) for module in model.modules()}
    return found


def num_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
