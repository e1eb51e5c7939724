"""LAMP: magnitudes made comparable between layers. A pruning method in a package of its own."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from raypruning.methods.method import Granularity, Method, Network, refuse_parameters
from raypruning.methods.scopes import global_weights


def lamp(parameters: Mapping[str, object]) -> Method:
    """Weights whose square is the smallest part of what their layer has left when smaller ones are gone."""
    refuse_parameters("lamp", parameters)
    return Method(
        name="lamp",
        score=_score,
        scope=global_weights,
        granularity="weight",
        source="Lee et al. 2021, Layer-adaptive sparsity for the magnitude-based pruning, equation 4",
    )


def _score(network: Network, granularity: Granularity) -> dict[str, Tensor]:
    return {name: _scores_of_layer(layer.weight.detach()) for name, layer in network.layers.items()}


def _scores_of_layer(weight: Tensor) -> Tensor:
    squares, order = weight.flatten().double().square().sort(stable=True)
    left = squares.flip(0).cumsum(0).flip(0)  # of the layer, when all smaller ones are gone
    scores = torch.empty_like(squares)
    scores[order] = squares / left.clamp(min=torch.finfo(torch.float64).tiny)
    return scores.view_as(weight)
