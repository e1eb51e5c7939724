"""Gaussian smoothing against scipy's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from raypruning.corruptions.smoothing import gaussian_smooth

# Sums of at most some hundred products of numbers below one, in another order: 1e-14 of rounding, ten times over.
ROUNDING = 1e-13


def _planes(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).random((2, 3, height, width))


@pytest.mark.parametrize("boundary", ["nearest", "reflect"])
@pytest.mark.parametrize("sigma", [0.05, 0.4, 1.0, 2.7, 6.0, 30.0])
@pytest.mark.parametrize("size", [(28, 28), (33, 47), (5, 64)])
def test_smoothing_of_planes_is_scipys(size: tuple[int, int], sigma: float, boundary: str) -> None:
    planes = _planes(*size)
    found = gaussian_smooth(torch.from_numpy(planes), sigma, boundary=boundary)  # type: ignore[arg-type]
    expected = gaussian_filter(planes, (0, 0, sigma, sigma), mode=boundary)
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("sigma", [(0.0, 1.5), (2.0, 0.0), (0.7, 3.0)])
def test_smoothing_with_a_sigma_for_each_axis_takes_that_of_rows_first(sigma: tuple[float, float]) -> None:
    planes = _planes(33, 47)
    expected = gaussian_filter(planes, (0, 0, *sigma), mode="nearest")
    np.testing.assert_allclose(
        gaussian_smooth(torch.from_numpy(planes), sigma).numpy(), expected, rtol=0, atol=ROUNDING
    )


@pytest.mark.parametrize("truncate", [1.0, 3.0])
def test_smoothing_with_another_end_of_the_kernel_is_scipys(truncate: float) -> None:
    planes = _planes(33, 47)
    expected = gaussian_filter(planes, (0, 0, 2.5, 2.5), mode="reflect", truncate=truncate)
    found = gaussian_smooth(torch.from_numpy(planes), 2.5, boundary="reflect", truncate=truncate)
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("sigma", [0.0, 0.05, 0.1249])
def test_smoothing_whose_kernel_has_one_value_changes_nothing(sigma: float) -> None:
    planes = torch.from_numpy(_planes(28, 31))
    assert torch.equal(gaussian_smooth(planes, sigma), planes)


def test_smoothing_of_float32_is_done_in_float64() -> None:
    planes = torch.from_numpy(_planes(16, 16)).float()
    found = gaussian_smooth(planes, 1.0)
    assert found.dtype == torch.float64
    assert torch.equal(found, gaussian_smooth(planes.double(), 1.0))
