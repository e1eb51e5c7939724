"""Which budget is enough, as texts for every form of report. Empty unless budgets were searched."""

from __future__ import annotations

from raypruning.core.records import BudgetChoice, SweepResults
from raypruning.reporting import wording
from raypruning.reporting.answer import largest_budget

TITLE = "The cheapest budget that comes near the largest"
HEADS = ("method", "seed", "cheapest budget", "below the largest by", "budgets tried")


def choice_rows(results: SweepResults) -> list[list[str]]:
    """A line for each method and seed, under HEADS."""
    return [
        [one.method, str(one.seed), _budget_text(one), _distance_text(one), ", ".join(map(str, one.tried))]
        for one in results.budget_choices
    ]


def choice_notes(results: SweepResults) -> list[str]:
    """How to read the lines."""
    if not results.budget_choices:
        return []
    largest = wording.count(largest_budget(results), "epoch")
    near = wording.points(results.spec.search.budget_distance)
    notes = [f"On every task and delta, its potential is at most {near} below that after {largest}."]
    if any(one.status == "open" for one in results.budget_choices):
        notes.append("? or open: an open potential leaves it undecided whether a cheaper budget would do.")
    if len(results.spec.seeds) > 1:
        notes.append("Elsewhere, a mean at a smaller budget is over the seeds that were searched there.")
    return notes


def _budget_text(one: BudgetChoice) -> str:
    if one.budget is None:
        return "open"
    amount = wording.count(one.budget, "epoch")
    return f"? {amount}" if one.status == "open" else amount


def _distance_text(one: BudgetChoice) -> str:
    return "" if one.distance is None else wording.points(round(one.distance, 3))
