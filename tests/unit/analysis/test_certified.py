"""The fixed sequence of tests, against its definition, and against what it promises."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from raypruning.analysis.certified import certified, resampled_upper_bound


@settings(max_examples=50)
@given(st.lists(st.tuples(st.floats(0, 0.99), st.booleans()), max_size=8, unique_by=lambda one: one[0]))
def test_certified_is_the_largest_ratio_up_to_which_all_are_within(curve: list[tuple[float, bool]]):
    found = certified([ratio for ratio, _ in curve], [within for _, within in curve])
    up_to = [ratio for ratio, _ in curve if all(within for below, within in curve if below <= ratio)]
    assert (None if found is None else curve[found][0]) == max(up_to, default=None)


def test_passing_again_after_a_failure_counts_for_nothing():
    assert certified([0.9, 0.5, 0.7], [True, True, False]) == 1


@pytest.mark.parametrize("num_networks", [1, 5])
def test_networks_that_lose_too_much_are_hardly_ever_certified(num_networks: int):
    """All lose exactly delta: each test errs in 5 % of worlds, and so does the sequence, however long it is."""
    errs = np.random.default_rng(0).random((20_000, num_networks)) < 0.05
    ratios = list(np.linspace(0.1, 0.9, num_networks))
    share = np.mean([certified(ratios, [bool(one) for one in world]) is not None for world in errs])
    # Three spreads of a share of 20 000.
    assert share == pytest.approx(0.05, abs=3 * np.sqrt(0.05 * 0.95 / 20_000))


def test_upper_bound_of_resampled_losses_is_their_quantile():
    losses_R = 0.02 + 0.01 * norm.ppf((np.arange(10_000) + 0.5) / 10_000)
    # Between two of the resamples, 1e-4 / density(1.645) = 1e-3 spreads apart.
    assert resampled_upper_bound(losses_R) == pytest.approx(0.02 + 0.01 * norm.ppf(0.95), abs=1e-5)
    assert resampled_upper_bound(losses_R, confidence=0.99) == pytest.approx(0.02 + 0.01 * norm.ppf(0.99), abs=4e-5)
