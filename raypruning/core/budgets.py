"""The cheapest budget that comes near the largest one, without searching the curves of all budgets.

Near is a budget whose potential is, on every task and delta, at most a stated distance below that of the largest
budget. The largest is searched first; then the list of budgets is bisected.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Literal

from raypruning.core.potential import Threshold
from raypruning.core.records import BudgetChoice, Potential, SweepSpec

# `open`: a potential that is open leaves it undecided.
Verdict = Literal["near", "far", "open"]


def problems(spec: SweepSpec) -> Iterator[str]:
    """What is wrong with the budgets of a spec, a line each."""
    if spec.search.budget_search and len(spec.budgets) < 2:
        yield (
            f"search.budget_search compares budgets, and there is only {spec.budgets[0]}: "
            "add a smaller one, such as --budget 1, or leave --budget-search out"
        )
    if spec.recipe.retrain_schedule == "anytime" and spec.schedule.kind != "one_shot":
        yield (
            f"recipe.retrain_schedule 'anytime' is for --schedule one_shot: where it is {spec.schedule.kind}, "
            "what a short budget prunes is no beginning of a long one; write --set recipe.retrain_schedule=scaled"
        )


def next_budget(budgets: Collection[int], verdicts: Mapping[int, Verdict]) -> int | None:
    """The budget to search next; None when the answer is as good as it gets.

    A bisection takes for granted that a budget above a near one is near. Where a cheaper budget is near although a
    dearer one is not, it finds a near one that may not be the cheapest: it looks at none below one that is far.

    Args:
        budgets: of the sweep, at least one.
        verdicts: on those whose curves are through. One that is open decides nothing and is passed over; if the
            largest is, there is nothing to compare with.
    """
    largest = max(budgets)
    if largest not in verdicts:
        return largest
    if verdicts[largest] == "open":
        return None
    cheapest = min(budget for budget, one in verdicts.items() if one == "near")
    between = sorted(budget for budget in _between(budgets, verdicts, cheapest) if budget not in verdicts)
    # The cheaper of two middles: it costs less to try.
    return between[(len(between) - 1) // 2] if between else None


def max_tried(num_budgets: int) -> int:
    """How many budgets are searched at most, if no potential stays open."""
    return 1 + (num_budgets - 1).bit_length()


def verdict(potentials: Sequence[Potential], largest: Sequence[Potential], *, distance: float) -> Verdict:
    """Where a budget stands, from the potentials of its curve and of the largest budget's, of the same thresholds.

    One that is clearly too low makes a budget far, whatever else is open.
    """
    gaps = _gaps(potentials, largest)
    if any(gap is not None and gap > Decimal(repr(distance)) for gap in gaps):
        return "far"
    return "open" if None in gaps else "near"


def budget_choices(
    potentials: Sequence[Potential], *, budgets: Collection[int], distance: float
) -> tuple[BudgetChoice, ...]:
    """The answer for each method and seed, in the order of the potentials, from the potentials of searched curves."""
    groups: dict[tuple[str, int], dict[int, list[Potential]]] = {}
    for one in potentials:
        group = groups.setdefault((one.curve.method, one.curve.seed), {})
        group.setdefault(one.curve.budget, []).append(one)
    return tuple(
        _choice(method, seed, by_budget, budgets=budgets, distance=distance)
        for (method, seed), by_budget in groups.items()
    )


def _choice(
    method: str, seed: int, by_budget: Mapping[int, Sequence[Potential]], *, budgets: Collection[int], distance: float
) -> BudgetChoice:
    largest = by_budget.get(max(budgets), ())
    verdicts = {budget: verdict(found, largest, distance=distance) for budget, found in by_budget.items() if largest}
    near = [budget for budget, one in verdicts.items() if one == "near"]
    chosen = min(near, default=None)
    is_open = chosen is None or any(
        verdicts.get(budget, "open") == "open" for budget in _between(budgets, verdicts, chosen)
    )
    gaps = [] if chosen is None else [gap for gap in _gaps(by_budget[chosen], largest) if gap is not None]
    return BudgetChoice(
        method=method,
        seed=seed,
        budget=chosen,
        distance=None if chosen is None else float(max(gaps, default=Decimal(0))),
        tried=tuple(sorted(by_budget)),
        status="open" if is_open else "closed",
    )


def _between(budgets: Collection[int], verdicts: Mapping[int, Verdict], near: int) -> list[int]:
    """Budgets cheaper than a near one and dearer than every far one below it."""
    far = max((budget for budget, one in verdicts.items() if one == "far" and budget < near), default=-1)
    return [budget for budget in budgets if far < budget < near]


def _gaps(potentials: Sequence[Potential], largest: Sequence[Potential]) -> list[Decimal | None]:
    """By how much each potential is below the largest budget's, at least 0; None where either is open."""
    top = {Threshold(one.task, one.delta): one for one in largest}
    pairs = [(one, top[Threshold(one.task, one.delta)]) for one in potentials]
    return [
        None
        if low.ratio is None or high.ratio is None or "open" in (low.status, high.status)
        # As the decimals they are written as: 0.9 is 0.01 above 0.89, and not a last bit more.
        else max(Decimal(0), Decimal(repr(high.ratio)) - Decimal(repr(low.ratio)))
        for low, high in pairs
    ]
