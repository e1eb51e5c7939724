"""The tracker against a real MLflow: a sqlite file, a server that is not there, and the server that `serve` starts."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from raypruning.core.identity import make_training
from raypruning.core.records import (
    DENSE,
    Checkpoint,
    Cost,
    Curve,
    DataChoice,
    Epoch,
    Evaluation,
    ExcessError,
    Failure,
    Mask,
    MethodChoice,
    ModelChoice,
    Potential,
    Probe,
    ProbeResult,
    Provenance,
    Recipe,
    SweepResults,
    SweepSpec,
    Task,
    TrainingResult,
)
from raypruning.errors import SpecError
from raypruning.runtime.mlflow_tracker import MlflowTracker, create_database, serve, track_sweep

pytestmark = [
    pytest.mark.mlflow,
    # SQLAlchemy 2.1 about a mapper of mlflow 3.17.
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated"),
]

TASKS = ("nominal", "noise/uniform/0.1")
DENSE_ERRORS = (0.02, 0.05)
RATIOS = (0.5, 0.8, 0.9)
ERRORS: Mapping[str, tuple[tuple[float, float], ...]] = {
    "wt": ((0.02, 0.05), (0.022, 0.07), (0.03, 0.12)),
    "ft": ((0.021, 0.06), (0.04, 0.15), (0.2, 0.4)),
}
RECIPE = Recipe(epochs=2, learning_rate=0.1)
SPEC = SweepSpec(
    name="small",
    model=ModelChoice(name="lenet5"),
    data=DataChoice(name="digits"),
    methods=(MethodChoice(name="wt"), MethodChoice(name="ft")),
    tasks=TASKS,
    budgets=(2,),
    recipe=RECIPE,
)


def probe(method: str, ratio: float, *, start: str | None = None, epochs: int = 2) -> Probe:
    training = make_training(
        model=SPEC.model,
        data=SPEC.data,
        data_fingerprint="data",
        recipe=RECIPE,
        epochs=epochs,
        seed=0,
        mask=None if method == DENSE else Mask(method=MethodChoice(name=method), ratio=ratio),
        start=start,
    )
    budget = 0 if start is None else 2
    curve = Curve(model="lenet5", dataset="digits", method=method, budget=budget, seed=0)
    return Probe(curve=curve, ratio=ratio, training=training)


def done(probe: Probe, errors: tuple[float, float], *, minute: int) -> ProbeResult:
    reached = probe.ratio
    checkpoint = Checkpoint(
        uri=f"trainings/{probe.id}/weights.safetensors",
        sha256="ab" * 32,
        num_bytes=1000,
        ratio_asked=probe.ratio,
        ratio_reached=reached,
        num_nonzero=round(1000 * (1 - reached)),
        num_params=1000,
        num_prunable=1000,
        macs=round(5000 * (1 - reached / 2)),
        macs_dense=5000,
    )
    history = tuple(
        Epoch(epoch=epoch, learning_rate=0.1, train_loss=1 / epoch, validation_error=0.1 / epoch) for epoch in (1, 2)
    )
    evaluations = {
        task: Evaluation(
            training=probe.id,
            task=task,
            task_fingerprint=f"fingerprint of {task}",
            error=error,
            num_examples=1000,
            num_wrong=round(1000 * error),
            loss=3 * error,
            predictions=f"evaluations/{task}",
            sha256="cd" * 32,
            seconds=0.5,
        )
        for task, error in zip(TASKS, errors, strict=True)
    }
    provenance = Provenance(versions={"torch": "2.13.0"}, created=f"2026-11-20T10:{minute:02}:00+00:00")
    result = TrainingResult(
        training=probe.training,
        checkpoint=checkpoint,
        history=history,
        seconds={"train": 12.0, "prune": 0.2},
        provenance=provenance,
    )
    return ProbeResult(probe=probe, status="done", result=result, evaluations=evaluations, is_new=True)


def recorded(*, num_failed: int = 0) -> SweepResults:
    """A parent, its retrained control, and two methods at three ratios each; the last probes failed."""
    parent = probe(DENSE, 0.0)
    results = [done(parent, DENSE_ERRORS, minute=0)]
    results.append(done(probe(DENSE, 0.0, start=parent.id), (0.019, 0.048), minute=1))
    for method, errors in ERRORS.items():
        for ratio, error in zip(RATIOS, errors, strict=True):
            results.append(done(probe(method, ratio, start=parent.id), error, minute=len(results)))
    for position in range(len(results) - num_failed, len(results)):
        failure = Failure(kind="TrainingError", message="the loss is NaN")
        results[position] = ProbeResult(probe=results[position].probe, status="failed", failure=failure)
    curves = dict.fromkeys(result.probe.curve for result in results if not result.probe.curve.is_dense)
    return SweepResults(
        spec=SPEC,
        tasks=tuple(
            Task(name=name, dataset="digits", nominal="nominal", num_examples=1000, fingerprint=f"fingerprint of {name}")
            for name in TASKS
        ),
        data_fingerprint="data",
        probes=tuple(results),
        potentials=tuple(
            Potential(
                curve=curve,
                task=task,
                delta=0.005,
                status="closed",
                ratio=0.8 if curve.method == "wt" and task == "nominal" else 0.5,
                next_ratio=0.9,
                num_examples=1000,
                num_lost_allowed=5,
            )
            for curve in curves
            for task in TASKS
        ),
        summaries=(),
        excess_errors=tuple(
            ExcessError(
                curve=result.probe.curve,
                ratio=result.ratio_reached,
                task=TASKS[1],
                nominal=TASKS[0],
                value=result.evaluations[TASKS[1]].error - result.evaluations[TASKS[0]].error - 0.03,
                raw_gap=result.evaluations[TASKS[1]].error - result.evaluations[TASKS[0]].error,
            )
            for result in results
            if result.is_done and not result.probe.curve.is_dense
        ),
        cost=Cost(num_probes=8, num_trained=8, num_evaluated=16, num_failed=0, epochs=16, seconds={}, wall_seconds=1.0),
        storage="/storage",
    )
