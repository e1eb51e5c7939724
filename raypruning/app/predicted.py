"""What networks of a sweep answered, from stored predictions: the tasks that have answers, and the answers."""

# N images

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from raypruning.analysis.metrics import metric_of
from raypruning.analysis.modes import Answers
from raypruning.app.choosing import chosen_tasks
from raypruning.core.populations import Population
from raypruning.core.records import SweepResults, Task
from raypruning.errors import SpecError, StoreError
from raypruning.runtime.store import ObjectStore


def classification_tasks(
    results: SweepResults, patterns: Sequence[str], *, command: str
) -> tuple[list[Task], tuple[str, ...]]:
    """The tasks asked for that tell a class of each image, and the names of the others.

    Args:
        patterns: names or patterns such as `corruption/*/3`; all tasks when empty.
        command: what needs a class of each image.

    Raises: SpecError: a name that no task has, or none of them tells a class.
    """
    names = chosen_tasks(patterns, [task.name for task in results.tasks], sweep=results.spec.name)
    tasks = [task for task in results.tasks if task.name in names]
    counted = [task for task in tasks if metric_of(task.metric).counts]
    if not counted:
        raise SpecError(
            f"no task of {', '.join(names)} tells a class of each image: {command} is for classification, not "
            "segmentation"
        )
    return counted, tuple(task.name for task in tasks if task not in counted)


def answers(store: ObjectStore, task: Task, populations: Iterable[Population]) -> Iterator[tuple[np.ndarray, Answers]]:
    """True classes of the images of a task, and what each population answers, one population after the other.

    Raises: StoreError: not all of them have seen the same images, or a file is damaged.
    """
    known_N: np.ndarray | None = None
    for population in populations:
        arrays = [store.predictions(network.evaluations[task.name]) for network in population.networks]
        known_N = arrays[0]["label"] if known_N is None else known_N
        if any(not np.array_equal(known_N, one["label"]) for one in arrays):
            raise StoreError(f"{task.name}: networks of the sweep were measured on different images")
        yield known_N, Answers(population.seeds, np.stack([one["predicted"] for one in arrays]))
