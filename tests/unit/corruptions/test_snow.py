"""Snow against the oracle and against its definition with SciPy and OpenCV."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch
from scipy.ndimage import zoom as scipy_zoom

from raypruning.corruptions.corrupt import apply, corrupt, draw
from raypruning.corruptions.parameters import PARAMETER_SETS, parameters_of
from tests.unit.corruptions import oracle
from tests.unit.corruptions.parity import SIZES, difference, picture
from tests.unit.corruptions.replay_weather import REPLAYS


@pytest.mark.parametrize("parameter_set", PARAMETER_SETS)
@pytest.mark.parametrize("size", [*SIZES, (28, 28), (87, 86), (224, 224)])
def test_snow_with_the_oracles_flakes_is_within_a_level(size: tuple[int, int], parameter_set: str) -> None:
    oracle.require()
    for severity in (2,) if size == (224, 224) else range(1, 6):
        found = difference("snow", severity, picture(*size), REPLAYS["snow"], parameter_set=parameter_set)
        assert found.largest <= 1 and found.share_equal > 0.99


def test_flakes_without_wind_are_scipys_zoom_with_its_dark_last_row() -> None:
    # SciPy leaves row 86 of 87 at 0 when it enlarges 29 values by 3: rounding puts it just outside.
    size, zoom, threshold = 87, 3, 0.5
    flakes = np.random.default_rng(0).normal(size=(29, 29))
    black = torch.zeros(1, 3, size, size, dtype=torch.uint8)
    # Straight down: every flake smears to the rows below it.
    draws = {"flakes": torch.from_numpy(flakes)[None], "angle": torch.tensor([-90.0], dtype=torch.float64)}

    found = apply("snow", 1, black, draws, parameter_set="imagenet")[0, 0].numpy()

    layer = scipy_zoom(flakes * 0.3 + 0.1, zoom, order=1)
    assert (layer[-1] == 0).all() and layer.shape == (87, 87)
    layer = np.clip(np.where(layer < threshold, 0, layer), 0, 1)
    bell = np.exp(-(np.arange(21) ** 2) / (2 * 4.0**2))
    smeared = sum(weight * layer[np.maximum(np.arange(size) - tap, 0)] for tap, weight in enumerate(bell / bell.sum()))
    levels = np.round(smeared * 255)
    # 25.5 is what whitens black: (1 - 0.8) * 0.5 * 255.
    expected = np.floor(np.clip(25.5 + levels + np.rot90(levels, 2), 0, 255))
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("parameter_set", PARAMETER_SETS)
def test_an_image_without_flakes_is_mixed_with_a_brighter_grey(parameter_set: str) -> None:
    image = picture(40, 30)
    for severity in range(1, 6):
        _, _, zoom, *_, kept = parameters_of("snow", severity, parameter_set=parameter_set)
        none = torch.full((1, math.ceil(40 / zoom), math.ceil(30 / zoom)), -9.0)
        draws = {"flakes": none, "angle": torch.full((1,), -90.0)}
        images = torch.from_numpy(image.transpose(2, 0, 1).copy())[None]

        found = apply("snow", severity, images, draws, parameter_set=parameter_set)[0].numpy().transpose(1, 2, 0)

        scaled = np.float32(image) / 255
        grey = cv2.cvtColor(scaled, cv2.COLOR_RGB2GRAY)[..., None]
        expected = np.clip(kept * scaled + (1 - kept) * np.maximum(scaled, 1.5 * grey + 0.5), 0, 1) * 255
        # A level for what float32 rounds across a whole one.
        assert np.abs(found.astype(int) - np.uint8(expected)).max() <= 1


@pytest.mark.parametrize("parameter_set", PARAMETER_SETS)
def test_snow_on_an_image_is_the_same_in_any_company(parameter_set: str) -> None:
    images = torch.from_numpy(np.stack([picture(33, 40, seed=seed).transpose(2, 0, 1) for seed in range(60)]))
    ids = torch.arange(60)
    together = corrupt("snow", 3, images, ids, parameter_set=parameter_set)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))

    shuffled = corrupt("snow", 3, images[order], ids[order], parameter_set=parameter_set)
    alone = [corrupt("snow", 3, images[i : i + 1], ids[i : i + 1], parameter_set=parameter_set) for i in range(7)]

    assert torch.equal(shuffled, together[order])
    assert torch.equal(torch.cat(alone), together[:7])


def test_the_wind_blows_from_above() -> None:
    angles = draw("snow", 1, torch.zeros(500, 3, 32, 32, dtype=torch.uint8), torch.arange(500), parameter_set="cifar")[
        "angle"
    ]

    # Of 500 uniform draws from an interval of 90 degrees, the ends are within 2 but with a chance of 2 (1 - 2/90)^500.
    assert -135 < angles.min() < -133 and -47 < angles.max() < -45


def test_grey_images_take_snow_as_three_equal_channels() -> None:
    grey = torch.from_numpy(picture(32, 32).transpose(2, 0, 1)[:1].copy())[None]

    found = corrupt("snow", 2, grey, torch.arange(1), parameter_set="imagenet")

    colour = corrupt("snow", 2, grey.expand(1, 3, 32, 32), torch.arange(1), parameter_set="imagenet")
    assert torch.equal(found, colour[:, :1])
