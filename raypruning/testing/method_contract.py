"""What every pruning method must do. Subclass `MethodContract` in a test module, and give it your method.

class TestFisher(MethodContract):
    @pytest.fixture
    def method(self):
        return resolve_method(MethodChoice(name="fisher"))
"""

# ruff: noqa: D102, TID253  (the name of a test is its description; a test of methods needs torch)

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from raypruning.methods.method import Masks, Method, Network
from raypruning.methods.prune import make_masks
from raypruning.models.layers import prunable_layers

EXAMPLE_NCHW = torch.zeros(1, 2, 8, 8)
RATIOS = (0.2, 0.5, 0.8)


class _Residual(nn.Module):
    """Convolutions without biases, norms, and a skip connection."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 8, kernel_size=3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(8)
        self.branch = nn.Conv2d(8, 8, kernel_size=3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 3)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        maps = torch.relu(self.norm1(self.stem(images_NCHW)))
        maps = torch.relu(self.norm2(self.branch(maps)) + maps)
        return self.head(maps.mean((2, 3)))


def sample_models() -> dict[str, nn.Module]:
    """Two small networks with the same weights on every call: a chain with biases, and one with norms and a skip."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        chain = nn.Sequential(
            nn.Conv2d(2, 8, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(4),
            nn.Flatten(),
            nn.Linear(32, 16),
            nn.ReLU(),
            nn.Linear(16, 3),
        )
        return {"chain": chain.eval(), "residual": _Residual().eval()}


class MethodContract:
    """The tests. Give the fixture `method`; replace `model` to try another network on images of 2 channels, 8 px."""

    @pytest.fixture
    def method(self) -> Method:
        raise NotImplementedError("a subclass of MethodContract needs a fixture `method`")

    @pytest.fixture(params=["chain", "residual"])
    def model(self, request: pytest.FixtureRequest) -> nn.Module:
        return sample_models()[request.param]

    def scores(self, method: Method, model: nn.Module, *, seed: int = 0) -> dict[str, Tensor]:
        """The scores of a fresh call, as `make_masks` asks for them."""
        network = Network(
            model=model,
            layers=prunable_layers(model),
            example_NCHW=EXAMPLE_NCHW.clone(),
            generator=torch.Generator().manual_seed(seed),
        )
        return method.score(network, method.granularity)

    def masks(self, method: Method, model: nn.Module, ratio: float, *, seed: int = 0) -> Masks:
        """All masks of a fresh call, those of parameters kept whole included."""
        found = make_masks(method, model, ratio, example_NCHW=EXAMPLE_NCHW.clone(), seed=seed)
        whole = {name: torch.ones_like(value, dtype=torch.bool) for name, value in model.named_parameters()}
        assert found.keys() <= whole.keys(), "a mask belongs to a parameter of the model"
        return {**whole, **found}

    def test_method_states_its_source_and_version(self, method: Method) -> None:
        assert method.source.strip()
        assert method.version >= 1

    def test_every_prunable_layer_is_scored_in_order(self, method: Method, model: nn.Module) -> None:
        layers = prunable_layers(model)
        scores = self.scores(method, model)
        assert list(scores) == list(layers)
        for name, layer in layers.items():
            weight = layer.weight
            assert isinstance(weight, Tensor)
            shape = weight.shape if method.granularity == "weight" else weight.shape[:1]
            assert scores[name].shape == shape
            assert scores[name].is_floating_point()
            assert bool(torch.isfinite(scores[name]).all())

    def test_same_seed_gives_the_same_scores(self, method: Method, model: nn.Module) -> None:
        first, again = (self.scores(method, model, seed=5) for _ in range(2))
        assert all(torch.equal(score, again[name]) for name, score in first.items())

    def test_scores_do_not_depend_on_the_state_of_torchs_own_generator(self, method: Method, model: nn.Module) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            first = self.scores(method, model)
            torch.manual_seed(2)
            again = self.scores(method, model)
        assert all(torch.equal(score, again[name]) for name, score in first.items())

    def test_scoring_and_pruning_leave_the_model_as_it_was(self, method: Method, model: nn.Module) -> None:
        before = {key: value.clone() for key, value in model.state_dict().items()}
        self.scores(method, model)
        self.masks(method, model, 0.5)
        after = model.state_dict()
        assert after.keys() == before.keys()
        assert all(torch.equal(value, before[key]) for key, value in after.items())
        assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
        assert not any(module.training for module in model.modules())

    def test_ratio_zero_keeps_all(self, method: Method, model: nn.Module) -> None:
        assert all(bool(mask.all()) for mask in self.masks(method, model, 0.0).values())

    @pytest.mark.parametrize("ratio", RATIOS)
    def test_masks_are_booleans_of_the_parameters_shapes(self, method: Method, model: nn.Module, ratio: float) -> None:
        masks = self.masks(method, model, ratio)
        for name, parameter in model.named_parameters():
            assert masks[name].dtype == torch.bool
            assert masks[name].shape == parameter.shape

    def test_masks_nest_as_the_ratio_grows(self, method: Method, model: nn.Module) -> None:
        """So that the scores cannot depend on the ratio."""
        masks = [self.masks(method, model, ratio) for ratio in RATIOS]
        for less, more in pairwise(masks):
            assert not any(bool((more[name] & ~kept).any()) for name, kept in less.items())

    @pytest.mark.parametrize("ratio", RATIOS)
    def test_count_is_exact_for_weights_and_filters_go_whole(
        self, method: Method, model: nn.Module, ratio: float
    ) -> None:
        masks = self.masks(method, model, ratio)
        if method.granularity == "weight":
            num_params = sum(parameter.numel() for parameter in model.parameters())
            assert sum(int((~mask).sum()) for mask in masks.values()) == round(ratio * num_params)
            return
        for name in prunable_layers(model):
            mask_OI = masks[f"{name}.weight"].flatten(1)
            alive_I = mask_OI.any(0)
            # A row is kept or gone; of those kept, each leaves out the same inputs, which carry nothing.
            assert all(torch.equal(row_I, alive_I) for row_I in mask_OI[mask_OI.any(1)])
            assert bool(mask_OI.any()), "at least one filter stays in each layer"
