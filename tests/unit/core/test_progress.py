"""How far a curve is, as it is shown while a sweep runs."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raypruning.core.progress import curve_progress
from raypruning.core.search.brackets import Bracket

from .worlds import failed, knee_world, make_plan, measure, run

WORLD = knee_world(0.9, 0.6)


def schedule_of(strategy):
    chain = {"kind": "iterative", "steps": 5}
    return {"strategy": strategy, "schedule": chain if strategy == "chain" else None}


def test_progress_before_the_parent_is_measured_knows_no_bracket():
    plan = make_plan(num_tasks=2, low=0.5, high=0.99, resolution=0.05)
    progress = curve_progress(plan, plan.curves[0], {})
    assert (progress.weakest_task, progress.bracket, progress.num_open, progress.num_done) == ("", None, 2, 0)


def test_progress_names_the_task_whose_bracket_lies_lowest():
    plan = make_plan(num_tasks=2, low=0.5, high=0.99, resolution=0.05)
    results = run(plan, WORLD).results
    progress = curve_progress(plan, plan.curves[0], results)
    passing = max(r.probe.ratio for r in results.values() if 0 < r.probe.ratio < 0.6)
    failing = min(r.probe.ratio for r in results.values() if r.probe.ratio >= 0.6)
    assert (progress.weakest_task, progress.bracket) == ("shift/1", Bracket(passing, failing, True))


@pytest.mark.parametrize("strategy", ["bisect", "chain", "grid"])
def test_progress_of_a_finished_search_has_nothing_open_and_all_done(strategy):
    plan = make_plan(num_tasks=2, low=0.5, high=0.99, resolution=0.05, **schedule_of(strategy))
    finished = run(plan, WORLD)
    progress = curve_progress(plan, plan.curves[0], finished.results)
    assert progress.num_open == 0
    assert progress.num_done == progress.num_expected == len(finished.ratios)


@settings(max_examples=30)
@given(
    st.integers(0, 12),
    st.sampled_from([None, 3, 6]),
    st.floats(0.501, 0.99),
    st.sampled_from(["bisect", "chain", "grid"]),
)
def test_progress_expects_at_least_what_is_done_and_at_most_the_limit(num_known, max_probes, high, strategy):
    # From a range narrower than the resolution to one of forty resolutions.
    question = schedule_of(strategy)
    plan = make_plan(num_tasks=2, low=0.5, high=high, resolution=0.1, max_probes=max_probes, **question)
    finished = run(plan, WORLD)
    known = dict(list(finished.results.items())[:num_known])
    progress = curve_progress(plan, plan.curves[0], known)
    assert 0 <= progress.num_done <= progress.num_expected
    assert max_probes is None or progress.num_expected <= max_probes


def test_progress_of_a_grid_expects_its_points_from_the_beginning_on():
    plan = make_plan(strategy="grid", ratios=(0.5, 0.8, 0.9))
    parent = plan.parent(0)
    first = plan.pruned(plan.curves[0], 0.5)
    known = {probe.id: measure(plan, WORLD, probe) for probe in (parent, first)}
    stages = [{}, {parent.id: known[parent.id]}, known]
    assert [curve_progress(plan, plan.curves[0], stage).num_expected for stage in stages] == [3, 3, 3]


def test_progress_counts_a_failed_probe_as_done_and_its_bracket_as_it_was():
    plan = make_plan(low=0.5, high=0.99, resolution=0.05)
    parent = plan.parent(0)
    (curve,) = plan.curves
    known = {parent.id: measure(plan, knee_world(0.9), parent)}
    before = curve_progress(plan, curve, known)
    first = run(plan, knee_world(0.9)).rounds[1][1]
    after = curve_progress(plan, curve, {**known, first.id: failed(first)})
    assert (before.num_done, after.num_done) == (0, 1)
    assert before.bracket == after.bracket


def test_progress_of_a_chain_expects_its_links_until_it_is_walked_and_then_its_branches():
    plan = make_plan(schedule={"kind": "iterative", "ratios": (0.3, 0.5, 0.7, 0.8, 0.9)}, resolution=0.1)
    (curve,) = plan.curves
    finished = run(plan, knee_world(0.6))
    stages = [dict(list(finished.results.items())[:num]) for num in range(2, len(finished.results) + 1)]
    assert curve_progress(plan, curve, {}).num_expected == 5
    progress = [curve_progress(plan, curve, stage) for stage in stages]
    # Two links pass and two fail; then three halvings of (.5, .7), in which what is kept differs by .5 ^ 3 * log(5/3).
    assert [one.num_done for one in progress] == [0, 1, 2, 3, 4, 5, 6, 7]
    assert [one.num_expected for one in progress] == [5, 5, 5, 5, 7, 7, 7, 7]
    assert progress[-1].bracket.low < 0.6 <= progress[-1].bracket.high
