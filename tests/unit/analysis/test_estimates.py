"""Estimates of potentials: their place, their width, and the mean over seeds."""

from __future__ import annotations

import math

import pytest

from raypruning.analysis.estimates import estimate_of, fitted_ratios, mean_estimate
from raypruning.core.records import Estimate, SearchSpec
from raypruning.core.search.strategy import Loss

SEARCH = SearchSpec(strategy="grid", low=0.3, high=0.99)


def knee(ratio: float, *, at: float = 0.9) -> float:
    """Of no family that is fitted: a power of the fraction kept, a loss of half a point at `at`."""
    return 0.005 * ((1 - at) / (1 - ratio)) ** 2


def estimate(ratios, *, error: float = 0.001, delta: float = 0.005) -> Estimate:
    losses = [(ratio, Loss(knee(ratio), error)) for ratio in ratios]
    return estimate_of(fitted_ratios(losses, (delta,), search=SEARCH)[:, 0])


def test_estimate_lies_between_measurements_where_the_curve_crosses():
    found = estimate([0.4, 0.6, 0.75, 0.85, 0.93, 0.97])
    assert found.low < 0.9 < found.high
    # Half of the gap between the two networks on either side.
    assert found.ratio == pytest.approx(0.9, abs=0.04)
    assert found.confidence == 0.9


def test_interval_shrinks_with_more_networks_and_with_more_images():
    few, many = estimate([0.5, 0.8, 0.95]), estimate([0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.88, 0.91, 0.93, 0.95])
    noisy = estimate([0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.88, 0.91, 0.93, 0.95], error=0.01)
    assert many.high - many.low < few.high - few.low
    assert many.high - many.low < noisy.high - noisy.low


def test_estimate_grows_with_delta_and_stays_within_what_was_searched():
    losses = [(ratio, Loss(0.0, 0.0005)) for ratio in (0.5, 0.9, 0.99)]
    ratios_NT = fitted_ratios(losses, (0.005, 0.02), search=SEARCH)
    assert (ratios_NT[:, 0] <= ratios_NT[:, 1]).all()
    assert estimate_of(ratios_NT[:, 1]).high == pytest.approx(0.99)
    lost = [(ratio, Loss(0.5, 0.001)) for ratio in (0.3, 0.5, 0.9)]
    assert estimate_of(fitted_ratios(lost, (0.005,), search=SEARCH)[:, 0]).low == 0.0


def test_mean_over_seeds_takes_the_larger_of_what_intervals_and_seeds_say():
    agreeing = [Estimate(ratio=0.8, low=0.7, high=0.85)] * 4
    found = mean_estimate(agreeing)
    assert (found.ratio, found.low, found.high) == pytest.approx((0.8, 0.75, 0.825))
    apart = [Estimate(ratio=ratio, low=ratio - 0.01, high=0.95) for ratio in (0.6, 0.8)]
    # sd of .6 and .8 is .2 / sqrt(2); the mean of two has that over sqrt(2), and 1.645 of it is the half width.
    half = 1.645 * 0.2 / math.sqrt(2) / math.sqrt(2)
    found = mean_estimate(apart)
    # Above, intervals of .35 and .15 say more: the root of their mean square over the root of 2.
    above = math.sqrt((0.35**2 + 0.15**2) / 2) / math.sqrt(2)
    assert (found.low, found.high) == pytest.approx((0.7 - half, 0.7 + above))
    beyond = [Estimate(ratio=ratio, low=0.1, high=0.95) for ratio in (0.5, 0.9, 0.94)]
    assert mean_estimate(beyond).high == 0.95  # the largest ratio of the search
    assert mean_estimate(agreeing[:1]) == agreeing[0]
