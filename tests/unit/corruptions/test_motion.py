"""Motion blur against its definition, tap by tap, and against the oracle."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from raypruning.corruptions.corrupt import apply, corrupt
from raypruning.corruptions.motion import streak
from raypruning.corruptions.parameters import PARAMETER_SETS
from tests.unit.corruptions import oracle
from tests.unit.corruptions.parity import SIZES, difference, picture
from tests.unit.corruptions.replay_weather import REPLAYS


@pytest.mark.parametrize("parameter_set", PARAMETER_SETS)
@pytest.mark.parametrize("size", [*SIZES, (28, 28), (224, 224)])
def test_motion_blur_with_the_oracles_angle_is_within_a_level(size: tuple[int, int], parameter_set: str) -> None:
    oracle.require()
    for severity in (3,) if size == (224, 224) else range(1, 6):
        found = difference("motion_blur", severity, picture(*size), REPLAYS["motion_blur"], parameter_set=parameter_set)
        assert found.largest <= 1 and found.share_equal > 0.95


@pytest.mark.parametrize(("height", "width"), [(24, 30), (30, 9), (7, 40)])
def test_a_streak_is_the_sum_of_its_taps_until_one_leaves_the_image(height: int, width: int) -> None:
    angles = [0.0, 45.0, -45.0, 30.0, 17.3, -22.8, -90.0, -135.0, -101.7, 30.0]
    images = np.random.default_rng(0).random((len(angles), 2, height, width))

    found = streak(torch.from_numpy(images), torch.tensor(angles, dtype=torch.float64), radius=12, sigma=7.0)

    expected = np.stack(
        [_streak_by_definition(image, angle, 12, 7.0) for image, angle in zip(images, angles, strict=True)]
    )
    # 25 sums of float64 below 1.
    assert np.abs(found.numpy() - expected).max() < 25 * 2.0**-52


def test_a_flat_image_keeps_its_level_where_no_tap_is_lost() -> None:
    images = torch.arange(256, dtype=torch.uint8)[:, None, None, None].expand(256, 1, 64, 64)
    for severity in range(1, 6):
        assert torch.equal(
            corrupt("motion_blur", severity, images, torch.arange(256), parameter_set="imagenet"), images
        )


def test_an_image_narrower_than_the_streak_gets_darker() -> None:
    white = torch.full((1, 3, 28, 28), 255, dtype=torch.uint8)

    found = apply("motion_blur", 5, white, {"angle": torch.zeros(1)}, parameter_set="imagenet")

    bell = np.exp(-(np.arange(41) ** 2) / (2 * 15.0**2))
    assert set(found.unique().tolist()) == {math.floor(255 * bell[:28].sum() / bell.sum())}


@pytest.mark.parametrize("parameter_set", PARAMETER_SETS)
def test_motion_blur_of_an_image_is_the_same_in_any_company(parameter_set: str) -> None:
    images = torch.from_numpy(np.stack([picture(33, 40, seed=seed).transpose(2, 0, 1) for seed in range(40)]))
    ids = torch.arange(40)
    together = corrupt("motion_blur", 4, images, ids, parameter_set=parameter_set)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))

    shuffled = corrupt("motion_blur", 4, images[order], ids[order], parameter_set=parameter_set)
    alone = [
        corrupt("motion_blur", 4, images[i : i + 1], ids[i : i + 1], parameter_set=parameter_set) for i in range(7)
    ]
    grey = corrupt("motion_blur", 4, images[:, :1], ids, parameter_set=parameter_set)

    assert torch.equal(shuffled, together[order])
    assert torch.equal(torch.cat(alone), together[:7])
    assert torch.equal(grey, together[:, :1])


def _streak_by_definition(image_CHW: np.ndarray, angle: float, radius: int, sigma: float) -> np.ndarray:
    _, height, width = image_CHW.shape
    num = 2 * radius + 1
    bell = np.exp(-(np.arange(num) ** 2) / (2 * sigma**2))
    total = np.zeros_like(image_CHW)
    down, right = num * np.sin(np.deg2rad(angle)), num * np.cos(np.deg2rad(angle))
    for tap in range(num):
        dy, dx = (math.ceil(tap * part / math.hypot(down, right) - 0.5) for part in (down, right))
        if abs(dy) >= height or abs(dx) >= width:
            break
        for row in range(height):
            for column in range(width):
                source = min(max(row + dy, 0), height - 1), min(max(column + dx, 0), width - 1)
                total[:, row, column] += bell[tap] / bell.sum() * image_CHW[:, source[0], source[1]]
    return total
