"""What every model for segmentation must do. Subclass `SegmenterContract` as you would `ModelContract`.

class TestMySegmenter(SegmenterContract):
    model_name = "my_segmenter"
    image_size = 64
"""

# ruff: noqa: D102, TID253  (the name of a test is its description; a test of models needs torch)

from __future__ import annotations

import torch
from torch import Tensor, nn

from raypruning.models.heads import all_logits, logit_layers
from raypruning.models.layers import prunable_layers
from raypruning.models.resolve import model_kind
from raypruning.testing.model_contract import ModelContract


class SegmenterContract(ModelContract):
    """The tests of `ModelContract`, with logits for each pixel, and in training perhaps those of auxiliary heads."""

    def test_kind_is_segmentation(self, model_name: str) -> None:
        assert model_kind(model_name) == "segmentation"

    def test_model_gives_one_finite_logit_per_class_in_both_modes(self, model: nn.Module) -> None:
        images_NCHW = self.images(2)
        outputs = model.train()(images_NCHW)
        evaluated = model.eval()(images_NCHW)
        assert isinstance(evaluated, Tensor)
        heads = (outputs,) if isinstance(outputs, Tensor) else outputs
        assert isinstance(heads, tuple)
        for logits_NCHW in (*heads, evaluated):
            assert logits_NCHW.shape == (2, self.num_classes, self.image_size, self.image_size)
            assert bool(torch.isfinite(logits_NCHW).all())

    def test_prunable_weights_are_named_parameters_with_gradients(self, model: nn.Module) -> None:
        layers = prunable_layers(model)
        parameters = dict(model.named_parameters())
        assert len(layers) >= 2, "a layer to prune, and a last one"
        assert all(parameters[f"{name}.weight"] is layer.weight for name, layer in layers.items())
        for is_training in (True, False):
            model.zero_grad()
            losses = [logits.square().mean() for logits in all_logits(model.train(is_training), self.images(4))]
            torch.stack(losses).sum().backward()
            assert all(parameters[f"{name}.weight"].grad is not None for name in layers)

    def test_last_prunable_layer_is_the_one_that_gives_the_logits(self, model: nn.Module) -> None:
        """The last layers, where there are several; filter methods leave them their outputs."""
        layers = prunable_layers(model)
        for name in logit_layers(model):
            weight = layers[name].weight
            assert isinstance(weight, Tensor)
            assert weight.shape[0] == self.num_classes
