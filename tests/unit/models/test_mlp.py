import pytest
import torch

from raypruning.models.layers import prunable_layers
from raypruning.models.mlp import mlp


def test_layers_have_the_widths_of_the_study_and_no_biases():
    layers = prunable_layers(mlp("", num_classes=10, in_channels=1, image_size=28, options={})).values()
    widths = [(layer.in_features, layer.out_features) for layer in layers]
    assert widths == [(784, 1000), (1000, 1000), (1000, 500), (500, 200), (200, 10)]
    assert all(layer.bias is None for layer in layers)


def test_weights_start_uniform_within_the_glorot_limit():
    torch.manual_seed(0)
    for layer in prunable_layers(mlp("", num_classes=10, in_channels=1, image_size=28, options={})).values():
        limit = (6 / (layer.in_features + layer.out_features)) ** 0.5
        # Of n uniform numbers the largest misses the limit by limit / n on average; n is 2000 at least.
        assert layer.weight.abs().max().item() == pytest.approx(limit, rel=0.01)
        assert layer.weight.abs().max().item() <= limit
