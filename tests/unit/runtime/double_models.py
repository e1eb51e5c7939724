"""LeNet-5 in float64: rounding stays far below what workers that share batches might do wrong there. A plugin."""

from __future__ import annotations

import torch

from raypruning import registry
from raypruning.models.lenet5 import LeNet5


class _Double(LeNet5):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images.double())


@registry.models.register("test-double-lenet5")
def _double(argument: str, *, num_classes: int, in_channels: int, image_size: int, options) -> torch.nn.Module:
    return _Double(num_classes=num_classes, in_channels=in_channels, image_size=image_size, dropout=0.0).double()
