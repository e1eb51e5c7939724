"""Made-up worlds for the search: how many images a ratio costs on each task, and the records that say so."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Any, NamedTuple

from raypruning.core.plan import Plan, next_probes, results_of
from raypruning.core.potential import Threshold, potential
from raypruning.core.records import (
    Checkpoint,
    Curve,
    DataChoice,
    Evaluation,
    Failure,
    MethodChoice,
    ModelChoice,
    Potential,
    Probe,
    ProbeResult,
    Recipe,
    SearchSpec,
    SweepSpec,
    Task,
    TrainingResult,
)

NUM_EXAMPLES = 1000
DENSE_WRONG = 40

# (curve, asked ratio, task) -> images that are wrong; the parent's curve is asked at ratio 0.
World = Callable[[Curve, float, str], int]


class Steps(NamedTuple):
    """A monotone error: from each ratio on, so many images more are wrong."""

    steps: Sequence[tuple[float, int]]

    def num_lost(self, ratio: float) -> int:
        return sum(num for begin, num in self.steps if ratio >= begin)


def monotone_world(steps_by_task: Mapping[str, Steps]) -> World:
    """Every pruned curve is the same, and the parent has `DENSE_WRONG` images wrong on each task."""
    return lambda curve, ratio, task: DENSE_WRONG + (0 if curve.is_dense else steps_by_task[task].num_lost(ratio))


def knee_world(*knees: float) -> World:
    """One threshold for each task: below its knee nothing is lost, from it on every image."""
    tasks = task_names(len(knees))
    return monotone_world({task: Steps([(knee, 900)]) for task, knee in zip(tasks, knees, strict=True)})


def task_names(num: int) -> list[str]:
    return ["nominal", *(f"shift/{i}" for i in range(1, num))]


def make_plan(
    *,
    num_tasks: int = 1,
    deltas: Sequence[float] = (0.005,),
    methods: Sequence[str] = ("wt",),
    seeds: Sequence[int] = (0,),
    budgets: Sequence[int] = (1,),
    max_probes: int | None = None,
    schedule: Mapping[str, Any] | None = None,
    recipe: Recipe | None = None,
    **search: Any,
) -> Plan:
    spec = SweepSpec.model_validate(
        {
            "name": "made up",
            "model": ModelChoice(name="tiny"),
            "data": DataChoice(name="shapes"),
            "methods": [MethodChoice(name=name) for name in methods],
            "tasks": task_names(num_tasks),
            "deltas": deltas,
            "seeds": seeds,
            "budgets": budgets,
            "recipe": recipe or Recipe(epochs=3, learning_rate=0.1),
            "schedule": schedule or {},
            "search": SearchSpec(**search),
            "limits": {"max_probes": max_probes},
        }
    )
    return Plan(spec=spec, data_fingerprint="d" * 20, tasks=tuple(make_task(name) for name in spec.tasks))


def make_task(name: str) -> Task:
    return Task(name=name, dataset="shapes", nominal="nominal", num_examples=NUM_EXAMPLES, fingerprint=f"of {name}")


def make_evaluation(num_wrong: int | None, *, num_examples: int = NUM_EXAMPLES, error: float | None = None, **changes):
    fields = {
        "training": "t",
        "task": "nominal",
        "task_fingerprint": "of nominal",
        "error": num_wrong / num_examples if error is None else error,
        "num_examples": num_examples,
        "num_wrong": num_wrong,
        "loss": 1.0,
        "predictions": "",
        "sha256": "",
    }
    return Evaluation(**{**fields, **changes})


def done(probe: Probe, num_wrong: Mapping[str, int], *, ratio_reached: float | None = None) -> ProbeResult:
    """A measured probe; what is reached is what was asked for, unless said otherwise."""
    reached = probe.ratio if ratio_reached is None else ratio_reached
    checkpoint = Checkpoint(
        uri="",
        sha256="",
        num_bytes=1,
        ratio_asked=probe.ratio,
        ratio_reached=reached,
        num_nonzero=round((1 - reached) * 1e6),
        num_params=1_000_000,
        num_prunable=999_000,
        macs=1,
        macs_dense=1,
    )
    return ProbeResult(
        probe=probe,
        status="done",
        result=TrainingResult(training=probe.training, checkpoint=checkpoint),
        evaluations={task: make_evaluation(num, training=probe.id, task=task) for task, num in num_wrong.items()},
        standard_errors=dict.fromkeys(num_wrong, 0.002),
    )


def failed(probe: Probe) -> ProbeResult:
    return ProbeResult(probe=probe, status="failed", failure=Failure(kind="RuntimeError", message="out of luck"))


def measure(plan: Plan, world: World, probe: Probe, *, fails: Collection[float] = ()) -> ProbeResult:
    if not probe.curve.is_dense and probe.ratio in fails:
        return failed(probe)
    return done(probe, {task.name: world(probe.curve, probe.ratio, task.name) for task in plan.tasks})


class Run(NamedTuple):
    """A finished sweep: what was asked in which round, and everything that is known."""

    rounds: list[tuple[Probe, ...]]
    results: dict[str, ProbeResult]

    @property
    def ratios(self) -> list[float]:
        """Of the pruned probes, in the order they were asked."""
        return [probe.ratio for asked in self.rounds for probe in asked if not probe.curve.is_dense]


def run(
    plan: Plan,
    world: World,
    *,
    known: Iterable[ProbeResult] = (),
    fails: Callable[[float], bool] = lambda _ratio: False,
    take: Callable[[tuple[Probe, ...]], Iterable[Probe]] = lambda asked: asked,
) -> Run:
    """Ask and answer until nothing is asked any more.

    Args:
        known: results that were there before.
        fails: which pruned probes crash, by ratio.
        take: which of the asked probes finish before the next question.
    """
    results = {result.probe.id: result for result in known}
    rounds: list[tuple[Probe, ...]] = []
    while asked := next_probes(plan, results):
        assert len(rounds) < 1000, "the search does not end"
        rounds.append(tuple(take(asked)))
        for probe in rounds[-1]:
            results[probe.id] = measure(plan, world, probe, fails=[probe.ratio] if fails(probe.ratio) else ())
    return Run(rounds, results)


def potentials(plan: Plan, results: Mapping[str, ProbeResult]) -> dict[tuple[Curve, Threshold], Potential]:
    """Every potential of a sweep."""
    return {
        (curve, threshold): potential(
            curve,
            threshold,
            results=results_of(plan, curve, results),
            dense=results.get(plan.parent(curve.seed).id),
            search=plan.search,
            num_examples=NUM_EXAMPLES,
        )
        for curve in plan.curves
        for threshold in plan.thresholds
    }


def num_allowed(delta: float) -> int:
    return math.floor(Fraction(str(delta)) * NUM_EXAMPLES)


def potential_by_definition(results: Iterable[ProbeResult], dense: ProbeResult, task: str, delta: float) -> float:
    allowed = dense.evaluations[task].num_wrong + num_allowed(delta)
    done_ones = [result for result in results if result.status == "done"]
    return max((r.ratio_reached for r in done_ones if r.evaluations[task].num_wrong <= allowed), default=0.0)


def scan(plan: Plan, world: World, curve: Curve, threshold: Threshold, *, num_points: int) -> float:
    """The largest passing ratio of so many points of the range, evenly spaced in the logarithm of what is kept."""
    low, high = plan.search.low, plan.search.high
    inside = [1 - (1 - low) * ((1 - high) / (1 - low)) ** (i / (num_points - 1)) for i in range(1, num_points - 1)]
    grid = [low, *inside, high]
    allowed = DENSE_WRONG + num_allowed(threshold.delta)
    return max((ratio for ratio in grid if world(curve, ratio, threshold.task) <= allowed), default=0.0)


def is_sorted(values: Sequence[float]) -> bool:
    return all(a <= b for a, b in pairwise(values))
