"""Glass blur: pixels that change places with near ones, between two gaussian blurs."""

# B images of a batch, C channels, H W height and width, P pixels H x W of an image, T times that pixels are moved,
# R Q rows and columns that are moved

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor

from raypruning.corruptions.blur import gaussian_blur_levels
from raypruning.corruptions.corruption import Corruption, Draws
from raypruning.corruptions.parameters import Parameters
from raypruning.corruptions.stream import Stream

_CACHE_BYTES = 1 << 18  # of a float64 image batch; a few copies of it are at work at a time


def _draw(stream: Stream, images_BCHW: Tensor, parameters: Parameters) -> Draws:
    """Where each pixel's value comes from: `offsets`, int32 (B, T, R, Q, 2), each (columns, rows) in [-d, d).

    R is H - 2d and Q is W - 2d, in the order in which pixels are visited: from row H - d up to row d + 1, and in a row
    from column W - d to the left until column d + 1.
    """
    _, reach, num_times = parameters
    height, width = images_BCHW.shape[-2:]
    reach, num_times = int(reach), int(num_times)
    bits = stream.bits("offsets", num_times, height - 2 * reach, width - 2 * reach)
    # 16 bits for each number: no pixel is more likely than another by more than one in 10000.
    numbers = torch.stack([bits & 0xFFFF, (bits >> 16) & 0xFFFF], dim=1)
    numbers.mul_(2 * reach).bitwise_right_shift_(16).sub_(reach)
    return {"offsets": numbers.movedim(1, -1)}


def _glass_blur(images_BCHW: Tensor, draws: Draws, parameters: Parameters) -> Tensor:
    sigma, reach, _ = parameters
    blurred = _blurred_to_the_bit(images_BCHW, sigma)
    source_BP = _sources(draws["offsets"], int(reach), images_BCHW.shape[-2:])
    shape = (*blurred.shape[:2], source_BP.shape[1])
    moved = blurred.view(shape).gather(2, source_BP.to(torch.int64)[:, None].expand(shape))
    return gaussian_blur_levels(moved.view(images_BCHW.shape), sigma)


def _blurred_to_the_bit(images_BCHW: Tensor, sigma: float) -> Tensor:
    """The first blur, in the reference's own order of float64 operations.

    Where its rounding loses a level of a flat area, the second blur may lose another: to stay within one level of it in
    the end, the first must lose the same.
    """
    radius = int(4.0 * sigma + 0.5)
    steps = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 / (sigma * sigma) * steps**2)
    weights = (weights / weights.sum())[radius:].tolist()
    if images_BCHW.device.type == "cpu":  # As many at a time as stay in a cache.
        num = max(1, _CACHE_BYTES // (8 * max(1, images_BCHW[:1].numel())))
        return torch.cat([_smooth_in_order(part, weights) for part in images_BCHW.split(num)])
    return _smooth_in_order(images_BCHW, weights)


def _smooth_in_order(images_BCHW: Tensor, weights: list[float]) -> Tensor:
    """Smoothed by symmetric weights, the middle one first: from the middle, then pairs from the outermost inwards."""
    radius = len(weights) - 1
    values = images_BCHW.to(torch.float64).div_(255.0)
    for axis in (2, 3):
        padding = (0, 0, radius, radius) if axis == 2 else (radius, radius, 0, 0)
        padded = torch.nn.functional.pad(values, padding, mode="replicate")
        size = values.shape[axis]
        smooth = values * weights[0]
        for step in range(radius, 0, -1):
            pair = padded.narrow(axis, radius - step, size) + padded.narrow(axis, radius + step, size)
            smooth.add_(pair.mul_(weights[step]))
        values = smooth
    return values.mul_(255.0).to(torch.int16).to(torch.uint8)


def _sources(offsets_BTRQ2: Tensor, reach: int, size: tuple[int, ...]) -> Tensor:
    """The pixel of its image that every pixel's value comes from, after all T times: int32 (B, P)."""
    height, width = size
    num_images, num_times = offsets_BTRQ2.shape[:2]
    num_pixels = height * width
    # Pixels are numbered in the order of visits, from the last of an image to its first, and on from image to image.
    source = None
    for time in range(num_times):
        columns, rows = offsets_BTRQ2[:, time, ..., 0], offsets_BTRQ2[:, time, ..., 1]
        step = (rows * width).add_(columns).to(torch.int32)
        moved = _moved_once(step, reach, num_pixels, width)
        source = moved if source is None else source.index_select(0, moved)
    assert source is not None  # num_times is at least one.
    source_BP = source.view(num_images, num_pixels) - _pixels(num_images, num_pixels, source.device)[:, :1]
    return (num_pixels - 1) - source_BP.flip(1)


def _moved_once(step_BRQ: Tensor, reach: int, num_pixels: int, width: int) -> Tensor:
    """What one round of moves brings to every pixel: indices into the pixels before it, int32 (B P).

    The reference writes `x[here], x[there] = x[there], x[here]` on views of one array, which is no exchange: `here`
    gets the value of `there`, and `there` keeps it. A value found at a pixel visited before is what was moved there,
    and so on back; each chain of such pixels is followed to its end, twice as far at every look.
    """
    num_images = len(step_BRQ)
    height = num_pixels // width
    scan = (slice(None), slice(reach - 1, height - reach - 1), slice(reach - 1, width - reach - 1))
    pixels = _pixels(num_images, num_pixels, step_BRQ.device)
    before, first = pixels.clone(), pixels.clone()
    # A step down or to the right leads to a pixel visited before. It ends a chain if it lies outside the scan.
    before.view(num_images, height, width)[scan] -= step_BRQ.clamp(min=0)
    first.view(num_images, height, width)[scan] -= step_BRQ.clamp(max=0)
    chain, first = before.view(-1), first.view(-1)
    if reach > 1:  # Else every offset is -1 or 0, and nothing is found at pixels visited before.
        while True:
            further = chain.index_select(0, chain)
            if torch.equal(further, chain):
                break
            chain = further
        first = first.index_select(0, chain)
    return first


@functools.lru_cache(maxsize=2)  # Those of whole chunks and of what is left over.
def _pixels(num_images: int, num_pixels: int, device: torch.device) -> Tensor:
    """The numbers of all pixels: int32 (B, P). Not to be written to."""
    return torch.arange(num_images * num_pixels, dtype=torch.int32, device=device).view(num_images, num_pixels)


# Many small steps for a chunk: the larger it is the fewer, up to what a cache holds.
GLASS_BLUR = Corruption(draw=_draw, apply=_glass_blur, chunk_bytes=1 << 22)
