"""Adjusted p-values against the tests they stand for, and scipy."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import false_discovery_control

from raypruning.analysis.multiple import CORRECTIONS, benjamini_hochberg, holm

p_values = st.lists(st.floats(0, 1), max_size=8)
# Not on a boundary, where the last bit decides.
levels = st.floats(0.0011, 0.9)


def step_down(values: list[float], level: float) -> set[int]:
    """Holm's test: reject from the smallest on while p <= level / (tests left)."""
    rejected: set[int] = set()
    for index in sorted(range(len(values)), key=lambda index: values[index]):
        if values[index] > level / (len(values) - len(rejected)):
            break
        rejected.add(index)
    return rejected


def near_a_boundary(adjusted: list[float], level: float) -> bool:
    return any(abs(value - level) < 1e-12 for value in adjusted)


@given(p_values, levels)
def test_holm_is_the_level_at_which_the_step_down_test_rejects(values: list[float], level: float):
    adjusted = holm(values)
    if not near_a_boundary(adjusted, level):
        assert {index for index, value in enumerate(adjusted) if value <= level} == step_down(values, level)


@given(p_values)
def test_adjusted_values_are_probabilities_and_no_smaller_than_before(values: list[float]):
    assert all(value <= new <= 1.0 for value, new in zip(values, holm(values), strict=True))


@given(p_values)
def test_benjamini_hochberg_is_that_of_scipy(values: list[float]):
    # A product and a quotient, each rounded once, in another order.
    expected = false_discovery_control(values, method="bh") if values else []
    assert benjamini_hochberg(values) == pytest.approx(list(expected), rel=1e-14, abs=0)


def step_up(values: list[float], level: float) -> set[int]:
    """Benjamini and Hochberg's test: reject the k smallest, for the largest k whose p <= k / n * level."""
    order = sorted(range(len(values)), key=lambda index: values[index])
    passing = [rank for rank, index in enumerate(order, start=1) if values[index] <= rank / len(values) * level]
    return set(order[: max(passing, default=0)])


@given(p_values, levels)
def test_benjamini_hochberg_is_the_level_at_which_the_step_up_test_rejects(values: list[float], level: float):
    adjusted = benjamini_hochberg(values)
    if not near_a_boundary(adjusted, level):
        assert {index for index, value in enumerate(adjusted) if value <= level} == step_up(values, level)


@given(p_values)
def test_corrections_order_as_their_claims_do(values: list[float]):
    none, bh, fwer = (CORRECTIONS[name](values) for name in ("none", "bh", "holm"))
    assert none == values
    assert all(a <= b + 1e-15 and b <= c + 1e-15 for a, b, c in zip(none, bh, fwer, strict=True))
