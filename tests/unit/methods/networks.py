"""Networks to prune, with weights that are all different, and what the tests ask of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from raypruning.core.records import MethodChoice
from raypruning.methods.granularity import make_granularity
from raypruning.methods.method import Masks, Method, Network, Samples
from raypruning.methods.prune import make_masks, resolve_method
from raypruning.models.layers import prunable_layers
from raypruning.models.resolve import build_model

SMALL = (1, 2, 6, 6)  # an image of `small_network`
WIDE = (1, 2, 8, 8)  # an image of `wide_network`


def build(name: str, *, in_channels: int = 1, image_size: int = 28, seed: int = 0) -> nn.Module:
    """A network of ours in evaluation mode, its norms set as training would: no zero bias, no unit weight."""
    torch.manual_seed(seed)
    model = build_model(name, num_classes=10, in_channels=in_channels, image_size=image_size, options={})
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_()
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 1.5)
    return model.eval()


def small_network(*, seed: int = 0) -> nn.Module:
    """Convolutions with biases and a norm, a few hundred weights, no two of the same magnitude."""
    model = nn.Sequential(
        nn.Conv2d(2, 4, kernel_size=3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 6, kernel_size=3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(6 * 16, 5),
        nn.ReLU(),
        nn.Linear(5, 3),
    )
    return with_distinct_magnitudes(model, seed=seed)


def wide_network(*, seed: int = 0) -> nn.Module:
    """As small_network, with units small enough for any ratio in reach to be met within half a point."""
    model = nn.Sequential(
        nn.Conv2d(2, 48, kernel_size=3, padding=1),
        nn.BatchNorm2d(48),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(48, 48, kernel_size=3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(48, 200),
        nn.ReLU(),
        nn.Linear(200, 10),
    )
    return with_distinct_magnitudes(model, seed=seed)


def with_distinct_magnitudes(model: nn.Module, *, seed: int = 0) -> nn.Module:
    """The model in evaluation mode with parameters +-1/n, +-2/n, ... +-1 in random order."""
    generator = torch.Generator().manual_seed(seed)
    sizes = [parameter.numel() for parameter in model.parameters()]
    magnitudes = (1 + torch.randperm(sum(sizes), generator=generator)) / sum(sizes)
    signs = torch.randint(2, (sum(sizes),), generator=generator) * 2 - 1
    with torch.no_grad():
        for parameter, values in zip(model.parameters(), (magnitudes * signs).split(sizes), strict=True):
            parameter.copy_(values.view_as(parameter))
    return model.eval()


def images(shape: tuple[int, ...], *, num: int = 6, seed: int = 0) -> Samples:
    """Images of both signs with labels 0, 1, 2, 0, ..."""
    generator = torch.Generator().manual_seed(seed)
    return Samples(torch.randn(num, *shape[1:], generator=generator), torch.arange(num) % 3)


def network_of(
    model: nn.Module,
    shape: tuple[int, ...],
    *,
    granularity: str = "weight",
    samples: Samples | None = None,
    layers: Mapping[str, nn.Module] | None = None,
    seed: int = 0,
    **parameters: int,
) -> Network:
    """What a score or a scope is shown of a network."""
    return Network(
        model=model,
        layers=prunable_layers(model) if layers is None else layers,
        example_NCHW=torch.zeros(shape),
        generator=torch.Generator().manual_seed(seed),
        granularity=make_granularity(granularity, parameters),
        samples=samples,
    )


def method_of(name: str, **parameters: Any) -> Method:
    return resolve_method(MethodChoice(name=name, parameters=parameters))


def masks_of(
    method: str | Method,
    model: nn.Module,
    ratio: float,
    *,
    shape: tuple[int, ...] = (1, 1, 28, 28),
    seed: int = 0,
    alive: Mapping[str, Tensor] | None = None,
    samples: Samples | None = None,
    **parameters: Any,
) -> Masks:
    return make_masks(
        method_of(method, **parameters) if isinstance(method, str) else method,
        model,
        ratio,
        example_NCHW=torch.zeros(shape),
        seed=seed,
        alive=alive,
        samples=samples,
    )


def num_params(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def num_removed(masks: Mapping[str, Tensor]) -> int:
    return sum(int((~mask).sum()) for mask in masks.values())


def kept(masks: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """The masks of all prunable layers' weights, by layer, those of weights that are kept whole included."""
    return {
        name: masks.get(f"{name}.weight", torch.ones(layer.weight.shape, dtype=torch.bool))
        for name, layer in prunable_layers(model).items()
    }
