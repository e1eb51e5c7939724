"""Tidy pandas frames of a sweep. Columns, their order and their types are fixed, also where a frame has no row.

Ratios and errors are fractions. A number that does not exist is missing (NaN or NA), never 0. `kept` is 1 - ratio.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from raypruning.analysis.paired import wilson
from raypruning.core.records import (
    Curve,
    Evaluation,
    Interval,
    Potential,
    PotentialSummary,
    ProbeResult,
    SweepResults,
)
from raypruning.reporting.answer import parents

PHASES = ("load", "train", "prune", "evaluate", "save")

Row = dict[str, object]
Columns = Mapping[str, str]

CURVE_COLUMNS: Columns = {
    "model": "string",
    "dataset": "string",
    "method": "string",  # `dense` for the parent (budget 0) and its retrained controls
    "schedule": "string",
    "budget": "int64",  # epochs of retraining
    "seed": "int64",
}

INTERVAL_COLUMNS: Columns = {"low": "float64", "high": "float64", "confidence": "float64", "interval_method": "string"}

CERTAINTY_COLUMNS: Columns = {
    "estimate": "float64",  # where a curve fitted to all measured networks crosses delta
    "estimate_low": "float64",
    "estimate_high": "float64",
    "estimate_confidence": "float64",
    "certified": "float64",  # the largest measured ratio that the test images prove
    "num_needed": "Int64",  # images that certify a network there which loses nothing
}

POTENTIAL_COLUMNS: Columns = {
    **CURVE_COLUMNS,
    "task": "string",
    "delta": "float64",
    "status": "string",  # closed, at_top, open or not_monotone
    "ratio": "float64",  # a lower bound when at_top or open
    "kept": "float64",
    **INTERVAL_COLUMNS,
    **CERTAINTY_COLUMNS,
    "ratio_first": "float64",  # up to which every measured ratio passes
    "next_ratio": "float64",  # the smallest measured one above that fails
    "dense_error": "float64",
    "error": "float64",  # at `ratio`
    "num_examples": "int64",
    "num_lost_allowed": "Int64",  # floor(delta * num_examples); none where the error is no number of images
    "training": "string",
}

SUMMARY_COLUMNS: Columns = {
    "method": "string",
    "task": "string",
    "budget": "int64",
    "delta": "float64",
    "n": "int64",  # seeds
    "num_known": "int64",
    "mean": "float64",
    "sd": "float64",
    "smallest": "float64",  # over seeds
    "largest": "float64",
    **INTERVAL_COLUMNS,
    **CERTAINTY_COLUMNS,
    "num_at_top": "int64",
    "num_open": "int64",
    "num_not_monotone": "int64",
}

ERROR_COLUMNS: Columns = {
    **CURVE_COLUMNS,
    "place": "string",  # in a chain: link, or branch: off the last good link; missing outside of chains
    "ratio_asked": "float64",
    "ratio_reached": "float64",  # missing when failed: nothing was measured
    "kept": "float64",
    "task": "string",
    "status": "string",  # done or failed
    "error": "float64",
    "error_low": "float64",  # Wilson's 90 % interval of this one error, where errors are counts
    "error_high": "float64",
    "num_wrong": "Int64",
    "num_examples": "int64",
    "loss": "float64",
    "error_top5": "float64",
    "dense_error": "float64",  # of the parent with the same seed
    "added_error": "float64",  # error - dense_error
    "loss_in_images": "Int64",  # so many more images are wrong than with the parent
    "training": "string",
}

EXCESS_COLUMNS: Columns = {
    **CURVE_COLUMNS,
    "ratio": "float64",
    "kept": "float64",
    "task": "string",
    "nominal": "string",
    "value": "float64",  # difference in excess error
    "raw_gap": "float64",
    **INTERVAL_COLUMNS,
}

PROBE_COLUMNS: Columns = {
    **CURVE_COLUMNS,
    "place": "string",
    "ratio_asked": "float64",
    "ratio_reached": "float64",
    "kept": "float64",
    "status": "string",
    "is_new": "bool",  # trained in this sweep's run; False: the store had it
    "attempts": "int64",
    **{f"{phase}_seconds": "float64" for phase in PHASES},
    "seconds": "float64",  # all phases
    "epochs": "int64",
    "num_params": "Int64",
    "num_nonzero": "Int64",
    "macs": "Int64",
    "macs_dense": "Int64",
    "macs_on_paths": "Int64",  # of macs, those that the answer depends on
    "dead_layers": "string",
    "num_bytes": "Int64",
    "checkpoint": "string",
    "failure": "string",
    "failure_message": "string",
    "device": "string",
    "start": "string",  # the training whose weights it began from
    "training": "string",
}


def potentials_frame(results: SweepResults) -> pd.DataFrame:
    """One row per curve, task and delta, in the order of the results. See POTENTIAL_COLUMNS."""
    return _frame(
        POTENTIAL_COLUMNS,
        (
            {
                **_curve(p.curve),
                "task": p.task,
                "delta": p.delta,
                "status": p.status,
                "ratio": p.ratio,
                "kept": _kept(p.ratio),
                **_interval(p.interval),
                **_certainty(p),
                "ratio_first": p.ratio_first,
                "next_ratio": p.next_ratio,
                "dense_error": p.dense_error,
                "error": p.error,
                "num_examples": p.num_examples,
                "num_lost_allowed": p.num_lost_allowed,
                "training": p.training,
            }
            for p in results.potentials
        ),
    )


def summaries_frame(results: SweepResults) -> pd.DataFrame:
    """One row per method, task, budget and delta: potentials over seeds. See SUMMARY_COLUMNS."""
    return _frame(
        SUMMARY_COLUMNS,
        (
            {
                "method": s.method,
                "task": s.task,
                "budget": s.budget,
                "delta": s.delta,
                "n": s.n,
                "num_known": s.num_known,
                "mean": s.mean,
                "sd": s.sd,
                "smallest": s.low,
                "largest": s.high,
                **_interval(s.interval),
                **_certainty(s),
                "num_at_top": s.num_at_top,
                "num_open": s.num_open,
                "num_not_monotone": s.num_not_monotone,
            }
            for s in results.summaries
        ),
    )


def errors_frame(results: SweepResults) -> pd.DataFrame:
    """One row per probe and task, dense ones included; failed probes have rows without numbers. See ERROR_COLUMNS."""
    parent_of = parents(results)
    return _frame(
        ERROR_COLUMNS,
        (
            _error_row(result, task.name, num_examples=task.num_examples, parent=parent_of.get(result.probe.curve.seed))
            for result in results.probes
            for task in results.tasks
        ),
    )


def _error_row(result: ProbeResult, task: str, *, num_examples: int, parent: ProbeResult | None) -> Row:
    found = result.evaluations.get(task)
    dense = parent.evaluations.get(task) if parent else None
    return {
        **_probe(result),
        "task": task,
        "status": result.status,
        "error": found.error if found else None,
        **_error_interval(found),
        "num_wrong": found.num_wrong if found else None,
        "num_examples": found.num_examples if found else num_examples,
        "loss": found.loss if found else None,
        "error_top5": found.error_top5 if found else None,
        "dense_error": dense.error if dense else None,
        "added_error": found.error - dense.error if found and dense else None,
        "loss_in_images": _loss_in_images(found, dense),
        "training": result.probe.id,
    }


def _error_interval(found: Evaluation | None) -> Row:
    if found is None or found.num_wrong is None:
        return {"error_low": None, "error_high": None}
    low, high = wilson(np.array(found.num_wrong), np.array(found.num_examples))
    return {"error_low": float(low), "error_high": float(high)}


def _loss_in_images(found: Evaluation | None, dense: Evaluation | None) -> int | None:
    if found is None or dense is None or found.num_wrong is None or dense.num_wrong is None:
        return None
    return found.num_wrong - dense.num_wrong


def excess_errors_frame(results: SweepResults) -> pd.DataFrame:
    """One row per pruned network and shifted task. See EXCESS_COLUMNS."""
    return _frame(
        EXCESS_COLUMNS,
        (
            {
                **_curve(e.curve),
                "ratio": e.ratio,
                "kept": _kept(e.ratio),
                "task": e.task,
                "nominal": e.nominal,
                "value": e.value,
                "raw_gap": e.raw_gap,
                **_interval(e.interval),
            }
            for e in results.excess_errors
        ),
    )


def probes_frame(results: SweepResults) -> pd.DataFrame:
    """One row per probe, dense ones first, in the order of the plan. See PROBE_COLUMNS."""
    return _frame(PROBE_COLUMNS, map(_probe_row, results.probes))


def _probe_row(result: ProbeResult) -> Row:
    checkpoint = result.checkpoint
    # What the store already had took this run nothing; what it took then is in its training's record.
    seconds = result.seconds or (result.result.seconds if result.result else {})
    return {
        **_probe(result),
        "status": result.status,
        "is_new": result.is_new,
        "attempts": result.attempts,
        **{f"{phase}_seconds": seconds.get(phase) for phase in PHASES},
        "seconds": sum(seconds.values()) if seconds else None,
        "epochs": result.probe.training.epochs,
        "num_params": checkpoint.num_params if checkpoint else None,
        "num_nonzero": checkpoint.num_nonzero if checkpoint else None,
        "macs": checkpoint.macs if checkpoint else None,
        "macs_dense": checkpoint.macs_dense if checkpoint else None,
        "macs_on_paths": checkpoint.macs_on_paths if checkpoint else None,
        "dead_layers": (" ".join(checkpoint.dead_layers) or None) if checkpoint else None,
        "num_bytes": checkpoint.num_bytes if checkpoint else None,
        "checkpoint": checkpoint.uri if checkpoint else None,
        "failure": result.failure.kind if result.failure else None,
        "failure_message": result.failure.message if result.failure else None,
        "device": result.result.provenance.device if result.result else None,
        "start": result.probe.training.start,
        "training": result.probe.id,
    }


FRAMES: Mapping[str, Callable[[SweepResults], pd.DataFrame]] = {
    "potentials": potentials_frame,
    "summaries": summaries_frame,
    "errors": errors_frame,
    "excess_errors": excess_errors_frame,
    "probes": probes_frame,
}


def write_csv(results: SweepResults, folder: Path) -> list[Path]:
    """Write one CSV per frame, named after it. Returns the files.

    Side effect: makes the folder; replaces files of the same names.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, frame in FRAMES.items():
        path = folder / f"{name}.csv"
        frame(results).to_csv(path, index=False, lineterminator="\n")
        paths.append(path)
    return paths


def _frame(columns: Columns, rows: Iterable[Row]) -> pd.DataFrame:
    table = list(rows)
    return pd.DataFrame({name: pd.Series([row[name] for row in table], dtype=kind) for name, kind in columns.items()})


def _curve(curve: Curve) -> Row:
    return {name: getattr(curve, name) for name in CURVE_COLUMNS}


def _probe(result: ProbeResult) -> Row:
    reached = result.ratio_reached if result.result else None
    return {
        **_curve(result.probe.curve),
        "place": result.probe.place,
        "ratio_asked": result.probe.ratio,
        "ratio_reached": reached,
        "kept": _kept(reached),
    }


def _kept(ratio: float | None) -> float | None:
    return None if ratio is None else 1.0 - ratio


def _certainty(one: Potential | PotentialSummary) -> Row:
    estimate = one.estimate
    return {
        "estimate": estimate.ratio if estimate else None,
        "estimate_low": estimate.low if estimate else None,
        "estimate_high": estimate.high if estimate else None,
        "estimate_confidence": estimate.confidence if estimate else None,
        "certified": one.certified,
        "num_needed": one.num_needed,
    }


def _interval(interval: Interval | None) -> Row:
    if interval is None:
        return dict.fromkeys(INTERVAL_COLUMNS)
    return {
        "low": interval.low,
        "high": interval.high,
        "confidence": interval.confidence,
        "interval_method": interval.method,
    }
