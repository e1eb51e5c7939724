"""Every registered task passes the suite that plugins have to pass."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from raypruning import registry
from raypruning.datasets.base import Dataset
from raypruning.tasks.task import resolve_task
from raypruning.testing.made_up import made_up_dataset
from raypruning.testing.task_contract import TaskContract

# A family answers for every name below it; some of each, and an amplitude that clips. Every corruption by itself is
# tested in tests/unit/corruptions.
MEMBERS = {
    "noise/uniform/": ["0.1", "2"],
    "noise/uniform_pixel/": ["8", "128"],
    "noise/gaussian/": ["0.1"],
    "corruption/": ["gaussian_noise/3", "zoom_blur/5", "frost/1", "saturate/4"],
    "corruption_cifar/": ["snow/2"],
    "corruption_imagenet/": ["jpeg_compression/3"],
    "corruption_unmoved/": ["elastic_transform/3"],
}
# Of those with images of their own, which tests/unit/tasks/published has in the layouts they are published in.
OWN = ("shift/", "nominal/")
NAMES = [
    name + member for name in registry.tasks.names() if not name.startswith(OWN) for member in MEMBERS.get(name, [""])
]


class TestRegisteredTasks(TaskContract):
    @pytest.fixture(params=NAMES)
    def task_name(self, request: pytest.FixtureRequest) -> str:
        return request.param

    @pytest.fixture
    def dataset(self, task_name: str) -> Dataset:
        definition = resolve_task(task_name)
        name = definition.datasets[0] if definition.datasets else "made up"
        return made_up_dataset(name=name, kind=definition.kind or "classification")


class TestPicturesOfOnesOwn(TaskContract):
    @pytest.fixture(params=["shift/folder/pictures", "nominal/folder/pictures"])
    def task_name(self, request: pytest.FixtureRequest) -> str:
        return request.param

    @pytest.fixture
    def dataset(self) -> Dataset:
        return made_up_dataset(num_test=20, image_size=9)

    @pytest.fixture
    def data_dir(self, tmp_path: Path, dataset: Dataset) -> Path:
        for label in (2, 5):
            folder = tmp_path / "pictures" / dataset.class_names[label]
            folder.mkdir(parents=True)
            Image.new("L", (12, 9), color=20 * label).save(folder / "1.png")
        return tmp_path
