"""How sure a potential or an excess error is, by resampling test images: the same ones for every network and task.

Source: the paired, joint bootstrap over image ids; see Efron and Tibshirani 1993, chapters 8 and 13.
"""

# R resamples, N images, P probes of a curve

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from raypruning.core.potential import num_lost_allowed
from raypruning.core.records import Interval

NUM_RESAMPLES = 1000
CONFIDENCE = 0.9
METHOD = "paired bootstrap over images"


class Resampler:
    """Resamples of the images of a test set, drawn once for each size and shared by whatever is compared."""

    def __init__(self, *, seed: int = 0) -> None:
        self._seed = seed
        self._weights: dict[int, np.ndarray] = {}

    def means(self, values_NP: np.ndarray) -> np.ndarray:
        """Mean of each column in each resample, shape (R, P)."""
        num = len(values_NP)
        return (self._weights_RN(num) @ values_NP.astype(np.float32)).astype(np.float64) / num

    def _weights_RN(self, num: int) -> np.ndarray:
        if num not in self._weights:
            generator = np.random.default_rng([self._seed, num])
            weights_RN = np.empty((NUM_RESAMPLES, num), np.float32)
            for row in weights_RN:
                row[:] = np.bincount(generator.integers(num, size=num), minlength=num)
            self._weights[num] = weights_RN
        return self._weights[num]


def resampled_potentials(
    wrong_NP: np.ndarray, dense_wrong_N: np.ndarray, ratios_P: Sequence[float], *, delta: float, resampler: Resampler
) -> np.ndarray:
    """The potential of one curve in each resample of the test images, shape (R,).

    Args:
        wrong_NP: whether each probe is wrong on each image.
        dense_wrong_N: the same for the parent.
        ratios_P: reached ratio of each probe.
    """
    num = len(dense_wrong_N)
    loss_RP = resampler.means(wrong_NP.astype(np.float32) - dense_wrong_N.astype(np.float32)[:, None])
    # Counts of images are whole: half an image of slack undoes rounding and lets none more pass.
    passes_RP = loss_RP * num <= num_lost_allowed(delta, num) + 0.5
    return np.where(passes_RP, np.asarray(ratios_P), 0.0).max(axis=1, initial=0.0)


def interval_of(samples_R: np.ndarray) -> Interval:
    """The central interval of resampled values."""
    tail = (1.0 - CONFIDENCE) / 2.0
    low, high = np.quantile(samples_R, [tail, 1.0 - tail])
    return Interval(low=float(low), high=float(high), confidence=CONFIDENCE, method=METHOD)


def excess_interval(
    wrong: Mapping[str, np.ndarray],
    dense_wrong: Mapping[str, np.ndarray],
    *,
    task: str,
    nominal: str,
    resampler: Resampler,
) -> Interval:
    """Interval of the difference in excess error.

    Test sets of the same size share their resamples, so that tasks on the same images are paired.
    """
    shifted_N = wrong[task].astype(np.float32) - dense_wrong[task].astype(np.float32)
    nominal_N = wrong[nominal].astype(np.float32) - dense_wrong[nominal].astype(np.float32)
    return interval_of(resampler.means(shifted_N[:, None])[:, 0] - resampler.means(nominal_N[:, None])[:, 0])
