"""Fog: a cloudy height map over the image, that of Fournier, Fussell and Carpenter's midpoint displacement.

Source: Hendrycks and Dietterich 2019; the map's size is that of Michaelis et al. 2019, which is equal at 32 and 224 px.
"""

# B images of a batch, C channels, H W height and width, K values of an image's draws, S rows and columns of a map

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
from torch import Tensor

from raypruning.corruptions.corruption import Corruption, Draws
from raypruning.corruptions.parameters import Parameters
from raypruning.corruptions.stream import Stream

_FIRST_WIBBLE = 100.0
# Of a grey level. Where the map is 1 and the pixel the image's brightest, the result is a whole level but for float32's
# rounding, which is below 255 * 2^-22.
_EPSILON = 1e-3


class _Quarters(NamedTuple):
    """A map (B, 2S, 2S) by the parity of row and column: each (B, S, S)."""

    even_even: Tensor
    even_odd: Tensor
    odd_even: Tensor
    odd_odd: Tensor


def _map_size(height: int, width: int) -> int:
    """The next power of two of the larger side."""
    return 1 << (max(height, width) - 1).bit_length()


def _draw_displacements(stream: Stream, images_BCHW: Tensor, _parameters: Parameters) -> Draws:
    """Uniform in (-1, 1), size^2 - 1 of them, in the order of use.

    Coarse levels come first; in each those of the squares' centres, then of even rows and odd columns, then of odd rows
    and even columns. Only the corner is not displaced.
    """
    num = _map_size(*images_BCHW.shape[-2:]) ** 2 - 1
    bits = stream.bits16("displacements", num)
    return {"displacements": bits.to(torch.float32).sub_(32767.5).mul_(2.0**-15)}


def _fog(images_BCHW: Tensor, draws: Draws, parameters: Parameters) -> Tensor:
    strength, decay = parameters
    height, width = images_BCHW.shape[-2:]
    quarters = _height_map(draws["displacements"].to(torch.float32), _map_size(height, width), decay)
    lowest_B = torch.stack([quarter.amin(dim=(1, 2)) for quarter in quarters]).amin(dim=0)
    highest_B = torch.stack([quarter.amax(dim=(1, 2)) for quarter in quarters]).amax(dim=0)
    # The image and the fog on it are scaled so that the brightest value stays what it was; a black image stays black.
    brightest_B = images_BCHW.amax(dim=(1, 2, 3)).to(torch.float32)
    shrink_B = brightest_B / (brightest_B + 255.0 * strength)
    per_height_B = (255.0 * strength) * shrink_B / (highest_B - lowest_B)
    fog_BHW = _interleaved(quarters)[:, :height, :width]
    fog_BHW.sub_(lowest_B[:, None, None]).mul_(per_height_B[:, None, None]).add_(_EPSILON)
    foggy_BCHW = images_BCHW.to(torch.float32).mul_(shrink_B[:, None, None, None])
    # By way of int16, which takes a third of the time.
    return foggy_BCHW.add_(fog_BHW[:, None]).to(torch.int16).to(torch.uint8)


def _height_map(displacements_BK: Tensor, size: int, decay: float) -> _Quarters:
    """The map by diamonds and squares on a torus, not yet normalised. `size` is a power of two, at least 2."""
    noise_BK = displacements_BK * _amplitudes(size, decay, displacements_BK.device)
    corners_BSS = noise_BK.new_zeros(len(noise_BK), 1, 1)
    used = 0
    while True:
        num = corners_BSS.shape[-1]
        centre, even_odd, odd_even = (
            noise_BK[:, used + part * num**2 : used + (part + 1) * num**2].view(-1, num, num) for part in range(3)
        )
        used += 3 * num**2
        beside_BSS = corners_BSS + corners_BSS.roll(-1, 2)
        below_BSS = corners_BSS + corners_BSS.roll(-1, 1)
        centre = (beside_BSS + beside_BSS.roll(-1, 1)).mul_(0.25).add_(centre)
        even_odd = beside_BSS.add_(centre).add_(centre.roll(1, 1)).mul_(0.25).add_(even_odd)
        odd_even = below_BSS.add_(centre).add_(centre.roll(1, 2)).mul_(0.25).add_(odd_even)
        quarters = _Quarters(corners_BSS, even_odd, odd_even, centre)
        if 2 * num == size:
            return quarters
        corners_BSS = _interleaved(quarters)


@functools.cache
def _amplitudes(size: int, decay: float, device: torch.device) -> Tensor:
    """How far every value of the draws displaces, float32 (K,): the square of a wibble that decays by the level."""
    levels = [
        torch.full((3 * 4**level,), (_FIRST_WIBBLE / decay**level) ** 2) for level in range(size.bit_length() - 1)
    ]
    return torch.cat(levels).to(device)


def _interleaved(quarters: _Quarters) -> Tensor:
    """The map that the quarters make up, (B, 2S, 2S)."""
    batch, num, _ = quarters.odd_odd.shape
    # Neighbours in a row as one complex number: twice as fast as writing every other value.
    pairs_BS2S = quarters.odd_odd.new_empty(batch, num, 2, num, dtype=torch.complex64)
    torch.complex(quarters.even_even, quarters.even_odd, out=pairs_BS2S[:, :, 0])
    torch.complex(quarters.odd_even, quarters.odd_odd, out=pairs_BS2S[:, :, 1])
    return torch.view_as_real(pairs_BS2S).view(batch, 2 * num, 2 * num)


FOG = Corruption(draw=_draw_displacements, apply=_fog, chunk_bytes=1 << 23)
