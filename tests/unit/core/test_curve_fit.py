"""What fitted curves say of thresholds, against curves whose crossing is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.optimize import brentq

from raypruning.core.search import curve_fit
from raypruning.core.search.curve_fit import NUM_CURVES, Curves, Measurements, fit

LOW, HIGH = 0.5, 4.0


def softplus(x: float) -> float:
    return math.log1p(math.exp(x)) if x < 30 else x


def measured(positions, losses, *, error: float = 1e-4) -> Measurements:
    return Measurements(np.array(positions), np.array(losses), np.full(len(positions), error))


def test_crossing_of_a_curve_is_the_root_that_a_solver_finds():
    knees, widths, slopes, levels = (1.0, 2.5, 3.0), (0.03, 0.6, 0.25), (0.01, 0.3, 4.0), (-0.004, 0.0, 0.001)
    curves = Curves(*(np.array(axis) for axis in (knees, widths, slopes, levels)), deviation=0.0)
    found = curves.crossings([0.002, 0.05])
    for row, k, w, s, c in zip(found, knees, widths, slopes, levels, strict=True):
        for crossing, delta in zip(row, (0.002, 0.05), strict=True):
            root = brentq(lambda u: c + s * w * softplus((u - k) / w) - delta, -20, 20, xtol=1e-12)  # noqa: B023
            # Both in double precision: where a curve is flat, a rounding of loss is 1e-16 / slope of position.
            assert crossing == pytest.approx(root, abs=1e-8)
    assert curves.losses(found[0]).diagonal()[0] == pytest.approx(0.002, abs=1e-12)


def test_curve_above_a_threshold_everywhere_crosses_it_nowhere():
    curves = Curves(np.array([2.0]), np.array([0.1]), np.array([1.0]), np.array([0.01]), deviation=0.0)
    assert curves.crossings([0.005]).tolist() == [[-np.inf]]


def test_with_nothing_measured_thresholds_may_lie_anywhere_in_the_range():
    crossings = np.clip(fit(measured([], []), low=LOW, high=HIGH).crossings([0.005]), LOW, HIGH)
    shares = np.histogram(crossings, bins=5, range=(LOW, HIGH))[0] / NUM_CURVES
    assert shares.min() > 0.04  # none of five equal parts is as good as ruled out


@settings(max_examples=30, deadline=None)
@given(
    knee=st.floats(1.0, 3.5),
    width=st.floats(0.05, 0.5),
    slope=st.floats(0.05, 2.0),
    delta=st.sampled_from([0.005, 0.02]),
)
def test_interval_from_dense_exact_measurements_holds_the_crossing(knee, width, slope, delta):
    positions = np.linspace(LOW, HIGH, 36)  # a tenth apart
    losses = [slope * width * softplus((u - knee) / width) for u in positions]
    crossings = fit(measured(positions, losses), low=LOW, high=HIGH).crossings([delta])[:, 0]
    truth = brentq(lambda u: slope * width * softplus((u - knee) / width) - delta, -30, 30)
    low, high = np.quantile(np.clip(crossings, LOW, HIGH), [0.005, 0.995])
    # The grid of knees is a twelfth apart, and that is how exact a curve of the family can be found.
    assert low - 1 / 12 <= np.clip(truth, LOW, HIGH) <= high + 1 / 12


def test_posterior_of_the_level_is_that_of_numerical_integration():
    """One cell of the grid, three measurements: the mean and variance of c by brute force."""
    positions, losses, error = np.array([0.6, 0.9, 1.2]), np.array([0.001, 0.003, 0.002]), 0.002
    # All knees lie far beyond: curves are their level alone.
    one = measured(positions, losses, error=error)
    shared = curve_fit.SHARED * error**2
    near = np.exp(-0.5 * ((positions[:, None] - positions[None, :]) / curve_fit.NEIGHBOURHOOD) ** 2).sum(axis=1)
    misfit = near * (curve_fit.MISFIT_FLOOR**2 + (curve_fit.MISFIT * losses) ** 2)

    def posterior(c: float, deviation: float, tau: float) -> float:
        own = (1 - curve_fit.SHARED) * error**2 + misfit + deviation**2
        prior = math.exp(-(c**2) / 2 / (tau**2 + shared)) / math.sqrt(tau**2 + shared)
        return prior * float(np.prod(np.exp(-((losses - c) ** 2) / 2 / own) / np.sqrt(own)))

    def moment(power: int, tau: float) -> float:
        return sum(
            quad(lambda c: c**power * posterior(c, deviation, tau), -0.05, 0.05, epsabs=0, limit=200)[0]  # noqa: B023
            for deviation in curve_fit.DEVIATIONS
        )

    # The level without the parent's luck is a share of the measured one, and as uncertain as that leaves it.
    total = sum(moment(0, tau) for tau in curve_fit.LEVEL_DEVIATIONS)
    first = second = 0.0
    for tau in curve_fit.LEVEL_DEVIATIONS:
        keep = tau**2 / (tau**2 + shared)
        first += keep * moment(1, tau) / total
        second += (keep**2 * moment(2, tau) + keep * shared * moment(0, tau)) / total
    mean, variance = first, second - first**2
    far = fit(one, low=6.0, high=9.0)
    level = far.losses(np.array([0.9]))[:, 0]
    # 512 curves with levels at even quantiles: the error of a mean is far below that of 512 independent draws,
    # sd / sqrt(512) = 4 % of sd, and that of a standard deviation below 1 / sqrt(2 * 512) = 3 %; five of each.
    assert level.mean() == pytest.approx(mean, abs=5 * 0.044 * math.sqrt(variance))
    assert level.std() == pytest.approx(math.sqrt(variance), rel=5 * 0.031)


def test_same_measurements_in_another_order_give_the_same_curves():
    one = fit(measured([1.0, 2.0, 3.0], [0.0, 0.002, 0.05]), low=LOW, high=HIGH)
    other = fit(measured([3.0, 1.0, 2.0], [0.05, 0.0, 0.002]), low=LOW, high=HIGH)
    assert len(one.knees_N) == NUM_CURVES
    # Sums are rounded in another order, which may move a pick into a neighbouring cell at a border.
    assert np.mean(one.knees_N == other.knees_N) > 0.99
