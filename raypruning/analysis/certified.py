"""The largest ratio for which the test set proves, and not only shows, that no more than delta is lost.

Ratios are tested in increasing order, each at the full level, up to the first that does not pass: a fixed sequence of
tests, of which the chance of certifying even one network that loses too much is at most the level. Passing again
further up counts for nothing. Source: Maurer, Hothorn and Lehmacher 1995; Westfall and Krishen 2001.
"""

# R resamples

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def certified(ratios: Sequence[float], is_within: Sequence[bool]) -> int | None:
    """The index of the largest ratio before the first one that is not within; None where only dense is (ratio 0).

    Args:
        ratios: reached ratios of the networks of one curve, in any order; of equal ones, the earlier is tested first.
        is_within: of each, whether the upper bound of its loss is at most delta.
    """
    last = None
    for index in sorted(range(len(ratios)), key=lambda index: ratios[index]):
        if not is_within[index]:
            break
        last = index
    return last


def resampled_upper_bound(losses_R: np.ndarray, *, confidence: float = 0.95) -> float:
    """The one-sided upper bound of a loss that is no count of images, from its bootstrap resamples.

    Source: the percentile interval, Efron and Tibshirani 1993, chapter 13.
    """
    return float(np.quantile(losses_R, confidence))
