"""Motion blur: every pixel smeared along a line, to one side, with the weights of half a bell curve.

Source: Michaelis et al. 2019 (imagecorruptions 1.1.2), which redoes the MagickMotionBlurImage that Hendrycks and
Dietterich call: 0.2 % of its values are one level off theirs.
"""

# B images of a batch, N of a block, C channels, H W height and width, T taps of a streak

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from raypruning.corruptions.corruption import Corruption, Draws
from raypruning.corruptions.parameters import Parameters
from raypruning.corruptions.stream import Stream

# Bytes of a block on a CPU: large enough that a tap costs more than its call, small enough for the cache.
_BLOCK_BYTES = 800_000
# Bits of a weight for float32: 8 of a grey level and 16 of a weight fit its 24, so every sum is exact.
_WEIGHT_BITS = 16


def blocks_of_like_angles(angles_B: Tensor, num_bytes: int) -> tuple[Tensor, ...]:
    """The images' indices in blocks to smear at once: most of their taps are at one offset.

    Args:
        num_bytes: of one image when it is smeared.
    """
    order_B = torch.argsort(angles_B)
    return torch.split(order_B, len(order_B) if angles_B.is_cuda else max(1, _BLOCK_BYTES // num_bytes))


def streak(images_BCHW: Tensor, angles_B: Tensor, *, radius: int, sigma: float) -> Tensor:
    """Images smeared along one line each: weighted sums of 2 * radius + 1 shifted copies, edges repeated.

    A shift that reaches the image's size ends the sum, and the weights beyond it are lost: small images get darker.

    Args:
        images_BCHW: float32 of whole grey levels, for which the weights are rounded to 1/65536 so that sums are exact,
            or float64. In any order, but quickest in that of the angles.
        angles_B: in degrees; at 0 a pixel takes the values to its right, at 90 those below.
    Returns: as the images, in a new tensor.
    """
    height, width = images_BCHW.shape[-2:]
    down_BT, right_BT = _offsets(angles_B.to(torch.float64).cpu().numpy(), radius)
    weights_T = _weights(radius, sigma, is_rounded=images_BCHW.dtype == torch.float32)
    weights_BT = _merged(weights_T, down_BT, right_BT, (height, width))
    is_used_BT = weights_BT > 0.0
    above, below = _reach(down_BT[is_used_BT])
    left, right = _reach(right_BT[is_used_BT])
    padded = _with_edges_repeated(images_BCHW, above, below, left, right)
    total_BCHW = torch.zeros_like(images_BCHW, memory_format=torch.contiguous_format)
    for tap, start, stop in _runs(np.stack([down_BT, right_BT, weights_BT])):
        weight = float(weights_BT[start, tap])
        if weight > 0.0:
            top, side = above + int(down_BT[start, tap]), left + int(right_BT[start, tap])
            shifted = padded[start:stop, :, top : top + height, side : side + width]
            total_BCHW[start:stop].add_(shifted, alpha=weight)
    return total_BCHW


def _weights(radius: int, sigma: float, *, is_rounded: bool) -> np.ndarray:
    """Of the taps, float64 (T,), in sum 1."""
    bell = np.exp(-(np.arange(2 * radius + 1) ** 2) / (2.0 * sigma**2))
    weights: np.ndarray = bell / bell.sum()
    if not is_rounded:
        return weights
    scaled = weights * (1 << _WEIGHT_BITS)
    whole: np.ndarray = np.floor(scaled)
    missing = (1 << _WEIGHT_BITS) - int(whole.sum())
    whole[np.argsort(whole - scaled, kind="stable")[:missing]] += 1
    whole /= 1 << _WEIGHT_BITS
    return whole


def _offsets(angles_B: np.ndarray, radius: int) -> tuple[np.ndarray, np.ndarray]:
    """How far down and to the right the taps are, int64 (B, T) each."""
    # The reference's own order of operations, since it rounds halves.
    width = 2 * radius + 1
    turn_B = np.deg2rad(angles_B)
    down_B, right_B = width * np.sin(turn_B), width * np.cos(turn_B)
    length_B = np.hypot(down_B, right_B)
    steps_T = np.arange(width)
    down_BT, right_BT = (
        np.ceil(steps_T * part_B[:, None] / length_B[:, None] - 0.5).astype(np.int64) for part_B in (down_B, right_B)
    )
    return down_BT, right_BT


def _merged(weights_T: np.ndarray, down_BT: np.ndarray, right_BT: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The weights of the taps (B, T): of taps at one offset the last has the sum, of those out of reach none."""
    is_last_BT = np.ones(down_BT.shape, bool)
    is_last_BT[:, :-1] = (np.diff(down_BT) != 0) | (np.diff(right_BT) != 0)
    so_far_BT = np.where(is_last_BT, weights_T.cumsum(), 0.0)
    before_BT = np.zeros_like(so_far_BT)
    before_BT[:, 1:] = np.maximum.accumulate(so_far_BT, axis=1)[:, :-1]
    weights_BT = np.where(is_last_BT, so_far_BT - before_BT, 0.0)
    height, breadth = size
    weights_BT[(np.abs(down_BT) >= height) | (np.abs(right_BT) >= breadth)] = 0.0
    return weights_BT


def _runs(taps_XBT: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """Tap, start and stop of the runs of images that have a tap in common in all X respects; tap by tap."""
    is_first_BT = np.ones(taps_XBT.shape[1:], bool)
    is_first_BT[1:] = (np.diff(taps_XBT, axis=1) != 0).any(axis=0)
    taps, starts = np.nonzero(is_first_BT.T)
    stops = np.append(starts[1:], 0)
    stops[stops == 0] = len(is_first_BT)
    return zip(taps.tolist(), starts.tolist(), stops.tolist(), strict=True)


def _reach(offsets: np.ndarray) -> tuple[int, int]:
    """How far offsets go below and above 0."""
    return max(0, -int(offsets.min())), max(0, int(offsets.max()))


def _with_edges_repeated(images_BCHW: Tensor, above: int, below: int, left: int, right: int) -> Tensor:
    batch, channels, height, width = images_BCHW.shape
    padded = images_BCHW.new_empty(batch, channels, above + height + below, left + width + right)
    middle = padded[:, :, above : above + height]
    middle[..., left : left + width] = images_BCHW
    middle[..., :left] = middle[..., left : left + 1]
    middle[..., left + width :] = middle[..., left + width - 1 : left + width]
    padded[:, :, :above] = middle[:, :, :1]
    padded[:, :, above + height :] = middle[:, :, -1:]
    return padded


def _draw_angle(stream: Stream, _images_BCHW: Tensor, _parameters: Parameters) -> Draws:
    return {"angle": stream.uniform("angle", low=-45.0, high=45.0)}


def _motion_blur(images_BCHW: Tensor, draws: Draws, parameters: Parameters) -> Tensor:
    radius, sigma = parameters
    blurred_BCHW = torch.empty_like(images_BCHW, memory_format=torch.contiguous_format)
    for index_N in blocks_of_like_angles(draws["angle"], 4 * images_BCHW[0].numel()):
        block_NCHW = images_BCHW.index_select(0, index_N).to(torch.float32)
        streaked_NCHW = streak(block_NCHW, draws["angle"][index_N], radius=int(radius), sigma=sigma)
        # By way of int16, which takes a third of the time.
        blurred_BCHW.index_copy_(0, index_N, streaked_NCHW.to(torch.int16).to(torch.uint8))
    return blurred_BCHW


# Many images at once, so that those of a block have like angles.
MOTION_BLUR = Corruption(draw=_draw_angle, apply=_motion_blur, chunk_bytes=1 << 24)
