"""Excess error: what pruning costs on a shifted task beyond what it costs on the nominal one."""

from __future__ import annotations

from collections.abc import Sequence

from raypruning.core.records import ExcessError, ProbeResult, Task


def excess_errors(result: ProbeResult, dense: ProbeResult, *, tasks: Sequence[Task]) -> tuple[ExcessError, ...]:
    """One for each task whose nominal task was measured too; none for nominal tasks themselves.

    Source: Lost in Pruning, section 3: (pruned on shifted - pruned on nominal) - (dense on shifted - dense on nominal).
    """
    if not (result.is_done and dense.is_done):
        return ()
    found = []
    for task in tasks:
        if task.nominal == task.name or task.nominal not in result.evaluations:
            continue
        raw_gap = result.evaluations[task.name].error - result.evaluations[task.nominal].error
        dense_gap = dense.evaluations[task.name].error - dense.evaluations[task.nominal].error
        found.append(
            ExcessError(
                curve=result.probe.curve,
                ratio=result.ratio_reached,
                task=task.name,
                nominal=task.nominal,
                value=raw_gap - dense_gap,
                raw_gap=raw_gap,
            )
        )
    return tuple(found)
