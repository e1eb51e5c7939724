"""Scores and masks beside those that the original code of Lost in Pruning computed, for every fixture there is."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from raypruning.core.records import MethodChoice
from raypruning.methods import paper_rules
from raypruning.methods.method import Masks, Method, Network, Samples
from raypruning.methods.prune import apply_masks, make_masks, num_removed, resolve_method, score_layers
from raypruning.methods.selection import RATIO_TOLERANCE
from raypruning.models.layers import layer_positions, prunable_layers
from raypruning.models.resolve import build_model

ROOT = Path(__file__).parents[3]
FOLDER = Path(os.environ.get("TORCHPRUNE_FIXTURES", ROOT.parent / "shared" / "fixtures"))
FILES = sorted(FOLDER.glob("torchprune_*.npz"))

# The study's classes by our names.
CLASSES = {"wt": "ThresNet", "sipp": "SiPPNet", "ft": "FilterThresNet", "pfp": "PFPNet"}
KINDS = ("oneshot", "cascade")

# Two codes that sum the same float32 numbers in another order agree in their scores to this, relative to each score.
SCORE_TOLERANCE = 1e-5
# And, near 0, to what float32 leaves of a difference of numbers as large as the layer's largest. On a processor whose
# convolutions sum in another order, a score of 2e-8 among scores up to 9e-2 is off by 9e-12: 4e-4 of itself, and 1e-10
# of the largest.
ROUNDING = 2.0**-23


class Fixture(NamedTuple):
    """What the original was given and what it made of it."""

    arrays: dict[str, np.ndarray]
    model: nn.Module
    samples: Samples

    @property
    def example_NCHW(self) -> Tensor:
        return torch.zeros_like(self.samples.images_NCHW[:1])


def read(path: Path) -> Fixture:
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    samples = Samples(torch.from_numpy(arrays["x"]), torch.from_numpy(arrays["y"]).long())
    name = path.stem.removeprefix("torchprune_").removesuffix("_bn")
    num_classes = [value for key, value in arrays.items() if key.startswith("w/") and key.endswith("bias")][-1].size
    _, channels, _, size = samples.images_NCHW.shape
    model = build_model(name, num_classes=num_classes, in_channels=channels, image_size=size, options={})
    theirs = [value for key, value in arrays.items() if key.startswith("w/")]
    own = model.state_dict()
    # Names differ, the order in which things are registered does not.
    assert [tuple(value.shape) for value in own.values()] == [value.shape for value in theirs]
    model.load_state_dict({key: torch.from_numpy(value.copy()) for key, value in zip(own, theirs, strict=True)})
    return Fixture(arrays, model.eval(), samples)


def file_ids(path: Path) -> str:
    return f"parity-{path.name}"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "path" in metafunc.fixturenames:
        missing = pytest.param(
            None,
            id="parity-none",
            marks=pytest.mark.skip(reason=f"no torchprune_*.npz in {FOLDER}: see TORCHPRUNE_FIXTURES"),
        )
        metafunc.parametrize("path", FILES or [missing], ids=file_ids if FILES else None, scope="module")


@pytest.fixture(scope="module")
def fixture(path: Path) -> Fixture:
    return read(path)


@pytest.fixture
def network(fixture: Fixture) -> Iterator[Fixture]:
    """The fixture, put back afterwards to where the original began."""
    start = {name: value.clone() for name, value in fixture.model.state_dict().items()}
    yield fixture
    fixture.model.load_state_dict(start)


def scores_of(fixture: Fixture, method: str) -> dict[str, Tensor]:
    return score_layers(
        resolve_method(MethodChoice(name=method, parameters={"rules": "paper"})),
        fixture.model,
        example_NCHW=fixture.example_NCHW,
        seed=0,
        samples=fixture.samples,
    ).scores


def test_layers_positions_and_size_are_the_originals(fixture: Fixture):
    layers = prunable_layers(fixture.model)
    assert len(layers) == len(fixture.arrays["layers"])
    _, channels, _, size = fixture.samples.images_NCHW.shape
    positions = layer_positions(fixture.model, channels, size)
    assert [positions[name] for name in layers] == fixture.arrays["patches"].tolist()
    assert num_nonzero(fixture.model) == fixture.arrays["orig"][0]
    for (name, layer), theirs in zip(layers.items(), fixture.arrays["layers"].tolist(), strict=True):
        # Weights were matched by their order: the original's i-th layer must be our i-th.
        assert np.array_equal(layer.weight.detach(), fixture.arrays[f"w/{theirs}.weight"]), name


def num_nonzero(model: nn.Module) -> int:
    """What the original counts: biases that begin at 0 are not among it."""
    return sum(int(value.count_nonzero()) for value in model.parameters())


@pytest.mark.parametrize("method", ["sipp", "pfp"])
def test_scores_are_the_originals(fixture: Fixture, method: str):
    for index, (name, score) in enumerate(scores_of(fixture, method).items()):
        theirs = torch.from_numpy(fixture.arrays[f"{method}/{index}"])
        assert score.shape == theirs.shape
        assert torch.allclose(score, theirs, rtol=SCORE_TOLERANCE, atol=ROUNDING * float(theirs.max())), name


def kept_of(model: nn.Module, masks: Masks) -> np.ndarray:
    """Which weights of prunable layers stay, in one row."""
    parts = []
    for name, layer in prunable_layers(model).items():
        mask = masks.get(f"{name}.weight", torch.ones_like(layer.weight, dtype=torch.bool))
        parts.append(mask.numpy().ravel())
    return np.concatenate(parts)


class Prune(NamedTuple):
    """One prune by us and by the original: our masks, its kept weights and its counts."""

    keep: float
    masks: Masks
    theirs: np.ndarray
    num_left: int


# Ways to choose among weights whose scores cannot be told apart, given which of all the original has left in the end.
Choice = Callable[[list[Tensor], list[Tensor], int], list[Tensor]]


def prunes(fixture: Fixture, method: str, kind: str, *, choices: Sequence[Choice] = ()) -> Iterator[Prune]:
    """Every prune of a kind in the fixture; each of a cascade begins with what the original left.

    Args:
        choices: other ways to break ties, for a prune by our own that differs from the original's; the first that does
            not is taken.
    """
    resolved = resolve_method(MethodChoice(name=method, parameters={"rules": "paper"}))
    prefix = f"{kind}/{CLASSES[method]}/"
    kept = {float(key.split("/")[2]): key.rsplit("/", 1)[0] for key in fixture.arrays if key.startswith(prefix)}
    assert kept, f"the fixture has no {prefix}"
    weights = [f"{name}.weight" for name in prunable_layers(fixture.model)]
    sizes = [dict(fixture.model.named_parameters())[name].shape for name in weights]
    alive: Masks = {}
    for keep in sorted(kept, reverse=True):
        flat = np.unpackbits(fixture.arrays[f"{kept[keep]}/mask"])[: sum(size.numel() for size in sizes)].astype(bool)
        parts = torch.from_numpy(flat).split([size.numel() for size in sizes])
        theirs = {name: part.view(size) for name, part, size in zip(weights, parts, sizes, strict=True)}
        ways = [resolved, *(with_choice(resolved, choice, list(theirs.values())) for choice in choices)]
        for way in ways:
            masks = make_masks(
                way,
                fixture.model,
                1.0 - keep,
                example_NCHW=fixture.example_NCHW,
                seed=0,
                alive=alive,
                samples=fixture.samples,
            )
            if np.array_equal(kept_of(fixture.model, masks), flat):
                break
        yield Prune(keep, masks, flat, int(fixture.arrays[f"{kept[keep]}/stat"][0]))
        if kind == "cascade":
            alive = {**masks, **theirs}
            apply_masks(fixture.model, alive)


def with_choice(method: Method, choice: Choice, theirs: list[Tensor]) -> Method:
    """The method of the paper's rules, its weights chosen another way where scores leave a choice."""

    def allocate(
        network: Network, scores: dict[str, Tensor], shapes: Sequence[paper_rules.LayerShape], budget: int
    ) -> paper_rules.Keep:
        return dict(zip(scores, choice(list(scores.values()), theirs, budget), strict=True))

    return replace(method, paper_allocation=allocate)


def chosen_as_the_original_does(scores: list[Tensor], theirs: list[Tensor], budget: int) -> list[Tensor]:
    """The highest of all; as many as those are of each layer, then of each filter, each time chosen anew among equals.

    Positive and negative parts stand behind each other in a layer, the second part being 0 here.
    """
    parts = [torch.cat([score.flatten(), torch.zeros(score.numel())]) for score in scores]
    is_chosen = torch.zeros(sum(map(len, parts)), dtype=torch.bool)
    is_chosen[torch.topk(torch.cat(parts), budget, sorted=False).indices] = True
    keep = []
    for score, part, chosen in zip(scores, parts, is_chosen.split([len(part) for part in parts]), strict=True):
        in_layer = torch.zeros(len(part), dtype=torch.bool)
        in_layer[torch.topk(part, int(chosen.sum()), sorted=False).indices] = True
        num_of_filter = in_layer.view(2, len(score), -1).sum(dim=(0, 2)).tolist()
        rows = [keep_as_argpartition(row, num) for row, num in zip(score.flatten(1), num_of_filter, strict=True)]
        keep.append(torch.stack(rows).view_as(score))
    return keep


def chosen_as_the_original_ended(scores: list[Tensor], theirs: list[Tensor], budget: int) -> list[Tensor]:
    """The highest of all, among scores that are equal to the tolerance those that the original has left."""
    nudged = [
        score.double() * (1 + SCORE_TOLERANCE * (2.0 * left - 1.0)) for score, left in zip(scores, theirs, strict=True)
    ]
    keep = paper_rules.keep_highest(torch.cat([score.flatten() for score in nudged]), budget)
    sizes = [score.numel() for score in scores]
    return [part.view_as(score) for part, score in zip(keep.split(sizes), scores, strict=True)]


# Exact ties alone: the scores of wt are the weights themselves, and there are ties among those of large networks.
EXACT_TIES: list[Choice] = [chosen_as_the_original_does]
# Scores of sipp are known to a tolerance, and which of two within it is higher is anybody's guess.
NEAR_TIES: list[Choice] = [chosen_as_the_original_does, chosen_as_the_original_ended]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("method", "choices"), [("wt", EXACT_TIES), ("ft", []), ("sipp", NEAR_TIES)])
def test_masks_are_the_originals_but_for_scores_that_cannot_be_told_apart(
    network: Fixture, method: str, choices: list[Choice], kind: str
):
    num_whole = num_nonzero(network.model)
    for prune in prunes(network, method, kind, choices=choices):
        assert np.array_equal(kept_of(network.model, prune.masks), prune.theirs), prune.keep
        assert num_whole - num_removed(prune.masks) == prune.num_left, prune.keep


@pytest.mark.parametrize("kind", KINDS)
def test_pfp_masks_are_the_originals_but_among_exact_ties(network: Fixture, kind: str, monkeypatch: pytest.MonkeyPatch):
    """Many channels have a share of exactly 1: ours keeps the first of equals, theirs what `argpartition` does."""
    num_whole = num_nonzero(network.model)
    monkeypatch.setattr(paper_rules, "keep_highest", keep_as_argpartition)
    for prune in prunes(network, "pfp", kind):
        assert np.array_equal(kept_of(network.model, prune.masks), prune.theirs), prune.keep
        assert num_whole - num_removed(prune.masks) == prune.num_left, prune.keep


def keep_as_argpartition(scores: Tensor, num_keep: int) -> Tensor:
    """The original's choice among equal scores: whatever numpy's partition leaves at the end."""
    keep = np.full(len(scores), num_keep == len(scores))
    if 0 < num_keep < len(scores):
        keep[np.argpartition(scores.numpy(), len(scores) - num_keep)[len(scores) - num_keep :]] = True
    return torch.from_numpy(keep)


@pytest.mark.parametrize("method", CLASSES)
def test_corrected_rules_reach_the_ratio_where_the_originals_miss_it(network: Fixture, method: str):
    num_params = sum(value.numel() for value in network.model.parameters())
    resolved = resolve_method(MethodChoice(name=method))
    for ratio in (0.2, 0.5, 0.8):
        masks = make_masks(
            resolved, network.model, ratio, example_NCHW=network.example_NCHW, seed=0, samples=network.samples
        )
        assert abs(num_removed(masks) / num_params - ratio) <= RATIO_TOLERANCE
