"""What pruning does to each class of a sweep, from stored predictions."""

# N images, K networks

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, get_args

import numpy as np

from raypruning.analysis.class_impact import Answers, Impact, PopulationImpact, population_impact
from raypruning.analysis.metrics import metric_of
from raypruning.analysis.multiple import Correction
from raypruning.app.choosing import chosen_populations, chosen_tasks
from raypruning.app.read import read_sweep
from raypruning.core.populations import Population, dense_population
from raypruning.core.records import SweepResults, Task
from raypruning.errors import SpecError, StoreError
from raypruning.runtime.store import ObjectStore


class ImpactRequest(NamedTuple):
    """Which networks of a sweep are compared on which tasks, and how.

    Attributes:
        tasks: names or patterns such as `corruption/*/3`; all of the sweep's when empty.
        methods, budgets, ratios: the pruned networks; all of the sweep's when empty. Ratios as they were asked for.
        correction: of p-values, over the classes of a task.
        level: up to which an adjusted p-value is significant, in (0, 1).
    """

    sweep: str
    tasks: Sequence[str] = ()
    methods: Sequence[str] = ()
    budgets: Sequence[int] = ()
    ratios: Sequence[float] = ()
    correction: str = "bh"
    level: float = 0.05


def impact(store: ObjectStore, request: ImpactRequest) -> Impact:
    """Every class before and after, for each task, method, budget and ratio. Trains and writes nothing.

    Raises:
        SpecError: the request names something that is not there or not allowed.
        StoreError: a stored file is damaged.
    """
    return impact_of(store, read_sweep(store, request.sweep), request)


def impact_of(store: ObjectStore, results: SweepResults, request: ImpactRequest) -> Impact:
    """The same of a sweep that was read already."""
    correction = _correction(request.correction)
    if not 0 < request.level < 1:
        raise SpecError(f"--level must be in (0, 1), got {request.level:g}; write 0.05 for 5 %")
    populations = chosen_populations(results, methods=request.methods, budgets=request.budgets, ratios=request.ratios)
    dense = dense_population(results)
    if dense is None:
        raise SpecError(f"no dense network of the sweep {request.sweep} was measured: nothing to compare with")
    names = chosen_tasks(request.tasks, [task.name for task in results.tasks], sweep=request.sweep)
    tasks = [task for task in results.tasks if task.name in names]
    counted = [task for task in tasks if metric_of(task.metric).counts]
    if not counted:
        raise SpecError(
            f"no task of {', '.join(names)} tells a class of each image: impact is for classification, not segmentation"
        )
    return Impact(
        sweep=request.sweep,
        storage=store.uri,
        model=results.spec.model.name,
        dataset=results.spec.data.name,
        class_names=results.class_names,
        correction=correction,
        level=request.level,
        populations=tuple(
            one
            for task in counted
            for one in _on_task(store, task, populations, dense=dense, correction=correction, level=request.level)
        ),
        left_out=tuple(task.name for task in tasks if task not in counted),
    )


def _correction(typed: str) -> Correction:
    for one in get_args(Correction):
        if typed == one:
            return one  # type: ignore[no-any-return]
    raise SpecError(f"--correction must be bh (Benjamini-Hochberg), holm or none, got {typed}")


def _on_task(
    store: ObjectStore,
    task: Task,
    populations: Sequence[Population],
    *,
    dense: Population,
    correction: Correction,
    level: float,
) -> list[PopulationImpact]:
    label_N, dense_answers = _answers(store, dense, task)
    found = []
    for population in populations:
        own_label_N, pruned_answers = _answers(store, population, task)
        if not np.array_equal(label_N, own_label_N):
            raise StoreError(f"{task.name}: networks of the sweep were measured on different images")
        found.append(
            population_impact(
                task.name,
                population,
                dense=dense_answers,
                pruned=pruned_answers,
                label_N=label_N,
                correction=correction,
                level=level,
            )
        )
    return found


def _answers(store: ObjectStore, population: Population, task: Task) -> tuple[np.ndarray, Answers]:
    """True classes of the images of a task, and which images each network has right."""
    rights, labels = [], []
    for network in population.networks:
        arrays = store.predictions(network.evaluations[task.name])
        labels.append(arrays["label"])
        rights.append(arrays["predicted"] == arrays["label"])
    if any(not np.array_equal(labels[0], label_N) for label_N in labels[1:]):
        raise StoreError(f"{task.name}: networks of the sweep were measured on different images")
    return labels[0], Answers(population.seeds, np.stack(rights))
