"""From what the store holds of a probe to its result."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np

from raypruning.analysis.metrics import metric_of, standard_error
from raypruning.core.plan import Plan
from raypruning.core.ports import Store
from raypruning.core.records import Evaluation, Kind, Probe, ProbeResult, Task
from raypruning.errors import StoreError


def stored_result(
    store: Store,
    probe: Probe,
    tasks: tuple[Task, ...],
    *,
    attempts: int = 0,
    seconds: dict[str, float] | None = None,
    is_new: bool = False,
) -> ProbeResult | None:
    """The join of a stored training and its evaluations on all `tasks`; None if any of them is not there."""
    result = store.training(probe.id)
    if result is None:
        return None
    if result.training == probe.training:
        # One record of it in place of two: a driver keeps thousands of results.
        result = result.model_copy(update={"training": probe.training})
    evaluations = {task.name: store.evaluation(probe.id, task.fingerprint) for task in tasks}
    found = {name: evaluation for name, evaluation in evaluations.items() if evaluation is not None}
    if len(found) < len(tasks):
        return None
    return ProbeResult(
        probe=probe,
        status="done",
        result=result,
        evaluations=found,
        seconds=seconds or {},
        attempts=attempts,
        is_new=is_new,
    )


def weighed(
    result: ProbeResult | None, results: Mapping[str, ProbeResult], *, plan: Plan, store: Store
) -> ProbeResult | None:
    """A result with what a search that weighs losses looks at; the same result for another search.

    Returns: None where predictions turned out to be damaged: the store has moved them away, to be measured again.
    Raises: StoreError: those of the parent are, which everything is compared with.
    """
    if result is None or not result.is_done or result.probe.curve.is_dense or not plan.weighs_losses:
        return result
    parent = results[plan.parent(result.probe.curve.seed).id]
    parents = {
        task.name: _parents_influence_N(store, parent.evaluations[task.name], task.metric)  # type: ignore[arg-type]
        for task in plan.tasks
    }
    try:
        errors = {
            task.name: standard_error(
                _influence_N(store, result.evaluations[task.name], task.metric), parents[task.name]
            )
            for task in plan.tasks
        }
    except StoreError:
        return None
    return result.model_copy(update={"standard_errors": errors})


def _influence_N(store: Store, evaluation: Evaluation, kind: Kind) -> np.ndarray:
    return metric_of(kind).influence(store.predictions(evaluation))


# Each parent is compared with many networks; a hundred arrays of 50 000 images are 40 MB.
_parents_influence_N = functools.lru_cache(maxsize=100)(_influence_N)
