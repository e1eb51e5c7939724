"""Changed test sets on disk: made once, checked, memory-mapped, and shared by all workers of a node.

A set is known by its task's fingerprint, which holds that of the data, the change and its version, and by the kind of
device that made it, since another may round a value the other way. It is made under a lock, so that the workers of a
node do not all make the same one; the lock goes with its process, and a set that was not finished does not look it.
"""

# N images, C channels, H W height and width

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from filelock import FileLock

from raypruning.datasets import cache
from raypruning.datasets.base import Dataset, ImageArrays
from raypruning.datasets.decoding import map_threads

if TYPE_CHECKING:
    import torch

    from raypruning.tasks.task import Change

logger = logging.getLogger(__name__)

SHELF = "tasks"
_NAME = "set"
# Of images that are changed at once.
_BATCH = 1000


class StoredSet(NamedTuple):
    """One set on disk."""

    task: str
    dataset: str
    folder: Path
    num_bytes: int


def fits(dataset: Dataset) -> bool:
    """Whether changed test sets of this dataset are kept on disk; others are made as they are looked at."""
    return isinstance(dataset.split("test"), ImageArrays)


def open_set(
    dataset: Dataset, *, task: str, fingerprint: str, change: Change, device: torch.device, num_threads: int = 1
) -> np.ndarray:
    """The changed test images, uint8 (N, C, H, W), read-only: read from disk, or made and kept there.

    A set whose bytes are not those that were written is made again.

    Args:
        task: name, for those who list the sets.
        fingerprint: of the task on this dataset.
        change: uint8 images and their ids -> uint8 images.
        device: makes the set if need be.
        num_threads: of the CPU, to make it.
    """
    key = cache.key_of(fingerprint, device.type)
    found = cache.find(_NAME, key, shelf=SHELF)
    if found is None or cache.content_hash(found.arrays) != found.fingerprint:
        folder = cache.folder_of(_NAME, key, shelf=SHELF)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            found = cache.find(_NAME, key, shelf=SHELF)
            if found is not None and cache.content_hash(found.arrays) != found.fingerprint:
                logger.warning("the images of %s in %s are damaged and made again", task, folder)
                shutil.rmtree(folder, ignore_errors=True)
            found = cache.load_or_build(
                _NAME, key, _builder(dataset, task, change, device=device, num_threads=num_threads), shelf=SHELF
            )
    return found.arrays["images"]


def is_stored(fingerprint: str, *, device_type: str = "cpu") -> bool:
    """Whether a set is there. Its bytes are not looked at."""
    return cache.find(_NAME, cache.key_of(fingerprint, device_type), shelf=SHELF) is not None


def stored_sets() -> list[StoredSet]:
    """All sets on this machine, by dataset and task."""
    found = []
    for folder in sorted((cache.cache_dir() / SHELF).glob(f"{_NAME}-*/")):
        entry = cache.find(_NAME, folder.name.removeprefix(f"{_NAME}-"), shelf=SHELF)
        if entry is not None:
            num_bytes = sum(path.stat().st_size for path in folder.iterdir())
            found.append(StoredSet(str(entry.facts["task"]), str(entry.facts["dataset"]), folder, num_bytes))
    return sorted(found, key=lambda one: (one.dataset, one.task))


def delete_set(stored: StoredSet) -> None:
    """Free the disk. A process that has the set open goes on with it."""
    shutil.rmtree(stored.folder)
    stored.folder.with_suffix(".lock").unlink(missing_ok=True)


def _builder(
    dataset: Dataset, task: str, change: Change, *, device: torch.device, num_threads: int
) -> Callable[[], cache.Built]:
    def build() -> cache.Built:
        import torch

        split = dataset.split("test")
        assert isinstance(split, ImageArrays)
        changed_NCHW = np.empty(split.images_NCHW.shape, np.uint8)
        ids_N = torch.arange(len(split))

        def make(start: int) -> None:
            images = torch.from_numpy(np.array(split.images_NCHW[start : start + _BATCH])).to(device)
            made = change(images, ids_N[start : start + _BATCH].to(device))
            changed_NCHW[start : start + _BATCH] = made.cpu().numpy()

        map_threads(make, range(0, len(split), _BATCH), num_threads=num_threads)
        return cache.Built({"images": changed_NCHW}, {"task": task, "dataset": dataset.name})

    return build
