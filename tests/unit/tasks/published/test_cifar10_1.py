from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from raypruning.datasets.base import Dataset, derive
from raypruning.errors import DataError
from raypruning.tasks.published.cifar10_1 import cifar10_1, cifar10_1_v4, open_cifar10_1
from raypruning.tasks.published.facts import CIFAR10_1_V6

TINY = replace(CIFAR10_1_V6, num_images=20)


@pytest.fixture
def dataset(make_cifar: Callable[..., Dataset]) -> Dataset:
    return make_cifar()


def write_set(folder: Path, *, count: int = 20, version: str = "v6") -> np.ndarray:
    folder.mkdir(parents=True, exist_ok=True)
    images = np.random.default_rng(3).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    np.save(folder / f"cifar10.1_{version}_data.npy", images)
    np.save(folder / f"cifar10.1_{version}_labels.npy", (np.arange(count) % 10).astype(np.uint8))
    return images


@pytest.mark.parametrize("place", ["", "CIFAR-10.1", "CIFAR-10.1/datasets"])
def test_the_set_is_found_where_it_may_lie(dataset: Dataset, data_dir: Path, place: str) -> None:
    images = write_set(data_dir / place)
    examples = open_cifar10_1(TINY, dataset, data_dir)
    np.testing.assert_array_equal(examples.split.images_NCHW, images.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(examples.split.labels_N, np.arange(20) % 10)
    assert examples.split.labels_N.dtype == np.int64
    assert (examples.positions_N, examples.classes) == (None, None)


@pytest.mark.parametrize(("task", "version", "count"), [(cifar10_1, "v6", 2000), (cifar10_1_v4, "v4", 2021)])
def test_both_versions_have_their_published_number(
    dataset: Dataset, data_dir: Path, task: Callable[..., object], version: str, count: int
) -> None:
    write_set(data_dir, count=count, version=version)
    opener = task("").examples  # type: ignore[attr-defined]
    assert len(opener(dataset, data_dir)) == count


def test_a_part_of_the_datasets_test_set_changes_nothing(dataset: Dataset, data_dir: Path) -> None:
    write_set(data_dir)
    assert len(open_cifar10_1(TINY, derive(dataset, test_images=10), data_dir)) == 20


def test_another_size_pads_as_the_dataset_does(dataset: Dataset, data_dir: Path) -> None:
    images = write_set(data_dir)
    split = open_cifar10_1(TINY, derive(dataset, image_size=34), data_dir).split
    np.testing.assert_array_equal(split.images_NCHW[:, :, 1:33, 1:33], images.transpose(0, 3, 1, 2))


def test_fingerprint_changes_with_a_label(dataset: Dataset, data_dir: Path) -> None:
    write_set(data_dir)
    before = open_cifar10_1(TINY, dataset, data_dir).fingerprint
    np.save(data_dir / "cifar10.1_v6_labels.npy", np.arange(20)[::-1] % 10)
    assert open_cifar10_1(TINY, dataset, data_dir).fingerprint != before


def test_another_number_of_images_or_labels_is_refused(dataset: Dataset, data_dir: Path) -> None:
    write_set(data_dir, count=19)
    with pytest.raises(DataError, match=r"uint8 \(19, 32, 32, 3\), expected .*20.*md5 4fcae82cb1326aec9"):
        open_cifar10_1(TINY, dataset, data_dir)
    write_set(data_dir)
    np.save(data_dir / "cifar10.1_v6_labels.npy", np.zeros(19, np.int64))
    with pytest.raises(DataError, match="has 19 labels, expected 20"):
        open_cifar10_1(TINY, dataset, data_dir)


def test_missing_files_are_named(dataset: Dataset, data_dir: Path) -> None:
    with pytest.raises(DataError, match=r"data/cifar10\.1_v6_data\.npy.*CIFAR-10\.1/datasets/cifar10\.1_v6_data\.npy"):
        open_cifar10_1(TINY, dataset, data_dir)
    write_set(data_dir)
    (data_dir / "cifar10.1_v6_labels.npy").unlink()
    with pytest.raises(DataError, match=r"v6_labels\.npy is missing"):
        open_cifar10_1(TINY, dataset, data_dir)


def test_files_of_the_first_release_are_not_taken_for_a_later_one(dataset: Dataset, data_dir: Path) -> None:
    np.save(data_dir / "cifar10.1-data.npy", np.zeros((20, 32, 32, 3), np.uint8))
    with pytest.raises(DataError, match="nothing found"):
        open_cifar10_1(TINY, dataset, data_dir)
