"""Gaussian and defocus blur against their definitions in scipy and OpenCV, and against the oracle."""

# B images of a batch, C channels, H W height and width

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from scipy.ndimage import correlate, gaussian_filter

from raypruning.corruptions.blur import _correlated, defocus_kernel
from raypruning.corruptions.corrupt import corrupt
from raypruning.corruptions.parameters import PARAMETER_SETS, parameters_of
from tests.unit.corruptions import oracle
from tests.unit.corruptions.parity import SIZES, difference, picture
from tests.unit.corruptions.replay_blur import REPLAYS

NAMES = ("gaussian_blur", "defocus_blur")
SEVERITIES = range(1, 6)
CASES = [(severity, parameter_set) for parameter_set in PARAMETER_SETS for severity in SEVERITIES]
# What float32 sums, and what is added to them before truncation, may be away from exact ones, in grey levels.
FLOAT32 = 4e-4


def _images(height: int, width: int, *, num: int = 1) -> torch.Tensor:
    pictures = np.stack([picture(height, width, seed=seed) for seed in range(num)])
    return torch.from_numpy(pictures.transpose(0, 3, 1, 2).copy())


def _corrupted(name: str, severity: int, images_BCHW: torch.Tensor, parameter_set: str) -> np.ndarray:
    ids = torch.arange(len(images_BCHW))
    return corrupt(name, severity, images_BCHW, ids, parameter_set=parameter_set).numpy()


def _assert_truncated(found: np.ndarray, exact: np.ndarray) -> None:
    """Every value is the whole part of the exact one, up to the rounding of float32."""
    above = exact - found
    assert above.min() > -FLOAT32
    assert above.max() < 1.0 + FLOAT32


@pytest.mark.parametrize("parameter_set", PARAMETER_SETS)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [*SIZES, (28, 28), (99, 101)])
def test_blur_of_a_picture_is_the_oracles(size: tuple[int, int], name: str, parameter_set: str) -> None:
    oracle.require()
    for severity in SEVERITIES:
        found = difference(name, severity, picture(*size), REPLAYS[name], parameter_set=parameter_set)
        assert found.largest <= 1
        # Where five equal weights sum to a whole number, one in five, rounding decides what the oracle truncates.
        assert found.share_equal >= (0.88 if name == "defocus_blur" else 0.99)


@pytest.mark.parametrize("name", NAMES)
def test_blur_of_a_large_picture_is_the_oracles(name: str) -> None:
    oracle.require()
    for severity in SEVERITIES:
        found = difference(name, severity, picture(224, 224), REPLAYS[name], parameter_set="imagenet")
        assert found.largest <= 1
        # Equal weights again, 29 of them; and the oracle loses some of the flat levels, by the rounding of its weights.
        assert found.share_equal >= (0.9 if name == "defocus_blur" else 0.99)


@pytest.mark.parametrize(("severity", "parameter_set"), CASES)
@pytest.mark.parametrize("size", [(28, 28), (33, 47), (100, 97)])
def test_gaussian_blur_is_scipys_with_the_borders_value_beyond_it_truncated(
    size: tuple[int, int], severity: int, parameter_set: str
) -> None:
    images = _images(*size)
    (sigma,) = parameters_of("gaussian_blur", severity, parameter_set=parameter_set)
    exact = gaussian_filter(images.double().numpy(), (0, 0, sigma, sigma), mode="nearest", truncate=4.0)
    _assert_truncated(_corrupted("gaussian_blur", severity, images, parameter_set), exact)


@pytest.mark.parametrize(("severity", "parameter_set"), CASES)
@pytest.mark.parametrize("size", [(28, 28), (33, 47), (100, 97)])
def test_defocus_blur_is_a_correlation_with_the_image_mirrored_about_its_border_pixels_truncated(
    size: tuple[int, int], severity: int, parameter_set: str
) -> None:
    images = _images(*size)
    radius, sigma = parameters_of("defocus_blur", severity, parameter_set=parameter_set)
    kernel = _whole_kernel(radius, sigma).astype(np.float64)
    exact = correlate(images.double().numpy(), kernel[None, None], mode="mirror").clip(0, 255)
    _assert_truncated(_corrupted("defocus_blur", severity, images, parameter_set), exact)


def _whole_kernel(radius: float, sigma: float) -> np.ndarray:
    """The definition: a disk on a grid, softened within the grid, with all of its empty margin."""
    side, num_weights = (8, 3) if radius <= 8 else (int(radius), 5)
    y, x = np.mgrid[-side : side + 1, -side : side + 1]
    disk = (x**2 + y**2 <= radius**2).astype(np.float32)
    return cv2.GaussianBlur(disk / disk.sum(), (num_weights, num_weights), sigmaX=sigma)


@pytest.mark.parametrize(("severity", "parameter_set"), CASES)
def test_defocus_kernel_without_its_margin_has_the_weights_of_the_whole(severity: int, parameter_set: str) -> None:
    radius, sigma = parameters_of("defocus_blur", severity, parameter_set=parameter_set)
    whole, kernel = _whole_kernel(radius, sigma), defocus_kernel(radius, sigma)
    margin = (len(whole) - len(kernel)) // 2
    # A hundredth of a level at most over all that is left out.
    np.testing.assert_allclose(np.pad(kernel, margin), whole, rtol=0, atol=0.01 / 255 / whole.size)


@pytest.mark.parametrize(("radius", "is_at_the_edge"), [(3, False), (6, False), (8, True), (10, True)])
def test_defocus_kernel_of_a_disk_that_touches_its_grids_edge_weighs_more_than_one(
    radius: float, is_at_the_edge: bool
) -> None:
    # The mirror image beyond the edge adds to it: no convolution of a disk and a gaussian.
    assert (defocus_kernel(radius, 0.5).sum(dtype=float) > 1.01) == is_at_the_edge


@pytest.mark.parametrize(("severity", "parameter_set"), CASES)
@pytest.mark.parametrize("side", [32, 100])
def test_blur_of_flat_images_keeps_every_level(side: int, severity: int, parameter_set: str) -> None:
    levels = torch.arange(256, dtype=torch.uint8)[:: 1 if side == 32 else 17]
    flat = levels.view(-1, 1, 1, 1).expand(-1, 3, side, side)
    np.testing.assert_array_equal(_corrupted("gaussian_blur", severity, flat, parameter_set), flat.numpy())
    total = defocus_kernel(*parameters_of("defocus_blur", severity, parameter_set=parameter_set)).sum(dtype=float)
    # The two largest kernels brighten: their sum is above one.
    expected = np.minimum(np.floor(flat.numpy() * max(total, 1.0)), 255)
    if total < 1.001:
        expected = flat.numpy()
    np.testing.assert_array_equal(_corrupted("defocus_blur", severity, flat, parameter_set), expected)


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (100, 97)])
@pytest.mark.parametrize("name", NAMES)
def test_blur_of_an_image_is_the_same_alone_in_a_batch_and_in_grey(name: str, size: tuple[int, int]) -> None:
    images = _images(*size, num=7)
    for severity in (1, 3, 5):
        together = _corrupted(name, severity, images, "imagenet")
        np.testing.assert_array_equal(together[::-1], _corrupted(name, severity, images.flip(0), "imagenet"))
        np.testing.assert_array_equal(together[3:4], _corrupted(name, severity, images[3:4], "imagenet"))
        # A channel by itself may go another way through OpenCV, whose float32 sums then differ in their last bits.
        grey = _corrupted(name, severity, images[:, 1:2], "imagenet")
        assert (grey != together[:, 1:2]).mean() < 1e-3


@pytest.mark.parametrize(("severity", "parameter_set"), CASES)
def test_defocus_blur_by_torch_for_accelerators_is_that_by_opencv(severity: int, parameter_set: str) -> None:
    images = _images(33, 47, num=2)
    kernel = defocus_kernel(*parameters_of("defocus_blur", severity, parameter_set=parameter_set))
    found = _correlated(images, torch.from_numpy(kernel).double()).numpy()
    gap = np.abs(found.astype(int) - _corrupted("defocus_blur", severity, images, parameter_set))
    assert gap.max() <= 1
    # Weights of a millionth beside five of a fifth leave sums in the range of float32's rounding below whole values.
    assert (gap == 0).mean() > (0.99 if (severity, parameter_set) == (4, "cifar") else 0.999)
