"""Wide residual network for 32 px images: 16 layers, eight times as wide, activation before convolution."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from raypruning.models.base import initialise_convolutions, read_options

STEM_WIDTH = 16
STAGE_WIDTHS = (16, 32, 64)


class PreActivationBlock(nn.Module):
    """A branch of two normalised, activated 3x3 convolutions plus the input, or its projection to a new shape."""

    def __init__(self, in_channels: int, width: int, *, stride: int) -> None:
        super().__init__()
        self.activate = nn.Sequential(nn.BatchNorm2d(in_channels), nn.ReLU())
        self.branch = nn.Sequential(
            nn.Conv2d(in_channels, width, kernel_size=3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, kernel_size=3, padding=1, bias=False),
        )
        self.projection = (
            nn.Conv2d(in_channels, width, kernel_size=1, stride=stride, bias=False) if in_channels != width else None
        )

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Maps (N, in, H, W) to (N, width, H / stride, W / stride)."""
        activated = self.activate(maps)
        # A projection sees the activated maps; without one, what is added is the input itself.
        shortcut = maps if self.projection is None else self.projection(activated)
        return shortcut + self.branch(activated)


class CifarWideResNet(nn.Module):
    """Logits of a 3x3 convolution, three stages of blocks, the mean over positions, and a linear layer."""

    def __init__(self, *, depth: int, widening: int, num_classes: int, in_channels: int) -> None:
        super().__init__()
        num_blocks = (depth - 4) // 6
        self.stem = nn.Conv2d(in_channels, STEM_WIDTH, kernel_size=3, padding=1, bias=False)
        self.stages = nn.Sequential()
        channels = STEM_WIDTH
        for i, stage_width in enumerate(STAGE_WIDTHS):
            width = stage_width * widening
            stage = nn.Sequential()
            for j in range(num_blocks):
                stage.append(PreActivationBlock(channels, width, stride=2 if i > 0 and j == 0 else 1))
                channels = width
            self.stages.append(stage)
        self.pool = nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        self.head = nn.Linear(channels, num_classes)
        initialise_convolutions(self)
        nn.init.zeros_(self.head.bias)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (N, channels, px, px) to logits (N, classes)."""
        return self.head(self.pool(self.stages(self.stem(images))).flatten(1))


def wrn16_8(
    argument: str, *, num_classes: int, in_channels: int, image_size: int, options: Mapping[str, object]
) -> nn.Module:
    """Wide residual network 16-8: 10 961 370 parameters, 1 548 M multiply-adds on CIFAR. No options.

    Source: Zagoruyko and Komodakis 2016, section 2, without dropout, as torchprune configures it.
    """
    read_options("wrn16_8", options, {})
    return CifarWideResNet(depth=16, widening=8, num_classes=num_classes, in_channels=in_channels)
