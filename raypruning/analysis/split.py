"""Halves of a test set: one to choose a network on, the other to report what that network loses.

A potential is a maximum over noisy measurements: what was chosen for having lost little has in part been lucky on these
images. The other half had no part in the choice, so its loss is not flattered by it.
"""

# N images, S statistics of an image

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from raypruning.analysis.bootstrap import Resampler, interval_of
from raypruning.analysis.metrics import Arrays, Metric
from raypruning.analysis.paired import discordance, interval
from raypruning.core.potential import num_lost_allowed
from raypruning.core.records import Interval


def first_half(num: int, *, images: str = "") -> np.ndarray:
    """Which of a test set's images are in the half to choose on, (N,) booleans.

    By a counter-based generator (Philox; Salmon et al. 2011), counting images: whether one is in depends on nothing but
    its index, so that a longer test set splits the images it shares in the same way. Halves are equal up to chance.

    Args:
        images: what tests on the same images (`Task.images`) is split in the same way.
    """
    top_bit = np.uint64(63)
    return (np.random.Philox(key=zlib.crc32(images.encode())).random_raw(num) >> top_bit).astype(bool)


class HalfLoss(NamedTuple):
    """The loss of a network against its parent on a part of the images.

    Attributes:
        num: images of that part.
        num_lost: more wrong images than the parent has; None where the metric does not count.
    """

    loss: float
    num: int
    num_lost: int | None

    def is_within(self, delta: float) -> bool:
        """Whether it is at most delta; counts are compared as integers."""
        return self.loss <= delta if self.num_lost is None else self.num_lost <= num_lost_allowed(delta, self.num)


def loss_on(metric: Metric, arrays: Arrays, parent: Arrays, part_N: np.ndarray) -> HalfLoss:
    """The loss on the images of a part."""
    sums = [metric.statistics(one)[part_N].sum(axis=0, dtype=np.int64) for one in (arrays, parent)]
    num = int(part_N.sum())
    ours, theirs = (float(metric.error(one, num)) for one in sums)
    return HalfLoss(ours - theirs, num, int(sums[0][0] - sums[1][0]) if metric.counts else None)


def interval_on(
    metric: Metric, arrays: Arrays, parent: Arrays, part_N: np.ndarray, *, resampler: Resampler
) -> Interval:
    """The two-sided interval of the loss on the images of a part."""
    if metric.counts:
        wrong_parent_N, wrong_N = (metric.statistics(one)[part_N, 0].astype(bool) for one in (parent, arrays))
        return interval(discordance(wrong_parent_N, wrong_N))
    parts = [{name: values[part_N] for name, values in one.items()} for one in (arrays, parent)]
    errors_R2 = resampler.errors(metric, parts)
    return interval_of(errors_R2[:, 0] - errors_R2[:, 1])


def largest_within(ratios: Sequence[float], losses: Sequence[HalfLoss], *, delta: float) -> int | None:
    """The index of the largest ratio that is within delta, as a potential is found; None where only dense is."""
    within = [index for index, one in enumerate(losses) if one.is_within(delta)]
    return max(within, key=lambda index: ratios[index], default=None)
