"""Pixelate is Pillow's BOX and NEAREST resizing, to the bit."""

# B images of a batch, C channels, H W height and width

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from raypruning.corruptions.parameters import NUM_SEVERITIES, PARAMETER_SETS, parameters_of
from raypruning.corruptions.pixelate import PIXELATE
from tests.unit.corruptions import oracle
from tests.unit.corruptions.parity import SIZES, difference, picture
from tests.unit.corruptions.replay_digital import REPLAYS

SCALES = sorted(
    {
        parameters_of("pixelate", severity, parameter_set=parameter_set)[0]
        for severity in range(1, NUM_SEVERITIES + 1)
        for parameter_set in PARAMETER_SETS
    }
)


def _pixelated(images_BCHW: Tensor, scale: float) -> Tensor:
    return PIXELATE.apply(images_BCHW, {}, (scale,))


def _by_pillow(image_HW: Tensor, scale: float) -> Tensor:
    height, width = image_HW.shape
    smaller_height, smaller_width = int(height * scale), int(width * scale)
    # In two steps, as Pillow 13 takes the rows of an image that is more than twice as high as wide first.
    columns = Image.fromarray(image_HW.numpy()).resize((smaller_width, height), Image.Resampling.BOX)
    smaller = columns.resize((smaller_width, smaller_height), Image.Resampling.BOX)
    return torch.from_numpy(np.array(smaller.resize((width, height), Image.Resampling.NEAREST)))


@pytest.mark.parametrize("parameter_set", PARAMETER_SETS)
@pytest.mark.parametrize("size", [*SIZES, (28, 28), (224, 224)])
def test_pixelate_equals_the_oracle(parameter_set: str, size: tuple[int, int]) -> None:
    oracle.require()
    for severity in range(1, NUM_SEVERITIES + 1):
        found = difference("pixelate", severity, picture(*size), REPLAYS["pixelate"], parameter_set=parameter_set)
        assert found == (0, 1.0)


@pytest.mark.parametrize("scale", SCALES)
def test_pixelate_of_noise_of_any_size_is_pillows_to_the_bit(scale: float) -> None:
    # Lengths at which positions fall on the border between two pixels, where the order of operations decides.
    lengths = (*range(20, 68), 100, 160, 224, 299, 375, 500, 513)
    for length in lengths:
        noise = np.random.default_rng(length).integers(0, 256, (1, 1, length, 41), dtype=np.uint8)
        images = torch.from_numpy(noise)
        assert torch.equal(_pixelated(images, scale)[0, 0], _by_pillow(images[0, 0], scale)), length
        images = images.transpose(2, 3)
        assert torch.equal(_pixelated(images, scale)[0, 0], _by_pillow(images[0, 0].contiguous(), scale)), length


def test_pixelate_rounds_after_the_columns_and_again_after_the_rows() -> None:
    # Columns: 0.5 -> 1 and 0 -> 0. Rows: 0.5 -> 1. The mean of all four is 0.25, which would be 0.
    block = torch.tensor([[1, 0], [0, 0]], dtype=torch.uint8)
    images = block.repeat(4, 4)[None, None]
    assert torch.equal(_pixelated(images, 0.5), torch.ones_like(images))


def test_pixelate_of_an_image_is_the_same_alone_and_in_a_batch() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (9, 3, 33, 47), dtype=np.uint8)
    images = torch.from_numpy(noise)
    together = _pixelated(images, 0.4)
    for index in (0, 4, 8):
        assert torch.equal(_pixelated(images[index : index + 1], 0.4)[0], together[index])
