"""The mean corruption error by its definition, on networks whose value is known."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypruning.core.corruption_error import ALEXNET_CLEAN_ERROR, ALEXNET_ERRORS, corruption_errors

SEVERITIES = range(1, 6)
ALEXNET = {(name, severity): error for name, error in ALEXNET_ERRORS.items() for severity in SEVERITIES}


def test_alexnet_has_a_mean_corruption_error_of_one_in_both_senses():
    found = corruption_errors(ALEXNET, clean_error=ALEXNET_CLEAN_ERROR)
    assert found is not None
    assert found.mce == pytest.approx(1.0) and found.relative_mce == pytest.approx(1.0)
    assert found.mean == pytest.approx(sum(ALEXNET_ERRORS.values()) / 15)


def test_alexnets_errors_are_those_of_the_papers_table():
    # Hendrycks and Dietterich 2019 print them as whole percents, in this order.
    printed = [89, 89, 92, 82, 83, 79, 80, 87, 83, 82, 56, 85, 65, 72, 61]
    assert [round(100 * error) for error in ALEXNET_ERRORS.values()] == printed


def test_network_that_loses_nothing_under_corruption_has_a_relative_error_of_zero():
    found = corruption_errors(dict.fromkeys(ALEXNET, 0.24), clean_error=0.24)
    assert found is not None and found.relative_mce == pytest.approx(0.0)
    assert found.mce == pytest.approx(sum(0.24 / error for error in ALEXNET_ERRORS.values()) / 15)


@given(st.dictionaries(st.sampled_from(sorted(ALEXNET)), st.floats(0, 1), min_size=1, max_size=74))
def test_errors_of_some_severities_have_a_mean_and_no_comparison_with_alexnet(errors: dict[tuple[str, int], float]):
    found = corruption_errors(errors, clean_error=0.1)
    assert found is not None and found.mce is None and found.relative_mce is None
    names = {name for name, _ in errors}
    by_hand = [[errors[cell] for cell in errors if cell[0] == name] for name in names]
    assert found.mean == pytest.approx(sum(sum(row) / len(row) for row in by_hand) / len(names), abs=1e-12)


def test_severities_of_one_corruption_weigh_no_more_than_one_of_another():
    errors = {("fog", severity): 0.2 for severity in SEVERITIES} | {("snow", 3): 0.4}
    found = corruption_errors(errors, clean_error=0.1)
    assert found is not None and found.mean == pytest.approx(0.3)


def test_the_four_extra_corruptions_are_no_part_of_the_comparison():
    with_extra = ALEXNET | {("saturate", severity): 0.9 for severity in SEVERITIES}
    found = corruption_errors(with_extra, clean_error=ALEXNET_CLEAN_ERROR)
    assert found is not None and found.mce == pytest.approx(1.0)


def test_nothing_measured_is_nothing_known():
    assert corruption_errors({}, clean_error=0.1) is None
