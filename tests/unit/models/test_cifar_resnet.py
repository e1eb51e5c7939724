"""Our resnet20 against the state dict of the original's, which is not part of this repository."""

from pathlib import Path

import numpy as np
import pytest
import torch

from raypruning.models.cifar_resnet import resnet20
from raypruning.models.layers import count_macs, layer_positions, prunable_layers

FIXTURE = Path(__file__).parents[3].parent / "shared" / "fixtures" / "torchprune_resnet20.npz"


@pytest.fixture(scope="module")
def original():
    if not FIXTURE.is_file():
        pytest.skip(f"the original's weights are not at hand: no {FIXTURE}")
    with np.load(FIXTURE) as arrays:
        return {key: arrays[key] for key in arrays.files if key.startswith("w/") or key in ("x", "orig", "patches")}


@pytest.fixture
def model():
    return resnet20("", num_classes=10, in_channels=3, image_size=32, options={})


def test_registration_order_and_shapes_are_the_originals(model, original):
    theirs = [(key.rsplit(".")[-1], value.shape) for key, value in original.items() if key.startswith("w/")]
    ours = [(key.rsplit(".")[-1], tuple(value.shape)) for key, value in model.state_dict().items()]
    assert ours == theirs


def test_weights_of_the_original_load_by_order_and_run(model, original):
    arrays = [torch.from_numpy(value) for key, value in original.items() if key.startswith("w/")]
    model.load_state_dict(dict(zip(model.state_dict(), arrays, strict=True)))
    with torch.no_grad():
        logits_NC = model.eval()(torch.from_numpy(original["x"]))
    assert logits_NC.shape == (16, 10)
    assert logits_NC.isfinite().all()


def test_multiply_adds_and_positions_are_the_originals(model, original):
    assert count_macs(model, 3, 32) == original["orig"][1]
    positions = layer_positions(model, 3, 32)
    assert [positions[name] for name in prunable_layers(model)] == original["patches"].tolist()
