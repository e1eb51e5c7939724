"""Every registered model passes the suite that plugins have to pass, at the images it was made for."""

from __future__ import annotations

import pytest

from raypruning import registry
from raypruning.testing.model_contract import ModelContract
from raypruning.testing.segmenter_contract import SegmenterContract

# Of torchvision's hundred: a residual one, and one with depthwise convolutions, squeeze and excitation.
TORCHVISION = ["resnet18", "mobilenet_v3_small"]
# One without auxiliary head, and one with.
SEGMENTERS = ["lraspp_mobilenet_v3_large", "torchvision/deeplabv3_mobilenet_v3_large"]
GREY = ["lenet5", "mlp"]


class TestGreyModels(ModelContract):
    in_channels, image_size = 1, 28

    @pytest.fixture(params=GREY)
    def model_name(self, request: pytest.FixtureRequest) -> str:
        return request.param


class TestColourModels(ModelContract):
    @pytest.fixture(params=[name for name in registry.models.names() if name not in [*GREY, "torchvision/"]])
    def model_name(self, request: pytest.FixtureRequest) -> str:
        return request.param


class TestTorchvisionModels(ModelContract):
    image_size = 64

    @pytest.fixture(params=TORCHVISION)
    def model_name(self, request: pytest.FixtureRequest) -> str:
        return request.param


class TestTorchvisionSegmenters(SegmenterContract):
    image_size = 33

    @pytest.fixture(params=SEGMENTERS)
    def model_name(self, request: pytest.FixtureRequest) -> str:
        return request.param
