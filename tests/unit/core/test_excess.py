"""Excess error against the paper's definition, with numbers that can be checked by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypruning.core.excess import excess_errors

from .worlds import done, failed, make_plan

PLAN = make_plan(num_tasks=3)
(CURVE,) = PLAN.curves
PARENT, PRUNED = PLAN.parent(0), PLAN.pruned(CURVE, 0.9)


def test_excess_error_is_the_pruned_gap_minus_the_dense_gap():
    dense = done(PARENT, {"nominal": 40, "shift/1": 100, "shift/2": 300})
    pruned = done(PRUNED, {"nominal": 50, "shift/1": 150, "shift/2": 290}, ratio_reached=0.899)
    first, second = excess_errors(pruned, dense, tasks=PLAN.tasks)
    # (15 % - 5 %) - (10 % - 4 %) and (29 % - 5 %) - (30 % - 4 %). Four numbers below 1 are each rounded by 2^-54.
    assert (first.task, first.nominal, first.ratio, first.curve) == ("shift/1", "nominal", 0.899, CURVE)
    assert (first.raw_gap, first.value) == pytest.approx((0.10, 0.04), abs=1e-15)
    assert (second.raw_gap, second.value) == pytest.approx((0.24, -0.02), abs=1e-15)


@given(st.lists(st.integers(0, 1000), min_size=3, max_size=3))
def test_parent_has_no_excess_error(num_wrong):
    dense = done(PARENT, dict(zip(("nominal", "shift/1", "shift/2"), num_wrong, strict=True)))
    assert [one.value for one in excess_errors(dense, dense, tasks=PLAN.tasks)] == [0.0, 0.0]


def test_nominal_task_has_no_excess_error_of_its_own():
    dense = done(PARENT, {"nominal": 40})
    assert excess_errors(done(PRUNED, {"nominal": 90}), dense, tasks=PLAN.tasks[:1]) == ()


def test_task_whose_nominal_was_not_measured_has_no_excess_error():
    dense, pruned = done(PARENT, {"shift/1": 100}), done(PRUNED, {"shift/1": 150})
    assert excess_errors(pruned, dense, tasks=PLAN.tasks[1:2]) == ()


def test_failed_probe_or_parent_has_no_excess_error():
    measured = {"nominal": 40, "shift/1": 100, "shift/2": 300}
    assert excess_errors(failed(PRUNED), done(PARENT, measured), tasks=PLAN.tasks) == ()
    assert excess_errors(done(PRUNED, measured), failed(PARENT), tasks=PLAN.tasks) == ()
