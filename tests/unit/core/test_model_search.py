"""Where the strategy `model` asks, and when it stops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raypruning.core.records import SearchSpec
from raypruning.core.search import model
from raypruning.core.search.axis import position
from raypruning.core.search.model import next_ratios
from raypruning.core.search.strategy import Known, Loss, TaskLosses

SEARCH = SearchSpec(strategy="model", low=0.3, high=0.99)


def loss_at(ratio: float, knee: float) -> float:
    """Half a point at the knee, of no family that is fitted."""
    return 0.005 * ((1 - knee) / (1 - ratio)) ** 2


def known(ratios, knees, *, deltas=(0.005,), error: float = 0.001) -> Known:
    rows = [{ratio: Loss(loss_at(ratio, knee), error) for ratio in ratios} for knee in knees]
    outcomes = tuple({q: one.value <= delta for q, one in row.items()} for row in rows for delta in deltas)
    return Known(outcomes, ((),) * len(outcomes), (), tuple(TaskLosses(tuple(deltas), row) for row in rows))


def run(knees, search: SearchSpec = SEARCH, **options) -> list[tuple[float, ...]]:
    rounds: list[tuple[float, ...]] = []
    while ratios := next_ratios(search, known([q for one in rounds for q in one], knees, **options)):
        rounds.append(ratios)
    return rounds


@pytest.mark.parametrize("k", [1, 3])
def test_first_round_divides_the_range_evenly(k):
    first = run((0.9,), SEARCH.model_copy(update={"probes_per_round": k}))[0]
    places = [position(ratio) for ratio in (SEARCH.low, *first, SEARCH.high)]
    # Ratios are rounded to a millionth, which at .99 is a ten-thousandth of a step along u.
    assert np.diff(places) == pytest.approx([(places[-1] - places[0]) / (k + 1)] * (k + 1), abs=2e-4)


@pytest.mark.parametrize("knee", [0.5, 0.9, 0.97])
def test_ratios_gather_where_the_threshold_is(knee):
    asked = [ratio for one in run((knee,)) for ratio in one]
    away = sorted(abs(position(ratio) - position(knee)) for ratio in asked)
    # Even steps of as many networks would leave the third nearest one and a half steps away.
    even = (position(SEARCH.high) - position(SEARCH.low)) / (len(asked) + 1)
    assert away[2] < 1.5 * even


@settings(max_examples=10, deadline=None)
@given(st.lists(st.floats(0.35, 0.985), min_size=1, max_size=4), st.integers(1, 4), st.integers(3, 9))
def test_networks_of_a_curve_are_at_most_max_points_and_none_is_near_another(knees, k, max_points):
    search = SEARCH.model_copy(update={"probes_per_round": k, "max_points": max_points})
    rounds = run(knees, search)
    asked = sorted(ratio for one in rounds for ratio in one)
    assert len(asked) <= max_points
    assert all(len(one) <= k for one in rounds)
    steps = np.diff([position(ratio) for ratio in asked])
    # Candidates are a resolution apart, and the ends of the range may lie half of one from the nearest; asked ratios
    # are rounded to a millionth.
    assert (steps > 0.5 * -np.log1p(-search.resolution) - 1e-3).all()


def test_exactly_known_thresholds_end_a_search():
    ratios = np.round(1 - np.exp(-np.linspace(position(0.3), position(0.99), 60)), 6)
    search = SEARCH.model_copy(update={"max_points": 100, "resolution": 0.3})
    told = known(ratios.tolist(), (0.9,), error=1e-5)
    assert next_ratios(search, told) == ()


def test_ends_of_the_range_are_asked_last_and_only_where_a_threshold_lies_there():
    assert not {0.3, 0.99} & {ratio for one in run((0.9,)) for ratio in one}
    beyond = [ratio for one in run((0.9999,)) for ratio in one]
    assert beyond[-1] == 0.99 and 0.3 not in beyond
    below = [ratio for one in run((0.05,)) for ratio in one]
    assert below[-1] == 0.3 and 0.99 not in below


@settings(max_examples=30)
@given(st.integers(0, 10**6))
def test_gain_and_update_are_those_of_conditioning_a_normal_distribution(seed):
    random = np.random.default_rng(seed)
    num, num_thresholds = 4, 2
    root = random.normal(size=(num + num_thresholds, num + num_thresholds))
    covariance, noise = root @ root.T, random.uniform(0.1, 1.0, num)
    view = model._View(covariance, noise)
    gain = view.gain_U
    for index in range(num):
        # Condition on y = value at the candidate + noise, with y as one more variable of the joint distribution.
        joint = np.block(
            [
                [covariance, covariance[:, [index]]],
                [covariance[[index]], np.array([[covariance[index, index] + noise[index]]])],
            ]
        )
        precision = np.linalg.inv(joint + 1e-12 * np.eye(len(joint)))
        conditional = np.linalg.inv(precision[:-1, :-1])
        # Inverting twice loses the square of the condition number of a random matrix, at most 1e8 here.
        assert view.after(index).covariance_CC == pytest.approx(conditional, abs=1e-4)
        less = np.trace(covariance[num:, num:]) - np.trace(conditional[num:, num:])
        assert gain[index] == pytest.approx(less, abs=1e-4)
