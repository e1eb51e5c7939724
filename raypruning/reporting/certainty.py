"""How sure a potential is: what the test images prove, and how many of them it would take."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from raypruning.core.records import Potential, SweepResults
from raypruning.reporting import wording
from raypruning.reporting.answer import largest_budget, method_names


class Certified(NamedTuple):
    """Of a method on a task at the largest budget, over all seeds.

    Attributes:
        ratio: the smallest over seeds of the largest certified ratio.
        num_needed: images that it takes to certify a network there which loses nothing; None where errors are no
            counts.
    """

    method: str
    task: str
    ratio: float
    num_needed: int | None
    num_examples: int

    @property
    def amount(self) -> str:
        """Such as `78.8 %`, or `none` where only the dense parent is."""
        return wording.percent(self.ratio) if self.ratio > 0 else "none"

    @property
    def is_resolved(self) -> bool:
        """Whether the test images suffice."""
        return self.num_needed is None or self.num_needed <= self.num_examples

    @property
    def spread(self) -> str:
        """Such as `needs 12 400 images`; empty where those there are suffice."""
        return "" if self.is_resolved else f"needs {wording.thousands(_rounded(self.num_needed or 0))} images"


def certified(results: SweepResults, *, delta: float) -> dict[str, dict[str, Certified]]:
    """By method and task, in the order of the sweep; without methods of which something is unknown."""
    budget, num_examples = largest_budget(results), {task.name: task.num_examples for task in results.tasks}
    found: dict[str, dict[str, Certified]] = {method: {} for method in method_names(results)}
    for one in results.summaries:
        is_shown = one.method in found and one.task in num_examples
        if is_shown and one.certified is not None and (one.budget, one.delta) == (budget, delta):
            found[one.method][one.task] = Certified(
                one.method, one.task, one.certified, one.num_needed, num_examples[one.task]
            )
    return {method: row for method, row in found.items() if len(row) == len(results.tasks)}


def certified_line(results: SweepResults, *, delta: float) -> str:
    """What each method is certified for on all tasks at once; empty without a measurement."""
    rows = certified(results, delta=delta)
    parts = [f"{method} {min(row.values(), key=lambda one: one.ratio).amount}" for method, row in rows.items() if row]
    scope = "every task" if len(results.tasks) > 1 else results.tasks[0].name if results.tasks else ""
    return f"Certified at {_level(results.potentials)} on {scope}: {wording.listing(parts)}." if parts else ""


def resolution_note(results: SweepResults, *, delta: float) -> str:
    """On which tasks there are too few images for delta, and how many it takes; empty where there are enough."""
    cells = [one for row in certified(results, delta=delta).values() for one in row.values() if not one.is_resolved]
    if not cells:
        return ""
    tasks = list(dict.fromkeys(one.task for one in cells))
    most = max(one.num_needed or 0 for one in cells)
    if len(tasks) == len(results.tasks) > 1:
        where = "any task"
    else:
        where = f"{len(tasks)} of {len(results.tasks)} tasks" if len(tasks) > 3 else wording.listing(tasks)
    return (
        f"The test images cannot resolve {wording.points(delta)} on {where}: to certify a network there that in truth "
        f"loses nothing takes up to {wording.thousands(_rounded(most))} images."
    )


def certified_notes(results: SweepResults, *, delta: float) -> list[str]:
    """What the table of certified ratios means."""
    level = _level(results.potentials)
    notes = [
        f"The largest measured ratio up to which every network's loss is within {wording.points(delta)} with a "
        f"confidence of {level}, ratios being tested in order (none: not even the smallest)."
    ]
    if len(results.tasks) > 1:
        notes.append(
            f"Each holds at {level} by itself, with no correction for the number of tasks; the smallest of a column "
            f"holds on every task at once at {level} as well, since each of its tests has to pass."
        )
    notes.append(resolution_note(results, delta=delta))
    return [note for note in notes if note]


def _level(potentials: Iterable[Potential]) -> str:
    levels = {one.certified_confidence for one in potentials if one.certified_confidence is not None}
    return f"{100 * max(levels, default=0.95):g} %"


def _rounded(num: int) -> int:
    """To two digits, upwards: more would be more than an estimate knows."""
    step = 10 ** max(len(str(num)) - 2, 0)
    return -(-num // step) * step
