"""Fog against the oracle, and its height map against the definition, point by point."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from raypruning.corruptions.corrupt import apply, corrupt, draw
from raypruning.corruptions.parameters import PARAMETER_SETS, parameters_of
from tests.unit.corruptions import oracle
from tests.unit.corruptions.parity import SIZES, difference, picture
from tests.unit.corruptions.replay_weather import REPLAYS


@pytest.mark.parametrize("parameter_set", PARAMETER_SETS)
@pytest.mark.parametrize("size", [*SIZES, (28, 28), (224, 224)])
def test_fog_with_the_oracles_draws_is_within_a_level(size: tuple[int, int], parameter_set: str) -> None:
    oracle.require()
    for severity in (4,) if size == (224, 224) else range(1, 6):
        found = difference("fog", severity, picture(*size), REPLAYS["fog"], parameter_set=parameter_set)
        assert found.largest <= 1 and found.share_equal > 0.99


@pytest.mark.parametrize("parameter_set", PARAMETER_SETS)
def test_fog_is_the_map_of_diamonds_and_squares(parameter_set: str) -> None:
    displacements = np.random.default_rng(0).uniform(-1, 1, size=16**2 - 1)
    image = picture(9, 14)  # A map of 16.
    images = torch.from_numpy(image.transpose(2, 0, 1).copy())[None]
    draws = {"displacements": torch.from_numpy(displacements)[None]}
    for severity in range(1, 6):
        strength, decay = parameters_of("fog", severity, parameter_set=parameter_set)

        found = apply("fog", severity, images, draws, parameter_set=parameter_set)[0].numpy().transpose(1, 2, 0)

        foggy = image / 255 + strength * _map_by_definition(16, decay, iter(displacements))[:9, :14, None]
        brightest = image.max() / 255
        expected = np.uint8(np.clip(foggy * brightest / (brightest + strength), 0, 1) * 255)
        # A level for what float32 rounds across a whole one.
        assert np.abs(found.astype(int) - expected).max() <= 1


@pytest.mark.parametrize(("height", "width", "size"), [(28, 28, 32), (32, 32, 32), (33, 32, 64), (32, 224, 256)])
def test_the_map_is_the_next_power_of_two_of_the_larger_side(height: int, width: int, size: int) -> None:
    images = torch.zeros(2, 1, height, width, dtype=torch.uint8)
    draws = draw("fog", 1, images, torch.arange(2), parameter_set="cifar")

    assert draws["displacements"].shape == (2, size**2 - 1)
    assert draws["displacements"].abs().max() < 1


def test_fog_over_a_black_image_is_black() -> None:
    images = torch.zeros(3, 3, 32, 32, dtype=torch.uint8)
    images[1, 0, 0, 0] = 255  # The brightest value is of an image, not of the batch.

    found = corrupt("fog", 3, images, torch.arange(3), parameter_set="imagenet")

    assert found[0].max() == found[2].max() == 0
    assert found[1].max() > 0


@pytest.mark.parametrize("parameter_set", PARAMETER_SETS)
def test_fog_on_an_image_is_the_same_in_any_company(parameter_set: str) -> None:
    images = torch.from_numpy(np.stack([picture(33, 40, seed=seed).transpose(2, 0, 1) for seed in range(30)]))
    ids = torch.arange(30)
    together = corrupt("fog", 3, images, ids, parameter_set=parameter_set)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(0))

    shuffled = corrupt("fog", 3, images[order], ids[order], parameter_set=parameter_set)
    alone = [corrupt("fog", 3, images[i : i + 1], ids[i : i + 1], parameter_set=parameter_set) for i in range(7)]

    assert torch.equal(shuffled, together[order])
    assert torch.equal(torch.cat(alone), together[:7])


def _map_by_definition(size: int, decay: float, displacements: Iterator[float]) -> np.ndarray:
    """Heights from 0 to 1 on a torus: every new point is the mean of four that surround it, and a displacement."""
    heights = np.zeros((size, size))
    step, wibble = size, 100.0
    while step >= 2:
        half = step // 2
        corners, sides = ((-1, -1), (-1, 1), (1, -1), (1, 1)), ((-1, 0), (1, 0), (0, -1), (0, 1))
        for top, left, around in ((half, half, corners), (0, half, sides), (half, 0, sides)):
            for row in range(top, size, step):
                for column in range(left, size, step):
                    near = [heights[(row + half * dy) % size, (column + half * dx) % size] for dy, dx in around]
                    heights[row, column] = np.mean(near) + wibble**2 * next(displacements)
        step, wibble = half, wibble / decay
    heights -= heights.min()
    return heights / heights.max()
