"""Brightness, contrast and saturation against the oracle and against their definitions, pixel by pixel."""

# B images of a batch, C channels, H W height and width

from __future__ import annotations

import colorsys

import numpy as np
import pytest
import torch

from raypruning.corruptions.colour import BRIGHTNESS, CONTRAST, SATURATE
from raypruning.corruptions.corrupt import corrupt
from raypruning.corruptions.parameters import NUM_SEVERITIES, PARAMETER_SETS, parameters_of
from tests.unit.corruptions import oracle
from tests.unit.corruptions.parity import SIZES, difference, picture
from tests.unit.corruptions.replay_digital import REPLAYS

# Truncation of a number that is whole but for rounding errors goes either way: brightness has such numbers where V'/V
# is a simple ratio, saturation by 2 has them everywhere (2 x - V). Those of the middle channel are left to chance.
SHARE_EQUAL = {"brightness": 0.98, "contrast": 0.999, "saturate": 0.94}
ALL_SEVERITIES = [
    (severity, parameter_set) for parameter_set in PARAMETER_SETS for severity in range(1, NUM_SEVERITIES + 1)
]


def _all_pairs() -> torch.Tensor:
    """Every largest and smallest value, with middle values between them: (1, 3, 256, 256)."""
    first, second = torch.meshgrid(torch.arange(256), torch.arange(256), indexing="ij")
    return torch.stack([first, second, (2 * first + second) // 3]).to(torch.uint8)[None]


@pytest.mark.parametrize("name", SHARE_EQUAL)
@pytest.mark.parametrize(("severity", "parameter_set"), ALL_SEVERITIES)
def test_colour_corruption_equals_the_oracle(name: str, severity: int, parameter_set: str) -> None:
    oracle.require()
    sizes = (*SIZES, (28, 28)) if severity in (1, 3) else (*SIZES, (112, 112))
    for size in sizes:
        found = difference(name, severity, picture(*size), REPLAYS[name], parameter_set=parameter_set)
        assert found.largest <= 1
        assert found.share_equal >= SHARE_EQUAL[name]


@pytest.mark.parametrize(("severity", "parameter_set"), ALL_SEVERITIES)
@pytest.mark.parametrize("name", ["brightness", "saturate"])
def test_colour_of_every_pair_of_largest_and_smallest_value_is_within_a_level_of_hsv(
    name: str, severity: int, parameter_set: str
) -> None:
    images = _all_pairs()[:, :, ::5, ::3]
    parameters = parameters_of(name, severity, parameter_set=parameter_set)
    corruption = {"brightness": BRIGHTNESS, "saturate": SATURATE}[name]
    found = corruption.apply(images, {}, parameters)[0].flatten(1).T.tolist()
    for pixel, result in zip(images[0].flatten(1).T.tolist(), found, strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*(channel / 255.0 for channel in pixel))
        if name == "brightness":
            value = min(value + parameters[0], 1.0)
        else:
            saturation = min(saturation * parameters[0] + parameters[1], 1.0)
        expected = [channel * 255.0 for channel in colorsys.hsv_to_rgb(hue, saturation, value)]
        # Truncated, or one level beside where the exact value is whole: 1e-3 is ten times the margin in use.
        assert all(got in (int(want + 1e-3), int(want - 1e-3)) for got, want in zip(result, expected, strict=True))


def test_brightness_of_black_lifts_all_channels_alike() -> None:
    images = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
    assert torch.equal(BRIGHTNESS.apply(images, {}, (0.3,)), torch.full_like(images, 76))  # 0.3 x 255 = 76.5


def test_brightness_of_one_channel_adds_and_truncates() -> None:
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    expected = np.clip(np.arange(256) / 255.0 + 0.1, 0, 1) * 255
    assert BRIGHTNESS.apply(images, {}, (0.1,)).flatten().tolist() == expected.astype(np.uint8).tolist()


def test_saturation_that_is_raised_tints_grey_red() -> None:
    images = torch.full((1, 3, 2, 2), 100, dtype=torch.uint8)
    found = SATURATE.apply(images, {}, (5, 0.1))
    assert found[0, :, 0, 0].tolist() == [100, 90, 90]
    assert torch.equal(SATURATE.apply(images, {}, (5, 0.0)), images)


def test_saturation_of_a_grey_image_has_one_channel_again() -> None:
    images = torch.full((2, 1, 8, 8), 100, dtype=torch.uint8)
    found = corrupt("saturate", 4, images, torch.arange(2), parameter_set="imagenet")
    # The luma of (100, 90, 90): 0.299 x 100 + 0.701 x 90 = 92.99.
    assert torch.equal(found, torch.full_like(images, 93))


@pytest.mark.parametrize("level", [0, 1, 7, 128, 254, 255])
def test_contrast_leaves_a_flat_image_as_it_is(level: int) -> None:
    images = torch.full((1, 3, 33, 47), level, dtype=torch.uint8)
    for severity, parameter_set in ALL_SEVERITIES:
        parameters = parameters_of("contrast", severity, parameter_set=parameter_set)
        assert torch.equal(CONTRAST.apply(images, {}, parameters), images)


def test_contrast_of_a_large_image_takes_the_exact_mean() -> None:
    # The sum is beyond what float32 counts in ones.
    images = torch.full((1, 1, 513, 513), 255, dtype=torch.uint8)
    images[..., :257] = 0
    mean = 255 * 256 / 513
    found = CONTRAST.apply(images, {}, (0.05,))
    assert found[0, 0, 0, [0, -1]].tolist() == [int(mean * 0.95), int(mean * 0.95 + 255 * 0.05)]


@pytest.mark.parametrize("name", SHARE_EQUAL)
def test_colour_corruption_of_an_image_is_the_same_alone_and_in_a_batch(name: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (9, 3, 33, 47), dtype=np.uint8)
    images, ids = torch.from_numpy(noise), torch.arange(9)
    together = corrupt(name, 4, images, ids, parameter_set="cifar")
    for index in (0, 4, 8):
        part = slice(index, index + 1)
        assert torch.equal(corrupt(name, 4, images[part], ids[part], parameter_set="cifar"), together[part])
