"""Which errors are within a threshold, and the potential that follows from them. Counts are compared as integers."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from decimal import Decimal
from typing import NamedTuple

from raypruning.core.records import Curve, Evaluation, Potential, PotentialStatus, ProbeResult, SearchSpec
from raypruning.core.search.brackets import bracket, is_monotone, is_narrow
from raypruning.core.search.chain import is_settled
from raypruning.core.search.grid import grid_ratios

Z_ONE_SIDED_5_PERCENT = 1.645


class Threshold(NamedTuple):
    """One question: on this task, with this much loss allowed."""

    task: str
    delta: float


def num_lost_allowed(delta: float, num_examples: int) -> int:
    """floor(delta * n), delta taken as the decimal it is written as: 0.29 of 100 images is 29, not 28."""
    return math.floor(Decimal(repr(delta)) * num_examples)


def is_within(pruned: Evaluation, dense: Evaluation, *, delta: float) -> bool:
    """Whether the error is at most the parent's plus delta, on the same images."""
    if pruned.num_wrong is not None and dense.num_wrong is not None:
        return pruned.num_wrong - dense.num_wrong <= num_lost_allowed(delta, pruned.num_examples)
    return Decimal(repr(pruned.error)) - Decimal(repr(dense.error)) <= Decimal(repr(delta))


def is_beyond_noise(pruned: Evaluation, dense: Evaluation, *, delta: float) -> bool:
    """Whether the error is above the threshold by more than the images that both happen to have drawn explain.

    One-sided, at 5 %. The variance of the difference of two counts on the same images is at most the number of images
    that only one of both has wrong (McNemar's test), which is at most the sum of the counts. Where the metric does not
    count, whatever is above the threshold is.
    """
    if pruned.num_wrong is None or dense.num_wrong is None:
        return not is_within(pruned, dense, delta=delta)
    excess = pruned.num_wrong - dense.num_wrong - num_lost_allowed(delta, pruned.num_examples)
    return excess > Z_ONE_SIDED_5_PERCENT * math.sqrt(pruned.num_wrong + dense.num_wrong)


def clear_failures(results: Sequence[ProbeResult], dense: ProbeResult, threshold: Threshold) -> frozenset[float]:
    """Asked ratios that were measured to be beyond the threshold by more than noise."""
    task, delta = threshold
    return frozenset(
        result.probe.ratio
        for result in results
        if result.is_done and is_beyond_noise(result.evaluations[task], dense.evaluations[task], delta=delta)
    )


def outcomes_by_ratio(results: Sequence[ProbeResult], dense: ProbeResult, threshold: Threshold) -> dict[float, bool]:
    """Asked ratio -> whether it is within the threshold, for the probes that were measured."""
    reference = dense.evaluations[threshold.task]
    return {
        result.probe.ratio: is_within(result.evaluations[threshold.task], reference, delta=threshold.delta)
        for result in results
        if result.is_done
    }


def potential(
    curve: Curve,
    threshold: Threshold,
    *,
    results: Sequence[ProbeResult],
    dense: ProbeResult | None,
    search: SearchSpec,
    num_examples: int,
    is_cut_short: bool = False,
) -> Potential:
    """The largest reached ratio within the threshold over the measured probes of one curve.

    Args:
        results: of this curve's probes, done or failed, in any order.
        dense: the parent's result; None or failed when there is none, which leaves everything open.
        search: of the plan (`Plan.search`): that of a chain knows its links.
        is_cut_short: whether a limit ended the search on this curve before it was through.

    Returns: a potential without interval. Its ratio is always one that was measured; 0 is the dense network.

    Source: Lost in Pruning, section 3, with the maximum over measured ratios as its code has it.
    """
    counts = dense is None or not dense.is_done or dense.evaluations[threshold.task].num_wrong is not None
    allowed = num_lost_allowed(threshold.delta, num_examples) if counts else None
    common = {"curve": curve, "task": threshold.task, "delta": threshold.delta}
    if dense is None or not dense.is_done:
        return Potential(**common, status="open", ratio=None, num_examples=num_examples, num_lost_allowed=allowed)
    outcomes, clear = outcomes_by_ratio(results, dense, threshold), clear_failures(results, dense, threshold)
    is_through = not (
        _is_chain_broken(results, outcomes, clear, search=search)
        or (search.strategy == "model" and (is_cut_short or _is_gap_left(results, outcomes, top=search.high)))
    )
    done = sorted((r for r in results if r.is_done), key=lambda r: (r.ratio_reached, r.probe.ratio))
    passing = [r for r in done if outcomes[r.probe.ratio]]
    best = passing[-1] if passing else dense
    failing = [r.ratio_reached for r in done if not outcomes[r.probe.ratio]]
    ratio = best.ratio_reached if passing else 0.0
    first_failing = min(failing, default=math.inf)
    return Potential(
        **common,
        status=_status(outcomes, search=search) if is_through else "open",
        ratio=ratio,
        ratio_first=max((r.ratio_reached for r in passing if r.ratio_reached < first_failing), default=0.0),
        next_ratio=min((r for r in failing if r > ratio), default=None),
        dense_error=dense.evaluations[threshold.task].error,
        error=best.evaluations[threshold.task].error,
        num_examples=num_examples,
        num_lost_allowed=allowed,
        training=best.probe.training.id,
    )


def _is_gap_left(results: Sequence[ProbeResult], outcomes: Mapping[float, bool], *, top: float) -> bool:
    """Whether a crash left out a network between the largest ratio that passes and the next that was measured."""
    around = bracket(outcomes, top=top)
    return any(not result.is_done and around.low < result.probe.ratio <= around.high for result in results)


def _is_chain_broken(
    results: Sequence[ProbeResult], outcomes: Mapping[float, bool], clear: Collection[float], *, search: SearchSpec
) -> bool:
    """Whether a crash ended a chain before this threshold was settled."""
    if search.strategy != "chain":
        return False
    is_broken = any(not result.is_done and result.probe.ratio in search.ratios for result in results)
    return is_broken and not is_settled(outcomes, clear, links=search.ratios)


def _status(outcomes: Mapping[float, bool], *, search: SearchSpec) -> PotentialStatus:
    """How far the search got on the axis of asked ratios."""
    # A grid's last point is rounded as all asked ratios are, and may lie beside `search.high`.
    top = grid_ratios(search)[-1] if search.strategy == "grid" else search.high
    around = bracket(outcomes, top=top)
    if around.low >= top:
        return "at_top" if is_monotone(outcomes) else "not_monotone"
    # A grid's resolution is its own, and the model's is what the noise allows: between neighbours nothing is asked.
    is_decided = around.is_high_measured and (
        search.strategy == "grid"
        or (search.strategy == "model" and (around.low > 0.0 or search.low == 0.0))
        or around.high <= search.low
        or (
            is_narrow(around._replace(low=max(around.low, search.low)), resolution=search.resolution)
            and (around.low > 0.0 or search.low == 0.0)
        )
    )
    if not is_decided:
        return "open"
    return "closed" if is_monotone(outcomes) else "not_monotone"
