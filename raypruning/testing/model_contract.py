"""What every model must do. Subclass `ModelContract` in a test module, and give it your model's name.

class TestMyNet(ModelContract):
    model_name = "my_net"
    in_channels, image_size = 1, 28
"""

# ruff: noqa: D102, TID253  (the name of a test is its description; a test of models needs torch)

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

from raypruning.errors import SpecError
from raypruning.models.layers import count_macs, prunable_layers
from raypruning.models.resolve import build_model
from raypruning.models.weights import load_weights


class ModelContract:
    """The tests. Set `model_name`, or give it as a fixture; the rest as the model needs it."""

    in_channels = 3
    image_size = 32
    num_classes = 7
    options: Mapping[str, object] = {}

    @pytest.fixture
    def model_name(self) -> str:
        raise NotImplementedError("a subclass of ModelContract needs a fixture `model_name`")

    @pytest.fixture
    def model(self, model_name: str) -> nn.Module:
        return self.build(model_name)

    def build(self, model_name: str, *, seed: int = 0) -> nn.Module:
        """The model with the weights of a seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return build_model(
                model_name,
                num_classes=self.num_classes,
                in_channels=self.in_channels,
                image_size=self.image_size,
                options=self.options,
            )

    def images(self, num: int) -> Tensor:
        """Normal numbers, the same on every call."""
        shape = (num, self.in_channels, self.image_size, self.image_size)
        return torch.randn(shape, generator=torch.Generator().manual_seed(0))

    def test_model_gives_one_finite_logit_per_class_in_both_modes(self, model: nn.Module) -> None:
        for mode in (True, False):
            logits_NC = model.train(mode)(self.images(2))
            assert isinstance(logits_NC, Tensor)
            assert logits_NC.shape == (2, self.num_classes)
            assert bool(torch.isfinite(logits_NC).all())

    @torch.no_grad()
    def test_logits_of_an_image_do_not_depend_on_its_batch(self, model: nn.Module) -> None:
        model.eval()
        images_NCHW = self.images(3)
        together_NC, alone_1C = model(images_NCHW), model(images_NCHW[1:2])
        # The same sums in another order: float32 carries 24 bits, and a thousand roundings cost ten of them at worst.
        assert torch.allclose(together_NC[1:2], alone_1C, rtol=1e-4, atol=1e-4)

    def test_prunable_weights_are_named_parameters_with_gradients(self, model: nn.Module) -> None:
        layers = prunable_layers(model)
        parameters = dict(model.named_parameters())
        assert len(layers) >= 2, "a layer to prune, and a last one"
        assert all(parameters[f"{name}.weight"] is layer.weight for name, layer in layers.items())
        nn.functional.cross_entropy(model.train()(self.images(4)), torch.arange(4) % self.num_classes).backward()
        assert all(parameters[f"{name}.weight"].grad is not None for name in layers)

    def test_last_prunable_layer_is_the_one_that_gives_the_logits(self, model: nn.Module) -> None:
        """Filter methods leave it its outputs."""
        weight = list(prunable_layers(model).values())[-1].weight
        assert isinstance(weight, Tensor)
        assert weight.shape[0] == self.num_classes

    def test_seed_decides_the_weights(self, model_name: str) -> None:
        one, same, other = (self.build(model_name, seed=seed).state_dict() for seed in (1, 1, 2))
        assert all(torch.equal(value, same[key]) for key, value in one.items())
        assert any(not torch.equal(value, other[key]) for key, value in one.items())

    @torch.no_grad()
    def test_state_dict_carries_the_whole_function(self, model_name: str, model: nn.Module) -> None:
        other = self.build(model_name, seed=1)
        load_weights(other, dict(model.state_dict()))  # A store knows names and numbers, no more.
        images_NCHW = self.images(1)
        assert torch.equal(model.eval()(images_NCHW), other.eval()(images_NCHW))

    def test_multiply_adds_can_be_counted(self, model: nn.Module) -> None:
        num_weights = sum(layer.weight.numel() for layer in prunable_layers(model).values())  # type: ignore[union-attr]
        assert count_macs(model, self.in_channels, self.image_size) >= num_weights

    def test_option_that_does_not_exist_is_refused(self, model_name: str) -> None:
        with pytest.raises(SpecError, match="no_such_option"):
            build_model(
                model_name,
                num_classes=self.num_classes,
                in_channels=self.in_channels,
                image_size=self.image_size,
                options={"no_such_option": 1},
            )
