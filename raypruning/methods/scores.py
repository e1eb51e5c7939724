"""Scores: how important each unit of a network is. Larger means keep."""

# O out, I in channels

from __future__ import annotations

import torch
from torch import Tensor

from raypruning.methods.method import Granularity, Network


def magnitude(network: Network, granularity: Granularity) -> dict[str, Tensor]:
    """|w| of every weight, or the sum of |w| over each filter.

    Source: Renda et al. 2020 (WT); Li et al. 2017 for the l1 norm of filters (FT).
    """
    scores = {name: _weight(layer).abs() for name, layer in network.layers.items()}
    return scores if granularity == "weight" else {name: score.flatten(1).sum(1) for name, score in scores.items()}


def uniform_random(network: Network, granularity: Granularity) -> dict[str, Tensor]:
    """Independent uniform numbers: the control that any method must beat.

    Drawn on the CPU in registration order, so that a seed means the same masks on every device.
    """
    shapes = {name: _weight(layer).shape for name, layer in network.layers.items()}
    return {
        name: torch.rand(shape if granularity == "weight" else shape[:1], generator=network.generator)
        for name, shape in shapes.items()
    }


def _weight(layer: torch.nn.Module) -> Tensor:
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight.detach().float()
