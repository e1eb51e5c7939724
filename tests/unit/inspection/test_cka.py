"""Linear CKA against its definition with whole matrices, and the laws it is known by."""

# N images, D E features of two networks, P pairs

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ortho_group

from raypruning.inspection.cka import CkaSums


def cka_by_definition(first_ND: np.ndarray, second_NE: np.ndarray) -> float:
    """Kornblith et al. 2019, equations 2 and 3, by kernels of all images with all images."""
    num = len(first_ND)
    centring_NN = np.eye(num) - 1 / num
    first_NN, second_NN = first_ND @ first_ND.T, second_NE @ second_NE.T

    def hsic(one_NN: np.ndarray, other_NN: np.ndarray) -> float:
        return np.trace(one_NN @ centring_NN @ other_NN @ centring_NN)

    return hsic(first_NN, second_NN) / np.sqrt(hsic(first_NN, first_NN) * hsic(second_NN, second_NN))


def cka(*features: np.ndarray, pairs: list[tuple[int, int]], sizes: list[int]) -> np.ndarray:
    sums = CkaSums(pairs)
    for start, end in zip(np.cumsum([0, *sizes]), np.cumsum(sizes), strict=False):
        sums.add([torch.from_numpy(one[start:end]) for one in features])
    return sums.values_P()


def features(seed: int, *, num: int = 40, widths: tuple[int, ...] = (5, 8, 3)) -> list[np.ndarray]:
    """Of networks that see something in common, far from 0."""
    draw = np.random.default_rng(seed)
    common = draw.normal(size=(num, 4))
    return [common @ draw.normal(size=(4, width)) + draw.normal(size=(num, width)) + 30.0 for width in widths]


# Features of some 30, of which 1 varies: cancellation costs 900 of 2.2e-16, and sums of 40 * 40 products some 1e3 more.
EXACT = 1e-10


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.lists(st.integers(1, 39), max_size=5, unique=True))
def test_cka_in_batches_is_that_of_the_definition(seed: int, cuts: list[int]):
    found = features(seed)
    sizes = np.diff([0, *sorted(cuts), 40]).tolist()
    pairs = [(0, 1), (2, 1), (0, 2), (1, 1)]
    expected = [cka_by_definition(found[a], found[b]) for a, b in pairs]
    assert cka(*found, pairs=pairs, sizes=sizes) == pytest.approx(expected, abs=EXACT)


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.floats(1e-3, 1e3))
def test_cka_ignores_rotation_scale_and_shift_of_features(seed: int, scale: float):
    first, second, _ = features(seed)
    turned = scale * (second @ ortho_group.rvs(8, random_state=seed)) - 7.0
    before, after, itself = cka(first, second, turned, pairs=[(0, 1), (0, 2), (1, 2)], sizes=[40])
    assert after == pytest.approx(before, abs=EXACT)
    assert itself == pytest.approx(1.0, abs=EXACT)


def test_cka_notices_a_transformation_that_is_no_rotation():
    _, second, _ = features(0)
    stretched = second * np.array([100.0, *[1.0] * 7])
    assert cka(second, stretched, pairs=[(0, 1)], sizes=[40])[0] < 0.9


def test_features_that_do_not_vary_are_like_nothing():
    first = features(0)[0]
    assert cka(first, np.full((40, 3), 2.0), pairs=[(0, 1)], sizes=[25, 15]).tolist() == [0.0]


def test_unrelated_features_of_many_images_are_hardly_alike():
    draw = np.random.default_rng(0)
    (found,) = cka(draw.normal(size=(5000, 4)), draw.normal(size=(5000, 4)), pairs=[(0, 1)], sizes=[5000])
    # A sum of 16 squared correlations over 4, each 1 / 5000 on average; chi squared with 16 degrees of freedom exceeds
    # three times its mean in one of 10 000 cases.
    assert found < 3 * 16 / 4 / 5000
