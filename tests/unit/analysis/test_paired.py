"""Paired statistics against a numerical maximum of the likelihood, sums over outcomes, scipy, and another program."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest, multinomial, norm

from raypruning.analysis.paired import (
    Discordance,
    discordance,
    images_needed,
    interval,
    is_within,
    mcnemar,
    upper_bound,
    wilson,
)

discordances = (
    st.integers(1, 500)
    .flatmap(lambda num: st.tuples(st.just(num), st.integers(0, num)))
    .flatmap(lambda pair: st.builds(Discordance, st.just(pair[1]), st.integers(0, pair[0] - pair[1]), st.just(pair[0])))
)


def score(found: Discordance, loss: float) -> float:
    """How many standard errors the measured loss is above a supposed one, by maximising the likelihood numerically.

    P(lost) = q + loss, P(gained) = q, and the rest is on neither side; q is what the likelihood is maximal at.
    """
    lost, gained, num = found

    def surprise(q: float) -> float:
        cells = ((lost, q + loss), (gained, q), (num - lost - gained, 1 - 2 * q - loss))
        return -sum(count * math.log(max(chance, 1e-300)) for count, chance in cells if count)

    low, high = max(0.0, -loss), (1.0 - loss) / 2.0
    q = minimize_scalar(surprise, bounds=(low, high), method="bounded", options={"xatol": 1e-12}).x
    return (lost - gained - num * loss) / math.sqrt(num * (2.0 * q + loss * (1.0 - loss)))


def test_discordance_counts_the_images_that_one_alone_has_wrong():
    parent, pruned = np.array([0, 0, 0, 1, 1, 0], bool), np.array([1, 1, 0, 1, 0, 0], bool)
    assert discordance(parent, pruned) == (2, 1, 6)


@settings(max_examples=50)
@given(discordances)
def test_loss_and_its_standard_error_are_those_of_the_differences_image_by_image(found: Discordance):
    difference_N = np.zeros(found.num)
    difference_N[: found.lost] = 1
    difference_N[found.num - found.gained :] = -1
    # Sums of 500 numbers of size 1 round at 500 * 2.2e-16; a root of it at the root of that.
    assert found.loss == pytest.approx(difference_N.mean(), abs=1e-12)
    assert found.standard_error == pytest.approx(difference_N.std() / math.sqrt(found.num), abs=1e-7)
    assert found.rate == pytest.approx(np.abs(difference_N).mean(), abs=1e-12)


@settings(max_examples=40)
@given(discordances, st.sampled_from([0.8, 0.95, 0.99]))
def test_upper_bound_is_where_the_score_test_stops_rejecting(found: Discordance, confidence: float):
    bound = upper_bound(found, confidence=confidence)
    assert found.loss <= bound <= 1.0
    if bound < 1.0:
        # The likelihood is flat to rounding within 1e-8 of its maximum, relative to 1: q is no surer than that. At a
        # variance of the order of the bound's distance from 1, a score of some units is then off by less than 1e-3.
        assert score(found, bound) == pytest.approx(-norm.ppf(confidence), abs=1e-3)
    else:
        assert found.lost == found.num


@given(discordances, st.floats(0.001, 0.999), st.sampled_from([0.8, 0.95, 0.99]))
def test_is_within_says_whether_the_upper_bound_is(found: Discordance, delta: float, confidence: float):
    bound = upper_bound(found, confidence=confidence)
    # brentq stops within 2e-12 of the root.
    if abs(bound - delta) > 1e-11:
        assert is_within(found, delta, confidence=confidence) == (bound <= delta)


@settings(max_examples=40)
@given(discordances, st.sampled_from([0.8, 0.95]))
def test_interval_of_the_two_networks_exchanged_is_the_mirrored_one(found: Discordance, confidence: float):
    ours, mirrored = interval(found, confidence=confidence), interval(Discordance(found.gained, found.lost, found.num))
    assert ours.low <= found.loss <= ours.high
    again = interval(Discordance(found.gained, found.lost, found.num), confidence=confidence)
    assert (again.low, again.high) == (-ours.high, -ours.low)
    assert ours.high == upper_bound(found, confidence=(1 + confidence) / 2)
    assert mirrored.confidence == 0.9


def test_interval_is_that_of_another_program():
    """PropCIs 0.3 for R: scoreci.mp(25, 28, 618, conf.level = 0.9) gives -0.0148, 0.0247, of the second less the first.

    To its four published decimals.
    """
    found = interval(Discordance(lost=28, gained=25, num=618), confidence=0.9)
    assert (round(found.low, 4), round(found.high, 4)) == (-0.0148, 0.0247)


@pytest.mark.parametrize("num", [1, 50, 10_000])
def test_no_disagreement_bounds_the_loss_as_wilson_bounds_an_error_never_seen(num: int):
    # Nothing is gained in the likeliest case, so that the loss is a single proportion with 0 of n.
    bound = binomtest(0, num).proportion_ci(confidence_level=0.9, method="wilson").high
    assert upper_bound(Discordance(0, 0, num)) == pytest.approx(bound, abs=1e-11)


@pytest.mark.parametrize(("num", "rate", "loss"), [(200, 0.2, 0.05), (400, 0.1, 0.02), (400, 0.3, 0.01)])
def test_network_that_loses_delta_is_certified_as_often_as_is_stated(num: int, rate: float, loss: float):
    """Exactly, over all outcomes: those left out have a chance of 1e-10 each, of 1e-5 together."""
    chances = [(rate + loss) / 2, (rate - loss) / 2, 1 - rate]
    lost, gained = (grid.ravel() for grid in np.meshgrid(np.arange(num // 2), np.arange(num // 2)))
    chance = multinomial.pmf(np.stack([lost, gained, num - lost - gained], axis=1), num, chances)
    counts = chance > 1e-10
    size = sum(
        one
        for b, c, one in zip(lost[counts], gained[counts], chance[counts], strict=True)
        if is_within(Discordance(int(b), int(c), num), loss)
    )
    # Of b - c in images: its spread, and its skewness. One step of the count is one density at z; the normal
    # approximation of a studentised mean is off by skewness (2 z^2 + 1) / 6 of a density (Hall 1992, section 2.6).
    z, spread = norm.ppf(0.95), math.sqrt(num * (rate - loss**2))
    skewness = abs(loss - 3 * loss * rate + 2 * loss**3) / (rate - loss**2) ** 1.5 / math.sqrt(num)
    assert size == pytest.approx(0.05, abs=norm.pdf(z) * (1 / spread + skewness * (2 * z * z + 1) / 6))


def test_mcnemar_is_the_sum_over_coin_tosses_that_are_no_likelier():
    def by_definition(lost: int, gained: int) -> float:
        num = lost + gained
        chances = [math.comb(num, heads) / 2**num for heads in range(num + 1)]
        return sum(chance for chance in chances if chance <= chances[lost] * (1 + 1e-9))

    for lost, gained in [(0, 0), (1, 0), (3, 9), (10, 10), (30, 12)]:
        assert mcnemar(Discordance(lost, gained, 100)) == pytest.approx(by_definition(lost, gained), rel=1e-9)


def test_wilson_is_scipys():
    wrong_P, num_P = np.array([0, 3, 920, 50, 100]), np.array([20, 2000, 10_000, 100, 100])
    low_P, high_P = wilson(wrong_P, num_P, confidence=0.9)
    for wrong, num, low, high in zip(wrong_P, num_P, low_P, high_P, strict=True):
        found = binomtest(int(wrong), int(num)).proportion_ci(confidence_level=0.9, method="wilson")
        assert (low, high) == pytest.approx((found.low, found.high), abs=1e-12)


@pytest.mark.parametrize(
    ("rate", "published"),
    [(0.01, 2473), (0.02, 4946), (0.04, 9892), (0.06, 14838), (0.10, 24730), (0.20, 49460)],
)
def test_images_needed_are_those_of_a_published_calculation(rate: float, published: int):
    """At delta 0.005, 95 %, 80 %: rounded there, rounded up here."""
    assert images_needed(rate, 0.005) - published in (0, 1)


def test_images_needed_certify_as_often_as_is_stated():
    num, rate, delta = images_needed(0.1, 0.02), 0.1, 0.02
    draws = np.random.default_rng(0).multinomial(num, [rate / 2, rate / 2, 1 - rate], size=2000)
    share = np.mean([is_within(Discordance(int(lost), int(gained), num), delta) for lost, gained, _ in draws])
    # Three times the spread of a share of 2000, and that of the approximation: under the score test the spread at
    # delta is larger than at 0 by delta / (2 rate) or so, 10 % of 2.5 spreads at a density of phi(0.84) = 0.28.
    assert share == pytest.approx(0.8, abs=3 * math.sqrt(0.8 * 0.2 / 2000) + 0.07)


def test_images_needed_where_nothing_differs_are_those_that_certify_an_equal_network():
    num = images_needed(0.0, 0.01)
    assert is_within(Discordance(0, 0, num), 0.01) and not is_within(Discordance(0, 0, num - 1), 0.01)
