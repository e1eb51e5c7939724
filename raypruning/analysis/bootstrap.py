"""How sure a potential or an excess error is, by resampling test images: the same ones for every network and task.

Source: the paired, joint bootstrap over image ids; see Efron and Tibshirani 1993, chapters 8 and 13.
"""

# R resamples, N images, P networks, S statistics of an image, X whatever is summed

from __future__ import annotations

import zlib
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from raypruning.analysis.metrics import Arrays, Metric
from raypruning.core.potential import num_lost_allowed
from raypruning.core.records import Interval

NUM_RESAMPLES = 1000
CONFIDENCE = 0.9
METHOD = "paired bootstrap over images"
# Of the test sets whose resamples are kept: one of 50 000 images takes 200 MB.
_MAX_KEPT = 2


class Resampler:
    """Resamples of the images of a test set, the same for all that is measured on the same images."""

    def __init__(self, *, seed: int = 0) -> None:
        self._seed = seed
        self._weights: OrderedDict[tuple[int, str], np.ndarray] = OrderedDict()

    def sums(self, values_NX: np.ndarray, *, images: str = "") -> np.ndarray:
        """Sum of each column in each resample, shape (R, X).

        Args:
            images: what is on the same images shares its resamples, and what is on others does not (`Task.images`).
        """
        return (self._weights_RN(len(values_NX), images) @ values_NX.astype(np.float32)).astype(np.float64)

    def errors(self, metric: Metric, predictions: Sequence[Arrays], *, images: str = "") -> np.ndarray:
        """The error of each network in each resample, shape (R, P).

        Args:
            predictions: of each network, on the same images in the same order.
        """
        statistics = [metric.statistics(arrays) for arrays in predictions]
        num, num_statistics = statistics[0].shape
        sums = self.sums(np.concatenate(statistics, axis=1), images=images)
        return metric.error(sums.reshape(NUM_RESAMPLES, len(predictions), num_statistics), num)

    def _weights_RN(self, num: int, images: str) -> np.ndarray:
        key = (num, images)
        if key not in self._weights:
            # Numbers, for a generator takes no text; those of the dataset's own images are as they always were.
            generator = np.random.default_rng([self._seed, num, *([zlib.crc32(images.encode())] if images else [])])
            weights_RN = np.empty((NUM_RESAMPLES, num), np.float32)
            for row in weights_RN:
                row[:] = np.bincount(generator.integers(num, size=num), minlength=num)
            self._weights[key] = weights_RN
            if len(self._weights) > _MAX_KEPT:
                self._weights.popitem(last=False)
        self._weights.move_to_end(key)
        return self._weights[key]


def resampled_potentials(
    errors_RP: np.ndarray,
    dense_errors_R: np.ndarray,
    ratios_P: Sequence[float],
    *,
    delta: float,
    num_images: int,
    counts: bool,
) -> np.ndarray:
    """The potential of one curve in each resample of the test images, shape (R,).

    Args:
        errors_RP: of each network of the curve.
        dense_errors_R: of their parent.
        ratios_P: reached ratio of each network.
        counts: whether errors are numbers of images.
    """
    # Numbers of images are whole: half an image of slack undoes rounding and lets none more pass.
    allowed = (num_lost_allowed(delta, num_images) + 0.5) / num_images if counts else delta
    passes_RP = errors_RP - dense_errors_R[:, None] <= allowed
    return np.where(passes_RP, np.asarray(ratios_P), 0.0).max(axis=1, initial=0.0)


def interval_of(samples_R: np.ndarray) -> Interval:
    """The central interval of resampled values."""
    return intervals_of([samples_R])[0]


def intervals_of(samples: Sequence[np.ndarray]) -> list[Interval]:
    """The central intervals of several values, (R,) each: at once, since a report has thousands."""
    if not samples:
        return []
    tail = (1.0 - CONFIDENCE) / 2.0
    low_P, high_P = np.quantile(np.stack(samples), [tail, 1.0 - tail], axis=1)
    return [
        Interval(low=low, high=high, confidence=CONFIDENCE, method=METHOD)
        for low, high in zip(low_P.tolist(), high_P.tolist(), strict=True)
    ]


def mean_over_seeds(samples: Sequence[np.ndarray]) -> np.ndarray:
    """The mean over seeds of a resampled value, (R,), seeds being resampled as the images are.

    The seeds that are drawn deviate from the mean of all by a factor sqrt((n - 1) / n) too little, which is given back.

    Args:
        samples: (R,) of each seed, on the same resampled images.

    Source: the two-level bootstrap, Davison and Hinkley 1997, section 3.8.
    """
    samples_SR = np.stack(samples)
    num_seeds = len(samples_SR)
    mean_R = samples_SR.mean(axis=0)
    if num_seeds == 1:
        return np.asarray(mean_R)
    drawn_SR = np.random.default_rng(num_seeds).integers(0, num_seeds, size=samples_SR.shape)
    drawn_mean_R = np.take_along_axis(samples_SR, drawn_SR, axis=0).mean(axis=0)
    stretch = np.sqrt(num_seeds / (num_seeds - 1))
    return np.asarray(np.clip(mean_R + stretch * (drawn_mean_R - mean_R), 0.0, 1.0))
