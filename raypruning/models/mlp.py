"""Fully connected network of the digits and fashion study: 1000-1000-500-200 hidden units, no biases."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from torch import nn

from raypruning.models.base import read_options

HIDDEN_WIDTHS = (1000, 1000, 500, 200)


def mlp(
    argument: str, *, num_classes: int, in_channels: int, image_size: int, options: Mapping[str, object]
) -> nn.Module:
    """Linear layers with ReLU between them: 2 386 000 parameters for 784 inputs and 10 classes. No options.

    Weights start Glorot-uniform (Keras' default, which the study uses).

    Source: network-pruning (Cosentino), model of `train`; Glorot and Bengio 2010, equation 16.
    """
    read_options("mlp", options, {})
    widths = (in_channels * image_size * image_size, *HIDDEN_WIDTHS, num_classes)
    network = nn.Sequential()
    network.add_module("flatten", nn.Flatten())
    for i, (num_inputs, num_outputs) in enumerate(itertools.pairwise(widths), start=1):
        linear = nn.Linear(num_inputs, num_outputs, bias=False)
        nn.init.xavier_uniform_(linear.weight)
        network.add_module(f"fc{i}", linear)
        if i <= len(HIDDEN_WIDTHS):  # a ReLU after the last layer would cut the logits
            network.add_module(f"relu{i}", nn.ReLU())
    return network
