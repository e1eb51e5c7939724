"""What pruning does to each class of a sweep, from stored predictions."""

# N images

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, get_args

import numpy as np

from raypruning.analysis import modes
from raypruning.analysis.class_impact import Answers, Impact, PopulationImpact, population_impact
from raypruning.analysis.multiple import Correction
from raypruning.app.choosing import chosen_populations
from raypruning.app.predicted import answers, classification_tasks
from raypruning.app.read import read_sweep
from raypruning.core.populations import Population, dense_population
from raypruning.core.records import SweepResults, Task
from raypruning.errors import SpecError
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
    counted, left_out = classification_tasks(results, request.tasks, command="impact")
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
        left_out=left_out,
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
    answered = answers(store, task, (dense, *populations))
    label_N, dense_answers = next(answered)
    return [
        population_impact(
            task.name,
            population,
            dense=_rights(label_N, dense_answers),
            pruned=_rights(label_N, own),
            label_N=label_N,
            correction=correction,
            level=level,
        )
        for population, (_, own) in zip(populations, answered, strict=True)
    ]


def _rights(label_N: np.ndarray, one: modes.Answers) -> Answers:
    return Answers(one.seeds, one.predicted_KN == label_N)
