import numpy as np
import pytest

from raypruning.reporting.mean_curve import Measured, height_at, mean_curve


def _measured(*points):
    return Measured(np.array([x for x, _ in points], dtype=float), np.array([y for _, y in points], dtype=float))


def test_mean_of_one_seed_is_that_seed_in_order():
    found = mean_curve([_measured((2, 4), (1, 1))], linear=0.5)
    assert found.positions.tolist() == [1.0, 2.0]
    assert found.points == pytest.approx([1.0, 4.0], rel=1e-12)  # asinh and back: a few units in the last place


def test_mean_is_taken_where_all_seeds_reach_only():
    found = mean_curve([_measured((1, 1), (2, 3)), _measured((0.5, 0), (1, 3), (2, 5), (4, 50))], linear=0.5)
    assert found.positions.tolist() == [1.0, 2.0]
    assert found.points == pytest.approx([2.0, 4.0], rel=1e-12)


def test_a_seed_is_straight_between_its_measurements_on_the_drawn_scale():
    found = mean_curve([_measured((1, 0), (3, np.sinh(2))), _measured((1, 0), (2, 0), (3, 0))], linear=1.0)
    assert found.points == pytest.approx([0.0, np.sinh(1) / 2, np.sinh(2) / 2], rel=1e-12)


def test_mean_of_seeds_without_a_common_range_is_empty():
    assert len(mean_curve([_measured((1, 1)), _measured((2, 1))], linear=0.5).positions) == 0


@pytest.mark.parametrize(("position", "height"), [(1.0, 1.0), (0.9, None), (2.1, None)])
def test_height_is_none_beyond_the_measurements(position, height):
    found = height_at(_measured((1, 1), (2, 4)), position, linear=0.5)
    assert found == (None if height is None else pytest.approx(height, rel=1e-12))
