from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from raypruning.datasets.base import Dataset, ImageArrays, ImageFiles, Split
from tests.unit.tasks.published.tiny_sets import WNIDS, write_picture


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("RAYPRUNING_CACHE_DIR", str(folder))
    return folder


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


MakeDataset = Callable[..., Dataset]


@pytest.fixture
def make_dataset() -> MakeDataset:
    """A dataset whose test split is given and whose other splits are the same."""

    def make(test: Split, *, name: str = "imagenet", class_names: Sequence[str], channels: int = 3) -> Dataset:
        size = test.images_NCHW.shape[-1] if isinstance(test, ImageArrays) else test.image_size
        return Dataset(
            name=name,
            num_classes=len(class_names),
            channels=channels,
            image_size=size,
            mean=(0.5,) * channels,
            std=(0.25,) * channels,
            class_names=tuple(class_names),
            fingerprint="0123456789abcdef",
            augmentation="none",
            source="made here",
            loaders=dict.fromkeys(("train", "validation", "test"), lambda: test),
        )

    return make


@pytest.fixture
def make_cifar(make_dataset: MakeDataset) -> MakeDataset:
    """Test images of 32 px of ten classes, in no order of class."""

    def make(*, num_test: int = 30, name: str = "cifar10") -> Dataset:
        random = np.random.default_rng(7)
        split = ImageArrays(
            images_NCHW=random.integers(0, 256, (num_test, 3, 32, 32), dtype=np.uint8),
            labels_N=random.permutation(np.arange(num_test) % 10),
        )
        return make_dataset(split, name=name, class_names=[f"c{label}" for label in range(10)])

    return make


@pytest.fixture
def make_imagenet(tmp_path: Path, make_dataset: MakeDataset) -> MakeDataset:
    """Two validation pictures of each of twelve classes, as files of a folder of classes."""

    def make(*, image_size: int = 224) -> Dataset:
        paths, labels = [], []
        for number in range(24):
            label = number // 2
            path = tmp_path / "val" / WNIDS[label] / f"ILSVRC2012_val_{number:08d}.JPEG"
            write_picture(path, seed=number)
            paths.append(str(path))
            labels.append(label)
        split = ImageFiles(paths=tuple(paths), labels_N=np.array(labels, np.int64), image_size=image_size)
        return make_dataset(split, class_names=WNIDS)

    return make
