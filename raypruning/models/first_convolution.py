"""Another first convolution for a network that was made for other images."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn


def replace_first_convolution(model: nn.Module, **changes: int) -> None:
    """Give the first convolution other settings, in place. Its bias, if it has one, is kept.

    The weights start normal with the spread of those they replace, corrected for the size of the kernel.

    Args:
        model: with a convolution.
        changes: settings of the convolution: in_channels, kernel_size, stride, padding.
    """
    name, old = next((name, module) for name, module in model.named_modules() if isinstance(module, nn.Conv2d))
    settings: dict[str, Any] = {
        "in_channels": old.in_channels,
        "kernel_size": old.kernel_size,
        "stride": old.stride,
        "padding": old.padding,
    }
    new = nn.Conv2d(out_channels=old.out_channels, bias=old.bias is not None, **(settings | changes))
    with torch.no_grad():
        # Torchvision's spreads, by fan-in or fan-out, all fall with the root of the kernel's area.
        ratio = math.sqrt(math.prod(old.kernel_size) / math.prod(new.kernel_size))
        new.weight.copy_(torch.randn_like(new.weight) * old.weight.std() * ratio)
        if old.bias is not None and new.bias is not None:
            new.bias.copy_(old.bias)
    model.set_submodule(name, new)
