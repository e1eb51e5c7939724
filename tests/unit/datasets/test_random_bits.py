from __future__ import annotations

import numpy as np

from raypruning.datasets.random_bits import permutation, raw_bits, unit_floats


def test_raw_bits_are_the_recorded_ones() -> None:
    # Recorded with numpy 2.4 on x86-64; Philox is defined to the bit, so they never change.
    assert raw_bits(2, seed=1, stream=2).tolist() == [5705853004827290377, 6584680345644299050]


def test_permutation_is_the_recorded_one_and_complete() -> None:
    assert permutation(5, seed=3).tolist() == [1, 2, 4, 3, 0]
    assert sorted(permutation(1000, seed=4)) == list(range(1000))


def test_unit_floats_reach_zero_and_stay_below_one() -> None:
    assert unit_floats(np.array([0, 2**64 - 1], np.uint64)).tolist() == [0.0, 1 - 2.0**-53]
