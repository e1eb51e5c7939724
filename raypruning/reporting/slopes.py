"""How excess error grows with the ratio, over all shifted tasks together: a line through the origin for each method.

Source: Lost in Pruning, section 5: the error averaged over the shifted test sets, regressed on the prune ratio.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from raypruning.analysis.regression import Slope, slope_through_origin
from raypruning.core.records import SweepResults
from raypruning.reporting import wording
from raypruning.reporting.answer import largest_budget, method_names, shifted_tasks


def slopes(results: SweepResults) -> dict[str, Slope]:
    """By method, of the mean excess error over shifted tasks against the reached ratio, at the largest budget.

    A network counts once, and only if it was measured on every shifted task.
    """
    num_tasks = len(shifted_tasks(results))
    found = {}
    for method in method_names(results):
        by_network: dict[tuple[int, float], list[float]] = {}
        for one in results.excess_errors:
            if one.curve.method == method and one.curve.budget == largest_budget(results):
                by_network.setdefault((one.curve.seed, one.ratio), []).append(one.value)
        points = [(ratio, fmean(values)) for (_, ratio), values in by_network.items() if len(values) == num_tasks]
        slope = slope_through_origin([ratio for ratio, _ in points], [value for _, value in points])
        if slope is not None:
            found[method] = slope
    return found


def slope_notes(results: SweepResults) -> Sequence[str]:
    """A line for people, such as `… wt +2.1 (+1.8 to +2.4), ft +3.0 (+2.2 to +3.9)`; none without two shifted tasks."""
    if len(shifted_tasks(results)) < 2 or not (found := slopes(results)):
        return ()
    texts = [f"{method} {_text(slope)}" for method, slope in found.items()]
    scope = f"Mean over {wording.count(len(shifted_tasks(results)), 'shifted task')}"
    return (
        f"{scope}, a line through the origin: points for each 100 % removed: {', '.join(texts)}; "
        "in brackets 95 %, over networks.",
    )


def _text(slope: Slope) -> str:
    ends = slope.interval
    interval = f" ({wording.signed_interval(ends.low, ends.high)})" if ends else ""
    return wording.signed_points(slope.value) + interval
