"""Zoom blur against scipy's zoom, and against the oracle."""

# B images of a batch, C channels, H W height and width

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import zoom

from raypruning.corruptions.corrupt import corrupt
from raypruning.corruptions.parameters import PARAMETER_SETS, parameters_of
from raypruning.corruptions.zoom import _operator, _operator_on_device, zoom_factors
from tests.unit.corruptions import oracle
from tests.unit.corruptions.parity import SIZES, difference, picture
from tests.unit.corruptions.replay_blur import REPLAYS

SEVERITIES = range(1, 6)
CASES = [(severity, parameter_set) for parameter_set in PARAMETER_SETS for severity in SEVERITIES]


def _images(height: int, width: int, *, num: int = 1) -> torch.Tensor:
    pictures = np.stack([picture(height, width, seed=seed) for seed in range(num)])
    return torch.from_numpy(pictures.transpose(0, 3, 1, 2).copy())


def _corrupted(severity: int, images_BCHW: torch.Tensor, parameter_set: str) -> np.ndarray:
    return corrupt(
        "zoom_blur", severity, images_BCHW, torch.arange(len(images_BCHW)), parameter_set=parameter_set
    ).numpy()


def _factors(severity: int, parameter_set: str) -> np.ndarray:
    return zoom_factors(*parameters_of("zoom_blur", severity, parameter_set=parameter_set))


@pytest.mark.parametrize(
    ("parameter_set", "expected"),
    [
        ("imagenet", [(12, 1.11), (16, 1.15), (11, 1.20), (13, 1.24), (11, 1.30)]),
        ("cifar", [(7, 1.06), (12, 1.11), (16, 1.15), (21, 1.20), (26, 1.25)]),
    ],
)
def test_zoom_factors_have_the_number_and_the_last_of_the_published_generator(
    parameter_set: str, expected: list[tuple[int, float]]
) -> None:
    for severity, (num, last) in zip(SEVERITIES, expected, strict=True):
        factors = _factors(severity, parameter_set)
        assert (len(factors), round(float(factors[-1]), 6)) == (num, last)


@pytest.mark.parametrize(("severity", "parameter_set"), CASES)
@pytest.mark.parametrize("size", [(28, 28), (33, 47), (36, 30)])
def test_zoom_blur_is_the_mean_of_the_image_twice_and_of_scipys_enlargements(
    size: tuple[int, int], severity: int, parameter_set: str
) -> None:
    # 36 rows: scipy's rounding makes the last one of an enlargement zero.
    images = _images(*size)
    exact = _mean_of_enlargements(images.numpy()[0].astype(float), _factors(severity, parameter_set))
    above = exact - _corrupted(severity, images, parameter_set)[0]
    # Up to a hundred weights, each rounded to 2^-16 or half of that: 0.05 of a level is seldom reached.
    assert above.min() > -0.05
    assert above.max() < 1.05


def _mean_of_enlargements(image_CHW: np.ndarray, factors: np.ndarray) -> np.ndarray:
    total = image_CHW.copy()
    height, width = image_CHW.shape[1:]
    for factor in factors:
        kept_height, kept_width = int(np.ceil(height / factor)), int(np.ceil(width / factor))
        top, left = (height - kept_height) // 2, (width - kept_width) // 2
        middle = image_CHW[:, top : top + kept_height, left : left + kept_width]
        total += zoom(middle, (1, factor, factor), order=1)[:, :height, :width]
    return total / (len(factors) + 1)


def test_enlargements_are_never_smaller_than_the_image() -> None:
    # So that neither the oracle's centre nor its branch for smaller ones is ever needed, square or not.
    for severity, parameter_set in CASES:
        for factor in _factors(severity, parameter_set):
            sizes = np.arange(8, 1100)
            enlarged = np.rint(np.ceil(sizes / factor) * factor).astype(int)
            assert set(np.unique(enlarged - sizes)) <= {0, 1}


@pytest.mark.parametrize("parameter_set", PARAMETER_SETS)
@pytest.mark.parametrize("size", [*SIZES, (28, 28), (36, 71)])
def test_zoom_blur_of_a_picture_is_the_oracles(size: tuple[int, int], parameter_set: str) -> None:
    oracle.require()
    for severity in SEVERITIES:
        found = difference("zoom_blur", severity, picture(*size), REPLAYS["zoom_blur"], parameter_set=parameter_set)
        assert found.largest <= 1
        assert found.share_equal >= 0.99


def test_zoom_blur_of_a_large_picture_is_the_oracles() -> None:
    oracle.require()
    found = difference("zoom_blur", 5, picture(224, 224), REPLAYS["zoom_blur"], parameter_set="imagenet")
    assert found.largest <= 1
    assert found.share_equal >= 0.99


@pytest.mark.parametrize(("severity", "parameter_set"), CASES)
def test_weights_of_every_pixel_are_steps_that_sum_to_one(severity: int, parameter_set: str) -> None:
    operator = _operator(33, 47, *parameters_of("zoom_blur", severity, parameter_set=parameter_set))
    steps = operator.data.astype(float) * 2**16
    assert (steps == np.rint(steps)).all() and (steps > 0).all()
    assert (operator.astype(float).sum(axis=1) == 1).all()


@pytest.mark.parametrize("severity", SEVERITIES)
def test_zoom_blur_of_flat_images_changes_nothing(severity: int) -> None:
    flat = torch.arange(256, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 28, 32)
    np.testing.assert_array_equal(_corrupted(severity, flat, "cifar"), flat.numpy())


def test_zoom_blur_of_an_image_is_the_same_to_the_bit_alone_in_a_batch_in_grey_and_on_an_accelerator() -> None:
    images = _images(33, 47, num=7)
    for severity in (1, 5):
        together = _corrupted(severity, images, "imagenet")
        np.testing.assert_array_equal(together[::-1], _corrupted(severity, images.flip(0), "imagenet"))
        np.testing.assert_array_equal(together[3:4, 1:2], _corrupted(severity, images[3:4, 1:2], "imagenet"))
        parameters = parameters_of("zoom_blur", severity, parameter_set="imagenet")
        operator = _operator_on_device(33, 47, *parameters, torch.device("cpu"))
        by_torch = (operator @ images.flatten(2).flatten(0, 1).T.float()).to(torch.uint8).T.reshape(images.shape)
        np.testing.assert_array_equal(together, by_torch.numpy())
