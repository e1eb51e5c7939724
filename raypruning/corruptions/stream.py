"""Random numbers by counter: what an image gets depends on a key and its id alone.

Not on the batch, its order, the worker or the device: everything up to the draws is integer arithmetic, and normal
draws are looked up. A stream is cheap to make; there is no state.
"""

# B images of a batch, K values of an image

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from raypruning.core.identity import derive_seed

_GOLDEN = 0x9E3779B9


class Stream:
    """Draws for images by their ids.

    Args:
        key: what the draws are for; another key, other draws.
        ids_B: of the images, from 0 to 2^31 - 1; on the device that the draws are made on.
    """

    def __init__(self, key: str, ids_B: Tensor) -> None:
        self._key = key
        self._ids_B = ids_B

    @property
    def num_images(self) -> int:
        """B."""
        return len(self._ids_B)

    def bits(self, label: str, *shape: int) -> Tensor:
        """32 random bits for every value: int32 of shape (B, *shape). Another label, other bits."""
        device = self._ids_B.device
        image_B1 = _hash(self._ids_B.to(torch.int32)[:, None] ^ _key_word(f"{self._key}/{label}"))
        mixed_BK = _multiply_twice(image_B1 ^ _hashed_positions(math.prod(shape), device))
        return mixed_BK.view(len(self._ids_B), *shape)

    def bits16(self, label: str, *shape: int) -> Tensor:
        """16 random bits for every value, in [0, 65536): int32 of shape (B, *shape)."""
        num = math.prod(shape)
        # As signed halves, since few operations know unsigned ones.
        halves_BK = self.bits(label, (num + 1) // 2).view(torch.int16)[:, :num]
        bits_BK = halves_BK.to(torch.int32, memory_format=torch.contiguous_format).bitwise_and_(0xFFFF)
        return bits_BK.view(len(self._ids_B), *shape)

    def uniform(self, label: str, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Uniform draws in (low, high): float64 of shape (B, *shape), 32 bits of each, at the middle of its step."""
        unit = (self.bits(label, *shape).to(torch.float64) + (2.0**31 + 0.5)) * 2.0**-32
        return unit * (high - low) + low

    def normal(self, label: str, *shape: int) -> Tensor:
        """Standard normal draws: float32 of shape (B, *shape), one of 65536 equally likely values within 4.33 sigma."""
        bits_BK = self.bits16(label, *shape)
        table = _normal_quantiles(bits_BK.device)
        return table.index_select(0, bits_BK.view(-1)).view(bits_BK.shape)

    def integers(self, label: str, *shape: int, low: int, high: int) -> Tensor:
        """Whole numbers from low to high - 1: int64 of shape (B, *shape). high - low is at most 2^16."""
        # 32 bits times the width, shifted back: as even as 32 bits allow, without a division.
        unsigned = self.bits(label, *shape).to(torch.int64) + (1 << 31)
        return ((unsigned * (high - low)) >> 32) + low


@functools.cache
def _normal_quantiles(device: torch.device) -> Tensor:
    """The middle of each of 65536 equally likely intervals of a standard normal variable."""
    from scipy.special import ndtri

    middle = (torch.arange(1 << 16, dtype=torch.float64) + 0.5) / (1 << 16)
    return torch.from_numpy(ndtri(middle.numpy())).to(device=device, dtype=torch.float32)


@functools.lru_cache(maxsize=256)
def _key_word(role: str) -> int:
    """32 bits of a name, as a signed number."""
    return _as_int32(derive_seed(0, role) & 0xFFFFFFFF)


@functools.lru_cache(maxsize=16)
def _hashed_positions(num: int, device: torch.device) -> Tensor:
    """A hash of the positions alone, so that no two images share a run of values that is only shifted."""
    return _hash(torch.arange(num, dtype=torch.int32, device=device) * _as_int32(_GOLDEN))


def _hash(x: Tensor) -> Tensor:
    """A bijection on 32 bits with good avalanche (the "lowbias32" constants of C. Wellons' hash prospector)."""
    return _multiply_twice(x ^ _shift_right(x, 16))


def _multiply_twice(x: Tensor) -> Tensor:
    """The rest of the hash, in place. Its first step maps an xor of words to the xor of what it makes of each.

    So words that are hashes already need no first step: it would only be another name for them.
    """
    x.mul_(0x7FEB352D)
    x.bitwise_xor_(_shift_right(x, 15))
    x.mul_(_as_int32(0x846CA68B))
    return x.bitwise_xor_(_shift_right(x, 16))


def _shift_right(x: Tensor, num_bits: int) -> Tensor:
    """As for unsigned numbers: zeros come in from the left."""
    return (x >> num_bits).bitwise_and_((1 << (32 - num_bits)) - 1)


def _as_int32(value: int) -> int:
    """The signed number of the same 32 bits."""
    return value - (1 << 32) if value >= 1 << 31 else value
