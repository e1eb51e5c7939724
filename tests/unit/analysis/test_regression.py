"""The slope through the origin against NumPy's least squares."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypruning.analysis.regression import slope_through_origin

POINTS = st.lists(st.tuples(st.floats(0.01, 1), st.floats(-1, 1)), min_size=1, max_size=12)


@given(POINTS)
def test_slope_is_that_of_least_squares(points: list[tuple[float, float]]):
    x, y = map(np.array, zip(*points, strict=True))
    found = slope_through_origin(x, y)
    assert found is not None and found.num_points == len(points)
    assert found.value == pytest.approx(np.linalg.lstsq(x[:, None], y, rcond=None)[0][0], abs=1e-9)


def test_interval_of_points_on_a_line_is_the_line():
    found = slope_through_origin([0.0, 0.3, 0.5, 0.9], [0.0, 0.6, 1.0, 1.8])
    assert found is not None and found.interval is not None
    assert (found.value, found.interval.low, found.interval.high) == pytest.approx((2.0, 2.0, 2.0))


def test_interval_covers_the_true_slope_as_often_as_it_says():
    rng = np.random.default_rng(0)
    num_covered, num_worlds = 0, 60
    for _ in range(num_worlds):
        x = rng.uniform(0.1, 1, 40)
        found = slope_through_origin(x, 0.02 * x + rng.normal(0, 0.01, 40))
        assert found is not None and found.interval is not None
        num_covered += found.interval.low <= 0.02 <= found.interval.high
    # Binomial(60, 0.95) is at least 51 with probability 0.998; the percentile bootstrap of 40 points runs narrow.
    assert num_covered >= 51


def test_no_slope_without_a_point_beside_the_origin():
    assert slope_through_origin([], []) is None
    assert slope_through_origin([0.0, 0.0], [1.0, 2.0]) is None


def test_two_points_have_a_slope_and_no_interval():
    found = slope_through_origin([0.5, 1.0], [1.0, 2.0])
    assert found is not None and found.value == pytest.approx(2.0) and found.interval is None
