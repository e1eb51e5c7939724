"""How many images a sensitivity is taken over.

Source: Liebenwein et al. 2020 (PFP), Theorem 4, with the constants of Lost in Pruning's code.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from raypruning.methods.paper_rules import BOUND_CONSTANT, FAILURE_PROBABILITY
from raypruning.models.layers import layer_positions, prunable_layers


def sample_set_size(model: nn.Module, example_NCHW: Tensor) -> int:
    """ceil(c ln(8 eta* eta / delta)): eta counts the output neurons of all layers together, eta* of the largest."""
    positions = layer_positions(model, example_NCHW.shape[1], example_NCHW.shape[2])
    neurons = [len(layer.weight) * positions[name] for name, layer in prunable_layers(model).items()]
    return max(1, math.ceil(BOUND_CONSTANT * math.log(8 * max(neurons) * sum(neurons) / FAILURE_PROBABILITY)))
