"""The honest split as rows of text: what was chosen on one half of each test set, and its loss on the other."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

from raypruning.core.records import SplitPotential, SweepResults
from raypruning.reporting import wording
from raypruning.reporting.answer import largest_budget, method_names


class SplitCell(NamedTuple):
    """Means over seeds, as text; empty where no parent was measured."""

    ratio: str
    loss: str


def split_title(delta: float) -> str:
    """Of the table."""
    return f"Honest split: potential within {wording.points(delta)} on one half of the images (loss on the other)"


def split_rows(results: SweepResults, *, delta: float) -> dict[str, list[SplitCell]]:
    """By method, a cell for each task of the sweep, at the largest budget."""
    groups: dict[tuple[str, str], list[SplitPotential]] = {}
    for one in _shown(results, delta=delta):
        groups.setdefault((one.curve.method, one.task), []).append(one)
    return {
        method: [_cell(groups.get((method, task.name), [])) for task in results.tasks]
        for method in method_names(results)
    }


def split_notes(results: SweepResults, *, delta: float) -> list[str]:
    """How to read the table, and how much the choice flatters over all of it."""
    pruned = [one for one in _shown(results, delta=delta) if one.training is not None]
    notes = ["( ) points lost against the parent on the half that had no part in the choice" + _over_seeds(results)]
    if pruned:
        chosen_on, reported = fmean(one.loss_chosen_on for one in pruned), fmean(one.loss for one in pruned)
        num_beyond = sum(not one.is_within for one in pruned)
        notes.append(
            f"On average {wording.signed_points(chosen_on, decimals=2)} points lost where the choice was made and "
            f"{wording.signed_points(reported, decimals=2)} on the other half, where {num_beyond} of {len(pruned)} "
            f"lost more than {wording.points(delta)}."
        )
    return notes


def _over_seeds(results: SweepResults) -> str:
    return "; means over seeds." if len(results.spec.seeds) > 1 else "."


def _shown(results: SweepResults, *, delta: float) -> Sequence[SplitPotential]:
    budget = largest_budget(results)
    return [one for one in results.honest_split if one.delta == delta and one.curve.budget == budget]


def _cell(group: Sequence[SplitPotential]) -> SplitCell:
    if not group:
        return SplitCell("", "")
    loss = wording.signed_points(fmean(one.loss for one in group), decimals=2)
    return SplitCell(wording.percent(fmean(one.ratio for one in group)), f"({loss})")
