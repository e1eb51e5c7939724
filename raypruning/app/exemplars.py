"""Which test images the pruned networks of a sweep forget, from stored predictions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, get_args

from raypruning.analysis.exemplars import Exemplars, PopulationExemplars, population_exemplars
from raypruning.analysis.modes import MIN_SEEDS, Ties
from raypruning.app.choosing import chosen_populations
from raypruning.app.predicted import answers, classification_tasks
from raypruning.app.read import read_sweep
from raypruning.core.populations import Population, dense_population
from raypruning.core.records import SweepResults, Task
from raypruning.errors import SpecError
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
    counted, left_out = classification_tasks(results, request.tasks, command="pie")
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
        left_out=left_out,
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
    answered = answers(store, task, (dense, *populations))
    label_N, dense_answers = next(answered)
    return [
        population_exemplars(task.name, population, dense=dense_answers, pruned=own, label_N=label_N, ties=ties)
        for population, (_, own) in zip(populations, answered, strict=True)
    ]
