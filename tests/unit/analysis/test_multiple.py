"""Adjusted p-values against the step-down test they stand for."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from raypruning.analysis.multiple import holm

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
