"""Corruptions of a pixel by itself: brightness, contrast and saturation.

The reference goes through hue, saturation and value. With V the largest of a pixel's three values and m the smallest,
what it does comes down to one factor that depends on V (brightness), or on V and m (saturation): a table has them.
"""

# B images of a batch, C channels, H W height and width, V m largest and smallest value of a pixel

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor

from raypruning.corruptions.corruption import Corruption, Draws
from raypruning.corruptions.parameters import Parameters

_NUM_LEVELS = 256
# Of a grey level. A product of float32 numbers up to 255 is wrong by 3e-5 at most, so a result this far inside its
# level is truncated to that level.
_MARGIN = 1e-4
_CHUNK_BYTES = 1 << 21  # More than a cache holds, but the cost of a call is spread over more values.


def _brightness(images_BCHW: Tensor, _draws: Draws, parameters: Parameters) -> Tensor:
    """Raise the value, at equal hue and saturation: x becomes x V'/V."""
    (rise,) = parameters
    if images_BCHW.shape[1] == 1:
        indices = images_BCHW.to(torch.int32).view(-1)
        return _risen_levels(rise, images_BCHW.device).index_select(0, indices).view(images_BCHW.shape)
    largest_B1HW = images_BCHW.amax(1, keepdim=True)
    factors = _brightness_factors(rise, images_BCHW.device).index_select(0, largest_B1HW.to(torch.int32).view(-1))
    # Black has no factor: it is taken as 1 on all channels, with the value that it gets as factor.
    is_black_B1HW = largest_B1HW.clamp(min=1).sub_(largest_B1HW)
    return _truncated((images_BCHW + is_black_B1HW).float().mul_(factors.view(largest_B1HW.shape)))


def _saturate(images_B3HW: Tensor, _draws: Draws, parameters: Parameters) -> Tensor:
    """Change the saturation at equal hue and value: V - x becomes (V - x) S'/S."""
    factor, rise = parameters
    largest_B1HW, smallest_B1HW = images_B3HW.amax(1, keepdim=True), images_B3HW.amin(1, keepdim=True)
    pairs = largest_B1HW.to(torch.int32).mul_(_NUM_LEVELS).add_(smallest_B1HW)
    factors = _saturation_factors(factor, rise, images_B3HW.device).index_select(0, pairs.view(-1))
    depths_B3HW = largest_B1HW - images_B3HW
    if rise:
        # Grey has hue 0, which is red: its green and blue are lowered. A depth of 1 stands for that, and the factor for
        # how far.
        spread_B1HW = largest_B1HW - smallest_B1HW
        depths_B3HW[:, 1:] += spread_B1HW.clamp(min=1).sub_(spread_B1HW)
    lowered = depths_B3HW.float().mul_(factors.view(largest_B1HW.shape))
    return _truncated(lowered.neg_().add_(largest_B1HW.float()))


def _contrast(images_BCHW: Tensor, _draws: Draws, parameters: Parameters) -> Tensor:
    """Draw values towards their channel's mean over the image."""
    (factor,) = parameters
    num_pixels = images_BCHW.shape[2] * images_BCHW.shape[3]
    # Whole numbers, so that the mean is the same in any order of summation.
    totals_BC11 = images_BCHW.sum((2, 3), keepdim=True, dtype=torch.int64 if num_pixels > 1 << 23 else torch.int32)
    # The margin keeps flat areas, whose result is a whole number, from falling a level.
    offsets_BC11 = totals_BC11.to(torch.float64) / num_pixels * (1.0 - factor) + _MARGIN
    return _truncated(images_BCHW.float().mul_(factor).add_(offsets_BC11.float()))


def _truncated(levels: Tensor) -> Tensor:
    """Of levels within [0, 256), as uint8: by way of int32, as the direct conversion is three times as slow."""
    return levels.to(torch.int32).to(torch.uint8)


@functools.cache
def _risen_levels(rise: float, device: torch.device) -> Tensor:
    """Every level brightened, truncated: uint8."""
    return torch.from_numpy(_brightened(rise).astype(np.uint8)).to(device)


@functools.cache
def _brightness_factors(rise: float, device: torch.device) -> Tensor:
    """V'/V by V, and V' for black: float32."""
    values = np.maximum(np.arange(_NUM_LEVELS), 1)
    return torch.from_numpy((_inside_levels(_brightened(rise)) / values).astype(np.float32)).to(device)


def _brightened(rise: float) -> np.ndarray:
    """In the reference's order of operations, which decides where whole numbers end up."""
    return np.clip(np.arange(_NUM_LEVELS) / 255.0 + rise, 0.0, 1.0) * 255.0


@functools.cache
def _saturation_factors(factor: float, rise: float, device: torch.device) -> Tensor:
    """S'/S by V and m, flat: float32 of 256 x 256. On the diagonal, by how much grey lowers its green and blue."""
    largest, smallest = np.arange(_NUM_LEVELS)[:, None] / 255.0, np.arange(_NUM_LEVELS)[None, :] / 255.0
    spread = np.maximum(largest - smallest, 0.0)
    saturation = np.clip(spread / np.maximum(largest, 1.0 / 255.0) * factor + rise, 0.0, 1.0)
    levels = np.arange(_NUM_LEVELS)
    lowered = levels[:, None] - _inside_levels(largest * (1.0 - saturation) * 255.0)
    factors = lowered / np.maximum(levels[:, None] - levels[None, :], 1)
    return torch.from_numpy(factors.astype(np.float32).reshape(-1)).to(device)


def _inside_levels(values: np.ndarray) -> np.ndarray:
    """The values, moved so far from the borders of their level that float32 truncates them as float64 does."""
    levels = np.trunc(values)
    return np.clip(values, levels + _MARGIN, levels + 1.0 - _MARGIN)


BRIGHTNESS = Corruption(apply=_brightness, chunk_bytes=_CHUNK_BYTES)
CONTRAST = Corruption(apply=_contrast, chunk_bytes=_CHUNK_BYTES)
SATURATE = Corruption(apply=_saturate, needs_colour=True, chunk_bytes=_CHUNK_BYTES)
