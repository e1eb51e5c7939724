"""Which probes a sweep wants, in which order, and within which limit."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raypruning.core.bounds import max_pruned_probes
from raypruning.core.plan import asked_probes, next_probes, results_of, walk
from raypruning.core.potential import Threshold

from .worlds import done, failed, knee_world, make_plan, measure, potentials, run


def labels(probes):
    return [(probe.curve.method, probe.curve.budget, probe.curve.seed) for probe in probes]


def test_curves_are_methods_by_budgets_by_seeds_with_seeds_innermost():
    plan = make_plan(methods=("wt", "ft"), budgets=(2, 5), seeds=(7, 8))
    assert [(c.budget, c.method, c.seed) for c in plan.curves] == [
        (budget, method, seed) for budget in (2, 5) for method in ("wt", "ft") for seed in (7, 8)
    ]


def test_thresholds_are_every_task_with_every_delta():
    plan = make_plan(num_tasks=2, deltas=(0.01, 0.02))
    assert plan.thresholds == tuple(
        Threshold(task, delta) for task in ("nominal", "shift/1") for delta in (0.01, 0.02)
    )  # fmt: skip


def test_next_probes_of_an_empty_store_are_the_parents_alone():
    plan = make_plan(methods=("wt", "ft"), seeds=(3, 4), budgets=(0, 2))
    asked = next_probes(plan, {})
    assert labels(asked) == [("dense", 0, 3), ("dense", 0, 4)]
    assert all(probe.training.start is None and probe.training.mask is None for probe in asked)


def test_next_probes_of_a_seed_wait_for_its_parent_while_other_seeds_go_on():
    plan = make_plan(seeds=(3, 4), budgets=(2,))
    first = plan.parent(3)
    asked = next_probes(plan, {first.id: measure(plan, knee_world(0.9), first)})
    assert labels(asked) == [("dense", 0, 4), ("dense", 2, 3), ("wt", 2, 3)]


def test_next_probes_give_every_curve_its_first_probe_before_any_its_second():
    plan = make_plan(methods=("wt", "ft"), strategy="grid", ratios=(0.5, 0.9))
    parent = plan.parent(0)
    asked = next_probes(plan, {parent.id: measure(plan, knee_world(0.9), parent)})
    assert [(probe.curve.method, probe.ratio) for probe in asked] == [
        ("dense", 0.0), ("wt", 0.5), ("ft", 0.5), ("wt", 0.9), ("ft", 0.9)
    ]  # fmt: skip


def test_seed_whose_parent_failed_asks_for_nothing_and_its_potentials_are_open_without_a_ratio():
    plan = make_plan(seeds=(3, 4))
    world = knee_world(0.9)
    results = run(plan, world, known=[failed(plan.parent(3))]).results
    assert {result.probe.curve.seed for result in results.values() if result.is_done} == {4}
    found = {curve.seed: potential for (curve, _), potential in potentials(plan, results).items()}
    assert (found[3].status, found[3].ratio, found[3].ratio_first) == ("open", None, None)
    assert found[4].status == "closed"


def test_sweep_whose_parents_all_failed_ends_with_every_potential_open():
    plan = make_plan(seeds=(0, 1), num_tasks=2, deltas=(0.01, 0.02))
    results = {plan.parent(seed).id: failed(plan.parent(seed)) for seed in (0, 1)}
    assert next_probes(plan, results) == ()
    found = potentials(plan, results).values()
    assert len(found) == 8
    assert all(one.status == "open" and one.ratio is None and one.next_ratio is None for one in found)


def test_pruned_training_starts_from_the_parent_of_its_seed_and_trains_for_its_budget():
    plan = make_plan(seeds=(0, 1), budgets=(2, 5))
    curve = next(c for c in plan.curves if c.seed == 1 and c.budget == 5)
    training = plan.pruned(curve, 0.7).training
    assert training.start == plan.parent(1).id != plan.parent(0).id
    assert (training.epochs, training.seed, training.mask.ratio) == (5, 1, 0.7)
    assert plan.parent(1).training.epochs == plan.spec.recipe.epochs


def test_control_is_the_parent_retrained_without_a_mask_for_every_budget_but_zero():
    plan = make_plan(budgets=(0, 2, 5))
    controls = [probe.training for probe in plan.controls(0)]
    assert [(one.epochs, one.mask, one.start) for one in controls] == [
        (2, None, plan.parent(0).id),
        (5, None, plan.parent(0).id),
    ]


def test_failed_control_stops_nothing():
    plan = make_plan(low=0.5, high=0.9, resolution=0.3)
    (control,) = plan.controls(0)
    (found,) = potentials(plan, run(plan, knee_world(0.7), known=[failed(control)]).results).values()
    assert found.status == "closed"


@settings(max_examples=25)
@given(
    st.integers(1, 40),
    st.integers(1, 3),
    st.integers(1, 3),
    st.sampled_from(["bisect", "chain", "grid"]),
    st.integers(1, 4),
)
def test_max_probes_is_shared_evenly_and_never_exceeded(max_probes, num_seeds, num_methods, strategy, per_round):
    question = {
        "methods": ("wt", "ft", "random")[:num_methods],
        "seeds": tuple(range(num_seeds)),
        "strategy": strategy,
        "low": 0.1,
        "high": 0.99,
        "probes_per_round": per_round,
        "schedule": {"kind": "iterative", "steps": 6} if strategy == "chain" else None,
    }
    plan, unlimited = make_plan(**question, max_probes=max_probes), make_plan(**question)
    results = run(plan, knee_world(0.83)).results
    shares = [plan.max_probes(curve) for curve in plan.curves]
    assert sum(shares) == max_probes
    assert max(shares) - min(shares) <= 1
    # All curves of this world are the same, and so is what each would have asked for.
    num_wanted = len(run(unlimited, knee_world(0.83)).ratios) // len(unlimited.curves)
    counts = [len(results_of(plan, curve, results)) for curve in plan.curves]
    assert counts == [min(share, num_wanted) for share in shares]
    assert sum(counts) <= max_pruned_probes(plan) <= max_probes


def test_search_stopped_by_its_limit_keeps_what_it_knows_and_says_open():
    plan = make_plan(max_probes=3, low=0.1, high=0.99)
    results = run(plan, knee_world(0.83)).results
    (curve,) = plan.curves
    (found,) = potentials(plan, results).values()
    assert (found.status, found.ratio) == ("open", max(r.probe.ratio for r in results.values() if r.probe.ratio < 0.83))
    assert walk(plan, curve, results).hit_limit


def test_limit_that_the_search_never_reaches_is_not_hit():
    plan = make_plan(max_probes=30, low=0.1, high=0.99)
    results = run(plan, knee_world(0.83)).results
    assert not walk(plan, plan.curves[0], results).hit_limit


def test_asked_probes_are_dense_ones_first_and_hold_what_has_no_result_yet():
    plan = make_plan(seeds=(0, 1))
    parent = plan.parent(0)
    asked = asked_probes(plan, {parent.id: measure(plan, knee_world(0.9), parent)})
    assert labels(asked) == [("dense", 0, 0), ("dense", 0, 1), ("dense", 1, 0), ("dense", 1, 1), ("wt", 1, 0)]


def test_walk_is_not_replayed_where_nothing_it_looks_at_has_changed():
    """A driver asks for every curve whenever a probe ends: that must not cost all curves' searches each time."""
    plan, world = make_plan(methods=("wt", "ft")), knee_world(0.9)
    results = dict(run(plan, world).results)
    wt, ft = plan.curves
    before = walk(plan, wt, results), walk(plan, ft, results)
    last = before[0].asked[-1]
    without = {key: one for key, one in results.items() if key != last.id}
    assert walk(plan, ft, without) is before[1], "another curve's result is none of its business"
    assert walk(plan, wt, without).missing == (last,)
    assert walk(plan, wt, results) == before[0]
    first = before[0].asked[0]
    assert walk(plan, wt, {**results, first.id: failed(first)}) != before[0]


def test_results_of_a_curve_leave_out_what_its_search_never_asked_for():
    plan = make_plan(strategy="grid", ratios=(0.5, 0.9))
    (curve,) = plan.curves
    stray = done(plan.pruned(curve, 0.95), {"nominal": 40})
    results = run(plan, knee_world(0.7), known=[stray]).results
    assert [result.probe.ratio for result in results_of(plan, curve, results)] == [0.5, 0.9]


@pytest.mark.parametrize("change", [{"deltas": (0.1, 0.2)}, {"num_tasks": 3}, {"max_probes": 2}, {"resolution": 0.5}])
def test_another_question_about_the_same_networks_asks_for_the_same_trainings(change):
    plan, other = make_plan(), make_plan(**change)
    assert other.parent(0).id == plan.parent(0).id
    assert other.pruned(other.curves[0], 0.9).id == plan.pruned(plan.curves[0], 0.9).id
