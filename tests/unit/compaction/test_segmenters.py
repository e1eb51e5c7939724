"""Networks that answer for every pixel become smaller as others do."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from raypruning.compaction.shapes import reshape
from raypruning.models.heads import logit_layers
from raypruning.models.layers import prunable_layers
from raypruning.models.torchvision_segmenters import build
from raypruning.models.weights import load_weights
from tests.unit.compaction.networks import assert_equal_outputs, filter_masks, images, num_parameters, randomise

PX = 33


def segmenter(name: str) -> nn.Module:
    """A network as training would leave it; see `networks.build`."""
    torch.manual_seed(0)
    model = randomise(build(name, num_classes=6, in_channels=3, image_size=PX, options={}))
    for norm in [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]:
        norm.momentum = 1.0
    with torch.no_grad():
        model.train()(images(4, 3, PX, PX, seed=2))
    return model.eval().requires_grad_(False)


@pytest.mark.parametrize(
    "name",
    [
        "lraspp_mobilenet_v3_large",
        "deeplabv3_mobilenet_v3_large",
        pytest.param("deeplabv3_resnet50", marks=pytest.mark.slow),
        pytest.param("fcn_resnet50", marks=pytest.mark.slow),
    ],
)
def test_logits_stay_equal_and_the_shapes_and_weights_rebuild_the_network(name):
    model = segmenter(name)
    masks = filter_masks(model, 0.3, with_bias=True)
    for layer in logit_layers(model):
        masks.pop(f"{layer}.weight", None)
        masks.pop(f"{layer}.bias", None)
    inputs = images(2, 3, PX, PX)
    found = assert_equal_outputs(model, masks, inputs)
    assert num_parameters(found.model) < 0.9 * num_parameters(model)
    assert found.num_removed > 0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        rebuilt = reshape(build(name, num_classes=6, in_channels=3, image_size=PX, options={}).eval(), found.shapes)
    load_weights(rebuilt, found.model.state_dict())
    assert torch.equal(rebuilt(inputs), found.model(inputs))


def test_an_auxiliary_head_which_evaluation_does_not_hear_goes_as_far_as_a_network_can_be_built_without_it():
    model = segmenter("deeplabv3_mobilenet_v3_large")
    found = assert_equal_outputs(model, filter_masks(model, 0.3), images(2, 3, PX, PX))
    outputs = {name: len(layer.weight) for name, layer in prunable_layers(found.model).items()}
    assert outputs["aux_classifier.0"] == outputs["aux_classifier.4"] == 1
    assert outputs["classifier.4"] == 6
