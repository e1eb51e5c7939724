"""Recommend a network of a sweep to ship, from stored predictions."""

# N images, R resamples

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np

from raypruning.analysis.bootstrap import Resampler
from raypruning.analysis.certified import resampled_upper_bound
from raypruning.analysis.metrics import metric_of
from raypruning.analysis.paired import CONFIDENCE, discordance, upper_bound
from raypruning.analysis.recommendation import (
    Network,
    Recommendation,
    TaskLoss,
    best,
    cheaper,
    choice_of,
    nearest,
    shared_confidence,
)
from raypruning.app.choosing import Wanted, chosen_tasks
from raypruning.app.read import read_sweep
from raypruning.app.results import read_record
from raypruning.core.records import Curve, ProbeResult, SweepResults, SweepSpec, Task
from raypruning.errors import SpecError
from raypruning.runtime.store import ObjectStore


class RecommendRequest(NamedTuple):
    """What the network must keep to, and what it is chosen among.

    Attributes:
        delta: accuracy that may be lost, in (0, 1); the sweep's own when None, which must then be one.
        tasks: names or patterns such as `corruption/*/3`; all of the sweep's when empty.
        confidence: in (0.5, 1), of all tasks at once.
        methods, budgets, seeds: the curves that compete; all of the sweep's when empty.
    """

    sweep: str
    delta: float | None = None
    tasks: Sequence[str] = ()
    confidence: float = CONFIDENCE
    methods: Sequence[str] = ()
    budgets: Sequence[int] = ()
    seeds: Sequence[int] = ()


def recommend(store: ObjectStore, request: RecommendRequest) -> Recommendation:
    """The largest ratio that stays within delta on every task at the stated confidence. Trains and writes nothing.

    Raises:
        SpecError: the request names something that is not there or not allowed.
        StoreError: a stored file is damaged.
    """
    plan = read_record(store, request.sweep).plan
    if not 0.5 < request.confidence < 1:
        raise SpecError(f"--confidence must be in (0.5, 1), got {request.confidence:g}; write 0.95 for 95 %")
    delta = _delta(request, plan.spec)
    wanted = Wanted.of(plan.spec, methods=request.methods, budgets=request.budgets, seeds=request.seeds)
    # Every curve of the plan counts, searched or not: which ones are must not depend on how they came out.
    curves = [curve for curve in plan.curves if wanted.includes(curve)]
    names = chosen_tasks(request.tasks, [task.name for task in plan.tasks], sweep=request.sweep)
    tasks = [task for task in plan.tasks if task.name in names]
    results = read_sweep(store, request.sweep, deltas=[delta])
    level = shared_confidence(request.confidence, len(curves))
    networks = _networks(store, results, curves, tasks, level=level)
    choices = tuple(choice_of(curve, networks[curve], delta=delta) for curve in curves)
    chosen = best(choices)
    return Recommendation(
        sweep=request.sweep,
        storage=store.uri,
        delta=delta,
        confidence=request.confidence,
        level=level,
        tasks=tuple(task.name for task in tasks),
        choices=choices,
        chosen=chosen,
        cheaper=cheaper(choices, chosen) if chosen else None,
        nearest=None if chosen else nearest(choices),
        potentials=tuple(one for one in results.potentials if one.curve in networks and one.task in names),
        failed=tuple(one for one in results.probes if not one.is_done and _concerns(one.probe.curve, curves)),
    )


def _delta(request: RecommendRequest, spec: SweepSpec) -> float:
    if request.delta is None:
        if len(spec.deltas) > 1:
            typed = " or ".join(f"{delta:g}" for delta in spec.deltas)
            raise SpecError(f"the sweep {request.sweep} has several deltas: --delta {typed}, or any other")
        return spec.deltas[0]
    return request.delta  # `read_sweep` refuses what is not in (0, 1).


def _concerns(curve: Curve, curves: Collection[Curve]) -> bool:
    """Whether it is one of the curves or the parent of one."""
    return curve in curves or (curve.is_parent and curve.seed in {one.seed for one in curves})


def _networks(
    store: ObjectStore, results: SweepResults, curves: Sequence[Curve], tasks: Sequence[Task], *, level: float
) -> dict[Curve, list[Network]]:
    """What was measured of each curve, as far as its parent was."""
    measure = _Measure(store, level=level)
    parents = {one.probe.curve.seed: one for one in results.probes if one.is_done and one.probe.curve.is_parent}
    networks: dict[Curve, list[Network]] = {curve: [] for curve in curves}
    for result in results.probes:
        curve, checkpoint = result.probe.curve, result.checkpoint
        parent = parents.get(curve.seed)
        if curve not in networks or checkpoint is None or parent is None:
            continue
        losses = [measure.loss(result, parent, task) for task in tasks]
        networks[curve].append(Network(curve, result.probe.id, result.ratio_reached, checkpoint.uri, losses))
    return networks


class _Measure:
    """Losses with their upper bounds, at one confidence."""

    def __init__(self, store: ObjectStore, *, level: float) -> None:
        self._store, self._level = store, level
        self._resampler = Resampler()
        self._wrong: dict[tuple[str, str], np.ndarray] = {}  # of parents

    def loss(self, result: ProbeResult, parent: ProbeResult, task: Task) -> TaskLoss:
        """Of a network against its parent on a task."""
        metric = metric_of(task.metric)
        ours, theirs = result.evaluations[task.name], parent.evaluations[task.name]
        if not metric.counts:
            both = [self._store.predictions(one) for one in (ours, theirs)]
            errors_R2 = self._resampler.errors(metric, both, images=task.images)
            bound = resampled_upper_bound(errors_R2[:, 0] - errors_R2[:, 1], confidence=self._level)
            return TaskLoss(task.name, task.num_examples, ours.error - theirs.error, bound)
        key = (parent.probe.id, task.name)
        if key not in self._wrong:
            self._wrong[key] = metric.statistics(self._store.predictions(theirs))[:, 0].astype(bool)
        wrong_N = metric.statistics(self._store.predictions(ours))[:, 0].astype(bool)
        pair = discordance(self._wrong[key], wrong_N)
        return TaskLoss(task.name, pair.num, pair.loss, upper_bound(pair, confidence=self._level), pair)
