"""A stored sweep whose networks were never trained: which images each has wrong is written down by the test."""

# N images

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from raypruning.analysis.metrics import metric_of
from raypruning.app.results import write_record
from raypruning.core.plan import Plan, next_probes
from raypruning.core.records import (
    Checkpoint,
    Curve,
    DataChoice,
    Evaluation,
    Failure,
    Kind,
    MethodChoice,
    ModelChoice,
    Probe,
    ProbeResult,
    Recipe,
    SearchSpec,
    SweepSpec,
    Task,
    TrainingResult,
)
from raypruning.runtime.joined import stored_result
from raypruning.runtime.store import ObjectStore, open_store

NAME = "made-up"
Arrays = Mapping[str, np.ndarray]
# (a curve, a ratio, a task) -> predictions; None where the probe failed. The parent's curve is dense, its ratio 0.
Predict = Callable[[Curve, float, str], "Arrays | None"]


def wrong_on(wrong_N: np.ndarray) -> Arrays:
    """Predictions of a classifier that is wrong on these images."""
    log_probability = np.where(wrong_N, -2.0, -0.1).astype(np.float16)
    label = np.zeros(len(wrong_N), np.uint16)
    return {"predicted": wrong_N.astype(np.uint16), "label": label, "log_probability": log_probability}


def wrong(num: int, *, lost: int = 0, gained: int = 0, parent_wrong: int = 100) -> Arrays:
    """Of a classifier that loses and gains so many images against a parent that has the first ones wrong."""
    wrong_N = np.arange(num) < parent_wrong
    wrong_N[:gained] = False
    wrong_N[parent_wrong : parent_wrong + lost] = True
    return wrong_on(wrong_N)


def store_sweep(
    storage: Path,
    predict: Predict,
    *,
    ratios: Sequence[float],
    num_images: int,
    tasks: Sequence[str] = ("nominal",),
    methods: Sequence[str] = ("wt",),
    budgets: Sequence[int] = (2,),
    seeds: Sequence[int] = (0,),
    deltas: Sequence[float] = (0.01,),
    metric: Kind = "classification",
) -> ObjectStore:
    """Write a finished grid sweep called `made-up` into a storage. Reached ratios are those asked for."""
    store = open_store(str(storage))
    plan = Plan(
        spec=SweepSpec(
            name=NAME,
            model=ModelChoice(name="lenet5"),
            data=DataChoice(name="strokes"),
            methods=tuple(MethodChoice(name=method) for method in methods),
            tasks=tuple(tasks),
            deltas=tuple(deltas),
            seeds=tuple(seeds),
            budgets=tuple(budgets),
            search=SearchSpec(strategy="grid", ratios=tuple(ratios), low=ratios[0], high=ratios[-1]),
            recipe=Recipe(epochs=3, learning_rate=0.1),
        ),
        data_fingerprint="d" * 64,
        tasks=tuple(
            Task(
                name=task,
                dataset="strokes",
                nominal="nominal",
                metric=metric,
                num_examples=num_images,
                fingerprint=f"{index:016x}",
            )
            for index, task in enumerate(tasks)
        ),
    )
    results: dict[str, ProbeResult] = {}
    while probes := next_probes(plan, results):
        results |= {probe.id: _run(store, probe, plan, predict) for probe in probes}
    failed = [one.model_dump(mode="json") for one in results.values() if not one.is_done]
    write_record(store, plan, {"failed": failed})
    return store


def _run(store: ObjectStore, probe: Probe, plan: Plan, predict: Predict) -> ProbeResult:
    found = [(task, predict(probe.curve, probe.ratio, task.name)) for task in plan.tasks]
    if any(arrays is None for _, arrays in found):
        return ProbeResult(probe=probe, status="failed", failure=Failure(kind="TrainingError", message="made up"))
    num_params = 10_000
    checkpoint = Checkpoint(
        uri="",
        sha256="",
        num_bytes=0,
        ratio_asked=probe.ratio,
        ratio_reached=probe.ratio,
        num_nonzero=round((1 - probe.ratio) * num_params),
        num_params=num_params,
        num_prunable=num_params,
        macs=1,
        macs_dense=1,
    )
    store.commit_training(
        TrainingResult(training=probe.training, checkpoint=checkpoint),
        weights={"weight": np.zeros(1, np.float32)},
        masks={},
    )
    for task, arrays in found:
        metric = metric_of(task.metric)
        store.commit_evaluation(
            Evaluation(
                training=probe.id,
                task=task.name,
                task_fingerprint=task.fingerprint,
                error=metric.error_of(arrays),
                num_examples=task.num_examples,
                num_wrong=metric.num_wrong(arrays),
                loss=0.0,
                predictions="",
                sha256="",
            ),
            predictions=arrays,
        )
    stored = stored_result(store, probe, plan.tasks)
    assert stored is not None
    return stored
