"""What every task must do. Subclass `TaskContract` in a test module, and give it your task's name.

class TestFog(TaskContract):
    @pytest.fixture
    def task_name(self):
        return "fog/3"
"""

# ruff: noqa: D102, TID253  (the name of a test is its description; a test of images needs torch)

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from raypruning.core.records import Task
from raypruning.datasets.base import Dataset
from raypruning.datasets.masked_files import MaskedFiles
from raypruning.tasks.task import describe_task, resolve_task
from raypruning.testing.made_up import made_up_dataset


class TaskContract:
    """The tests. Give the fixture `task_name`; replace `images_NCHW` for a task that takes other images.

    For a task with images of its own, replace `dataset` by one that it fits, and `data_dir` by where its images are.
    """

    @pytest.fixture
    def task_name(self) -> str:
        raise NotImplementedError("a subclass of TaskContract needs a fixture `task_name`")

    @pytest.fixture
    def dataset(self) -> Dataset:
        """What the network was trained on."""
        return made_up_dataset()

    @pytest.fixture
    def data_dir(self) -> Path | None:
        """Where images of a task's own are."""
        return None

    @pytest.fixture
    def task(self, task_name: str, dataset: Dataset, data_dir: Path | None) -> Task:
        """The task's record on that dataset."""
        return describe_task(task_name, dataset, data_dir=data_dir)

    @pytest.fixture(params=[1, 3], ids=["grey", "colour"])
    def images_NCHW(self, request: pytest.FixtureRequest) -> Tensor:
        """Pixels in [0, 1]."""
        return torch.rand(6, request.param, 32, 32, generator=torch.Generator().manual_seed(0))

    @pytest.fixture
    def ids_N(self, images_NCHW: Tensor) -> Tensor:
        """Numbers of the images in the test set, neither from 0 nor in order."""
        return torch.arange(len(images_NCHW)).flip(0) * 97 + 3

    def changed(self, task_name: str, images_NCHW: Tensor, ids_N: Tensor) -> Tensor:
        """The images as the network would get them, from a definition that is resolved anew, without normalisation."""
        definition = resolve_task(task_name)
        if definition.on_bytes is not None:
            bytes_NCHW = (images_NCHW * 255.0).round().to(torch.uint8)
            changed_NCHW = definition.on_bytes(bytes_NCHW, ids_N)
            assert changed_NCHW.dtype == torch.uint8
            images_NCHW = changed_NCHW.float() / 255.0
        if definition.on_pixels is not None:
            images_NCHW = definition.on_pixels(images_NCHW, ids_N)
        if definition.on_normalised is not None:
            images_NCHW = definition.on_normalised(images_NCHW, ids_N)
        return images_NCHW

    def test_task_states_its_source_and_version(self, task_name: str) -> None:
        definition = resolve_task(task_name)
        assert definition.source.strip()
        assert definition.version >= 1

    def test_record_has_the_name_and_length_of_the_task(
        self, task: Task, task_name: str, dataset: Dataset, data_dir: Path | None
    ) -> None:
        open_examples = resolve_task(task_name).examples
        images = open_examples(dataset, data_dir) if open_examples else dataset.split("test")
        assert (task.name, task.dataset, task.num_examples) == (task_name, dataset.name, len(images))

    def test_record_survives_json(self, task: Task) -> None:
        assert Task.model_validate_json(task.model_dump_json()) == task

    def test_nominal_task_exists_and_is_its_own(self, task_name: str) -> None:
        nominal = resolve_task(task_name).nominal
        assert resolve_task(nominal).nominal == nominal

    def test_task_that_changes_images_says_how(self, task_name: str) -> None:
        definition = resolve_task(task_name)
        if definition.examples is None:
            changes = any(change is not None for change in definition.changes)
            assert bool(definition.corruption) == changes, "`corruption` tells two tasks on the same data apart"

    def test_fingerprint_is_stable_and_depends_on_the_images(
        self, task: Task, task_name: str, dataset: Dataset, data_dir: Path | None
    ) -> None:
        assert describe_task(task_name, dataset, data_dir=data_dir).fingerprint == task.fingerprint
        if resolve_task(task_name).examples is None:
            other = describe_task(task_name, replace(dataset, fingerprint="e" * 20), data_dir=data_dir)
            assert other.fingerprint != task.fingerprint

    def test_images_of_its_own_have_labels_among_the_classes_that_count(
        self, task_name: str, dataset: Dataset, data_dir: Path | None
    ) -> None:
        open_examples = resolve_task(task_name).examples
        if open_examples is None:
            return
        examples = open_examples(dataset, data_dir)
        assert not isinstance(examples.split, MaskedFiles)
        counted = set(range(dataset.num_classes) if examples.classes is None else examples.classes)
        assert set(examples.split.labels_N.tolist()) <= counted <= set(range(dataset.num_classes))
        assert all(set(others) <= counted for others in examples.also_right.values())
        assert examples.positions_N is None or len(examples.positions_N) == len(examples)

    def test_images_keep_their_number_shape_and_type(self, task_name: str, images_NCHW: Tensor, ids_N: Tensor) -> None:
        after_NCHW = self.changed(task_name, images_NCHW, ids_N)
        assert after_NCHW.shape == images_NCHW.shape  # so that the i-th label is still that of the i-th image
        assert after_NCHW.dtype == images_NCHW.dtype
        assert bool(torch.isfinite(after_NCHW).all())

    def test_pixels_stay_pixels(self, task_name: str, images_NCHW: Tensor, ids_N: Tensor) -> None:
        on_pixels = resolve_task(task_name).on_pixels
        after_NCHW = images_NCHW if on_pixels is None else on_pixels(images_NCHW, ids_N)
        assert after_NCHW.min() >= 0.0 and after_NCHW.max() <= 1.0

    def test_task_is_deterministic(self, task_name: str, images_NCHW: Tensor, ids_N: Tensor) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            first_NCHW = self.changed(task_name, images_NCHW, ids_N)
            torch.manual_seed(2)
            again_NCHW = self.changed(task_name, images_NCHW, ids_N)
        assert torch.equal(first_NCHW, again_NCHW)

    def test_image_is_changed_alike_whatever_the_batch_and_its_order(
        self, task_name: str, images_NCHW: Tensor, ids_N: Tensor
    ) -> None:
        whole_NCHW = self.changed(task_name, images_NCHW, ids_N)
        order = torch.tensor([3, 0, 5, 1, 4, 2])[: len(images_NCHW)]
        assert torch.equal(self.changed(task_name, images_NCHW[order], ids_N[order]), whole_NCHW[order])
        for i in range(len(images_NCHW)):
            alone_NCHW = self.changed(task_name, images_NCHW[i : i + 1], ids_N[i : i + 1])
            assert torch.equal(alone_NCHW[0], whole_NCHW[i])

    def test_images_given_are_left_alone(self, task_name: str, images_NCHW: Tensor, ids_N: Tensor) -> None:
        before_NCHW, before_N = images_NCHW.clone(), ids_N.clone()
        self.changed(task_name, images_NCHW, ids_N)
        assert torch.equal(images_NCHW, before_NCHW)
        assert torch.equal(ids_N, before_N)
