"""Torchvision's networks by name, whatever they answer."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from raypruning.models import torchvision_classifiers, torchvision_segmenters
from raypruning.models.torchvision_names import TORCHVISION_SEGMENTERS


def build(
    argument: str, *, num_classes: int, in_channels: int, image_size: int, options: Mapping[str, object]
) -> nn.Module:
    """Torchvision's network called `argument`; see `torchvision_classifiers.build`, `torchvision_segmenters.build`."""
    module = torchvision_segmenters if argument in TORCHVISION_SEGMENTERS else torchvision_classifiers
    return module.build(
        argument, num_classes=num_classes, in_channels=in_channels, image_size=image_size, options=options
    )
