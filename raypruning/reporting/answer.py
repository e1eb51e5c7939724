"""What the numbers of a sweep say: how each method stands on each task, the weakest task, one sentence.

Tables, Markdown and the page take their content from here and from `notes`, so that they cannot disagree.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Literal, NamedTuple

from raypruning.analysis.metrics import metric_of
from raypruning.core.records import (
    DENSE,
    Curve,
    Estimate,
    ExcessError,
    Interval,
    Potential,
    PotentialSummary,
    ProbeResult,
    SweepResults,
    Task,
)
from raypruning.reporting import wording


class Standing(NamedTuple):
    """What is known of a method on a task over all seeds, at one budget and delta.

    Attributes:
        ratio: mean potential over seeds; a lower bound unless `status` is `known`; None when nothing is known.
        status: `known`: closed for every seed; `at_top`: the largest ratio of the search passes for some seed;
            `open`: the search could not finish for some seed; `unsearched`: a search over budgets had no need of it.
        low, high: ends of `interval_kind`; None without one.
        interval_kind: `interval` for where a curve fitted to all networks crosses delta, `seeds` for the smallest and
            largest over seeds.
        confidence: of a statistical interval.
    """

    method: str
    task: str
    budget: int
    delta: float
    ratio: float | None
    status: Literal["known", "at_top", "open", "unsearched"]
    low: float | None = None
    high: float | None = None
    interval_kind: Literal["interval", "seeds", ""] = ""
    confidence: float | None = None
    is_not_monotone: bool = False

    @property
    def amount(self) -> str:
        """Such as `86.9 %`, `≥ 99.0 %`, `? ≥ 80.0 %` or `open`; `–` where nothing was searched."""
        if self.ratio is None:
            return "–" if self.status == "unsearched" else "open"
        prefix = {"known": "", "at_top": f"{wording.AT_LEAST} ", "open": f"? {wording.AT_LEAST} "}[self.status]
        return prefix + wording.percent(self.ratio)

    @property
    def spread(self) -> str:
        """Such as `(85.1 to 88.0)`; in square brackets when it is the range over seeds; empty without one."""
        if self.low is None or self.high is None or self.status == "open":
            return ""
        ends = wording.interval(self.low, self.high)
        return f"({ends})" if self.interval_kind == "interval" else f"[{ends}]"

    @property
    def amount_in_words(self) -> str:
        """Such as `86.9 %` or `at least 99.0 %`."""
        if self.ratio is None:
            return "an unknown part"
        return wording.percent(self.ratio) if self.status == "known" else f"at least {wording.percent(self.ratio)}"


class Excess(NamedTuple):
    """Difference in excess error of a method on a shifted task, at the ratio of its nominal potential, over seeds.

    Attributes:
        value: mean over seeds; None when no seed has both a nominal potential and a measured excess error.
        low, high: ends of the seeds' intervals, averaged: too wide rather than too narrow, because the seeds share
            their images.
        ratio: mean nominal potential of the seeds counted.
    """

    method: str
    task: str
    ratio: float | None
    value: float | None
    low: float | None = None
    high: float | None = None

    @property
    def amount(self) -> str:
        """Such as `+1.2`, in points, or `open`."""
        return "open" if self.value is None else wording.signed_points(self.value)

    @property
    def spread(self) -> str:
        """Such as `(+0.8 to +1.6)`; empty without an interval."""
        return "" if self.low is None or self.high is None else f"({wording.signed_interval(self.low, self.high)})"


class Control(NamedTuple):
    """The dense parent retrained for a budget, on a task: what longer training alone does. Means over seeds."""

    budget: int
    task: str
    parent_error: float
    error: float


# -- what there is ---------------------------------------------------------------------------------------------------


def method_names(results: SweepResults) -> list[str]:
    """Methods in the order of the sweep, then any other that has a potential; without the dense control."""
    names = [method.label for method in results.spec.methods]
    names += [potential.curve.method for potential in results.potentials]
    return [name for name in dict.fromkeys(names) if name != DENSE]


def largest_budget(results: SweepResults) -> int:
    """The budget that the answer is about."""
    return max(results.spec.budgets, default=0)


def searched_budgets(results: SweepResults) -> list[int]:
    """The largest first; without those that a search over budgets passed by."""
    found = {potential.curve.budget for potential in results.potentials}
    budgets = sorted(results.spec.budgets, reverse=True)
    return [budget for budget in budgets if budget in found or not _may_be_passed_by(results, budget)]


def _may_be_passed_by(results: SweepResults, budget: int) -> bool:
    return results.spec.search.budget_search and budget < largest_budget(results)


def nominal_tasks(results: SweepResults) -> list[Task]:
    """Tasks that others are compared with, in the order of the sweep."""
    return [task for task in results.tasks if task.nominal == task.name]


def shifted_tasks(results: SweepResults) -> list[Task]:
    """Tasks that have an excess error, in the order of the sweep."""
    return [task for task in results.tasks if task.nominal != task.name]


def parents(results: SweepResults) -> dict[int, ProbeResult]:
    """The finished dense parent of each seed."""
    return {probe.probe.curve.seed: probe for probe in results.probes if probe.probe.curve.is_parent and probe.is_done}


# -- standings -------------------------------------------------------------------------------------------------------


def standing(results: SweepResults, *, method: str, task: str, delta: float, budget: int) -> Standing:
    """How a method stands on a task. Open with ratio None where the results hold nothing of it."""
    key = (method, task, budget, delta)
    potentials = [p for p in results.potentials if (p.curve.method, p.task, p.curve.budget, p.delta) == key]
    summary = next((s for s in results.summaries if (s.method, s.task, s.budget, s.delta) == key), None)
    if not potentials and _may_be_passed_by(results, budget):
        return Standing(*key, None, "unsearched")
    return _standing(key, potentials, summary)


_Key = tuple[str, str, int, float]  # method, task, budget, delta


def _standing(key: _Key, potentials: Sequence[Potential], summary: PotentialSummary | None) -> Standing:
    if summary is None or summary.num_open or summary.mean is None:
        # A mean over the seeds that finished is no bound for those that did not: take every seed's lower bound.
        bounds = [p.ratio for p in potentials]
        known = [bound for bound in bounds if bound is not None]
        ratio = fmean(known) if known and len(known) == len(bounds) else None
        return Standing(*key, ratio, "open", is_not_monotone=any(p.status == "not_monotone" for p in potentials))
    ends = _ends(summary.estimate, low=summary.low, high=summary.high, num_seeds=summary.num_known)
    status = "at_top" if summary.num_at_top else "known"
    return Standing(*key, summary.mean, status, *ends, is_not_monotone=bool(summary.num_not_monotone))


class _Ends(NamedTuple):
    low: float | None
    high: float | None
    kind: Literal["interval", "seeds", ""]
    confidence: float | None = None


def _ends(estimate: Estimate | None, *, low: float | None, high: float | None, num_seeds: int) -> _Ends:
    if estimate is not None:
        return _Ends(estimate.low, estimate.high, "interval", estimate.confidence)
    if num_seeds > 1 and low is not None and high is not None:
        return _Ends(low, high, "seeds")
    return _Ends(None, None, "")


def standings(results: SweepResults, *, delta: float, budget: int | None = None) -> dict[str, dict[str, Standing]]:
    """Standings by method and task, in the order of the sweep; at the largest budget unless another is asked for."""
    chosen = largest_budget(results) if budget is None else budget
    potentials: dict[_Key, list[Potential]] = {}
    for p in results.potentials:
        potentials.setdefault((p.curve.method, p.task, p.curve.budget, p.delta), []).append(p)
    summaries = {(s.method, s.task, s.budget, s.delta): s for s in results.summaries}
    is_optional = _may_be_passed_by(results, chosen)
    return {
        method: {
            task.name: Standing(*key, None, "unsearched")
            if is_optional and key not in potentials
            else _standing(key, potentials.get(key, []), summaries.get(key))
            for task in results.tasks
            for key in [(method, task.name, chosen, delta)]
        }
        for method in method_names(results)
    }


def weakest(row: Iterable[Standing]) -> Standing | None:
    """The standing with the smallest ratio (the first of equals); None when one is unknown, so that none is weakest."""
    known = list(row)
    if not known or any(one.ratio is None for one in known):
        return None
    return min(known, key=lambda one: one.ratio if one.ratio is not None else 1.0)


def marked_weakest(row: Iterable[Standing]) -> Standing | None:
    """As `weakest`, where it is worth a mark: None also when all tasks stand the same."""
    known = list(row)
    return weakest(known) if len({one.ratio for one in known}) > 1 else None


# -- the sentence ----------------------------------------------------------------------------------------------------


def answer_sentence(results: SweepResults, *, delta: float | None = None) -> str:
    """The answer in words, as one text. See `answer_sentences`."""
    return " ".join(answer_sentences(results, delta=delta))


def answer_sentences(results: SweepResults, *, delta: float | None = None) -> list[str]:
    """The best method on all tasks at the largest budget; then its weakest task, and how the others compare.

    Args:
        results: of the sweep.
        delta: one of the sweep's; its first by default.
    """
    chosen = results.spec.deltas[0] if delta is None else delta
    rows = standings(results, delta=chosen)
    worst = {method: low for method, row in rows.items() if (low := weakest(row.values())) is not None}
    if not worst:
        return [_nothing_known(results, rows)]
    best = max(worst, key=lambda method: worst[method].ratio or 0.0)
    sentences = [_best_sentence(results, rows[best], worst[best])]
    if marked_weakest(rows[best].values()):
        sentences.append(f"The weakest task is {worst[best].task}.")
    others = [f"{method} {low.amount_in_words}" for method, low in worst.items() if method != best]
    others += [f"{method} is open" for method in rows if method not in worst]
    if others:
        scope = "On every task" if len(results.tasks) > 1 else "There"
        sentences.append(f"{scope}, by comparison: {wording.listing(others)}.")
    if any(one.status == "open" for row in rows.values() for one in row.values()):
        sentences.append("Some potentials are still open.")
    return sentences


def _best_sentence(results: SweepResults, row: dict[str, Standing], low: Standing) -> str:
    scope = "every task" if len(results.tasks) > 1 else low.task
    is_counted = all(metric_of(task.metric).counts for task in results.tasks)
    within = f"within {wording.points(low.delta)} of the parent's {'accuracy' if is_counted else 'mean IoU'}"
    nominal = [row[task.name] for task in nominal_tasks(results)]
    alone = [f"on {one.task} alone {one.amount_in_words}" for one in nominal if one.ratio != low.ratio]
    tail = "; " + ", ".join(alone) if alone and len(results.tasks) > 1 else ""
    if low.ratio == 0 and low.status == "known":
        return f"No method stays {within} on {scope} at any ratio that was tried, {low.method} included{tail}."
    top = ", the largest ratio tried" if low.status == "at_top" else ""
    return (
        f"{low.method} keeps {within} on {scope} when {low.amount_in_words} of the parameters are removed{top}{tail}."
    )


def _nothing_known(results: SweepResults, rows: dict[str, dict[str, Standing]]) -> str:
    if not parents(results):
        return "Not known: no parent network could be trained, so every potential is open."
    unknown = [one.task for row in rows.values() for one in row.values() if one.ratio is None]
    if not unknown:
        return "Not known: the sweep has no method or no task."
    return f"Not known on every task yet: nothing could be measured on {wording.listing(list(dict.fromkeys(unknown)))}."


def answer_context(results: SweepResults) -> str:
    """What the answer is about: model, dataset, schedule, budget, seeds."""
    spec = results.spec
    schedule = wording.schedule(spec.schedule)
    seeds = "one seed" if len(spec.seeds) == 1 else f"mean over {len(spec.seeds)} seeds"
    budget = wording.retraining(largest_budget(results), spec.schedule)
    return ", ".join(filter(None, [f"{spec.model.name} on {spec.data.name}", schedule, budget, seeds]))


# -- excess errors and controls --------------------------------------------------------------------------------------


def excesses(results: SweepResults, *, delta: float) -> dict[str, dict[str, Excess]]:
    """By method and shifted task: the difference in excess error where the method still keeps within delta on nominal.

    Each seed counts at its own nominal potential, at the largest budget.
    """
    measured = {(one.curve, one.ratio, one.task): one for one in results.excess_errors}
    nominal: dict[tuple[str, str], list[Potential]] = {}
    for p in results.potentials:
        if p.delta == delta and p.curve.budget == largest_budget(results) and p.ratio is not None:
            nominal.setdefault((p.curve.method, p.task), []).append(p)
    return {
        method: {
            task.name: _excess(method, task.name, nominal.get((method, task.nominal), []), measured)
            for task in shifted_tasks(results)
        }
        for method in method_names(results)
    }


def _excess(
    method: str, task: str, potentials: Sequence[Potential], measured: Mapping[tuple[Curve, float, str], ExcessError]
) -> Excess:
    found: list[tuple[float, float, Interval | None]] = []  # ratio, value, its interval
    for p in potentials:
        one = measured.get((p.curve, p.ratio or 0.0, task))
        if one is not None:
            found.append((one.ratio, one.value, one.interval))
        elif p.ratio == 0:
            found.append((0.0, 0.0, None))  # the parent itself: by definition
    if not found:
        return Excess(method, task, None, None)
    ratio, value = fmean(ratio for ratio, _, _ in found), fmean(value for _, value, _ in found)
    intervals = [interval for _, _, interval in found if interval is not None]
    if len(intervals) < len(found):
        return Excess(method, task, ratio, value)
    return Excess(method, task, ratio, value, fmean(i.low for i in intervals), fmean(i.high for i in intervals))


def common_ratio(column: Iterable[Excess]) -> str:
    """The ratio a column is at; all its tasks share one unless they have different nominal tasks."""
    ratios = {wording.percent(one.ratio) for one in column if one.ratio is not None}
    return ratios.pop() if len(ratios) == 1 else ""


def controls(results: SweepResults) -> list[Control]:
    """The retrained dense parents against the parents, by budget and task; only seeds that have both."""
    parent_of = parents(results)
    retrained = [p for p in results.probes if p.probe.curve.is_dense and p.probe.curve.budget > 0 and p.is_done]
    found = []
    for budget in sorted({p.probe.curve.budget for p in retrained}):
        pairs = [(p, parent_of[s]) for p in retrained if (s := p.probe.curve.seed) in parent_of]
        pairs = [(p, parent) for p, parent in pairs if p.probe.curve.budget == budget]
        for task in results.tasks:
            both = [
                (p, parent) for p, parent in pairs if task.name in p.evaluations and task.name in parent.evaluations
            ]
            if both:
                parent_error = fmean(parent.evaluations[task.name].error for _, parent in both)
                error = fmean(p.evaluations[task.name].error for p, _ in both)
                found.append(Control(budget, task.name, parent_error, error))
    return found
