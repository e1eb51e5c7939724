"""Sweeps to report on, made by hand: a realistic one, a tiny one, and one in which every parent failed.

The realistic one is a formula with 10 000 test images, not a measurement. It holds every kind of potential:
closed, at the top, open behind a failed probe, and not monotone.
"""

from __future__ import annotations

import hashlib
import math
from statistics import fmean, stdev

from raypruning.core.records import (
    Checkpoint,
    Cost,
    Curve,
    DataChoice,
    Epoch,
    Estimate,
    Evaluation,
    ExcessError,
    Failure,
    Interval,
    Mask,
    MethodChoice,
    ModelChoice,
    Potential,
    PotentialSummary,
    Probe,
    ProbeResult,
    Provenance,
    Recipe,
    SearchSpec,
    SweepResults,
    SweepSpec,
    Task,
    Training,
    TrainingResult,
)

NUM_IMAGES = 10_000
NUM_PARAMS = 61_706
NUM_PRUNABLE = 61_470
MACS = 2_293_000
SEEDS = (0, 1)
BUDGETS = (2, 10)
TASKS = ("nominal", "noise/uniform/0.05", "noise/uniform/0.1", "noise/uniform/0.2")
DENSE_ERROR = {
    "nominal": 0.0421,
    "noise/uniform/0.05": 0.0487,
    "noise/uniform/0.1": 0.0634,
    "noise/uniform/0.2": 0.1182,
}
# Where the added error reaches half a point, as what is kept, with the largest budget.
KNEE_KEPT = {
    "wt": {"nominal": 0.034, "noise/uniform/0.05": 0.07, "noise/uniform/0.1": 0.09, "noise/uniform/0.2": 0.14},
    "ft": {"nominal": 0.19, "noise/uniform/0.05": 0.24, "noise/uniform/0.1": 0.30, "noise/uniform/0.2": 0.46},
    "random": {"nominal": 0.30, "noise/uniform/0.05": 0.34, "noise/uniform/0.1": 0.40, "noise/uniform/0.2": 0.58},
}
# What the search asked for: five probes a curve, around the knees.
ASKED = {
    ("wt", 2): (0.5, 0.82, 0.9, 0.929, 0.99),
    ("wt", 10): (0.5, 0.85, 0.9, 0.93, 0.96),
    ("ft", 2): (0.3, 0.5, 0.65, 0.75, 0.96),
    ("ft", 10): (0.4, 0.62, 0.74, 0.82, 0.96),
    ("random", 2): (0.2, 0.4, 0.55, 0.75, 0.96),
    ("random", 10): (0.3, 0.45, 0.6, 0.68, 0.96),
}
FAILED = ("ft", 10, 1, 0.65)


def _id(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def _recipe(epochs: int) -> Recipe:
    return Recipe(epochs=epochs, learning_rate=0.1, milestones=(epochs / 2, 0.75 * epochs), weight_decay=1e-4)


def spec(**changes: object) -> SweepSpec:
    fields: dict[str, object] = {
        "name": "lenet5-strokes",
        "model": ModelChoice(name="lenet5"),
        "data": DataChoice(name="strokes"),
        "methods": tuple(MethodChoice(name=name) for name in KNEE_KEPT),
        "tasks": TASKS,
        "seeds": SEEDS,
        "budgets": BUDGETS,
        "search": SearchSpec(low=0.2, high=0.96),
        "recipe": _recipe(20),
    }
    return SweepSpec(**{**fields, **changes})


def task_records(names: tuple[str, ...] = TASKS, num_examples: int = NUM_IMAGES) -> tuple[Task, ...]:
    return tuple(
        Task(name=name, dataset="strokes", nominal="nominal", num_examples=num_examples, fingerprint=_id("task", name))
        for name in names
    )


def curve(method: str, budget: int, seed: int) -> Curve:
    return Curve(model="lenet5", dataset="strokes", method=method, budget=budget, seed=seed)


def _wobble(*parts: object) -> float:
    """A number in [-1, 1) that is the same every time."""
    return int(_id("wobble", *parts)[:8], 16) / 2**31 - 1


def _num_wrong(method: str, budget: int, seed: int, ratio: float, task: str) -> int:
    parent = DENSE_ERROR[task] + 0.002 * _wobble("parent", seed, task)
    if method == "dense":
        gain = 0.0016 * math.log1p(budget) / math.log1p(BUDGETS[-1])
        return round(NUM_IMAGES * (parent - gain))
    # Rises by e for each `width` on the axis of the report, -log(kept), and ends at guessing.
    knee = -math.log(KNEE_KEPT[method][task]) * (0.8 if budget == BUDGETS[0] else 1.0)
    width = 0.38 + 0.1 * (method != "wt")
    room = 0.88 - parent
    rise = 0.007 * math.exp((-math.log(1 - ratio) - knee) / width)
    added = room * (1 - math.exp(-rise / room)) - 0.002 + 0.0006 * _wobble(method, budget, seed, ratio, task)
    if (method, budget, seed, ratio, task) == ("random", 10, 0, 0.45, "noise/uniform/0.05"):
        added = 0.0068  # a bump below ratios that pass: not monotone
    return round(NUM_IMAGES * (parent + added))


def _reached(ratio: float) -> float:
    num_pruned = min(round(ratio * NUM_PARAMS), NUM_PRUNABLE)
    return num_pruned / NUM_PARAMS


def _probe(method: str, budget: int, seed: int, ratio: float) -> Probe:
    is_parent = method == "dense" and budget == 0
    training = Training(
        id=_id(method, budget, seed, ratio),
        model=ModelChoice(name="lenet5"),
        data=DataChoice(name="strokes"),
        data_fingerprint=_id("strokes"),
        recipe=_recipe(20),
        epochs=20 if is_parent else budget,
        seed=seed,
        mask=None if method == "dense" else Mask(method=MethodChoice(name=method), ratio=ratio),
        start=None if is_parent else _id("dense", 0, seed, 0.0),
    )
    return Probe(curve=curve(method, budget, seed), ratio=ratio, training=training)


def _done(probe: Probe, tasks: tuple[Task, ...]) -> ProbeResult:
    at = probe.curve
    train_seconds = 1.9 * probe.training.epochs * (1 + 0.1 * _wobble("time", probe.id))
    seconds = {"load": 0.21, "train": train_seconds, "prune": 0.04, "evaluate": 0.31 * len(tasks), "save": 0.05}
    evaluations = {}
    for task in tasks:
        num_wrong = _num_wrong(at.method, at.budget, at.seed, probe.ratio, task.name)
        evaluations[task.name] = Evaluation(
            training=probe.id,
            task=task.name,
            task_fingerprint=task.fingerprint,
            error=num_wrong / NUM_IMAGES,
            num_examples=NUM_IMAGES,
            num_wrong=num_wrong,
            loss=3 * num_wrong / NUM_IMAGES,
            error_top5=num_wrong / NUM_IMAGES / 8,
            predictions=f"trainings/{probe.id}/evaluations/{task.fingerprint}.safetensors",
            sha256=_id("predictions", probe.id, task.name),
            seconds=0.31,
        )
    reached = _reached(probe.ratio)
    checkpoint = Checkpoint(
        uri=f"trainings/{probe.id}/weights.safetensors",
        sha256=_id("weights", probe.id),
        num_bytes=250_000,
        ratio_asked=probe.ratio,
        ratio_reached=reached,
        num_nonzero=NUM_PARAMS - round(reached * NUM_PARAMS),
        num_params=NUM_PARAMS,
        num_prunable=NUM_PRUNABLE,
        macs=round(MACS * (1 - 0.8 * probe.ratio)),
        macs_dense=MACS,
    )
    result = TrainingResult(
        training=probe.training,
        checkpoint=checkpoint,
        history=(Epoch(epoch=1, learning_rate=0.1, train_loss=0.4),),
        seconds=seconds,
        provenance=Provenance(versions={"torch": "2.13.0"}, host="node-1", git_commit="7e38eda"),
    )
    return ProbeResult(
        probe=probe, status="done", result=result, evaluations=evaluations, seconds=seconds, is_new=at.seed == 0
    )


def _failed(probe: Probe) -> ProbeResult:
    failure = Failure(kind="TrainingError", message="loss is NaN at epoch 3 of 10")
    return ProbeResult(probe=probe, status="failed", attempts=1, failure=failure, seconds={"train": 4.1}, is_new=True)


def _potential(at: Curve, task: Task, delta: float, results: list[ProbeResult], parent: ProbeResult) -> Potential:
    """By definition: the largest measured ratio whose count of errors is within the parent's plus delta."""
    allowed = int(delta * task.num_examples)
    dense = parent.evaluations[task.name]
    here = sorted((r for r in results if r.probe.curve == at and r.is_done), key=lambda r: r.ratio_reached)
    passes = [r.evaluations[task.name].num_wrong - dense.num_wrong <= allowed for r in here]
    best = max((i for i, ok in enumerate(passes) if ok), default=None)
    first = next((i for i, ok in enumerate(passes) if not ok), len(passes))
    found = parent if best is None else here[best]
    above = here[0 if best is None else best + 1 :]
    ratio = found.ratio_reached
    failed_above = any(
        r.probe.ratio > ratio and (not above or r.probe.ratio < above[0].probe.ratio)
        for r in results
        if r.probe.curve == at and not r.is_done
    )
    status = "closed"
    if failed_above:
        status = "open"
    elif not above:
        status = "at_top"
    elif best is not None and first < best:
        status = "not_monotone"
    kept = 1 - ratio
    return Potential(
        curve=at,
        task=task.name,
        delta=delta,
        status=status,
        ratio=ratio,
        ratio_first=here[first - 1].ratio_reached if first else 0.0,
        next_ratio=above[0].ratio_reached if above else None,
        dense_error=dense.error,
        error=found.evaluations[task.name].error,
        num_examples=task.num_examples,
        num_lost_allowed=allowed,
        interval=Interval(low=max(0.0, 1 - 1.25 * kept), high=1 - 0.85 * kept) if ratio else None,
        estimate=Estimate(ratio=ratio, low=max(0.0, 1 - 1.25 * kept), high=1 - 0.85 * kept) if ratio else None,
        certified=max(0.0, ratio - 0.06),
        certified_confidence=0.95,
        num_needed=1500 if task.name == "nominal" else 12_345,
        training=found.probe.id,
    )


def summary(potentials: list[Potential]) -> PotentialSummary:
    first = potentials[0]
    known = [p.ratio for p in potentials if p.ratio is not None and p.status != "open"]
    intervals = [p.interval for p in potentials if p.interval and p.status != "open"]
    return PotentialSummary(
        method=first.curve.method,
        task=first.task,
        budget=first.curve.budget,
        delta=first.delta,
        n=len(potentials),
        num_known=len(known),
        mean=fmean(known) if known else None,
        sd=stdev(known) if len(known) > 1 else None,
        low=min(known, default=None),
        high=max(known, default=None),
        interval=Interval(
            low=fmean(i.low for i in intervals), high=fmean(i.high for i in intervals), method="mean over seeds of ends"
        )
        if intervals
        else None,
        certified=min((p.certified for p in potentials if p.certified is not None), default=None),
        estimate=Estimate(
            ratio=fmean(known), low=fmean(i.low for i in intervals), high=fmean(i.high for i in intervals)
        )
        if intervals
        else None,
        num_needed=max((p.num_needed for p in potentials if p.num_needed is not None), default=None),
        num_at_top=sum(p.status == "at_top" for p in potentials),
        num_open=sum(p.status == "open" for p in potentials),
        num_not_monotone=sum(p.status == "not_monotone" for p in potentials),
    )


def _excess(result: ProbeResult, parent: ProbeResult, task: Task) -> ExcessError:
    raw_gap = result.evaluations[task.name].error - result.evaluations[task.nominal].error
    dense_gap = parent.evaluations[task.name].error - parent.evaluations[task.nominal].error
    value = raw_gap - dense_gap
    half = 0.0022 + 0.05 * abs(value)
    return ExcessError(
        curve=result.probe.curve,
        ratio=result.ratio_reached,
        task=task.name,
        nominal=task.nominal,
        value=value,
        raw_gap=raw_gap,
        interval=Interval(low=value - half, high=value + half),
    )


def _asked(method: str, budget: int, seed: int) -> tuple[float, ...]:
    """As ASKED, the inner ones a little further in the second seed: a search goes where its own curve leads it."""
    first, *inner, last = ASKED[method, budget]
    return (first, *(round(1 - (1 - ratio) * (1 - 0.08 * seed), 3) for ratio in inner), last)


def realistic(**changes: object) -> SweepResults:
    """Three methods, two budgets, two seeds, four tasks, five probes a curve, and every kind of potential."""
    chosen = spec(**changes)
    tasks = task_records()
    probes = [_done(_probe("dense", budget, seed, 0.0), tasks) for seed in SEEDS for budget in (0, *BUDGETS)]
    parent_of = {p.probe.curve.seed: p for p in probes if p.probe.curve.budget == 0}
    pruned = []
    for budget in BUDGETS:
        for method in KNEE_KEPT:
            for seed in SEEDS:
                for ratio in _asked(method, budget, seed):
                    probe = _probe(method, budget, seed, ratio)
                    is_failed = (method, budget, seed, ratio) == FAILED
                    pruned.append(_failed(probe) if is_failed else _done(probe, tasks))
    curves = list(dict.fromkeys(p.probe.curve for p in pruned))
    potentials = [
        _potential(at, task, delta, pruned, parent_of[at.seed])
        for at in curves
        for task in tasks
        for delta in chosen.deltas
    ]
    groups: dict[tuple[str, str, int, float], list[Potential]] = {}
    for one in potentials:
        groups.setdefault((one.curve.method, one.task, one.curve.budget, one.delta), []).append(one)
    excess = [
        _excess(p, parent_of[p.probe.curve.seed], task)
        for p in pruned
        if p.is_done
        for task in tasks
        if task.name != task.nominal
    ]
    every = [*probes, *pruned]
    new = [p for p in every if p.is_new]
    phases = {phase: sum(p.seconds.get(phase, 0.0) for p in new) for phase in ("load", "train", "prune", "evaluate")}
    return SweepResults(
        spec=chosen,
        tasks=tasks,
        data_fingerprint=_id("strokes"),
        probes=tuple(every),
        potentials=tuple(potentials),
        summaries=tuple(summary(group) for group in groups.values()),
        excess_errors=tuple(excess),
        cost=Cost(
            num_probes=len(every),
            num_trained=len(new),
            num_evaluated=4 * len(new),
            num_failed=1,
            epochs=sum(p.probe.training.epochs for p in new),
            seconds=phases,
            wall_seconds=312.4,
        ),
        storage="/home/ada/.local/share/raypruning",
        tracking_uri="sqlite:////home/ada/.local/share/raypruning/mlflow.db",
        experiment_url="http://127.0.0.1:5000/#/experiments/1",
        versions={"raypruning": "0.1.0", "python": "3.11.7", "torch": "2.13.0", "ray": "2.60.0", "mlflow": "3.17.2"},
    )


def tiny() -> SweepResults:
    """One method, one budget, one seed, one task with 360 images, one probe: closed, and too few images."""
    full = realistic()
    chosen = spec(
        name="tiny", methods=(MethodChoice(name="wt"),), tasks=("nominal",), seeds=(0,), budgets=(2,), deltas=(0.005,)
    )
    at = curve("wt", 2, 0)
    tasks = task_records(("nominal",), num_examples=360)
    probes = tuple(
        p.model_copy(update={"evaluations": {"nominal": p.evaluations["nominal"]}})
        for p in full.probes
        if p.probe.curve in (curve("dense", 0, 0), at) and p.probe.ratio in (0.0, 0.82, 0.9)
    )
    potential = Potential(
        curve=at,
        task="nominal",
        delta=0.005,
        status="closed",
        ratio=probes[1].ratio_reached,
        next_ratio=probes[2].ratio_reached,
        dense_error=probes[0].evaluations["nominal"].error,
        error=probes[1].evaluations["nominal"].error,
        num_examples=360,
        num_lost_allowed=1,
        training=probes[1].probe.id,
    )
    return SweepResults(
        spec=chosen,
        tasks=tasks,
        data_fingerprint=_id("digits"),
        probes=probes,
        potentials=(potential,),
        summaries=(summary([potential]),),
        excess_errors=(),
        cost=Cost(num_probes=3, num_trained=3, num_evaluated=3, num_failed=0, epochs=24, seconds={}, wall_seconds=41.0),
        storage="s3://bucket/raypruning",
    )


def level() -> SweepResults:
    """The same potential everywhere: no task is the weakest."""
    full = realistic()
    same = {"ratio": 0.5, "ratio_first": 0.5, "status": "closed", "interval": None}
    pairs: dict[tuple[str, str, int], list[Potential]] = {}
    for one in full.potentials:
        key = (one.curve.method, one.task, one.curve.budget)
        pairs.setdefault(key, []).append(one.model_copy(update=same))
    potentials = tuple(one for pair in pairs.values() for one in pair)
    return full.model_copy(update={"potentials": potentials, "summaries": tuple(map(summary, pairs.values()))})


def empty() -> SweepResults:
    """Every parent failed: every potential is open and nothing was measured."""
    chosen = spec(name="unlucky")
    tasks = task_records()
    potentials = tuple(
        Potential(
            curve=curve(method, budget, seed),
            task=task.name,
            delta=0.005,
            status="open",
            ratio=None,
            num_examples=NUM_IMAGES,
            num_lost_allowed=50,
        )
        for method in KNEE_KEPT
        for budget in BUDGETS
        for task in tasks
        for seed in SEEDS
    )
    pairs = [list(potentials[i : i + len(SEEDS)]) for i in range(0, len(potentials), len(SEEDS))]
    return SweepResults(
        spec=chosen,
        tasks=tasks,
        data_fingerprint=_id("strokes"),
        probes=tuple(_failed(_probe("dense", 0, seed, 0.0)) for seed in SEEDS),
        potentials=potentials,
        summaries=tuple(summary(pair) for pair in pairs),
        excess_errors=(),
        cost=Cost(num_probes=2, num_trained=0, num_evaluated=0, num_failed=2, epochs=0, seconds={}, wall_seconds=9.0),
        storage="/tmp/store",
    )


def nothing() -> SweepResults:
    """No probe, no potential, no task: a sweep that was only planned."""
    return empty().model_copy(update={"probes": (), "potentials": (), "summaries": (), "tasks": ()})
