"""Glass blur against a loop over pixels, and against the oracle."""

# B images of a batch, C channels, H W height and width, T times that pixels are moved, R Q rows and columns moved

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from raypruning.corruptions.corrupt import corrupt, draw
from raypruning.corruptions.glass import GLASS_BLUR
from raypruning.corruptions.parameters import PARAMETER_SETS, parameters_of
from tests.unit.corruptions import oracle
from tests.unit.corruptions.parity import SIZES, difference, picture
from tests.unit.corruptions.replay_blur import REPLAYS

SEVERITIES = range(1, 6)
# The kernel of so small a sigma has one weight: pixels are moved and nothing is blurred.
NO_BLUR = 0.05


def _images(height: int, width: int, *, num: int = 1, seed: int = 0) -> torch.Tensor:
    pixels = np.random.default_rng(seed).integers(0, 256, (num, 3, height, width), dtype=np.uint8)
    return torch.from_numpy(pixels)


def _random_offsets(images_BCHW: torch.Tensor, reach: int, num_times: int) -> np.ndarray:
    num, _, height, width = images_BCHW.shape
    shape = (num, num_times, height - 2 * reach, width - 2 * reach, 2)
    return np.random.default_rng(1).integers(-reach, reach, shape, dtype=np.int32)


def _moved(images_BCHW: torch.Tensor, offsets_BTRQ2: np.ndarray, reach: int) -> np.ndarray:
    """Ours, without blur."""
    parameters = (NO_BLUR, reach, offsets_BTRQ2.shape[1])
    return GLASS_BLUR.apply(images_BCHW, {"offsets": torch.from_numpy(offsets_BTRQ2)}, parameters).numpy()


def _moved_by_a_loop(images_BCHW: torch.Tensor, offsets_BTRQ2: np.ndarray, reach: int) -> np.ndarray:
    """The definition, pixel by pixel, with its exchange of views that is none."""
    images = images_BCHW.numpy().transpose(0, 2, 3, 1).copy()
    _, height, width, _ = images.shape
    for x, of_image in zip(images, offsets_BTRQ2, strict=True):
        for of_time in of_image:
            numbers = iter(of_time.reshape(-1, 2))
            for h in range(height - reach, reach, -1):
                for w in range(width - reach, reach, -1):
                    dx, dy = next(numbers)
                    x[h, w], x[h + dy, w + dx] = x[h + dy, w + dx], x[h, w]
    return images.transpose(0, 3, 1, 2)


@pytest.mark.parametrize(("reach", "num_times"), [(1, 1), (1, 2), (2, 1), (2, 3), (3, 2), (4, 2)])
@pytest.mark.parametrize("size", [(28, 28), (17, 30), (31, 12)])
def test_moves_of_pixels_are_those_of_the_loop(size: tuple[int, int], reach: int, num_times: int) -> None:
    images = _images(*size, num=3)
    offsets = _random_offsets(images, reach, num_times)
    np.testing.assert_array_equal(_moved(images, offsets, reach), _moved_by_a_loop(images, offsets, reach))


@pytest.mark.parametrize("offset", [(1, 0), (0, 1), (1, 1), (-2, 1), (-1, -1), (0, 0), (1, -1)])
def test_moves_in_one_direction_follow_chains_of_any_length(offset: tuple[int, int]) -> None:
    images = _images(40, 23, num=2)
    offsets = np.broadcast_to(np.int32(offset), (2, 2, 36, 19, 2)).copy()
    np.testing.assert_array_equal(_moved(images, offsets, 2), _moved_by_a_loop(images, offsets, 2))


def test_a_move_copies_and_exchanges_nothing() -> None:
    images = _images(28, 28)
    offsets = np.zeros((1, 1, 26, 26, 2), np.int32)
    offsets[0, 0, 5, 7] = (-1, 0)  # (columns, rows), at row 27 - 5 and column 27 - 7
    moved = _moved(images, offsets, 1)
    expected = images.numpy().copy()
    expected[..., 22, 20] = expected[..., 22, 19]
    np.testing.assert_array_equal(moved, expected)


@pytest.mark.parametrize("reach", [1, 3])
def test_moves_leave_the_first_rows_and_columns_and_the_last_but_one_of_the_reach_alone(reach: int) -> None:
    images = _images(30, 41)
    moved = _moved(images, _random_offsets(images, reach, 2), reach)
    is_scanned = np.zeros((30, 41), bool)
    is_scanned[reach + 1 : 30 - reach + 1, reach + 1 : 41 - reach + 1] = True
    np.testing.assert_array_equal(moved[..., ~is_scanned], images.numpy()[..., ~is_scanned])
    assert (moved != images.numpy())[0, 0][is_scanned].mean() > 0.5


def test_values_are_truncated_between_the_two_blurs() -> None:
    images = torch.from_numpy(picture(33, 47).transpose(2, 0, 1).copy())[None]
    sigma = 0.7
    still = torch.zeros((1, 1, 31, 45, 2), dtype=torch.int32)
    found = GLASS_BLUR.apply(images, {"offsets": still}, (sigma, 1, 1)).numpy()

    def smooth(values: np.ndarray) -> np.ndarray:
        # What is added keeps whole values from the rounding of sums, like ours.
        return gaussian_filter(values.astype(float), (0, 0, sigma, sigma), mode="nearest") + 1e-4

    once = smooth(images.numpy())
    # Values that float32 sums put on the other side of a whole number are a few in ten thousand.
    assert (found != np.floor(smooth(np.floor(once)))).mean() < 1e-3
    assert (found != np.floor(smooth(once))).mean() > 0.3


@pytest.mark.parametrize("parameter_set", PARAMETER_SETS)
@pytest.mark.parametrize("size", [*SIZES, (28, 28)])
def test_glass_blur_with_the_oracles_offsets_is_the_oracles(size: tuple[int, int], parameter_set: str) -> None:
    oracle.require()
    for severity in SEVERITIES:
        found = difference("glass_blur", severity, picture(*size), REPLAYS["glass_blur"], parameter_set=parameter_set)
        assert found.largest <= 1
        assert found.share_equal >= 0.98


def test_glass_blur_of_a_large_picture_is_the_oracles_where_it_loses_flat_levels_too() -> None:
    oracle.require()
    # At severity 4 the weights sum to a hair less than one in float64: the oracle makes 254 of white, at an edge 253.
    for severity in (2, 4):
        found = difference("glass_blur", severity, picture(224, 224), REPLAYS["glass_blur"], parameter_set="imagenet")
        assert found.largest <= 1
        assert found.share_equal >= 0.99


def test_glass_blur_of_cifar_is_weaker_at_severity_five_than_at_four() -> None:
    # As in the published data: the constants make no order of the severities.
    images = torch.from_numpy(np.stack([picture(32, 32, seed=seed) for seed in range(8)]).transpose(0, 3, 1, 2).copy())
    noisy = (images.int() + _images(32, 32, num=8).int() // 3).clamp(max=255).to(torch.uint8)
    changes = [
        (corrupt("glass_blur", severity, noisy, torch.arange(8), parameter_set="cifar").int() - noisy.int())
        .abs()
        .double()
        .mean()
        for severity in (4, 5)
    ]
    assert changes[0] > changes[1]


@pytest.mark.parametrize(("severity", "parameter_set"), [(1, "cifar"), (2, "imagenet"), (4, "imagenet")])
def test_offsets_are_even_and_those_of_an_image_whatever_its_batch(severity: int, parameter_set: str) -> None:
    images, ids = _images(64, 48, num=20), torch.arange(100, 120)
    _, reach, num_times = (int(value) for value in parameters_of("glass_blur", severity, parameter_set=parameter_set))
    offsets = draw("glass_blur", severity, images, ids, parameter_set=parameter_set)["offsets"]
    assert offsets.shape == (20, num_times, 64 - 2 * reach, 48 - 2 * reach, 2)
    for axis in range(2):
        values, counts = offsets[..., axis].unique(return_counts=True)
        assert values.tolist() == list(range(-reach, reach))
        expected = offsets[..., axis].numel() / (2 * reach)
        # Five standard deviations of a binomial count, and the draws are fixed.
        assert (counts - expected).abs().max() < 5 * expected**0.5
    # Columns and rows are independent: so is their mean product of the product of their means (-1/2 each).
    product = offsets.double().prod(dim=-1).mean() - 0.25
    assert abs(product) < 5 * reach**2 / (offsets.numel() / 2) ** 0.5
    other = draw("glass_blur", severity, images[[7, 3]], ids[[7, 3]], parameter_set=parameter_set)["offsets"]
    assert torch.equal(other, offsets[[7, 3]])


@pytest.mark.parametrize("size", [(32, 32), (100, 97)])
def test_glass_blur_of_an_image_is_the_same_alone_and_in_a_batch(size: tuple[int, int]) -> None:
    images, ids = _images(*size, num=7), torch.arange(7)
    for severity in (1, 3, 5):
        together = corrupt("glass_blur", severity, images, ids, parameter_set="imagenet")
        order = torch.tensor([4, 0, 6])
        assert torch.equal(
            together[order], corrupt("glass_blur", severity, images[order], ids[order], parameter_set="imagenet")
        )
        assert torch.equal(
            together[2:3], corrupt("glass_blur", severity, images[2:3], ids[2:3], parameter_set="imagenet")
        )
