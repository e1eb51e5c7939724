"""From stored predictions to an error: numbers of each image whose sums, over any images, give the error on them.

That is all a bootstrap needs, and it holds for an error that is no mean over images, as 1 - mean intersection over
union is none.
"""

# N images, S statistics of an image, C classes; ... axes of whatever sums there are

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from raypruning.core.records import Kind

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """How stored predictions become an error in [0, 1].

    Attributes:
        statistics: predictions -> what is summed, (N, S), not negative.
        error: sums (..., S) and the number of images they are of -> errors (...).
        influence: predictions -> what each image adds to the error, to first order, (N,).
        loss: predictions -> mean cross-entropy.
        counts: whether an error is a number of images out of all.
    """

    statistics: Callable[[Arrays], np.ndarray]
    error: Callable[[np.ndarray, int], np.ndarray]
    influence: Callable[[Arrays], np.ndarray]
    loss: Callable[[Arrays], float]
    counts: bool

    def error_of(self, arrays: Arrays) -> float:
        """The error on all images."""
        statistics_NS = self.statistics(arrays)
        return float(self.error(statistics_NS.sum(axis=0, dtype=np.int64), len(statistics_NS)))

    def num_wrong(self, arrays: Arrays) -> int | None:
        """Images that are wrong; None where none is right or wrong as a whole."""
        return int(self.statistics(arrays).sum()) if self.counts else None


def _wrong_N1(arrays: Arrays) -> np.ndarray:
    return (arrays["predicted"] != arrays["label"])[:, None]


def _fraction(sums: np.ndarray, num: int) -> np.ndarray:
    return np.asarray(sums[..., 0] / num)


def _share(arrays: Arrays) -> np.ndarray:
    wrong_N = _wrong_N1(arrays)[:, 0]
    return wrong_N / len(wrong_N)


def _mean_log_probability(arrays: Arrays) -> float:
    return -float(arrays["log_probability"].astype(np.float64).mean())


def _pixel_counts(arrays: Arrays) -> np.ndarray:
    """Pixels of each class that are predicted and true, predicted, and true: (N, 3C)."""
    return np.concatenate([arrays["both"], arrays["predicted"], arrays["true"]], axis=1)


def _missing_overlap(sums: np.ndarray, _num: int) -> np.ndarray:
    """1 - the mean over classes of intersection / union of all pixels; a class that is nowhere is left out.

    Source: Everingham et al. 2010 (PASCAL VOC), section 4.2.2: over the whole test set, not over images or batches.
    """
    both, predicted, true = np.split(np.asarray(sums, dtype=np.float64), 3, axis=-1)
    union = predicted + true - both
    ratio = np.divide(both, union, out=np.zeros_like(both), where=union > 0)
    num_classes = np.maximum((union > 0).sum(axis=-1), 1)
    return np.asarray(1.0 - ratio.sum(axis=-1) / num_classes)


def _overlap_influence(arrays: Arrays) -> np.ndarray:
    """How the error moves with the weight of each image: the derivative of each class's ratio, averaged."""
    both_NC, predicted_NC, true_NC = (arrays[key].astype(np.float64) for key in ("both", "predicted", "true"))
    union_NC = predicted_NC + true_NC - both_NC
    both_C, union_C = both_NC.sum(axis=0), union_NC.sum(axis=0)
    seen_C = union_C > 0
    change_NC = both_NC * union_C - both_C * union_NC
    return np.asarray(-(change_NC[:, seen_C] / union_C[seen_C] ** 2).sum(axis=1) / max(seen_C.sum(), 1))


def _mean_loss(arrays: Arrays) -> float:
    return float(arrays["loss"].astype(np.float64).mean())


_METRICS: Mapping[Kind, Metric] = {
    "classification": Metric(
        statistics=_wrong_N1, error=_fraction, influence=_share, loss=_mean_log_probability, counts=True
    ),
    "segmentation": Metric(
        statistics=_pixel_counts, error=_missing_overlap, influence=_overlap_influence, loss=_mean_loss, counts=False
    ),
}


def metric_of(kind: Kind) -> Metric:
    """The metric that a task names."""
    return _METRICS[kind]


def standard_error(influence_N: np.ndarray, parent_N: np.ndarray) -> float:
    """Of the difference of two networks' errors, over images, from the influence of the same images on each.

    Where errors count, that is McNemar's: sqrt((b + c) - (b - c)^2 / n) / n, with b and c the images that only one
    of both has wrong. Elsewhere it is the infinitesimal jackknife's (Efron and Tibshirani 1993, section 21.7).
    """
    difference_N = influence_N - parent_N
    return float(np.sqrt(np.square(difference_N - difference_N.mean()).sum()))
