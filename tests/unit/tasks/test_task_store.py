"""Changed test sets on disk: made once, noticed when damaged, shared."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from raypruning.datasets.base import Dataset, ImageArrays
from raypruning.tasks import task_store

CPU = torch.device("cpu")
NUM = 2300  # Two batches and a part of one.


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RAYPRUNING_CACHE_DIR", str(tmp_path))
    return tmp_path


@pytest.fixture
def images_NCHW() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (NUM, 1, 4, 4), dtype=np.uint8)


@pytest.fixture
def dataset(images_NCHW: np.ndarray) -> Dataset:
    split = ImageArrays(images_NCHW=images_NCHW, labels_N=np.zeros(NUM, np.int64))
    return Dataset(
        name="made up",
        num_classes=1,
        channels=1,
        image_size=4,
        mean=(0.5,),
        std=(0.5,),
        class_names=("one",),
        fingerprint="f" * 20,
        augmentation="none",
        source="this test",
        loaders=dict.fromkeys(("train", "validation", "test"), lambda: split),
    )


@pytest.fixture
def made() -> list[int]:
    """Ids that were changed, in the order in which that happened."""
    return []


@pytest.fixture
def opened(dataset: Dataset, made: list[int]) -> Callable[..., np.ndarray]:
    def invert(images: Tensor, ids: Tensor) -> Tensor:
        made.extend(ids.tolist())
        return 255 - images

    def open_set(fingerprint: str = "a", **options) -> np.ndarray:
        return task_store.open_set(
            dataset, task="inverted", fingerprint=fingerprint, change=invert, device=CPU, **options
        )

    return open_set


def test_a_set_is_made_once_and_then_mapped_from_disk(opened, made: list[int], images_NCHW: np.ndarray):
    assert not task_store.is_stored("a")
    for _ in range(2):
        found = opened()
        assert np.array_equal(found, 255 - images_NCHW)
        assert isinstance(found, np.memmap) and not found.flags.writeable
    assert made == list(range(NUM))
    assert task_store.is_stored("a") and not task_store.is_stored("b")


def test_a_set_is_the_same_whatever_the_threads(opened, images_NCHW: np.ndarray):
    assert np.array_equal(opened("a", num_threads=3), opened("b"))


def test_another_task_is_another_set(opened, made: list[int]):
    opened("a")
    opened("b")
    assert len(made) == 2 * NUM
    assert [(one.task, one.dataset) for one in task_store.stored_sets()] == [("inverted", "made up")] * 2


def test_a_set_whose_bytes_changed_is_made_again(opened, made: list[int], images_NCHW: np.ndarray, caplog):
    opened()
    (stored,) = task_store.stored_sets()
    (path,) = stored.folder.glob("*.npy")
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    assert np.array_equal(opened(), 255 - images_NCHW)
    assert len(made) == 2 * NUM
    assert "are damaged and made again" in caplog.text


def test_what_was_killed_while_it_was_made_does_not_look_finished(opened, made: list[int], dataset: Dataset):
    class Killed(BaseException):
        pass

    def killed(images: Tensor, ids: Tensor) -> Tensor:
        if int(ids[0]) > 0:
            raise Killed
        return images

    with pytest.raises(Killed):
        task_store.open_set(dataset, task="inverted", fingerprint="a", change=killed, device=CPU)
    assert not task_store.is_stored("a") and task_store.stored_sets() == []
    opened()
    assert len(made) == NUM


def test_several_workers_of_a_node_make_a_set_once(opened, made: list[int]):
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: opened(), range(4)))
    assert len(made) == NUM
    assert all(np.array_equal(one, found[0]) for one in found)


def test_a_deleted_set_is_gone_and_can_be_made_again(opened, made: list[int], cache: Path):
    opened()
    (stored,) = task_store.stored_sets()
    assert stored.num_bytes > NUM * 16
    task_store.delete_set(stored)
    assert task_store.stored_sets() == [] and list((cache / "tasks").iterdir()) == []
    opened()
    assert len(made) == 2 * NUM
