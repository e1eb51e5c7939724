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

from raypruning.methods.method import Masks, Method, Network, Samples
from raypruning.methods.prune import apply_masks, make_masks
from raypruning.methods.selection import RATIO_TOLERANCE
from raypruning.models.layers import prunable_layers

EXAMPLE_NCHW = torch.zeros(1, 2, 8, 8)
RATIOS = (0.2, 0.5, 0.8)


def sample_images() -> Samples:
    """Images and labels for the methods that look at some; the same on every call."""
    generator = torch.Generator().manual_seed(0)
    return Samples(torch.randn(8, 2, 8, 8, generator=generator), torch.arange(8) % 3)


class _Residual(nn.Module):
    """Convolutions without biases, norms, and a skip connection."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 128, kernel_size=3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(128)
        self.branch = nn.Conv2d(128, 128, kernel_size=3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(128)
        self.head = nn.Linear(128, 3)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        maps = torch.relu(self.norm1(self.stem(images_NCHW)))
        maps = torch.relu(self.norm2(self.branch(maps)) + maps)
        return self.head(maps.mean((2, 3)))


def sample_models() -> dict[str, nn.Module]:
    """Two networks with the same weights on every call: a chain with biases, and one with norms and a skip.

    They are wide enough for a single filter to be less than half a point of their parameters.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        chain = nn.Sequential(
            nn.Conv2d(2, 12, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(4),
            nn.Flatten(),
            nn.Linear(48, 256),
            nn.ReLU(),
            nn.Linear(256, 3),
        )
        return {"chain": chain.eval(), "residual": _Residual().eval()}


class MethodContract:
    """The tests. Give the fixture `method`; replace `model` to try another network on images of 2 channels, 8 px."""

    @pytest.fixture
    def method(self) -> Method:
        raise NotImplementedError("a subclass of MethodContract needs a fixture `method`")

    @pytest.fixture(params=["chain", "residual"])
    def model(self, request: pytest.FixtureRequest, method: Method) -> nn.Module:
        if request.param == "residual" and method.granularity.name == "unit":
            pytest.skip("the only linear layer of this network gives its answer: no unit may go")
        return sample_models()[request.param]

    def scores(self, method: Method, model: nn.Module, *, seed: int = 0) -> dict[str, Tensor]:
        """The scores of a fresh call, as `make_masks` asks for them."""
        network = Network(
            model=model,
            layers=prunable_layers(model),
            example_NCHW=EXAMPLE_NCHW.clone(),
            generator=torch.Generator().manual_seed(seed),
            granularity=method.granularity,
            samples=sample_images(),
        )
        return method.score(network)

    def masks(self, method: Method, model: nn.Module, ratio: float, *, seed: int = 0) -> Masks:
        """All masks of a fresh call, those of parameters kept whole included."""
        found = make_masks(method, model, ratio, example_NCHW=EXAMPLE_NCHW.clone(), seed=seed, samples=sample_images())
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
            shapes = {"weight": weight.shape, "filter": weight.shape[:1], "channel": weight.shape[1:2]}
            assert scores[name].shape == shapes[method.granularity.score_by]
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
    def test_ratio_is_reached(self, method: Method, model: nn.Module, ratio: float) -> None:
        """To the weight where weights go one by one, within half a point where whole channels do."""
        num_removed = sum(int((~mask).sum()) for mask in self.masks(method, model, ratio).values())
        num_params = sum(parameter.numel() for parameter in model.parameters())
        if method.granularity.name == "weight":
            assert num_removed == round(ratio * num_params)
        else:
            assert abs(num_removed / num_params - ratio) <= RATIO_TOLERANCE

    @pytest.mark.parametrize("ratio", RATIOS)
    def test_channels_go_whole(self, method: Method, model: nn.Module, ratio: float) -> None:
        if not method.granularity.is_structured:
            pytest.skip("single weights go")
        masks = self.masks(method, model, ratio)
        for name in prunable_layers(model):
            mask_OI = masks[f"{name}.weight"].flatten(1)
            assert bool(mask_OI.any()), "something stays in each layer"
            # What is left is a smaller dense matrix: kept outputs times kept inputs.
            assert torch.equal(mask_OI, mask_OI.any(1)[:, None] & mask_OI.any(0)[None, :])

    def test_a_second_prune_keeps_what_the_first_removed(self, method: Method, model: nn.Module) -> None:
        with torch.random.fork_rng(devices=[]):
            first = make_masks(method, model, 0.3, example_NCHW=EXAMPLE_NCHW.clone(), seed=0, samples=sample_images())
            apply_masks(model, first)
            again = make_masks(
                method, model, 0.6, example_NCHW=EXAMPLE_NCHW.clone(), seed=0, alive=first, samples=sample_images()
            )
        assert all(not bool((again[name] & ~mask).any()) for name, mask in first.items())
