"""Changed test sets on this machine's disk: what there is, made ahead, and cleared."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from raypruning import registry
from raypruning.app.request import resolve_data_dir
from raypruning.core.records import DataChoice
from raypruning.datasets.base import Dataset
from raypruning.datasets.cache import cache_dir
from raypruning.datasets.resolve import open_dataset
from raypruning.errors import DataError, SpecError
from raypruning.reporting.wording import count
from raypruning.tasks import task_store
from raypruning.tasks.task import describe_task, expand_tasks, resolve_task

SET = "test set"


def list_sets(dataset: str | None, *, patterns: Sequence[str]) -> str:
    """A line for each stored set, and their sum."""
    found = _stored(dataset, patterns)
    width = max((len(one.dataset) for one in found), default=0)
    lines = [f"{one.dataset:<{width}}  {_size(one.num_bytes):>9}  {one.task}" for one in found]
    total = sum(one.num_bytes for one in found)
    return "\n".join([*lines, f"{count(len(found), SET)}, {_size(total)} in {cache_dir() / task_store.SHELF}"])


def clear_sets(dataset: str | None, *, patterns: Sequence[str]) -> str:
    """Delete the sets of a dataset, or all. Returns what was freed."""
    found = _stored(dataset, patterns)
    for one in found:
        task_store.delete_set(one)
    return f"deleted {count(len(found), SET)}, {_size(sum(one.num_bytes for one in found))}"


def build_sets(
    dataset: str | None, *, patterns: Sequence[str], clear: bool = False, data_dir: Path | None = None
) -> Iterator[str]:
    """Make the sets that are missing; a line before the disk is spent, then one for each set.

    Args:
        patterns: tasks; all corruptions at severity 3 where there are none.

    Raises: SpecError, DataError.
    """
    if clear:
        raise SpecError("tasks takes one of --build and --clear")
    if dataset is None:
        raise SpecError("tasks --build needs a dataset: prune-cli tasks mnist --build")
    opened = open_dataset(DataChoice(name=dataset), data_dir=resolve_data_dir(data_dir), download=False)
    if not task_store.fits(opened):
        raise DataError(f"{dataset} is too large to be kept corrupted: its tasks are made while they are looked at")
    yield from _build(opened, expand_tasks(patterns or ["corruption/*/3"], dataset=dataset))


def missing_bytes(dataset: Dataset, tasks: Sequence[str]) -> int:
    """What the stored sets of these tasks will take that are not there yet, bytes on one machine."""
    if not task_store.fits(dataset):
        return 0
    return len(_missing(dataset, tasks)) * _bytes_of_a_set(dataset)


def _build(dataset: Dataset, names: Sequence[str]) -> Iterator[str]:
    import torch

    missing = _missing(dataset, names)
    num_bytes = len(missing) * _bytes_of_a_set(dataset)
    yield f"making {count(len(missing), SET)}, {_size(num_bytes)} in {cache_dir() / task_store.SHELF}"
    torch.set_num_threads(1)  # Sets are made by threads of our own.
    for name, fingerprint in missing.items():
        change = resolve_task(name).on_bytes
        assert change is not None
        begin = time.perf_counter()
        task_store.open_set(
            dataset,
            task=name,
            fingerprint=fingerprint,
            change=change,
            device=torch.device("cpu"),
            num_threads=os.cpu_count() or 1,
        )
        yield f"{time.perf_counter() - begin:6.1f} s  {name}"


def _missing(dataset: Dataset, names: Sequence[str]) -> dict[str, str]:
    """Tasks that need a set and have none, with their fingerprints."""
    tasks = [describe_task(name, dataset) for name in names if resolve_task(name).on_bytes is not None]
    return {task.name: task.fingerprint for task in tasks if not task_store.is_stored(task.fingerprint)}


def _bytes_of_a_set(dataset: Dataset) -> int:
    return len(dataset.split("test")) * dataset.channels * dataset.image_size**2


def _stored(dataset: str | None, patterns: Sequence[str]) -> list[task_store.StoredSet]:
    if dataset is not None:
        registry.datasets.check(dataset)
    return [
        one
        for one in task_store.stored_sets()
        if dataset in (None, one.dataset) and (not patterns or any(fnmatchcase(one.task, each) for each in patterns))
    ]


def _size(num_bytes: int) -> str:
    from rich.filesize import decimal

    return decimal(num_bytes)
