"""Residual networks for 32 px images: three stages of 16, 32 and 64 maps, after a 3x3 convolution.

Source: He et al. 2016 (Deep Residual Learning), section 4.2, as torchprune builds them: with projections where the
shape changes, and from depth 44 on with bottleneck blocks, which the paper keeps for ImageNet. So resnet56 has 86
prunable layers and not 56, and 869 530 parameters. `tests/unit/models` compares layers and shapes with the original's.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from raypruning.models.base import initialise_convolutions, read_options

STAGE_WIDTHS = (16, 32, 64)
BOTTLENECK_FROM_DEPTH = 44
BOTTLENECK_EXPANSION = 4


class ResidualBlock(nn.Module):
    """ReLU of a branch of convolutions plus a shortcut, which projects where the branch changes the shape."""

    def __init__(self, branch: nn.Sequential, *, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.branch = branch
        has_new_shape = stride != 1 or in_channels != out_channels
        self.shortcut = (
            nn.Sequential(
                nn.Conv2d(in_channels, out_channels, kernel_size=1, stride=stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )
            if has_new_shape
            else nn.Identity()
        )
        self.relu = nn.ReLU()

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Maps (N, in, H, W) to (N, out, H / stride, W / stride)."""
        return self.relu(self.branch(maps) + self.shortcut(maps))


def _conv3x3(in_channels: int, out_channels: int, *, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=stride, padding=1, bias=False)


def _basic_block(in_channels: int, width: int, *, stride: int) -> ResidualBlock:
    branch = nn.Sequential(
        _conv3x3(in_channels, width, stride=stride),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        _conv3x3(width, width),
        nn.BatchNorm2d(width),
    )
    return ResidualBlock(branch, in_channels=in_channels, out_channels=width, stride=stride)


def _bottleneck_block(in_channels: int, width: int, *, stride: int) -> ResidualBlock:
    out_channels = width * BOTTLENECK_EXPANSION
    branch = nn.Sequential(
        nn.Conv2d(in_channels, width, kernel_size=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        _conv3x3(width, width, stride=stride),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, out_channels, kernel_size=1, bias=False),
        nn.BatchNorm2d(out_channels),
    )
    return ResidualBlock(branch, in_channels=in_channels, out_channels=out_channels, stride=stride)


class CifarResNet(nn.Module):
    """Logits of a 3x3 convolution, three stages of blocks, the mean over positions, and a linear layer."""

    def __init__(self, *, depth: int, num_classes: int, in_channels: int) -> None:
        super().__init__()
        block = _bottleneck_block if depth >= BOTTLENECK_FROM_DEPTH else _basic_block
        # The paper's 6n + 2, kept for bottlenecks too although these have three layers each.
        num_blocks = (depth - 2) // 6
        width = STAGE_WIDTHS[0]
        self.stem = nn.Sequential(_conv3x3(in_channels, width), nn.BatchNorm2d(width), nn.ReLU())
        self.stages = nn.Sequential()
        for i, stage_width in enumerate(STAGE_WIDTHS):
            stage = nn.Sequential()
            for j in range(num_blocks):
                stage.append(block(width, stage_width, stride=2 if i > 0 and j == 0 else 1))
                width = stage_width * (BOTTLENECK_EXPANSION if block is _bottleneck_block else 1)
            self.stages.append(stage)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(width, num_classes)
        initialise_convolutions(self)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (N, channels, px, px) to logits (N, classes)."""
        return self.head(self.pool(self.stages(self.stem(images))).flatten(1))


def resnet20(
    argument: str, *, num_classes: int, in_channels: int, image_size: int, options: Mapping[str, object]
) -> nn.Module:
    """Residual network of 20 layers in basic blocks: 272 474 parameters, 40.8 M multiply-adds on CIFAR. No options."""
    read_options("resnet20", options, {})
    return CifarResNet(depth=20, num_classes=num_classes, in_channels=in_channels)


def resnet56(
    argument: str, *, num_classes: int, in_channels: int, image_size: int, options: Mapping[str, object]
) -> nn.Module:
    """Residual network of 27 bottlenecks: 869 530 parameters, 127 M multiply-adds on CIFAR. No options."""
    read_options("resnet56", options, {})
    return CifarResNet(depth=56, num_classes=num_classes, in_channels=in_channels)


def resnet110(
    argument: str, *, num_classes: int, in_channels: int, image_size: int, options: Mapping[str, object]
) -> nn.Module:
    """Residual network of 54 bottlenecks: 1 704 154 parameters, 248 M multiply-adds on CIFAR. No options."""
    read_options("resnet110", options, {})
    return CifarResNet(depth=110, num_classes=num_classes, in_channels=in_channels)
