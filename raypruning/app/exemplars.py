"""Which test images the pruned networks of a sweep forget, from stored predictions."""

# N images, K networks

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, get_args

import numpy as np

from raypruning.analysis.exemplars import Exemplars, PopulationExemplars, population_exemplars
from raypruning.analysis.metrics import metric_of
from raypruning.analysis.modes import MIN_SEEDS, Answers, Ties
from raypruning.app.choosing import chosen_populations, chosen_tasks
from raypruning.app.read import read_sweep
from raypruning.core.populations import Population, dense_population
from raypruning.core.records import SweepResults, Task
from raypruning.errors import SpecError, StoreError
from raypruning.runtime.store import ObjectStore


class ExemplarsRequest(NamedTuple):
    """Which networks of a sweep are compared on which tasks, and how.

    Attributes:
        tasks: names or patterns such as `corruption/*/3`; all of the sweep's when empty.
        methods, budgets, ratios: the pruned networks; all of the sweep's when empty. Ratios as they were asked for.
        ties: `undecided` or `largest`, see `modes.differ`.
    """

    sweep: str
    tasks: Sequence[str] = ()
    methods: Sequence[str] = ()
    budgets: Sequence[int] = ()
    ratios: Sequence[float] = ()
    ties: str = "undecided"


def exemplars(store: ObjectStore, request: ExemplarsRequest) -> Exemplars:
    """The exemplars of each task, method, budget and ratio, with null rates. Trains and writes nothing.

    Raises:
        SpecError: the request names something that is not there or not allowed, or networks of one seed alone.
        StoreError: a stored file is damaged.
    """
    return exemplars_of(store, read_sweep(store, request.sweep), request)


def exemplars_of(store: ObjectStore, results: SweepResults, request: ExemplarsRequest) -> Exemplars:
    """The same of a sweep that was read already."""
    ties = _ties(request.ties)
    chosen = chosen_populations(results, methods=request.methods, budgets=request.budgets, ratios=request.ratios)
    dense = dense_population(results)
    seeds = set(dense.seeds) if dense else set()
    populations = [one for one in chosen if len(seeds.intersection(one.seeds)) >= MIN_SEEDS]
    if dense is None or not populations:
        raise SpecError(_one_seed(results))
    names = chosen_tasks(request.tasks, [task.name for task in results.tasks], sweep=request.sweep)
    tasks = [task for task in results.tasks if task.name in names]
    counted = [task for task in tasks if metric_of(task.metric).counts]
    if not counted:
        raise SpecError(
            f"no task of {', '.join(names)} tells a class of each image: pie is for classification, not segmentation"
        )
    return Exemplars(
        sweep=request.sweep,
        storage=store.uri,
        model=results.spec.model.name,
        dataset=results.spec.data.name,
        class_names=results.class_names,
        ties=ties,
        populations=tuple(
            one for task in counted for one in _on_task(store, task, populations, dense=dense, ties=ties)
        ),
        left_out=tuple(task.name for task in tasks if task not in counted),
        too_few=tuple((one.method, one.budget, one.ratio) for one in chosen if one not in populations),
    )


def _ties(typed: str) -> Ties:
    for one in get_args(Ties):
        if typed == one:
            return one  # type: ignore[no-any-return]
    raise SpecError(f"--ties must be undecided (no exemplar) or largest (the largest class counts), got {typed}")


def _one_seed(results: SweepResults) -> str:
    name, num = results.spec.name, len(results.spec.seeds)
    has = "has one seed" if num == 1 else f"has {num} seeds, but no ratio at which two of them were measured"
    return (
        f"pie compares the most common answers of many networks, and the sweep {name} {has}: "
        f"prune-cli sweep {name} --population 10 makes ten"
    )


def _on_task(
    store: ObjectStore, task: Task, populations: Sequence[Population], *, dense: Population, ties: Ties
) -> list[PopulationExemplars]:
    label_N, dense_answers = _answers(store, dense, task)
    found = []
    for population in populations:
        own_label_N, pruned_answers = _answers(store, population, task)
        if not np.array_equal(label_N, own_label_N):
            raise StoreError(_other_images(task))
        found.append(
            population_exemplars(
                task.name, population, dense=dense_answers, pruned=pruned_answers, label_N=label_N, ties=ties
            )
        )
    return found


def _answers(store: ObjectStore, population: Population, task: Task) -> tuple[np.ndarray, Answers]:
    """True classes of the images of a task, and what each network answers."""
    predicted, labels = [], []
    for network in population.networks:
        arrays = store.predictions(network.evaluations[task.name])
        predicted.append(arrays["predicted"])
        labels.append(arrays["label"])
    if any(not np.array_equal(labels[0], label_N) for label_N in labels[1:]):
        raise StoreError(_other_images(task))
    return labels[0], Answers(population.seeds, np.stack(predicted))


def _other_images(task: Task) -> str:
    return f"{task.name}: networks of the sweep were measured on different images"
