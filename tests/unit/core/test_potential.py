"""Thresholds are counts of images, and a potential is the largest reached ratio within one."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypruning.core.potential import (
    Threshold,
    is_beyond_noise,
    is_within,
    num_lost_allowed,
    outcomes_by_ratio,
    potential,
)
from raypruning.core.records import SearchSpec

from .worlds import NUM_EXAMPLES, done, failed, make_evaluation, make_plan

PLAN = make_plan()
(CURVE,) = PLAN.curves
PARENT = done(PLAN.parent(0), {"nominal": 40})
HALF_A_POINT = Threshold("nominal", 0.005)


def potential_of(results, *, dense=PARENT, threshold=HALF_A_POINT, **search):
    return potential(
        CURVE,
        threshold,
        results=results,
        dense=dense,
        search=SearchSpec(**{"strategy": "grid", "ratios": (0.5, 0.8, 0.9), **search}),
        num_examples=NUM_EXAMPLES,
    )


def measured(*pairs, reached=None):
    """Results at (ratio, images wrong)."""
    return [done(PLAN.pruned(CURVE, ratio), {"nominal": wrong}, ratio_reached=reached) for ratio, wrong in pairs]


# The product in floating point is 28.999999999999996, 7.000000000000001, 56.99999999999999, 114.99999999999999.
@pytest.mark.parametrize(
    ("delta", "num_examples", "allowed"),
    [(0.29, 100, 29), (0.07, 100, 7), (0.57, 100, 57), (1.15e-2, 10_000, 115), (0.005, 10_000, 50), (1e-05, 50_000, 0)],
)
def test_allowed_loss_is_the_decimal_delta_times_images_rounded_down(delta, num_examples, allowed):
    assert num_lost_allowed(delta, num_examples) == allowed


@given(st.integers(1, 99_999), st.integers(1, 1_000_000))
def test_allowed_loss_is_exact_for_every_delta_of_five_decimals(hundred_thousandths, num_examples):
    assert (
        num_lost_allowed(hundred_thousandths / 100_000, num_examples) == hundred_thousandths * num_examples // 100_000
    )


@given(st.floats(1e-9, 0.999999), st.integers(1, 1_000_000))
def test_allowed_loss_is_the_floor_of_the_written_decimal(delta, num_examples):
    exact = Fraction(repr(delta)) * num_examples
    assert num_lost_allowed(delta, num_examples) <= exact < num_lost_allowed(delta, num_examples) + 1


@pytest.mark.parametrize(("error", "expected"), [(0.455, True), (0.4551, False)])
def test_error_that_counts_no_images_is_compared_as_the_decimal_it_is(error, expected):
    pruned, dense = (
        make_evaluation(0).model_copy(update={"error": value, "num_wrong": None}) for value in (error, 0.45)
    )
    assert is_within(pruned, dense, delta=0.005) is expected
    # 0.455 - 0.45 is 0.0050000000000000044 in floating point.
    assert is_beyond_noise(pruned, dense, delta=0.005) is not expected


def test_potential_of_an_error_that_counts_no_images_allows_no_number_of_them():
    results = [PARENT, *measured((0.5, 44), (0.8, 95))]
    plain = [
        one.model_copy(
            update={"evaluations": {"nominal": one.evaluations["nominal"].model_copy(update={"num_wrong": None})}}
        )
        for one in results
    ]
    found = potential_of(plain[1:], dense=plain[0], ratios=(0.5, 0.8))
    assert (found.ratio, found.num_lost_allowed) == (0.5, None)
    assert potential_of(results[1:], ratios=(0.5, 0.8)).num_lost_allowed == 50 * NUM_EXAMPLES // 10_000


@pytest.mark.parametrize(("num_wrong", "expected"), [(69, True), (70, False)])
def test_loss_of_29_of_100_images_is_within_a_delta_of_29_percent_and_of_30_is_not(num_wrong, expected):
    pruned, dense = (make_evaluation(num, num_examples=100) for num in (num_wrong, 40))
    assert is_within(pruned, dense, delta=0.29) is expected


def test_loss_below_the_delta_of_one_image_is_none_at_all():
    pruned, dense = (make_evaluation(num, num_examples=100) for num in (41, 40))
    assert not is_within(pruned, dense, delta=0.009)
    assert is_within(dense, dense, delta=0.009)


def test_network_better_than_its_parent_is_within_any_delta():
    assert is_within(make_evaluation(10), make_evaluation(40), delta=1e-6)


# 0.4 - 0.1 is 0.30000000000000004 in floating point, and 0.7 - 0.6 is 0.09999999999999998.
@pytest.mark.parametrize(
    ("error", "dense_error", "delta", "expected"),
    [(0.4, 0.1, 0.3, True), (0.7, 0.6, 0.1, True), (0.4000001, 0.1, 0.3, False), (0.05, 0.1, 0.001, True)],
)
def test_errors_that_are_no_counts_are_compared_as_decimals(error, dense_error, delta, expected):
    pruned, dense = (make_evaluation(None, error=value) for value in (error, dense_error))
    assert is_within(pruned, dense, delta=delta) is expected


def test_potential_is_closed_between_the_last_that_passes_and_the_next():
    found = potential_of(measured((0.5, 40), (0.8, 45), (0.9, 46)))
    assert (found.status, found.ratio, found.next_ratio, found.ratio_first) == ("closed", 0.8, 0.9, 0.8)
    assert (found.error, found.dense_error, found.num_lost_allowed) == (0.045, 0.04, 5)


def test_potential_at_the_top_of_the_search_is_censored():
    found = potential_of(measured((0.5, 40), (0.8, 45), (0.9, 45)))
    assert (found.status, found.ratio, found.next_ratio) == ("at_top", 0.9, None)


def test_potential_is_zero_where_only_the_parent_qualifies():
    found = potential_of(measured((0.5, 60), (0.8, 70), (0.9, 80)))
    assert (found.status, found.ratio, found.next_ratio, found.ratio_first) == ("closed", 0.0, 0.5, 0.0)
    assert found.training == PARENT.probe.id
    assert found.error == found.dense_error == 0.04


def test_potential_is_a_reached_ratio_and_not_the_one_asked_for():
    results = [*measured((0.8, 40), reached=0.7912), *measured((0.9, 90), reached=0.8834)]
    found = potential_of(results)
    assert (found.ratio, found.next_ratio) == (0.7912, 0.8834)


def test_potential_names_the_training_to_ship():
    results = measured((0.5, 40), (0.8, 45), (0.9, 46))
    assert potential_of(results).training == results[1].probe.id


def test_potential_above_a_failing_stretch_is_not_monotone_and_gives_both_crossings():
    found = potential_of(measured((0.5, 40), (0.8, 90), (0.9, 45)))
    assert (found.status, found.ratio, found.ratio_first, found.next_ratio) == ("not_monotone", 0.9, 0.5, None)


def test_potential_without_any_pruned_result_is_open_at_dense():
    found = potential_of([])
    assert (found.status, found.ratio, found.next_ratio) == ("open", 0.0, None)


@pytest.mark.parametrize("dense", [None, failed(PLAN.parent(0))])
def test_potential_without_a_measured_parent_is_open_without_a_ratio(dense):
    found = potential_of(measured((0.5, 40)), dense=dense)
    assert (found.status, found.ratio, found.error, found.training) == ("open", None, None, None)


def test_failed_probe_is_no_outcome():
    results = [*measured((0.5, 40)), failed(PLAN.pruned(CURVE, 0.8))]
    assert outcomes_by_ratio(results, PARENT, HALF_A_POINT) == {0.5: True}


@pytest.mark.parametrize(
    ("pairs", "status"),
    [
        ([(0.9, 40), (0.905, 90)], "closed"),  # .1 and .095 kept: 5 % apart
        ([(0.9, 40), (0.91, 90)], "open"),  # 10 % apart
        ([(0.51, 90)], "open"),  # narrow, but whether .5 passes decides between .5 and dense
        ([(0.51, 90), (0.5, 90)], "closed"),
        ([(0.5, 40), (0.51, 90)], "closed"),
        ([(0.9895, 40)], "open"),  # narrow, but whether the top passes decides
        ([(0.9895, 40), (0.99, 90)], "closed"),
        ([(0.99, 40)], "at_top"),
        ([(0.8, 90), (0.9, 40), (0.905, 90)], "not_monotone"),
    ],
)
def test_status_of_a_bisection_follows_from_its_resolution_and_its_range(pairs, status):
    found = potential_of(measured(*pairs), strategy="bisect", low=0.5, high=0.99, resolution=0.05, ratios=())
    assert found.status == status


def test_bisection_from_dense_on_needs_no_lowest_ratio():
    found = potential_of(measured((0.04, 90)), strategy="bisect", low=0.0, high=0.99, resolution=0.05, ratios=())
    assert (found.status, found.ratio, found.next_ratio) == ("closed", 0.0, 0.04)
