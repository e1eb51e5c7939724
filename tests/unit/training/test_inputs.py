"""Inputs of tasks: what is changed, in which order, and what is kept."""

# N images, C classes or channels, H W height and width

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from raypruning.core.records import Task
from raypruning.datasets.base import Dataset, ImageArrays
from raypruning.tasks.task import TaskDefinition, resolve_task
from raypruning.training.images import ResidentImages
from raypruning.training.inputs import Normalisation, Source, TaskInputs, batch_size_for

CPU = torch.device("cpu")
NUM, CLASSES = 53, 10


@pytest.fixture
def split() -> ImageArrays:
    random = np.random.default_rng(0)
    return ImageArrays(
        images_NCHW=random.integers(0, 256, (NUM, 3, 8, 8), dtype=np.uint8), labels_N=random.integers(0, CLASSES, NUM)
    )


@pytest.fixture
def normalise() -> Normalisation:
    return Normalisation(torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1), torch.tensor([0.2, 0.3, 0.4]).view(3, 1, 1))


def task_of(fingerprint: str) -> Task:
    return Task(name="nominal", dataset="made up", nominal="nominal", num_examples=NUM, fingerprint=fingerprint)


def inputs_of(
    split: ImageArrays, normalise: Normalisation, *, max_bytes: int = 0, is_changed: bool = False
) -> TaskInputs:
    source = Source(ResidentImages(split, CPU), is_changed=is_changed)
    return TaskInputs(lambda task, definition: source, normalise, max_bytes=max_bytes)


def images_of(inputs: TaskInputs, key: str, definition: TaskDefinition, *, batch_size: int) -> Tensor:
    return torch.cat([images for images, _ in inputs.batches(task_of(key), definition, batch_size=batch_size)])


def test_inputs_do_not_depend_on_how_often_images_are_read_again(split, normalise):
    task_images = inputs_of(split, normalise, max_bytes=1 << 20)
    noise = resolve_task("noise/uniform/0.5")
    read = [
        images_of(inputs, "noise", noise, batch_size=8)
        for inputs in (task_images, task_images, inputs_of(split, normalise))
    ]
    assert torch.equal(read[0], read[1]) and torch.equal(read[0], read[2])


def test_inputs_of_more_tasks_than_fit_are_made_again(split, normalise):
    made: list[int] = []

    def count(pixels: Tensor, ids: Tensor) -> Tensor:
        made.append(len(ids))
        return pixels

    definition = TaskDefinition(on_pixels=count)
    one_task = NUM * 3 * 8 * 8 * 4 + NUM * 8  # float32 images, int64 labels
    inputs = inputs_of(split, normalise, max_bytes=one_task)
    for key in ("a", "a", "b", "a"):
        assert len(images_of(inputs, key, definition, batch_size=NUM)) == NUM
    assert made == [NUM] * 3  # The second "a" was kept, and "b" drove it out.


def test_bytes_are_changed_before_anything_else_whether_they_lie_on_disk_or_not(split, normalise):
    def invert(images: Tensor, ids: Tensor) -> Tensor:
        assert images.dtype == torch.uint8
        return 255 - images

    definition = TaskDefinition(on_bytes=invert, on_pixels=lambda pixels, ids: pixels / 2)
    inverted = ImageArrays(images_NCHW=255 - split.images_NCHW, labels_N=split.labels_N)
    read = [
        images_of(inputs, "inverted", definition, batch_size=10)
        for inputs in (inputs_of(split, normalise), inputs_of(inverted, normalise, is_changed=True))
    ]
    expected = normalise(torch.from_numpy(255 - split.images_NCHW).float() / 255 / 2)
    assert torch.equal(read[0], expected) and torch.equal(read[1], expected)


def test_changes_to_pixels_come_before_normalisation_and_changes_to_inputs_after(split, normalise):
    def on_pixels(pixels: Tensor, ids: Tensor) -> Tensor:
        assert pixels.min() >= 0 and pixels.max() <= 1
        return torch.zeros_like(pixels) + ids.view(-1, 1, 1, 1) / 1000

    def on_normalised(inputs: Tensor, ids: Tensor) -> Tensor:
        return inputs * 2

    definition = TaskDefinition(on_pixels=on_pixels, on_normalised=on_normalised)
    inputs = images_of(inputs_of(split, normalise), "x", definition, batch_size=10)
    expected = 2 * ((torch.arange(NUM) / 1000).view(-1, 1, 1, 1) - normalise.mean_C11) / normalise.std_C11
    assert torch.allclose(inputs, expected.expand_as(inputs), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("channels", "image_size"), [(1, 28), (3, 32), (3, 224), (3, 1000)])
def test_batch_size_keeps_a_batch_within_what_a_core_holds(channels, image_size):
    dataset = Dataset(
        name="x",
        num_classes=2,
        channels=channels,
        image_size=image_size,
        mean=(0.5,) * channels,
        std=(0.5,) * channels,
        class_names=("a", "b"),
        fingerprint="0" * 16,
        augmentation="none",
        source="made here",
        loaders={},
    )
    size = batch_size_for(dataset, CPU)
    assert 8 <= size <= 500
    assert size == 8 or size * channels * image_size**2 <= 400_000
