"""VGG16 for 32 px images: thirteen 3x3 convolutions with batch normalisation, and one linear layer."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from raypruning.models.base import check_image_size, initialise_convolutions, read_options

# Widths of the convolutions between two halvings of the image (Simonyan and Zisserman 2015, table 1, column D).
STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
# Spread of the linear layer's first weights (Simonyan and Zisserman 2015, section 3.1: variance 1e-4).
HEAD_STD = 0.01


class CifarVgg(nn.Module):
    """Logits of five stages of convolutions, each halving the image, the mean over positions, and a linear layer."""

    def __init__(self, *, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.features = nn.Sequential()
        channels = in_channels
        for widths in STAGES:
            for width in widths:
                self.features.append(nn.Conv2d(channels, width, kernel_size=3, padding=1))
                self.features.append(nn.BatchNorm2d(width))
                self.features.append(nn.ReLU())
                channels = width
            self.features.append(nn.MaxPool2d(2))
        # At 32 px one position is left and this changes nothing; larger images keep the same linear layer.
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(channels, num_classes)
        initialise_convolutions(self)
        for module in self.features:
            if isinstance(module, nn.Conv2d):
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.head.weight, std=HEAD_STD)
        nn.init.zeros_(self.head.bias)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (N, channels, px, px) to logits (N, classes)."""
        return self.head(self.pool(self.features(images)).flatten(1))


def vgg16(
    argument: str, *, num_classes: int, in_channels: int, image_size: int, options: Mapping[str, object]
) -> nn.Module:
    """VGG16 with batch normalisation: 14 728 266 parameters, 313 M multiply-adds on CIFAR. No options.

    Torchvision's, with its three linear layers, is `torchvision/vgg16`.

    Source: Simonyan and Zisserman 2015, as torchprune's vgg16_bn for CIFAR has it.
    """
    read_options("vgg16", options, {})
    check_image_size("vgg16", image_size, at_least=2 ** len(STAGES))
    return CifarVgg(num_classes=num_classes, in_channels=in_channels)
