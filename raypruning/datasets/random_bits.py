"""Random numbers that are the same on every platform and with every version of numpy.

Only the raw output of Philox is used, which is fixed by its definition (Salmon et al., 2011, "Parallel random numbers:
as easy as 1, 2, 3"); the methods of `numpy.random.Generator` may change their streams between versions.
"""

from __future__ import annotations

import numpy as np

_MASK = (1 << 64) - 1


def raw_bits(count: int, *, seed: int, stream: int = 0) -> np.ndarray:
    """`count` uint64 values with 64 random bits each; another seed or stream gives independent ones."""
    key = np.array([seed & _MASK, stream & _MASK], dtype=np.uint64)
    return np.random.Philox(key=key).random_raw(count)


def permutation(count: int, *, seed: int) -> np.ndarray:
    """The numbers below `count` in random order, int64. A tie between two 64-bit draws keeps the lower first."""
    return np.argsort(raw_bits(count, seed=seed), kind="stable")


def unit_floats(bits: np.ndarray) -> np.ndarray:
    """Map raw bits to float64 in [0, 1), exactly."""
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53
