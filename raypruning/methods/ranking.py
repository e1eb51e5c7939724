"""Which of many scores are the highest: exact counts, and equal scores keep the lower index."""

# S all scores

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from raypruning.errors import MethodError

# So many scores are worth a sample of this size. A rank in it has a standard deviation of at most half its root; the
# bracket is six of those wide to each side.
SAMPLED_FROM, SAMPLE_SIZE, SAMPLE_MARGIN = 1 << 20, 1 << 17, 3


def keep_highest(scores_S: Tensor, num_keep: int) -> Tensor:
    """True at the `num_keep` highest scores; among equal ones the lower index is kept.

    Raises: MethodError: a score is NaN, so no order exists.
    Source: the tie rule of jaxpruner, mask_calculator.py.
    """
    return _highest(scores_S.flatten().numpy(), num_keep).view_as(scores_S)


def num_true(mask: Tensor) -> int:
    """How many are True."""
    return int(mask.count_nonzero()) if mask.is_cuda else int(np.count_nonzero(mask.numpy()))


def removal_order(times_S: Tensor) -> Tensor:
    """Indices from the first to go to the last: ascending times, and among equal ones the higher index first."""
    backwards = times_S.flip(0).argsort(stable=True)
    return len(times_S) - 1 - backwards


def _highest(flat_S: np.ndarray, num_keep: int) -> Tensor:
    # Numpy is many times faster than torch at finding the n-th of many numbers on a CPU, and at counting.
    if len(flat_S) and np.isnan(flat_S.max()):  # A maximum hands NaN on.
        raise MethodError(_NAN)
    if num_keep <= 0 or num_keep >= len(flat_S):
        return torch.full((len(flat_S),), num_keep > 0)
    index = len(flat_S) - num_keep
    threshold = _nth_smallest(flat_S, index)
    keep_S = flat_S >= threshold
    num_more = np.count_nonzero(keep_S) - num_keep
    if num_more:  # Of the scores that equal the threshold, the last ones go.
        keep_S[np.flatnonzero(flat_S == threshold)[-num_more:]] = False
    return torch.from_numpy(keep_S)


def _nth_smallest(flat_S: np.ndarray, index: int) -> np.floating:
    """The value that `index` others are not above. A sample brackets it, so that only what lies between is sorted."""
    if len(flat_S) >= SAMPLED_FROM:
        sample = np.sort(flat_S[:: len(flat_S) // SAMPLE_SIZE])
        middle, margin = index * len(sample) // len(flat_S), math.isqrt(SAMPLE_MARGIN**2 * len(sample))
        low, high = sample[max(0, middle - margin)], sample[min(len(sample) - 1, middle + margin)]
        num_below = np.count_nonzero(flat_S < low)
        between = flat_S[(flat_S >= low) & (flat_S <= high)]
        if num_below <= index < num_below + len(between):
            return np.partition(between, index - num_below)[index - num_below]
    return np.partition(flat_S, index)[index]  # Few numbers, or an odd sample.


_NAN = "a score is NaN, so there is no order to prune by"
