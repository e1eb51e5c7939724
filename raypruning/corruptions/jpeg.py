"""JPEG compression: to the bit what Pillow's libjpeg-turbo stores and reads back, without writing a file.

Only what loses something is computed, in whole numbers: colour conversion, halved chroma, the cosine transform and its
inverse, and the rounding to multiples of the quantisation table between them. Entropy coding loses nothing. On a CPU
larger images go through the libjpeg-turbo of OpenCV instead, which is faster there but codes one image at a time.
Sources: ITU-T T.81 (JPEG) and T.871 (JFIF); where these leave freedom, the accurate integer transforms and the smooth
chroma of libjpeg 6b (jfdctint.c, jidctint.c, jcsample.c, jdsample.c), which libjpeg-turbo keeps to the bit.
"""

# B images of a batch, C channels, H W height and width of an image, h w of its halved chroma,
# V U column and row of a value in its block of 8 x 8, M blocks

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from raypruning.corruptions.corruption import Corruption, Draws
from raypruning.corruptions.parameters import Parameters
from raypruning.corruptions.pixelate import transposed
from raypruning.errors import SpecError

_SIDE = 8  # of a block
# From this many values of an image on OpenCV is faster on a CPU, in colour and in grey [measured from 32 to 224 px].
_OPENCV_VALUES = 3 * 48 * 48

# Annex K of T.81, by row.
_LUMA_TABLE = (
    *(16, 11, 10, 16, 24, 40, 51, 61),
    *(12, 12, 14, 19, 26, 58, 60, 55),
    *(14, 13, 16, 24, 40, 57, 69, 56),
    *(14, 17, 22, 29, 51, 87, 80, 62),
    *(18, 22, 37, 56, 68, 109, 103, 77),
    *(24, 35, 55, 64, 81, 104, 113, 92),
    *(49, 64, 78, 87, 103, 121, 120, 101),
    *(72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMA_TABLE = (
    *(17, 18, 24, 47, 99, 99, 99, 99),
    *(18, 21, 26, 66, 99, 99, 99, 99),
    *(24, 26, 56, 99, 99, 99, 99, 99),
    *(47, 66, 99, 99, 99, 99, 99, 99),
    *([99] * 32),
)


def jpeg(images_BCHW: Tensor, *, quality: int) -> Tensor:
    """The images as Pillow reads them after it has saved them as JPEG: uint8 in a new tensor.

    Three channels are stored with chroma of half the size (4:2:0), one channel as luma alone. ImageNet-C is stored at
    quality 85.

    Args:
        images_BCHW: uint8, one or three channels, any size and device.
        quality: from 1 to 100, on libjpeg's scale.
    """
    if quality not in range(1, 101):
        raise SpecError(f"the quality of a JPEG image must be a whole number from 1 to 100, got {quality}")
    is_large = math.prod(images_BCHW.shape[1:]) >= _OPENCV_VALUES
    if is_large and images_BCHW.device.type == "cpu":
        return jpeg_by_opencv(images_BCHW, quality=quality)
    return jpeg_by_tensors(images_BCHW, quality=quality)


def jpeg_by_opencv(images_BCHW: Tensor, *, quality: int) -> Tensor:
    """`jpeg` through OpenCV, image by image, in the calling thread: it lets other threads run while it codes."""
    import cv2

    compressed_BCHW = torch.empty_like(images_BCHW, memory_format=torch.contiguous_format)
    mode = cv2.IMREAD_COLOR if images_BCHW.shape[1] == 3 else cv2.IMREAD_GRAYSCALE
    for image_CHW, compressed_CHW in zip(images_BCHW.numpy(), compressed_BCHW.numpy(), strict=True):
        # Channels go from blue to red in OpenCV.
        _, file = cv2.imencode(".jpg", cv2.merge(list(image_CHW[::-1])), [cv2.IMWRITE_JPEG_QUALITY, quality])
        cv2.split(cv2.imdecode(file, mode), list(compressed_CHW[::-1]))
    return compressed_BCHW


def jpeg_by_tensors(images_BCHW: Tensor, *, quality: int) -> Tensor:
    """`jpeg` in whole numbers, all images at once, on any device."""
    if images_BCHW.shape[1] == 1:
        # A copy, since the memory of a part of a tensor need not begin where eight bytes can be seen as one number.
        luma_BHW = images_BCHW[:, 0].clone(memory_format=torch.contiguous_format)
        return _coded(luma_BHW, _LUMA_TABLE, quality)[:, None].contiguous()
    height, width = images_BCHW.shape[2:]
    luma_BHW, blue_BHW, red_BHW = _luma_and_chroma(images_BCHW)
    luma_BHW = _coded(luma_BHW, _LUMA_TABLE, quality)
    # Both chromas as one batch.
    chroma_hw = _coded(_halved(torch.cat([blue_BHW, red_BHW])), _CHROMA_TABLE, quality)
    chroma_HW = _doubled(chroma_hw[:, : (height + 1) // 2, : (width + 1) // 2])[:, :height, :width]
    return _colours(luma_BHW, chroma_HW[: len(images_BCHW)], chroma_HW[len(images_BCHW) :])


def _luma_and_chroma(images_B3HW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Y, Cb and Cr in 16.16 fixed point: uint8, int16, int16."""
    red, green, blue = (images_B3HW[:, channel].to(torch.int32) for channel in range(3))
    half = 1 << 15
    luma = (red * 19595).add_(green, alpha=38470).add_(blue, alpha=7471).add_(half)
    # Chroma is rounded half down.
    offset = (128 << 16) + half - 1
    to_blue = (blue << 15).sub_(red, alpha=11059).sub_(green, alpha=21709).add_(offset)
    to_red = red.bitwise_left_shift_(15).sub_(green, alpha=27439).sub_(blue, alpha=5329).add_(offset)
    luma, to_blue, to_red = (plane.bitwise_right_shift_(16) for plane in (luma, to_blue, to_red))
    return luma.to(torch.uint8), to_blue.to(torch.int16), to_red.to(torch.int16)


def _colours(luma_BHW: Tensor, blue_BHW: Tensor, red_BHW: Tensor) -> Tensor:
    """Red, green and blue of Y, Cb and Cr: uint8 (B, 3, H, W)."""
    luma, to_blue, to_red = (plane.to(torch.int32) for plane in (luma_BHW, blue_BHW, red_BHW))
    half = 1 << 15
    green = (to_blue * -22554).sub_(to_red, alpha=46802).add_(128 * (22554 + 46802) + half)
    red = to_red.mul_(91881).add_(half - 128 * 91881)
    blue = to_blue.mul_(116130).add_(half - 128 * 116130)
    images_B3HW = luma_BHW.new_empty(len(luma_BHW), 3, *luma_BHW.shape[1:])
    for channel, plane in enumerate((red, green, blue)):
        images_B3HW[:, channel] = plane.bitwise_right_shift_(16).add_(luma).clamp_(0, 255)
    return images_B3HW


def _halved(chroma_BHW: Tensor) -> Tensor:
    """Means of 2 x 2 values, uint8, ready for blocks of 8; a half is rounded down and up in turn along a row.

    Beyond the right edge stand copies of the last column, beyond an odd lower edge a copy of the last row; further down
    stand copies of the last row of means.
    """
    height, width = chroma_BHW.shape[1:]
    chroma_BHW = _extended(chroma_BHW, height + height % 2, _up_to_multiple(width, 2 * _SIDE)).contiguous()
    sums_BhW = chroma_BHW[:, 0::2] + chroma_BHW[:, 1::2]
    # Two neighbours of 16 bits are one number of 32 bits, whose halves are added.
    pairs_Bhw = sums_BhW.view(torch.int32)
    bias_w = 1 + torch.arange(pairs_Bhw.shape[2], dtype=torch.int32, device=pairs_Bhw.device) % 2
    means_Bhw = (pairs_Bhw >> 16).add_(pairs_Bhw.bitwise_and_(0xFFFF)).add_(bias_w).bitwise_right_shift_(2)
    return means_Bhw.to(torch.uint8)


def _doubled(chroma_Bhw: Tensor) -> Tensor:
    """Twice as high and wide: 3/4 of the nearest and 1/4 of the next value each way; uint8."""
    num, height, width = chroma_Bhw.shape
    if width <= 2:  # libjpeg repeats such a narrow image instead.
        return chroma_Bhw.repeat_interleave(2, 1).repeat_interleave(2, 2)
    chroma_Bhw = chroma_Bhw.to(torch.int16)
    with_edges = torch.cat([chroma_Bhw[:, :1], chroma_Bhw, chroma_Bhw[:, -1:]], 1)
    nearest = chroma_Bhw * 3
    sums_Bh2w = chroma_Bhw.new_empty(num, height, 2, width)
    torch.add(nearest, with_edges[:, :-2], out=sums_Bh2w[:, :, 0])
    torch.add(nearest, with_edges[:, 2:], out=sums_Bh2w[:, :, 1])
    sums_BHw = sums_Bh2w.view(num, 2 * height, width)
    with_edges = torch.cat([sums_BHw[..., :1], sums_BHw, sums_BHw[..., -1:]], 2)
    nearest = sums_BHw.mul_(3)
    left = (nearest + with_edges[..., :-2]).add_(8).bitwise_right_shift_(4)
    right = nearest.add_(with_edges[..., 2:]).add_(7).bitwise_right_shift_(4)
    # Two bytes of 16 bits are two neighbours.
    return right.mul_(256).bitwise_or_(left).view(torch.uint8)


def _coded(plane_BHW: Tensor, table: tuple[int, ...], quality: int) -> Tensor:
    """Transformed in blocks, rounded to multiples of the table, and transformed back: uint8.

    In float64 for the sake of matrix products, though all of it is whole numbers times powers of two and below 2^53:
    sums are exact in any order. Both transforms round after their first and their second half, halves upwards.
    """
    height, width = plane_BHW.shape[1:]
    extended_BHW = _extended(plane_BHW, _up_to_multiple(height, _SIDE), _up_to_multiple(width, _SIDE))
    levels_VX = _columns_of_blocks(extended_BHW)
    forward, backward, bias_V1, divisors_VU1, multipliers_VU1 = _transforms(table, quality, plane_BHW.device)
    rows_VX = (forward * 2.0**-11 @ levels_VX.to(torch.float64)).add_(bias_V1).floor_()
    rows_VUM = rows_VX.view(_SIDE, _SIDE, -1)
    coefficients_VUM = (forward * 2.0**-15).expand(_SIDE, -1, -1).bmm(rows_VUM).add_(0.5).floor_()
    coefficients_VUM.mul_(divisors_VU1).round_().mul_(multipliers_VU1)
    # What is added to the constant part of a block is added to all of its values: here the half to be rounded with,
    # and below a half and the middle level.
    coefficients_VUM[:, 0] += 2.0**-3
    rows_VUM = (backward * 2.0**-11).expand(_SIDE, -1, -1).bmm(coefficients_VUM).floor_()
    rows_VUM[0] += (128 + 0.5) * 2.0**5
    levels_VX = (backward * 2.0**-18 @ rows_VUM.view(_SIDE, -1)).clamp_(0.0, 255.0).to(torch.int32).to(torch.uint8)
    return _rows_of_blocks(levels_VX, extended_BHW.shape)[:, :height, :width]


def _columns_of_blocks(plane_BHW: Tensor) -> Tensor:
    """uint8 (V, U M): the eight values of a block's row apart, for all blocks. Eight bytes are moved as one number."""
    num, height, width = plane_BHW.shape
    rows = plane_BHW.contiguous().view(torch.int64).view(num, height // _SIDE, _SIDE, width // _SIDE)
    return transposed(rows.permute(2, 0, 1, 3).contiguous().view(torch.uint8).view(-1, _SIDE))


def _rows_of_blocks(levels_VX: Tensor, shape: torch.Size) -> Tensor:
    """The way back from `_columns_of_blocks`."""
    num, height, width = shape
    rows = transposed(levels_VX).view(torch.int64).view(_SIDE, num, height // _SIDE, width // _SIDE)
    return rows.permute(1, 2, 0, 3).contiguous().view(torch.uint8).view(shape)


@functools.lru_cache(maxsize=64)
def _transforms(table: tuple[int, ...], quality: int, device: torch.device) -> tuple[Tensor, ...]:
    """The cosine transform in 3.13 fixed point, its inverse, and what goes with it, as float64."""
    halves = [
        (8192, 8192, 8192, 8192),
        (11363, 9633, 6437, 2260),
        (10703, 4433, -4433, -10703),
        (9633, -2259, -11362, -6436),
        (8192, -8192, -8192, 8192),
        (6437, -11362, 2261, 9633),
        (4433, -10704, 10704, -4433),
        (2260, -6436, 9633, -11363),
    ]
    # Even rows are symmetric, odd ones antisymmetric.
    rows = [half + tuple((-1) ** row * value for value in half[::-1]) for row, half in enumerate(halves)]
    forward = torch.tensor(rows, dtype=torch.float64)
    # The middle level is taken off where it ends up, in the constant part of the first half, which is 4 times 8 values.
    bias_V1 = torch.full((_SIDE, 1), 0.5, dtype=torch.float64)
    bias_V1[0] -= 4 * _SIDE * 128
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    steps = [min(max((value * scale + 50) // 100, 1), 255) for value in table]
    multipliers_VU1 = torch.tensor(steps, dtype=torch.float64).view(_SIDE, _SIDE).t().contiguous()[:, :, None]
    # The transform leaves a factor of 8. A quotient's half is rounded away from zero, so it is made a little larger, by
    # less than the distance of 1/8 step between a half and the next quotient.
    divisors_VU1 = (1.0 + 2.0**-20) / (8.0 * multipliers_VU1)
    tensors = (forward, forward.t().contiguous(), bias_V1, divisors_VU1, multipliers_VU1)
    return tuple(tensor.to(device) for tensor in tensors)


def _extended(plane_BHW: Tensor, height: int, width: int) -> Tensor:
    """With copies of the last row and column up to that size."""
    below, right = height - plane_BHW.shape[1], width - plane_BHW.shape[2]
    if right:
        plane_BHW = torch.cat([plane_BHW, plane_BHW[:, :, -1:].expand(-1, -1, right)], 2)
    return torch.cat([plane_BHW, plane_BHW[:, -1:].expand(-1, below, -1)], 1) if below else plane_BHW


def _up_to_multiple(value: int, step: int) -> int:
    return math.ceil(value / step) * step


def _jpeg_compression(images_BCHW: Tensor, _draws: Draws, parameters: Parameters) -> Tensor:
    (quality,) = parameters
    return jpeg(images_BCHW, quality=int(quality))


JPEG_COMPRESSION = Corruption(apply=_jpeg_compression, chunk_bytes=1 << 22)
