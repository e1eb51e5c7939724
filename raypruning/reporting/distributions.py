"""Potentials over the tasks a network was trained for, and over those it was not: their average and their smallest.

Source: Lost in Pruning, section 6 and appendix, tables of average and minimum prune potential.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

from raypruning.core.records import SweepResults, Task
from raypruning.reporting import wording
from raypruning.reporting.answer import Standing, standings

TITLE = "Potential over what training saw, and over what it did not"
# Below this many tasks the table of potentials says it all.
MIN_TASKS = 4


class Distribution(NamedTuple):
    """Tasks that are looked at together.

    Attributes:
        name: `training` for the nominal tasks and corruptions that training saw, `shifted` for all others.
    """

    name: str
    tasks: tuple[Task, ...]

    @property
    def label(self) -> str:
        """Such as `shifted, 19 tasks`."""
        return f"{self.name}, {wording.count(len(self.tasks), 'task')}"


class Over(NamedTuple):
    """A method's potentials over a distribution: lower bounds where `is_bound`; None where one is unknown."""

    average: float | None
    smallest: float | None
    is_bound: bool

    def text(self, ratio: float | None) -> str:
        """Such as `86.9 %` or `≥ 86.9 %`."""
        if ratio is None:
            return "open"
        return (f"{wording.AT_LEAST} " if self.is_bound else "") + wording.percent(ratio)


def distributions(results: SweepResults) -> list[Distribution]:
    """What training saw and what it did not, in the order of the sweep; none where there are few tasks."""
    if len(results.tasks) < MIN_TASKS:
        return []
    trained = set(results.spec.recipe.train_corruptions)
    is_seen = {task.name: task.nominal == task.name or task.corruption.get("kind") in trained for task in results.tasks}
    parts = [
        Distribution(name, tuple(task for task in results.tasks if is_seen[task.name] == seen))
        for name, seen in (("training", True), ("shifted", False))
    ]
    return [part for part in parts if part.tasks]


def over(results: SweepResults, *, delta: float) -> dict[str, dict[str, Over]]:
    """By method and distribution, at the largest budget."""
    rows = standings(results, delta=delta)
    return {
        method: {part.name: _over([row[task.name] for task in part.tasks]) for part in distributions(results)}
        for method, row in rows.items()
    }


def _over(shown: Sequence[Standing]) -> Over:
    ratios = [one.ratio for one in shown if one.ratio is not None]
    if len(ratios) < len(shown):
        return Over(None, None, is_bound=True)
    return Over(fmean(ratios), min(ratios), is_bound=any(one.status != "known" for one in shown))


def rows_of(results: SweepResults, *, delta: float) -> list[tuple[str, str, list[str]]]:
    """For a table: distribution, `average` or `smallest`, and a text for each method."""
    found = over(results, delta=delta)
    return [
        (
            part.label,
            of if len(part.tasks) > 1 else "",
            [one.text(getattr(one, of)) for row in found.values() for one in [row[part.name]]],
        )
        for part in distributions(results)
        for of in ("average", "smallest")
        if of == "average" or len(part.tasks) > 1
    ]
