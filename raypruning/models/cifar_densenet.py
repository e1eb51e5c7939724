"""Densely connected network for 32 px images: DenseNet-BC with 22 layers that add 12 maps each."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from raypruning.models.base import check_image_size, initialise_convolutions, read_options

GROWTH = 12
# The paper's "B": a 1x1 convolution to 4 * growth maps precedes each 3x3 one.
BOTTLENECK_WIDTH = 4 * GROWTH
# The paper's "C": a transition keeps half of the maps.
COMPRESSION = 2
NUM_STAGES = 3


class DenseLayer(nn.Module):
    """The input with 12 more maps, computed from all of it, behind."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.BatchNorm2d(in_channels),
            nn.ReLU(),
            nn.Conv2d(in_channels, BOTTLENECK_WIDTH, kernel_size=1, bias=False),
            nn.BatchNorm2d(BOTTLENECK_WIDTH),
            nn.ReLU(),
            nn.Conv2d(BOTTLENECK_WIDTH, GROWTH, kernel_size=3, padding=1, bias=False),
        )

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Maps (N, in, H, W) to (N, in + 12, H, W)."""
        return torch.cat([maps, self.branch(maps)], dim=1)


def _transition(in_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.BatchNorm2d(in_channels),
        nn.ReLU(),
        nn.Conv2d(in_channels, in_channels // COMPRESSION, kernel_size=1, bias=False),
        nn.AvgPool2d(2),
    )


class CifarDenseNet(nn.Module):
    """Logits of a 3x3 convolution, three dense stages with transitions between, the mean, and a linear layer."""

    def __init__(self, *, depth: int, num_classes: int, in_channels: int) -> None:
        super().__init__()
        # Besides the dense layers, of two convolutions each, there are the first one, two transitions and the head.
        layers_per_stage = (depth - 4) // NUM_STAGES // 2
        channels = 2 * GROWTH
        self.stem = nn.Conv2d(in_channels, channels, kernel_size=3, padding=1, bias=False)
        self.features = nn.Sequential()
        for i in range(NUM_STAGES):
            for _ in range(layers_per_stage):
                self.features.append(DenseLayer(channels))
                channels += GROWTH
            if i < NUM_STAGES - 1:
                self.features.append(_transition(channels))
                channels //= COMPRESSION
        self.features.append(nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(), nn.AdaptiveAvgPool2d(1)))
        self.head = nn.Linear(channels, num_classes)
        initialise_convolutions(self)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (N, channels, px, px) to logits (N, classes)."""
        return self.head(self.features(self.stem(images)).flatten(1))


def densenet22(
    argument: str, *, num_classes: int, in_channels: int, image_size: int, options: Mapping[str, object]
) -> nn.Module:
    """DenseNet-BC, 22 layers, growth 12: 71 686 parameters, 31.2 M multiply-adds on CIFAR. No options.

    Source: Huang et al. 2017, section 3, as torchprune configures it.
    """
    read_options("densenet22", options, {})
    check_image_size("densenet22", image_size, at_least=2 ** (NUM_STAGES - 1))
    return CifarDenseNet(depth=22, num_classes=num_classes, in_channels=in_channels)
