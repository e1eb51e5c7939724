"""How far each curve of a sweep is, for whoever watches it."""

from __future__ import annotations

import math
from typing import NamedTuple

from raypruning.core.plan import Plan, Results, Walk, walk, walks
from raypruning.core.potential import outcomes_by_ratio
from raypruning.core.records import Curve, SearchSpec
from raypruning.core.search.axis import position, width
from raypruning.core.search.brackets import Bracket, bracket, is_narrow
from raypruning.core.search.grid import grid_ratios


class CurveProgress(NamedTuple):
    """One curve.

    Attributes:
        weakest_task: the one whose bracket lies lowest; "" before anything is known.
        bracket: of that task.
        num_open: thresholds whose bracket is not narrow enough yet.
        num_done, num_expected: pruned probes; expected is an estimate that moves.
        waits_for: what it needs before its first probe; "" where nothing is missing.
    """

    curve: Curve
    weakest_task: str
    bracket: Bracket | None
    num_open: int
    num_done: int
    num_expected: int
    waits_for: str = ""


def curve_progress(plan: Plan, curve: Curve, results: Results) -> CurveProgress:
    """The state of one curve's search."""
    return _progress(plan, walk(plan, curve, results), results)


def curves_progress(plan: Plan, results: Results) -> list[CurveProgress]:
    """Of every curve; without those that a search over budgets has not come to."""
    return [_progress(plan, step, results) for step in walks(plan, results).values()]


def _progress(plan: Plan, step: Walk, results: Results) -> CurveProgress:
    curve = step.curve
    known = [results[probe.id] for probe in step.asked if probe.id in results]
    dense = results.get(plan.parent(curve.seed).id)
    search = plan.search
    limit = math.inf if (share := plan.max_probes(curve)) is None else share
    if dense is None or not dense.is_done or step.waits:
        waits_for = "the largest budget" if step.waits else "its parent"
        expected = int(min(_num_from_the_start(plan), limit))
        return CurveProgress(curve, "", None, len(plan.thresholds), 0, expected, waits_for)
    brackets = {
        threshold: bracket(outcomes_by_ratio(known, dense, threshold), top=search.high) for threshold in plan.thresholds
    }
    is_over = step.is_finished
    wide = [one for one in brackets.values() if not is_over and not is_narrow(one, resolution=search.resolution)]
    # A grid asks for all it will ever want at once.
    halvings = [] if search.strategy == "grid" else [_num_halvings(one, search=search) for one in wide]
    if any(probe.place == "link" for probe in step.missing):
        # It may stop before its last link, and refine then: about as many probes as it has links left.
        num_links = sum(result.probe.place == "link" for result in known)
        halvings = [len(plan.links) - num_links]
    lowest = min(brackets, key=lambda threshold: (brackets[threshold].low, brackets[threshold].high))
    return CurveProgress(
        curve,
        lowest.task,
        brackets[lowest],
        len(wide),
        len(known),
        int(min(len(known) + max([len(step.missing), *halvings]), limit)),
    )


def _num_from_the_start(plan: Plan) -> int:
    """Probes of a curve, before anything is known of it."""
    search = plan.search
    if search.strategy == "grid":
        return len(grid_ratios(search))
    if search.strategy == "chain":
        return len(plan.links)
    return 1 + _num_halvings(Bracket(search.low, search.high, False), search=search)


def _num_halvings(one: Bracket, *, search: SearchSpec) -> int:
    """How often a bracket has to be halved until it is narrow enough."""
    num_widths = (position(one.high) - position(max(one.low, search.low))) / width(search.resolution)
    return math.ceil(math.log2(max(1.0, num_widths)))
