"""Noise of single values: gaussian, speckle, shot and impulse noise. One draw for every value of every channel."""

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
_NUM_QUANTILES = 1 << 16


def _draw_normal(stream: Stream, images_BCHW: Tensor, _parameters: Parameters) -> Draws:
    return {"normal": stream.normal("values", *images_BCHW.shape[1:])}


def _gaussian_noise(images_BCHW: Tensor, draws: Draws, parameters: Parameters) -> Tensor:
    (sigma,) = parameters
    noise = draws["normal"] * (255.0 * sigma)
    return noise.add_(images_BCHW).clamp_(0.0, 255.0).to(torch.uint8)


def _speckle_noise(images_BCHW: Tensor, draws: Draws, parameters: Parameters) -> Tensor:
    (sigma,) = parameters
    factor = (draws["normal"] * sigma).add_(1.0)
    return factor.mul_(images_BCHW).clamp_(0.0, 255.0).to(torch.uint8)


def _draw_counts(stream: Stream, images_BCHW: Tensor, parameters: Parameters) -> Draws:
    """Photons that arrive where `photons` times the value are expected, by the inverse of their distribution."""
    (photons,) = parameters
    bits = stream.bits16("values", *images_BCHW.shape[1:])
    index = bits.add_(images_BCHW.to(torch.int32) << 16)
    table = _poisson_quantiles(photons, bits.device)
    return {"counts": table.index_select(0, index.view(-1)).view(index.shape)}


def _shot_noise(images_BCHW: Tensor, draws: Draws, parameters: Parameters) -> Tensor:
    (photons,) = parameters
    # Whole numbers: the quotient is floored exactly where the reference's float is truncated, or one level beside it.
    levels = draws["counts"].to(torch.float64) / photons * 255.0
    return levels.clamp_(max=255.0).to(torch.uint8)


@functools.cache
def _poisson_quantiles(photons: float, device: torch.device) -> Tensor:
    """Counts by value and 16 random bits, flat: int16 of 256 x 65536, 34 MB."""
    from scipy.stats import poisson

    table = np.zeros((_NUM_LEVELS, _NUM_QUANTILES), np.int16)
    middle = (np.arange(_NUM_QUANTILES) + 0.5) / _NUM_QUANTILES
    for level in range(1, _NUM_LEVELS):
        mean = level / 255.0 * photons
        # Beyond this many standard deviations no 16 bits lead.
        counts = np.arange(int(mean + 6.0 * np.sqrt(mean) + 12.0))
        table[level] = np.searchsorted(poisson.cdf(counts, mean), middle)
    return torch.from_numpy(table.reshape(-1)).to(device)


def _draw_impulses(stream: Stream, images_BCHW: Tensor, _parameters: Parameters) -> Draws:
    shape = images_BCHW.shape[1:]
    return {"flip": stream.bits16("flip", *shape), "salt": stream.bits16("salt", *shape)}


def _impulse_noise(images_BCHW: Tensor, draws: Draws, parameters: Parameters) -> Tensor:
    (amount,) = parameters
    is_flipped = draws["flip"] < round(amount * _NUM_QUANTILES)
    impulse = (draws["salt"] < _NUM_QUANTILES // 2).to(torch.uint8).mul_(255)
    return torch.where(is_flipped, impulse, images_BCHW)


GAUSSIAN_NOISE = Corruption(draw=_draw_normal, apply=_gaussian_noise)
SPECKLE_NOISE = Corruption(draw=_draw_normal, apply=_speckle_noise)
SHOT_NOISE = Corruption(draw=_draw_counts, apply=_shot_noise)
IMPULSE_NOISE = Corruption(draw=_draw_impulses, apply=_impulse_noise)
