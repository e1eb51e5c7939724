"""LAMP: magnitudes made comparable between layers. A pruning method in a package of its own."""

from __future__ import annotations

import torch
from torch import Tensor

from raypruning.methods.axes import method
from raypruning.methods.method import Network


@method(source="Lee et al. 2021, Layer-adaptive sparsity for the magnitude-based pruning, equation 4")
def lamp(network: Network) -> dict[str, Tensor]:
    """Weights whose square is the smallest part of what their layer has left when smaller ones are gone."""
    return {name: _scores_of_layer(network.weight(name)) for name in network.layers}


def _scores_of_layer(weight: Tensor) -> Tensor:
    squares, order = weight.flatten().double().square().sort(stable=True)
    left = squares.flip(0).cumsum(0).flip(0)  # of the layer, when all smaller ones are gone
    scores = torch.empty_like(squares)
    scores[order] = squares / left.clamp(min=torch.finfo(torch.float64).tiny)
    return scores.view_as(weight)
