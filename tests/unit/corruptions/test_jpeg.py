"""JPEG compression is Pillow's, to the bit, however it is computed."""

# B images of a batch, C channels, H W height and width

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from raypruning.corruptions.jpeg import jpeg, jpeg_by_opencv, jpeg_by_tensors
from raypruning.corruptions.parameters import NUM_SEVERITIES, PARAMETER_SETS
from raypruning.errors import SpecError
from tests.unit.corruptions import oracle
from tests.unit.corruptions.parity import difference, picture
from tests.unit.corruptions.replay_digital import REPLAYS

WAYS = (jpeg_by_tensors, jpeg_by_opencv)
# Multiples of 16, of 8 and of neither; odd and even; so narrow that chroma is repeated instead of smoothed.
SIZES = ((32, 32), (28, 28), (33, 47), (40, 24), (34, 50), (31, 17), (9, 5), (5, 3), (6, 2), (1, 1), (97, 131))
QUALITIES = (1, 7, 10, 15, 18, 25, 40, 49, 50, 58, 65, 75, 80, 85, 100)


def _by_pillow(images_BCHW: Tensor, quality: int) -> Tensor:
    compressed = []
    for image_HWC in images_BCHW.permute(0, 2, 3, 1).numpy():
        file = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(image_HWC.squeeze(2) if image_HWC.shape[2] == 1 else image_HWC)).save(
            file, "JPEG", quality=quality
        )
        compressed.append(np.array(Image.open(file)).reshape(image_HWC.shape))
    return torch.from_numpy(np.stack(compressed)).permute(0, 3, 1, 2)


def _images(height: int, width: int, *, seed: int) -> Tensor:
    """A picture, noise, noise of extremes, a chessboard of them, and a flat saturated colour: (5, 3, H, W)."""
    rng = np.random.default_rng(seed)
    shape = (height, width, 3)
    chessboard = np.indices((height, width)).sum(0)[..., None] % 2 * rng.choice([0, 255], size=3)
    images = [
        picture(max(height, 6), max(width, 6), seed=seed)[:height, :width],
        rng.integers(0, 256, shape),
        rng.choice([0, 255], size=shape),
        chessboard,
        np.broadcast_to(rng.choice([0, 128, 255], size=3), shape),
    ]
    return torch.from_numpy(np.stack(images).astype(np.uint8).transpose(0, 3, 1, 2).copy())


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("num_channels", [1, 3])
@pytest.mark.parametrize("size", SIZES)
def test_jpeg_of_any_size_and_quality_is_pillows_to_the_bit(
    way: Callable[..., Tensor], num_channels: int, size: tuple[int, int]
) -> None:
    for quality in QUALITIES:
        images = _images(*size, seed=quality)[:, :num_channels]
        torch.testing.assert_close(way(images, quality=quality), _by_pillow(images, quality), rtol=0, atol=0)


@pytest.mark.parametrize("num_channels", [1, 3])
def test_jpeg_of_the_size_and_quality_of_imagenet_c_is_pillows_to_the_bit(num_channels: int) -> None:
    images = _images(224, 224, seed=0)[:2, :num_channels]
    expected = _by_pillow(images, 85)
    for way in (jpeg, *WAYS):
        torch.testing.assert_close(way(images, quality=85), expected, rtol=0, atol=0)


@pytest.mark.parametrize("parameter_set", PARAMETER_SETS)
@pytest.mark.parametrize("size", [(32, 32), (33, 47), (224, 224)])
def test_jpeg_compression_equals_the_oracle(parameter_set: str, size: tuple[int, int]) -> None:
    oracle.require()
    for severity in range(1, NUM_SEVERITIES + 1):
        found = difference(
            "jpeg_compression", severity, picture(*size), REPLAYS["jpeg_compression"], parameter_set=parameter_set
        )
        assert found == (0, 1.0)


def test_jpeg_of_an_image_is_the_same_alone_and_in_a_batch() -> None:
    images = torch.cat([_images(28, 28, seed=seed) for seed in range(4)])
    together = jpeg_by_tensors(images, quality=15)
    for index in (0, 7, 19):
        assert torch.equal(jpeg_by_tensors(images[index : index + 1], quality=15)[0], together[index])


def test_jpeg_of_a_part_of_a_tensor_that_begins_anywhere_is_that_of_its_copy() -> None:
    values = torch.arange(3 + 2 * 16 * 16).to(torch.uint8)
    part = values[3:].view(2, 1, 16, 16)
    assert torch.equal(jpeg(part, quality=50), jpeg(part.clone(), quality=50))


def test_jpeg_leaves_its_argument_as_it_was() -> None:
    for num_channels in (1, 3):
        images = _images(32, 32, seed=1)[:, :num_channels].contiguous()
        before = images.clone()
        jpeg_by_tensors(images, quality=30)
        assert torch.equal(images, before)


@pytest.mark.parametrize("quality", [0, 101])
def test_jpeg_of_a_quality_that_does_not_exist_is_refused(quality: int) -> None:
    with pytest.raises(SpecError, match="from 1 to 100"):
        jpeg(_images(8, 8, seed=0), quality=quality)
