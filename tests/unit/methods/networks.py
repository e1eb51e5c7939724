"""Networks to prune, with weights that are all different, and what the tests ask of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from raypruning.core.records import MethodChoice
from raypruning.methods.prune import make_masks, resolve_method
from raypruning.models.resolve import build_model


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
    generator = torch.Generator().manual_seed(seed)
    sizes = [parameter.numel() for parameter in model.parameters()]
    magnitudes = (1 + torch.randperm(sum(sizes), generator=generator)) / sum(sizes)
    signs = torch.randint(2, (sum(sizes),), generator=generator) * 2 - 1
    with torch.no_grad():
        for parameter, values in zip(model.parameters(), (magnitudes * signs).split(sizes), strict=True):
            parameter.copy_(values.view_as(parameter))
    return model.eval()


def masks_of(
    method: str, model: nn.Module, ratio: float, *, shape: tuple[int, ...] = (1, 1, 28, 28), seed: int = 0
) -> dict[str, Tensor]:
    return make_masks(
        resolve_method(MethodChoice(name=method)), model, ratio, example_NCHW=torch.zeros(shape), seed=seed
    )


def num_params(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def num_removed(masks: dict[str, Tensor]) -> int:
    return sum(int((~mask).sum()) for mask in masks.values())
