"""A plain dictionary of weights fits every network that it was taken from."""

from __future__ import annotations

import pytest
import torch

from raypruning.models.resolve import build_model
from raypruning.models.weights import load_weights


@pytest.mark.parametrize("name", ["lenet5", "mnasnet0_5"])  # torchvision's MNASNet asks for versions of its modules
def test_plain_dictionary_is_loaded(name: str):
    channels = 1 if name == "lenet5" else 3
    one, other = (build_model(name, num_classes=4, in_channels=channels, image_size=32, options={}) for _ in range(2))
    load_weights(other, {key: value.clone() for key, value in one.state_dict().items()})
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in one.state_dict().items())


def test_weights_of_another_network_are_refused():
    model = build_model("lenet5", num_classes=4, in_channels=1, image_size=28, options={})
    with pytest.raises(RuntimeError, match="size mismatch"):
        load_weights(model, {**model.state_dict(), "fc2.bias": torch.zeros(5)})
