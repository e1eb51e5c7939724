"""The search for the cheapest budget that comes near the largest one."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raypruning.core.budgets import budget_choices, max_tried, next_budget, verdict
from raypruning.core.plan import Plan, walks
from raypruning.core.records import BudgetChoice, Curve, Potential, Recipe
from raypruning.core.spec import build_spec
from raypruning.errors import SpecError

from .worlds import DENSE_WRONG, Run, World, failed, make_plan, potentials, run, task_names

ANYTIME = Recipe(epochs=3, learning_rate=0.1, retrain_schedule="anytime")
budget_lists = st.lists(st.integers(0, 200), min_size=1, max_size=30, unique=True)


def curve(budget: int) -> Curve:
    return Curve(model="tiny", dataset="shapes", method="wt", budget=budget, seed=0)


def potential(ratio: float | None, *, budget: int = 1, status: str = "closed", task: str = "nominal") -> Potential:
    return Potential(
        curve=curve(budget), task=task, delta=0.01, status=status, ratio=ratio, num_examples=9, num_lost_allowed=0
    )


# The bisection


def search(budgets, verdict_of):
    """The budgets tried, in order, and what was found of each."""
    verdicts = {}
    while (budget := next_budget(budgets, verdicts)) is not None:
        assert budget in budgets and budget not in verdicts
        verdicts[budget] = verdict_of(budget)
    return verdicts


@given(budget_lists, st.integers(0, 200))
def test_bisection_finds_what_a_scan_over_all_budgets_finds(budgets, cheapest):
    verdicts = search(budgets, lambda budget: "near" if budget >= cheapest or budget == max(budgets) else "far")
    scanned = min([budget for budget in budgets if budget >= cheapest], default=max(budgets))
    assert min(budget for budget, found in verdicts.items() if found == "near") == scanned
    assert next(iter(verdicts)) == max(budgets)
    # The largest, and each further one halves the len(budgets) answers that are possible.
    assert len(verdicts) <= 1 + math.ceil(math.log2(len(budgets)))
    assert max_tried(len(budgets)) == 1 + math.ceil(math.log2(len(budgets)))


@given(budget_lists, st.integers(0, 200), st.sets(st.integers(0, 200)))
def test_budgets_that_are_open_are_passed_over_and_decide_nothing(budgets, cheapest, undecided):
    undecided = undecided & set(budgets) - {max(budgets)}

    def verdict_of(budget):
        if budget in undecided:
            return "open"
        return "near" if budget >= cheapest or budget == max(budgets) else "far"

    verdicts = search(budgets, verdict_of)
    scanned = min(budget for budget in budgets if verdict_of(budget) == "near")
    assert min(budget for budget, found in verdicts.items() if found == "near") == scanned


def test_nothing_is_compared_with_a_largest_budget_that_is_open():
    assert search((1, 2, 4), lambda _budget: "open") == {4: "open"}


# What is near


@pytest.mark.parametrize(
    ("ratio", "status", "expected"),
    [
        (0.95, "closed", "near"),  # above the largest's
        (0.89, "closed", "near"),  # 0.9 - 0.89 is 0.010000000000000009 in floating point
        (0.889999, "closed", "far"),
        (0.95, "at_top", "near"),
        (0.95, "not_monotone", "near"),
        (0.95, "open", "open"),
        (None, "open", "open"),
        (0.1, "open", "open"),  # a bound from below that may still rise
    ],
)
def test_a_potential_is_near_if_it_is_at_most_the_distance_below(ratio, status, expected):
    assert verdict([potential(ratio, status=status)], [potential(0.9)], distance=0.01) == expected


def test_one_task_that_is_too_low_makes_a_budget_far_whatever_else_is_open():
    largest = [potential(0.9), potential(0.8, task="fog"), potential(0.8, task="snow")]
    found = [potential(0.9), potential(0.5, task="fog"), potential(None, task="snow", status="open")]
    assert verdict(found, largest, distance=0.01) == "far"
    assert verdict(found[::2], largest, distance=0.01) == "open"


def choice(by_budget: dict[int, Potential], *, budgets=(1, 2, 4, 8)) -> BudgetChoice:
    (found,) = budget_choices(list(by_budget.values()), budgets=budgets, distance=0.01)
    return found


def test_choice_is_the_cheapest_near_budget_with_its_distance_and_all_that_were_tried():
    found = choice({b: potential(r, budget=b) for b, r in [(8, 0.9), (2, 0.895), (1, 0.7)]})
    assert (found.budget, found.tried, found.status) == (2, (1, 2, 8), "closed")
    assert found.distance == 0.005


@pytest.mark.parametrize(
    ("by_budget", "budget"),
    [
        ({8: potential(0.5, budget=8, status="open")}, None),
        ({8: potential(0.9, budget=8), 2: potential(0.5, budget=2, status="open")}, 8),
        # Not tried yet, as in a sweep that was interrupted.
        ({8: potential(0.9, budget=8), 4: potential(0.9, budget=4)}, 4),
    ],
)
def test_choice_is_open_while_a_cheaper_budget_is_undecided(by_budget, budget):
    found = choice(by_budget)
    assert (found.budget, found.status) == (budget, "open")


def test_choice_is_closed_by_a_far_budget_just_below_although_one_below_that_is_open():
    found = choice({b: potential(r, budget=b, status=s) for b, r, s in [
        (8, 0.9, "closed"), (4, 0.9, "closed"), (2, 0.7, "closed"), (1, 0.1, "open")
    ]})  # fmt: skip
    assert (found.budget, found.status) == (4, "closed")


# In a sweep


def growing_world(knees: dict[int, float]) -> World:
    """Up to a knee of its own for each budget nothing is lost on the first task; on each further one it is lower."""

    def num_wrong(asked: Curve, ratio: float, task: str) -> int:
        if asked.is_dense:
            return DENSE_WRONG
        index = task_names(9).index(task)
        return DENSE_WRONG + (0 if ratio < knees[asked.budget] - 0.1 * index else 900)

    return num_wrong


@st.composite
def questions(draw: st.DrawFn):
    """A sweep over budgets in which potentials grow with the budget, and the same sweep without the search."""
    budgets = draw(st.lists(st.integers(1, 40), min_size=2, max_size=5, unique=True))
    knees = sorted(draw(st.lists(st.floats(0.3, 0.99), min_size=len(budgets), max_size=len(budgets))))
    strategy = draw(st.sampled_from(["grid", "bisect"]))
    fields = {
        # Bisection shares probes between tasks, so that only with one threshold a higher knee is never found lower.
        "num_tasks": draw(st.integers(1, 3)) if strategy == "grid" else 1,
        "budgets": budgets,
        "strategy": strategy,
        "low": 0.2,
        "high": 0.95,
        "resolution": 0.3,
        "ratios": (0.3, 0.5, 0.7, 0.9) if strategy == "grid" else (),
        "recipe": draw(st.sampled_from([ANYTIME, ANYTIME.model_copy(update={"retrain_schedule": "scaled"})])),
    }
    distance = draw(st.sampled_from([0.001, 0.02, 0.1, 0.5]))
    search = make_plan(**fields, budget_search=True, budget_distance=distance)
    return search, make_plan(**fields), growing_world(dict(zip(sorted(budgets), knees, strict=True)))


def choices(plan: Plan, results: Run) -> dict[int, int | None]:
    """The chosen budget by seed."""
    searched = walks(plan, results.results)
    found = [one for (curve, _), one in potentials(plan, results.results).items() if curve in searched]
    return {
        one.seed: one.budget
        for one in budget_choices(found, budgets=plan.spec.budgets, distance=plan.spec.search.budget_distance)
    }


def scanned(plan: Plan, results: Run, *, distance: float) -> int:
    """By definition, from the curves of all budgets."""
    ratios = {
        budget: [
            p.ratio for (c, _), p in potentials(plan, results.results).items() if (c.budget, c.seed) == (budget, 0)
        ]
        for budget in plan.spec.budgets
    }
    top = ratios[max(ratios)]
    # A millionth of slack: the ratios are rounded to as much.
    return min(b for b, low in ratios.items() if all(y - x <= distance + 1e-9 for x, y in zip(low, top, strict=True)))


@settings(max_examples=25, deadline=None)
@given(questions())
def test_budget_search_answers_as_a_scan_over_all_budgets_and_tries_few(question):
    plan, exhaustive, world = question
    ran = run(plan, world)
    expected = scanned(exhaustive, run(exhaustive, world), distance=plan.spec.search.budget_distance)
    assert choices(plan, ran) == {0: expected}
    tried = {curve.budget for curve in walks(plan, ran.results)}
    assert len(tried) <= max_tried(len(plan.spec.budgets))
    asked = [probe for round_ in ran.rounds for probe in round_]
    assert {probe.curve.budget for probe in asked if not probe.curve.is_dense} == tried
    assert len({probe.id for probe in asked}) == len(asked), "no probe is asked for twice"


@settings(max_examples=12, deadline=None)
@given(questions(), st.data())
def test_neither_the_order_of_results_nor_an_interruption_changes_what_is_asked_and_answered(question, data):
    plan, _, world = question
    ran = run(plan, world)
    one_by_one = run(plan, world, take=lambda asked: [data.draw(st.sampled_from(asked))])
    assert one_by_one.results == ran.results
    kept = data.draw(st.sets(st.sampled_from(sorted(ran.results)), max_size=len(ran.results)))
    resumed = run(plan, world, known=[ran.results[key] for key in kept])
    assert resumed.results == ran.results and choices(plan, resumed) == choices(plan, ran)


def test_a_failure_at_the_largest_budget_leaves_the_choice_open_and_the_other_budgets_unsearched():
    plan = make_plan(budgets=(1, 2, 4), strategy="grid", ratios=(0.5, 0.9), budget_search=True)
    largest = next(curve for curve in plan.curves if curve.budget == 4)
    world = growing_world({1: 0.6, 2: 0.7, 4: 0.95})
    crashed = [failed(plan.pruned(largest, ratio)) for ratio in (0.5, 0.9)]
    ran = run(plan, world, known=crashed)
    assert choices(plan, ran) == {0: None}
    assert [curve.budget for curve in walks(plan, ran.results)] == [4]


def test_each_method_and_seed_has_a_search_of_its_own():
    plan = make_plan(
        methods=("wt", "ft"), budgets=(1, 2, 4), strategy="grid", ratios=(0.5, 0.7, 0.9), budget_search=True
    )

    def world(asked: Curve, ratio: float, task: str) -> int:
        return growing_world({1: 0.8, 2: 0.8, 4: 0.95 if asked.method == "wt" else 0.8})(asked, ratio, task)

    searched = [(curve.budget, curve.method) for curve in walks(plan, run(plan, world).results)]
    assert searched == [(1, "wt"), (1, "ft"), (2, "wt"), (4, "wt"), (4, "ft")]


# Bad input


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"search": {"budget_search": True}}, "search.budget_search compares budgets, and there is only 2"),
        ({"search": {"budget_distance": 0.0}}, "search.budget_distance: input should be greater than 0, got 0.0"),
        ({"search": {"budget_distance": 1}}, "search.budget_distance: input should be less than 1, got 1"),
        ({"schedule": "gradual"}, "'anytime' is for --schedule one_shot: where it is gradual, "),
        ({"schedule": {"kind": "iterative", "steps": 3}}, "'anytime' is for --schedule one_shot: where it is it"),
    ],
)  # fmt: skip
def test_budgets_that_make_no_sense_are_refused_in_one_line(changes, expected):
    recipe = {"epochs": 4, "learning_rate": 0.1, "retrain_schedule": "anytime"}
    raw = {"name": "x", "model": "m", "dataset": "d", "methods": ["wt"], "budgets": [2], "recipe": recipe, **changes}
    with pytest.raises(SpecError, match=r"^x\.toml: ") as caught:
        build_spec(raw, source="x.toml", recipes={})
    assert expected in str(caught.value) and "\n" not in str(caught.value)
