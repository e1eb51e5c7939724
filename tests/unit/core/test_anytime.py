"""Plans whose smaller budgets are snapshots of the largest: what is asked first, and with which ratios."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raypruning.core.bounds import max_pruned_epochs, max_pruned_probes
from raypruning.core.plan import next_probes, walk, walks
from raypruning.core.records import Recipe

from .worlds import done, failed, knee_world, make_plan, measure, potentials, run

RECIPE = Recipe(epochs=3, learning_rate=0.1, retrain_schedule="anytime")
WORLD = knee_world(0.9)


def plan_of(**fields):
    return make_plan(**{"budgets": (1, 2, 4), "recipe": RECIPE, "low": 0.1, **fields})


def curve_of(plan, budget, **fields):
    return next(c for c in plan.curves if c.budget == budget and all(getattr(c, k) == v for k, v in fields.items()))


@pytest.mark.parametrize("schedule", [{}, {"rewind_epochs": 1}])
@pytest.mark.parametrize("retrain_schedule", ["anytime", "constant"])
def test_snapshots_are_the_trainings_of_the_smaller_budgets(schedule, retrain_schedule):
    recipe = RECIPE.model_copy(update={"retrain_schedule": retrain_schedule})
    plan = plan_of(budgets=(4, 0, 2), schedule=schedule, recipe=recipe)
    snapshots = plan.snapshots(plan.pruned(curve_of(plan, 4), 0.7))
    assert snapshots == tuple(plan.pruned(curve_of(plan, budget), 0.7).training for budget in (0, 2))


def test_snapshots_of_a_control_are_the_controls_of_smaller_budgets_and_not_the_parent():
    plan = plan_of(budgets=(0, 2, 4))
    shorter, longest = plan.controls(0)
    assert plan.snapshots(longest) == (shorter.training,)
    assert plan.snapshots(shorter) == plan.snapshots(plan.parent(0)) == ()


@pytest.mark.parametrize(
    "fields",
    [
        {"recipe": RECIPE.model_copy(update={"retrain_schedule": "scaled"})},
        {"recipe": RECIPE.model_copy(update={"retrain_schedule": "tail"})},
        {"budgets": (4,)},
        # With a constant rate these are allowed, and depend on the budget all the same.
        {"recipe": RECIPE.model_copy(update={"retrain_schedule": "constant"}), "schedule": {"kind": "gradual"}},
        {
            "recipe": RECIPE.model_copy(update={"retrain_schedule": "constant"}),
            "schedule": {"kind": "iterative", "steps": 3},
        },
    ],
)
def test_no_snapshots_where_a_training_depends_on_its_budget(fields):
    plan = plan_of(**fields)
    assert plan.snapshots(plan.pruned(curve_of(plan, 4), 0.7)) == ()
    assert not any(walk(plan, curve, {}).waits for curve in plan.curves)


def test_longest_control_is_asked_before_those_that_it_leaves_behind():
    plan = plan_of(strategy="grid", ratios=(0.5,))
    parent = plan.parent(0)
    results = {parent.id: measure(plan, WORLD, parent)}
    (first,) = [probe for probe in next_probes(plan, results) if probe.curve.is_dense]
    assert first.curve.budget == 4
    for outcome in (measure(plan, WORLD, first), failed(first)):
        asked = next_probes(plan, {**results, first.id: outcome})
        assert sorted(probe.curve.budget for probe in asked if probe.curve.is_dense) == [1, 2]


def test_smaller_budgets_wait_for_the_largest_and_begin_with_the_ratios_it_measured():
    plan = plan_of()
    rounds = [[p for p in asked if not p.curve.is_dense] for asked in run(plan, WORLD).rounds]
    alone = [[p for p in asked if not p.curve.is_dense] for asked in run(plan_of(budgets=(4,)), WORLD).rounds]
    num_alone = len(alone)
    assert [[p.id for p in asked] for asked in rounds[:num_alone]] == [[p.id for p in asked] for asked in alone]
    measured = {p.ratio for asked in alone for p in asked}
    by_budget = {budget: {p.ratio for p in rounds[num_alone] if p.curve.budget == budget} for budget in (1, 2, 4)}
    assert by_budget == {1: measured, 2: measured, 4: set()}
    assert len(rounds) == num_alone + 1, "where all budgets are the same, nothing else is asked"


def test_search_of_a_smaller_budget_goes_on_by_itself():
    plan = plan_of(budgets=(1, 4))

    def world(curve, ratio, task):
        return knee_world(0.9 if curve.budget == 4 else 0.6)(curve, ratio, task)

    found = {curve.budget: one for (curve, _), one in potentials(plan, run(plan, world).results).items()}
    assert {budget: one.status for budget, one in found.items()} == {1: "closed", 4: "closed"}
    assert found[1].ratio < 0.6 <= found[1].next_ratio <= 0.6 + 0.05 * 0.4 / 0.95  # 5 % of what is kept


def test_ratio_that_failed_at_the_largest_budget_is_not_given_to_the_smaller_ones():
    plan = plan_of(budgets=(1, 4), strategy="grid", ratios=(0.5, 0.7))
    bad = failed(plan.pruned(curve_of(plan, 4), 0.7))
    rounds = run(plan, WORLD, known=[bad]).rounds
    smaller = [[p.ratio for p in asked if (p.curve.budget, p.curve.method) == (1, "wt")] for asked in rounds]
    # The grid of the smaller budget asks for it by itself, after what it was given.
    assert [asked for asked in smaller if asked] == [[0.5], [0.7]]


def test_what_is_stored_of_a_smaller_budget_starts_no_search_before_its_time():
    plan = plan_of(budgets=(1, 4))
    parent = plan.parent(0)
    stray = done(plan.pruned(curve_of(plan, 1), 0.5), {"nominal": 40})
    results = {parent.id: measure(plan, WORLD, parent), stray.probe.id: stray}
    one = walk(plan, curve_of(plan, 1), results)
    assert one.waits and not one.is_finished and one.asked == ()


@settings(max_examples=12, deadline=None)
@given(
    st.sampled_from(["bisect", "grid"]), st.integers(1, 3), st.lists(st.floats(0.2, 0.98), min_size=2, max_size=2),
    st.sets(st.integers(0, 9)), st.data(),
)  # fmt: skip
def test_neither_order_nor_interruption_nor_failures_change_what_is_asked(strategy, k, knees, broken, data):
    grid = {"ratios": (0.3, 0.6, 0.9)} if strategy == "grid" else {}
    plan = plan_of(num_tasks=2, high=0.95, resolution=0.3, strategy=strategy, probes_per_round=k, **grid)

    def world(curve, ratio, task):
        return knee_world(*(knee * (1 - 0.1 / (1 + curve.budget)) for knee in knees))(curve, ratio, task)

    def fails(ratio):
        return int(ratio * 1e6) % 10 in broken

    ran = run(plan, world, fails=fails)
    asked = [probe.id for round_ in ran.rounds for probe in round_]
    assert len(set(asked)) == len(asked)
    assert len(ran.ratios) <= max_pruned_probes(plan) or broken
    one_by_one = run(plan, world, fails=fails, take=lambda asked: [data.draw(st.sampled_from(asked))])
    assert one_by_one.results == ran.results
    kept = data.draw(st.sets(st.sampled_from(sorted(ran.results))))
    assert run(plan, world, fails=fails, known=[ran.results[key] for key in kept]).results == ran.results
    assert all(walk(plan, curve, ran.results) == one for curve, one in walks(plan, ran.results).items())


def test_a_grid_trains_for_its_largest_budget_alone():
    plan = plan_of(strategy="grid", ratios=(0.5, 0.7, 0.9), methods=("wt", "ft"))
    results = run(plan, WORLD).results
    snapshots = {one.id for result in results.values() for one in plan.snapshots(result.probe)}
    trained = [one.probe for one in results.values() if one.probe.id not in snapshots and not one.probe.curve.is_dense]
    assert {probe.curve.budget for probe in trained} == {4}
    assert max_pruned_epochs(plan) == sum(probe.training.epochs for probe in trained) == 2 * 3 * 4
    assert max_pruned_probes(plan) == 2 * 3 * 3
