"""Noise of single values: gaussian, speckle, shot and impulse noise. One draw for every value of every channel.

On a CPU these are bound by the number of passes over the values, so some are written in ways that PyTorch vectorises:
comparisons and conversions of floats to bytes are not among them.
"""

# B images of a batch, C channels, H W height and width

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor

from raypruning.corruptions.corruption import Corruption, Draws
from raypruning.corruptions.parameters import Parameters
from raypruning.corruptions.stream import Stream

_NUM_LEVELS = 256
_NUM_OUTCOMES = 1 << 16  # of 16 random bits
_NUM_COLUMNS = 256  # of an alias table: the upper 8 bits pick one, the lower 8 decide which count of its two
_CHUNK_BYTES = 1 << 21  # More than a cache holds, but the cost of a call is spread over more values.


def _draw_normal(stream: Stream, images_BCHW: Tensor, _parameters: Parameters) -> Draws:
    return {"normal": stream.normal("values", *images_BCHW.shape[1:])}


def _gaussian_noise(images_BCHW: Tensor, draws: Draws, parameters: Parameters) -> Tensor:
    (sigma,) = parameters
    return _truncated(images_BCHW.float().add_(draws["normal"], alpha=255.0 * sigma))


def _speckle_noise(images_BCHW: Tensor, draws: Draws, parameters: Parameters) -> Tensor:
    (sigma,) = parameters
    images = images_BCHW.float()
    return _truncated(images.addcmul_(images, draws["normal"], value=sigma))


def _truncated(levels: Tensor) -> Tensor:
    """As uint8, by way of int32: the direct conversion is three times as slow. Overwrites its argument."""
    return levels.clamp_(0.0, 255.0).to(torch.int32).to(torch.uint8)


def _draw_counts(stream: Stream, images_BCHW: Tensor, parameters: Parameters) -> Draws:
    """Photons that arrive where `photons` times the value are expected: Walker's alias method, on whole numbers."""
    (photons,) = parameters
    bits = stream.bits16("values", *images_BCHW.shape[1:])
    columns = (bits >> 8).add_(images_BCHW.to(torch.int32).mul_(_NUM_COLUMNS))
    table = _poisson_aliases(photons, bits.device)
    entries = table.index_select(0, columns.view(-1)).view(columns.shape)
    # The lower 8 bits, added to the entry, carry into its ninth bit where they reach the threshold.
    is_alias = bits.bitwise_and_(0xFF).add_(entries).bitwise_right_shift_(8).bitwise_and_(1)
    shift_by = is_alias.mul_(_ALIAS_BIT - _COUNT_BIT).add_(_COUNT_BIT)
    return {"counts": entries.bitwise_right_shift_(shift_by).bitwise_and_(_COUNT_MASK)}


def _shot_noise(images_BCHW: Tensor, draws: Draws, parameters: Parameters) -> Tensor:
    (photons,) = parameters
    counts = draws["counts"].clamp(max=int(photons))  # The brightest from there on.
    table = _levels_of_counts(int(photons), counts.device)
    return table.index_select(0, counts.view(-1)).view(images_BCHW.shape)


# An entry of an alias table: 256 minus the threshold, the count below it and the count from it on.
_COUNT_BIT, _ALIAS_BIT = 10, 20
_COUNT_MASK = 0x3FF


@functools.lru_cache(maxsize=16)
def _levels_of_counts(photons: int, device: torch.device) -> Tensor:
    """Grey levels of 0 to `photons` photons: uint8, in the reference's order of operations."""
    levels = np.arange(photons + 1) / float(photons) * 255
    return torch.from_numpy(levels.astype(np.uint8)).to(device)


@functools.lru_cache(maxsize=16)
def _poisson_aliases(photons: float, device: torch.device) -> Tensor:
    """Alias tables of the 256 levels, flat: int32 of 256 x 256, which stays in a CPU's cache."""
    tables = [_alias_table(_num_outcomes(level / 255.0 * photons)) for level in range(_NUM_LEVELS)]
    return torch.from_numpy(np.concatenate(tables)).to(device)


def _num_outcomes(mean: float) -> dict[int, int]:
    """Of 65536 equally likely outcomes, how many give a count: Poisson, each outcome at the middle of its share."""
    from scipy.stats import poisson

    middle = (np.arange(_NUM_OUTCOMES) + 0.5) / _NUM_OUTCOMES
    # Beyond this many standard deviations no 16 bits lead.
    counts = np.arange(int(mean + 6.0 * np.sqrt(mean) + 12.0))
    below = np.searchsorted(middle, poisson.cdf(counts, mean))
    return {int(count): int(num) for count, num in zip(counts, np.diff(below, prepend=0), strict=True) if num > 0}


def _alias_table(num_outcomes: dict[int, int]) -> np.ndarray:
    """Columns of 256 outcomes each, shared by at most two counts: int32 entries. Source: Walker 1977; Vose 1991."""
    size = _NUM_OUTCOMES // _NUM_COLUMNS
    assert sum(num_outcomes.values()) == _NUM_OUTCOMES and len(num_outcomes) <= _NUM_COLUMNS
    left = dict(num_outcomes)
    small = [count for count, num in left.items() if num < size]
    large = [count for count, num in left.items() if num >= size]
    entries = []
    for _ in range(_NUM_COLUMNS):
        # Fill a column with a rare count and top it up from a frequent one. Whole numbers: it comes out even.
        count, alias = (small.pop(), large[-1]) if small else (large[-1], large[-1])
        threshold = left.pop(count) if count != alias else size
        left[alias] -= size - threshold if count != alias else size
        if left[alias] < size:
            large.pop()
            if left[alias] > 0:
                small.append(alias)
        entries.append((size - threshold) | count << _COUNT_BIT | alias << _ALIAS_BIT)
    return np.array(entries, np.int32)


def _draw_impulses(stream: Stream, images_BCHW: Tensor, _parameters: Parameters) -> Draws:
    """16 bits that flip a value where they are low, and their last bit, which is fair among low ones, as the first."""
    flip = stream.bits16("values", *images_BCHW.shape[1:])
    return {"flip": flip, "salt": (flip << 15).bitwise_and_(_NUM_OUTCOMES // 2)}


def _impulse_noise(images_BCHW: Tensor, draws: Draws, parameters: Parameters) -> Tensor:
    (amount,) = parameters
    # Even, so that as many of the flipping outcomes end in 0 as in 1.
    num_flipped = 2 * round(amount * _NUM_OUTCOMES / 2)
    flipped = _byte_mask_below(num_flipped, draws["flip"])
    salt = _byte_mask_below(_NUM_OUTCOMES // 2, draws["salt"]).bitwise_and_(flipped)
    return flipped.bitwise_not_().bitwise_and_(images_BCHW).bitwise_or_(salt)


def _byte_mask_below(limit: int, bits: Tensor) -> Tensor:
    """255 where the bits are below the limit, else 0: uint8. The sign of the difference, spread over a byte."""
    return (bits - limit).bitwise_right_shift_(31).to(torch.uint8)


GAUSSIAN_NOISE = Corruption(draw=_draw_normal, apply=_gaussian_noise, chunk_bytes=_CHUNK_BYTES)
SPECKLE_NOISE = Corruption(draw=_draw_normal, apply=_speckle_noise, chunk_bytes=_CHUNK_BYTES)
SHOT_NOISE = Corruption(draw=_draw_counts, apply=_shot_noise, chunk_bytes=_CHUNK_BYTES)
IMPULSE_NOISE = Corruption(draw=_draw_impulses, apply=_impulse_noise, chunk_bytes=_CHUNK_BYTES)
