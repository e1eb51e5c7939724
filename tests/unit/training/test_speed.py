"""How fast a machine trains and evaluates, on networks of a moment: what is timed is what a training does."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from raypruning.core.records import Kind, Numerics, Recipe
from raypruning.training import speed

CLASSES, SIDE = 3, 8


class Counting(nn.Module):
    """Logits for each image or each pixel, of an auxiliary head too; counts its images in either mode."""

    def __init__(self, kind: Kind) -> None:
        super().__init__()
        self.is_segmenter = kind == "segmentation"
        self.head = nn.Conv2d(3, CLASSES, 1)
        self.num_images = {True: 0, False: 0}

    def forward(self, images_NCHW: Tensor) -> Tensor | tuple[Tensor, ...]:
        assert images_NCHW.is_contiguous(memory_format=torch.channels_last)
        self.num_images[self.training] += len(images_NCHW)
        maps = self.head(images_NCHW)
        if self.is_segmenter:
            return (maps, maps) if self.training else maps
        return maps.mean((2, 3))


@pytest.mark.parametrize("kind", ["classification", "segmentation"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_steps_of_both_kinds_and_precisions_are_timed_and_threads_are_the_recipes(
    kind: Kind, precision: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(speed, "MIN_SECONDS", 0.0)
    model = Counting(kind)
    before = model.head.weight.detach().clone()
    recipe = Recipe(epochs=1, learning_rate=0.1, batch_size=5, numerics=Numerics(precision=precision, threads=2))
    found = speed.measure_speed(
        model, recipe, kind=kind, shape_CHW=(3, SIDE, SIDE), num_classes=CLASSES, device=torch.device("cpu")
    )
    assert found.train > 0 and found.evaluate > 0
    # One step to warm up, and two at least.
    assert model.num_images == {True: 3 * 5, False: 3 * 5}
    assert not torch.equal(model.head.weight, before), "a step that trains changes weights"
    assert torch.get_num_threads() == 2


def test_seconds_are_those_of_a_step_without_the_first_one(monkeypatch: pytest.MonkeyPatch):
    clock = iter([0.0, 0.1, 0.2, 0.3, 0.4, 0.5])
    steps: list[int] = []
    monkeypatch.setattr(speed, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    # Begins at 0, has not enough at 0.1, 0.2 and 0.3, and has at 0.4, after three steps; what it took is read at 0.5.
    assert speed._seconds(lambda: steps.append(0)) == pytest.approx(0.5 / 3)
    assert len(steps) == 1 + 3
