"""Every registered dataset passes the suite that plugins have to pass, if its images are on this machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raypruning.core.records import DataChoice
from raypruning.datasets.base import Dataset
from raypruning.datasets.resolve import open_dataset
from raypruning.errors import DataError
from raypruning.testing.dataset_contract import DatasetContract

DATA_DIR = Path(__file__).parents[2].parent / "shared" / "data"


def opens(name: str, *, data_dir: Path | None = None) -> Callable[[], Dataset]:
    return lambda: open_dataset(DataChoice(name=name), data_dir=data_dir, download=False)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    for part, num_each in (("train", 40), ("test", 5)):
        for label in ("cat", "dog"):
            folder = root / part / label
            folder.mkdir(parents=True)
            for i in range(num_each):
                Image.fromarray(random.integers(0, 256, (40, 48, 3), np.uint8)).save(folder / f"{i}.png")
    return root


class TestEmbedded(DatasetContract):
    @pytest.fixture(params=["strokes", "digits"])
    def opener(self, request: pytest.FixtureRequest) -> Callable[[], Dataset]:
        return opens(request.param)


class TestImageFolder(DatasetContract):
    @pytest.fixture
    def opener(self, pictures: Path) -> Callable[[], Dataset]:
        return opens(f"folder/{pictures}")


class OnThisMachine(DatasetContract):
    @pytest.fixture
    def opener(self, dataset_name: str) -> Callable[[], Dataset]:
        opener = opens(dataset_name, data_dir=DATA_DIR)
        try:
            opener()
        except DataError as error:
            pytest.skip(f"{dataset_name} is not in {DATA_DIR}: {error}")
        return opener


class TestReal(OnThisMachine):
    @pytest.fixture(params=["mnist", "fashion_mnist"])
    def dataset_name(self, request: pytest.FixtureRequest) -> str:
        return request.param


@pytest.mark.slow  # 60 000 pictures to decode
class TestRealPictures(OnThisMachine):
    @pytest.fixture(params=["cifar10", "cifar100"])
    def dataset_name(self, request: pytest.FixtureRequest) -> str:
        return request.param
