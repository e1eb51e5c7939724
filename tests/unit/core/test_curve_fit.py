"""What fitted curves say of thresholds, against curves whose crossing is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq

from raypruning.core.search import curve_fit
from raypruning.core.search.curve_fit import NUM_CURVES, Curves, Measurements, fit

LOW, HIGH = 0.5, 4.0


def softplus(x: float) -> float:
    return math.log1p(math.exp(x)) if x < 30 else x


def measured(positions, losses, *, error: float = 1e-4) -> Measurements:
    return Measurements(np.array(positions), np.array(losses), np.full(len(positions), error))


def test_crossing_of_a_curve_is_the_root_that_a_solver_finds():
    columns = {
        "knees_N": (0.3, 2.5, 3.0, 3.5, -0.5),
        "widths_N": (0.03, 0.6, 0.25, 0.03, 1.2),
        "slopes_N": (0.03, 0.3, 4.0, 1.0, 0.03),
        "rises_N": (0.0, 0.001, 1e-9, 0.02, 0.004),
        "levels_N": (-0.004, -0.002, 0.001, -0.002, -0.04),
    }
    curves = Curves(**{name: np.array(column) for name, column in columns.items()}, deviation=0.0)
    deltas = (0.002, 0.05)
    found = curves.crossings(deltas)
    for row, (k, w, s, b, c) in zip(found, zip(*columns.values(), strict=True), strict=True):
        for crossing, delta in zip(row, deltas, strict=True):
            root = brentq(lambda u: c + b * u + s * w * softplus((u - k) / w) - delta, 0, 20, xtol=1e-12)  # noqa: B023
            # Both in double precision: where a curve is flat, a rounding of loss is 1e-16 / slope of position.
            assert crossing == pytest.approx(root, abs=1e-8)
    assert curves.losses(found[:, 0]).diagonal() == pytest.approx(0.002, abs=1e-12)


@pytest.mark.parametrize(("knee", "level"), [(2.0, 0.01), (-1.0, 0.0)])
def test_curve_above_a_threshold_everywhere_crosses_it_nowhere(knee, level):
    parts = (knee, 0.1, 1.0, 0.001, level)
    assert Curves(*(np.array([part]) for part in parts), deviation=0.0).crossings([0.005]).tolist() == [[-np.inf]]


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


def test_curve_that_rises_slowly_before_its_knee_is_followed_on_both_sides_of_it():
    """As with filter pruning: half a point is lost for an e-fold less kept, and then the network breaks."""

    def lost(u: float) -> float:
        return 0.002 + 0.005 * u + 0.5 * max(u - 2.5, 0.0)

    positions = (0.4, 1.0, 1.5, 2.0, 2.4, 2.8, 4.0)
    curves = fit(measured(positions, [lost(u) for u in positions], error=1e-3), low=LOW, high=HIGH)
    for delta, truth in ((0.005, 0.6), (0.01, 1.6), (0.05, 2.5 + 0.0355 / 0.505)):
        low, high = np.quantile(np.clip(curves.crossings([delta]), 0.0, HIGH), [0.05, 0.95])
        assert low < truth < high


def test_losses_that_fall_with_the_ratio_are_explained_without_a_falling_curve():
    curves = fit(measured([0.6, 1.5, 2.5, 3.5], [0.3, 0.2, 0.1, 0.0]), low=LOW, high=HIGH)
    assert (curves.rises_N >= 0).all()
    assert np.isfinite(curves.losses(np.array([0.6, 3.5]))).all()


def test_posterior_of_the_straight_part_is_that_of_numerical_integration():
    """Three measurements far before any knee: mean and deviation of the loss in their middle by brute force."""
    positions, losses, error = np.array([0.6, 0.9, 1.2]), np.array([0.001, 0.003, 0.002]), 0.002
    shared = curve_fit.SHARED * error**2
    alone = (1 - curve_fit.SHARED) * error**2 + (curve_fit.MISFIT * losses) ** 2
    level, rise = np.meshgrid(np.linspace(-0.06, 0.06, 1201), np.linspace(0.0, 0.02, 801), indexing="ij")
    total = first = second = 0.0
    for tau in curve_fit.LEVEL_DEVIATIONS:
        # Equal probabilities of all tau: a density is as much lower as it is wider.
        prior = np.exp(-0.5 * (level**2 / (tau**2 + shared) + (rise / tau / curve_fit.RISE) ** 2))
        prior /= math.sqrt(tau**2 + shared) * tau
        # The level without the parent's luck is a share of the measured one, and as uncertain as that leaves it.
        keep = tau**2 / (tau**2 + shared)
        there = keep * level + 0.9 * rise
        for deviation in curve_fit.DEVIATIONS:
            weight = prior.copy()
            for u, loss, variance in zip(positions, losses, alone + deviation**2, strict=True):
                weight *= np.exp(-0.5 * (loss - level - rise * u) ** 2 / variance) / math.sqrt(variance)
            total += weight.sum()
            first += (weight * there).sum()
            second += (weight * (there**2 + keep * shared)).sum()
    mean, variance = first / total, second / total - (first / total) ** 2
    found = fit(measured(positions, losses, error=error), low=30.0, high=33.0).losses(np.array([0.9]))[:, 0]
    # 512 curves with levels at even quantiles: the error of a mean is far below that of 512 independent draws,
    # sd / sqrt(512) = 4 % of sd, and that of a standard deviation below 1 / sqrt(2 * 512) = 3 %; five of each.
    assert found.mean() == pytest.approx(mean, abs=5 * 0.044 * math.sqrt(variance))
    assert found.std() == pytest.approx(math.sqrt(variance), rel=5 * 0.031)


def test_same_measurements_in_another_order_give_the_same_curves():
    one = fit(measured([1.0, 2.0, 3.0], [0.0, 0.002, 0.05]), low=LOW, high=HIGH)
    other = fit(measured([3.0, 1.0, 2.0], [0.05, 0.0, 0.002]), low=LOW, high=HIGH)
    assert len(one.knees_N) == NUM_CURVES
    # Sums are rounded in another order, which may move a pick into a neighbouring cell at a border.
    assert np.mean(one.knees_N == other.knees_N) > 0.99
