"""How many probes a sweep may take at most, for an estimate before it starts."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

from raypruning.core.budgets import max_tried
from raypruning.core.plan import Plan
from raypruning.core.records import SearchSpec
from raypruning.core.search.axis import position, width
from raypruning.core.search.grid import grid_ratios


class _Bound(NamedTuple):
    """Of the pruned probes of one curve: how many there are at most, and how many of them are no snapshots."""

    budget: int
    num_probes: int
    num_trained: int


def max_pruned_probes(plan: Plan) -> int:
    """A bound on the pruned probes of the whole sweep, for an estimate before it starts."""
    return sum(bound.num_probes for bound in _bounds(plan))


def max_pruned_epochs(plan: Plan) -> int:
    """A bound on the epochs that they train."""
    return sum(bound.budget * bound.num_trained for bound in _bounds(plan))


def _bounds(plan: Plan) -> Iterator[_Bound]:
    """Of every curve that may be searched."""
    each = _max_by_itself(plan)
    budgets = sorted(plan.spec.budgets, reverse=True)
    tried = budgets[: max_tried(len(budgets))] if plan.spec.search.budget_search else budgets
    for curve in plan.curves:
        if curve.budget in tried:
            num_given = each if plan.lead(curve) is not None else 0
            # On top of the ratios that it is given, as many as by itself; all of a grid are given.
            num_own = 0 if num_given and plan.search.strategy == "grid" else each
            limit = plan.max_probes(curve)
            num = num_given + num_own if limit is None else min(num_given + num_own, limit)
            yield _Bound(curve.budget, num, min(num, num_own))


def _max_by_itself(plan: Plan) -> int:
    """A bound on the probes of one curve that is given none."""
    search, num_thresholds = plan.search, len(plan.thresholds)
    if search.strategy == "grid":
        return len(grid_ratios(search))
    if search.strategy == "chain":
        return len(plan.links) + _max_branches(search, num_thresholds=num_thresholds)
    if search.strategy == "model":
        return search.max_points
    return _max_bisections(search, num_thresholds=num_thresholds)


def _max_bisections(search: SearchSpec, *, num_thresholds: int) -> int:
    """A bound on the probes of one curve, none of which fails."""
    num_widths = _num_widths(search.low, search.high, search=search)
    if num_widths <= 1:
        return 2  # Both ends, and nothing to cut between them.
    per_threshold = _max_cuts(num_widths, search=search)
    return min((per_threshold + 1) * num_thresholds, _max_pieces(num_widths, search=search) + 1)


def _max_branches(search: SearchSpec, *, num_thresholds: int) -> int:
    """A bound on the branches of one chain: each threshold refines between two neighbouring links."""
    gaps = [_num_widths(a, b, search=search) for a, b in itertools.pairwise((0.0, *search.ratios))]
    wide = [gap for gap in gaps if gap > 1]
    if not wide:
        return 0
    per_threshold = _max_cuts(max(wide), search=search)
    return min(per_threshold * num_thresholds, sum(_max_pieces(gap, search=search) - 1 for gap in wide))


def _num_widths(low: float, high: float, *, search: SearchSpec) -> float:
    return (position(high) - position(low)) / width(search.resolution)


def _max_cuts(num_widths: float, *, search: SearchSpec) -> int:
    """A bound on the probes that bring one bracket of so many resolutions down to one."""
    k = search.probes_per_round
    # n cuts at once divide a bracket by n + 1, so that halvings are dearest at n = k; the last round may overshoot.
    return math.ceil(math.log2(num_widths) * k / math.log2(k + 1)) - 1 + k


def _max_pieces(num_widths: float, *, search: SearchSpec) -> int:
    """A bound on the pieces that any number of thresholds cut a range of so many resolutions into."""
    k = search.probes_per_round
    # Halves of halves; in general, no piece is smaller than a (k + 1)th of a bracket that was still to be cut.
    return int(2 ** math.ceil(math.log2(num_widths))) if k == 1 else math.ceil(num_widths * (k + 1)) - 1
