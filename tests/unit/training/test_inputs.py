"""Predictions against a plain loop over the test images."""

# N images, C classes or channels, H W height and width

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from raypruning.core.records import Task
from raypruning.datasets.base import Dataset, ImageArrays
from raypruning.tasks.task import TaskDefinition, resolve_task
from raypruning.training.evaluation import Normalisation, TaskImages, batch_size_for, predict
from raypruning.training.images import ResidentImages

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


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(8 * 36, CLASSES)
    )


def task_of(fingerprint: str) -> Task:
    return Task(name="nominal", dataset="made up", nominal="nominal", num_examples=NUM, fingerprint=fingerprint)


def of_logits(logits_NC: Tensor) -> nn.Module:
    """A network that answers with fixed logits, image by image."""

    class Fixed(nn.Module):
        def forward(self, ids: Tensor) -> Tensor:
            return logits_NC[ids]

    return Fixed()


def in_batches(num: int, *, size: int) -> Iterator[Tensor]:
    return iter(torch.arange(num).split(size))


def test_predictions_equal_a_plain_loop_over_single_images(split, normalise, model):
    task_images = TaskImages(ResidentImages(split, CPU), normalise, max_bytes=1 << 20)
    batches = task_images.batches(task_of("nominal"), resolve_task("nominal"), batch_size=8)
    found = predict(model.train(), batches, task_images.labels_N, precision="float32")

    model.eval()
    num_wrong = 0
    for index in range(NUM):
        pixels_CHW = split.images_NCHW[index].astype(np.float64) / 255
        normal = (pixels_CHW - np.array([0.4, 0.5, 0.6])[:, None, None]) / np.array([0.2, 0.3, 0.4])[:, None, None]
        with torch.no_grad():
            logits_C = model(torch.tensor(normal[None], dtype=torch.float32))[0].double().numpy()
        label = int(split.labels_N[index])
        ranking = sorted(range(CLASSES), key=lambda c: (-logits_C[c], c))
        assert found.predicted_N[index] == ranking[0]
        assert found.is_top5_N[index] == (label in ranking[:5])
        log_probability = logits_C[label] - np.log(np.exp(logits_C).sum())
        # float16 has 11 bits: a relative error of 2^-11; float32 arithmetic adds less.
        assert found.log_probability_N[index] == pytest.approx(log_probability, rel=2**-10, abs=1e-4)
        num_wrong += ranking[0] != label
    assert found.num_wrong == num_wrong
    assert found.loss == pytest.approx(-found.log_probability_N.astype(np.float64).mean())
    assert np.array_equal(found.labels_N, split.labels_N)


def test_predictions_do_not_depend_on_how_often_images_are_read_again(split, normalise, model):
    task_images = TaskImages(ResidentImages(split, CPU), normalise, max_bytes=1 << 20)
    noise = resolve_task("noise/uniform/0.5")
    read = [
        torch.cat(list(task_images.batches(task_of("noise"), noise, batch_size=8))),
        torch.cat(list(task_images.batches(task_of("noise"), noise, batch_size=8))),
        torch.cat(
            list(
                TaskImages(ResidentImages(split, CPU), normalise, max_bytes=0).batches(
                    task_of("n"), noise, batch_size=8
                )
            )
        ),
    ]
    assert torch.equal(read[0], read[1]) and torch.equal(read[0], read[2])


def test_inputs_of_more_tasks_than_fit_are_made_again(split, normalise):
    made: list[int] = []

    def count(pixels: Tensor, ids: Tensor) -> Tensor:
        made.append(len(ids))
        return pixels

    definition = TaskDefinition(on_pixels=count)
    one_task = NUM * 3 * 8 * 8 * 4
    task_images = TaskImages(ResidentImages(split, CPU), normalise, max_bytes=one_task)
    for key in ("a", "a", "b", "a"):
        assert sum(len(batch) for batch in task_images.batches(task_of(key), definition, batch_size=NUM)) == NUM
    assert made == [NUM] * 3  # The second "a" was kept, and "b" drove it out.


def test_bytes_are_changed_before_anything_else_whether_they_lie_on_disk_or_not(split, normalise):
    def invert(images: Tensor, ids: Tensor) -> Tensor:
        assert images.dtype == torch.uint8
        return 255 - images

    definition = TaskDefinition(on_bytes=invert, on_pixels=lambda pixels, ids: pixels / 2)
    on_disk = ResidentImages(ImageArrays(images_NCHW=255 - split.images_NCHW, labels_N=split.labels_N), CPU)
    read = [
        torch.cat(list(images.batches(task_of("inverted"), definition, batch_size=10)))
        for images in (
            TaskImages(ResidentImages(split, CPU), normalise, max_bytes=0),
            TaskImages(ResidentImages(split, CPU), normalise, max_bytes=0, changed=lambda task, definition: on_disk),
        )
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
    batches = TaskImages(ResidentImages(split, CPU), normalise, max_bytes=0).batches(
        task_of("x"), definition, batch_size=10
    )
    inputs = torch.cat(list(batches))
    expected = 2 * ((torch.arange(NUM) / 1000).view(-1, 1, 1, 1) - normalise.mean_C11) / normalise.std_C11
    assert torch.allclose(inputs, expected.expand_as(inputs), rtol=1e-6, atol=1e-6)


def test_predictions_with_equal_logits_take_the_lower_class():
    logits_NC = torch.tensor([[1.0, 3.0, 3.0, 0.0], [2.0, 2.0, 2.0, 2.0], [0.0, 0.0, 0.0, 1.0]])
    found = predict(of_logits(logits_NC), in_batches(3, size=2), torch.tensor([2, 0, 3]), precision="float32")
    assert found.predicted_N.tolist() == [1, 0, 3]
    assert found.num_wrong == 1


def test_top5_with_equal_logits_takes_the_lower_classes():
    # A network without any weights left: everything is equal, and the first five classes are 0 to 4.
    found = predict(of_logits(torch.zeros(10, 10)), in_batches(10, size=4), torch.arange(10), precision="float32")
    assert found.is_top5_N.tolist() == [True] * 5 + [False] * 5


def test_top5_counts_the_classes_with_a_higher_logit():
    logits_NC = torch.arange(10.0).repeat(10, 1)
    found = predict(of_logits(logits_NC), in_batches(10, size=10), torch.arange(10), precision="float32")
    assert found.is_top5_N.tolist() == [False] * 5 + [True] * 5


def test_log_probability_below_what_can_be_stored_stays_finite():
    logits_NC = torch.tensor([[0.0, 1e6], [0.0, 3e38], [0.0, 100.0]])
    found = predict(of_logits(logits_NC), in_batches(3, size=3), torch.tensor([0, 0, 0]), precision="float32")
    assert found.log_probability_N.dtype == np.float16
    assert found.log_probability_N.tolist() == [-60000.0, -60000.0, -100.0]
    assert found.loss == pytest.approx(120100 / 3)


def test_log_probability_of_outputs_that_are_not_numbers_is_not_a_number():
    found = predict(
        of_logits(torch.full((2, 3), torch.nan)), in_batches(2, size=2), torch.tensor([0, 1]), precision="float32"
    )
    assert np.isnan(found.log_probability_N).all()


def test_bfloat16_predictions_are_near_the_float32_ones(split, normalise, model):
    task_images = TaskImages(ResidentImages(split, CPU), normalise, max_bytes=1 << 20)
    both = [
        predict(
            model,
            task_images.batches(task_of("nominal"), resolve_task("nominal"), batch_size=16),
            task_images.labels_N,
            precision=precision,
        )
        for precision in ("float32", "bfloat16")
    ]
    difference = np.abs(both[0].log_probability_N - both[1].log_probability_N).max()
    # bfloat16 has 8 bits: inputs up to 3 in size, two layers, logits of about 1.
    assert 0 < difference < 0.1


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
