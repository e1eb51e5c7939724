"""LeNet of the study of pruning and fine-tuning in cycles: two convolutions and two linear layers, 10-20-50 wide."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from raypruning.errors import SpecError
from raypruning.models.base import check_image_size, read_options

NUM_FILTERS = (10, 20)
NUM_HIDDEN = 50


class LeNet5(nn.Module):
    """Logits of conv 5x5 - pool - ReLU, twice, then linear - ReLU - linear."""

    def __init__(self, *, num_classes: int, in_channels: int, image_size: int, dropout: float) -> None:
        super().__init__()
        # Each stage: a 5x5 convolution without padding takes 4 px, the pooling halves what is left.
        pooled_px = ((image_size - 4) // 2 - 4) // 2
        self.conv1 = nn.Conv2d(in_channels, NUM_FILTERS[0], kernel_size=5)
        self.conv2 = nn.Conv2d(NUM_FILTERS[0], NUM_FILTERS[1], kernel_size=5)
        self.drop_maps = nn.Dropout2d(dropout)
        self.fc1 = nn.Linear(NUM_FILTERS[1] * pooled_px * pooled_px, NUM_HIDDEN)
        self.drop_units = nn.Dropout(dropout)
        self.fc2 = nn.Linear(NUM_HIDDEN, num_classes)
        self.pool = nn.MaxPool2d(2)
        self.relu = nn.ReLU()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (N, channels, px, px) to logits (N, classes)."""
        maps = self.relu(self.pool(self.conv1(images)))
        maps = self.relu(self.pool(self.drop_maps(self.conv2(maps))))
        hidden = self.drop_units(self.relu(self.fc1(maps.flatten(1))))
        return self.fc2(hidden)


def lenet5(
    argument: str, *, num_classes: int, in_channels: int, image_size: int, options: Mapping[str, object]
) -> nn.Module:
    """The LeNet study's network: 21 840 parameters and 480 500 multiply-adds for grey 28 px images of 10 classes.

    Option `dropout`, in [0, 1): chance that a map of the second convolution, or a hidden unit, is dropped in training.
    The study trains with 0.5; 0 is the default because it says nothing about networks without dropout otherwise.
    Weights start as torch draws them, as in the study.

    Source: pruningExperiments, class LeNet (its log-softmax is left to the loss).
    """
    dropout = float(read_options("lenet5", options, {"dropout": 0.0})["dropout"])
    if not 0 <= dropout < 1:
        raise SpecError(f"the option 'dropout' of the model lenet5 must be in [0, 1), got {dropout}")
    check_image_size("lenet5", image_size, at_least=16)
    return LeNet5(num_classes=num_classes, in_channels=in_channels, image_size=image_size, dropout=dropout)
