"""Is the recall of a class another one after pruning: tests over networks, and over images, class by class."""

# N images, K networks, C classes

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy.special import gammaln, ndtri, stdtr, stdtrit
from scipy.stats import binom

from raypruning.core.records import Interval

# Recalls and accuracies are means of at most 10^4 numbers up to 1, which round at 10^4 * 2.2e-16. Two that differ do so
# by an image of a class times an image of all, shared out over the networks: by more than 1e-10 in any test set.
_ROUNDING = 1e-11


class Welch(NamedTuple):
    """Welch's test of each class. NaN but for the p-value, where neither side has any spread and the means differ.

    Attributes:
        difference_C: of means, the first side's minus the second's.
        effect_C: Hedges' g*.
        low_C, high_C: of the difference.
    """

    difference_C: np.ndarray
    df_C: np.ndarray
    statistic_C: np.ndarray
    p_C: np.ndarray
    low_C: np.ndarray
    high_C: np.ndarray
    effect_C: np.ndarray


def welch(dense_KC: np.ndarray, pruned_KC: np.ndarray, *, confidence: float = 0.95) -> Welch:
    """Do two populations have the same mean? Two-sided, variances may differ; as `scipy.stats.ttest_ind` has it.

    Without any spread on either side t is 0/0 or x/0. Equal means then have t = 0 and p = 1. Others have no t, and the
    p of a permutation test: of all ways to part the networks into two sides none separates them better, and only the
    exchange of both sides as well, if they are equally many.

    The effect size is Hedges' g* of Delacre et al. 2021: the difference over the root of both variances' mean, with the
    correction for small samples at their degrees of freedom.

    Args:
        dense_KC, pruned_KC: a value for each network and class, two networks or more on each side.
    """
    first_C, second_C = _variance(dense_KC), _variance(pruned_KC)
    n, m = len(dense_KC), len(pruned_KC)
    of_first_C, of_second_C = first_C / n, second_C / m
    difference_C = dense_KC.mean(axis=0) - pruned_KC.mean(axis=0)
    has_spread_C = first_C + second_C > 0
    is_equal_C = ~has_spread_C & (np.abs(difference_C) <= _ROUNDING)
    with np.errstate(divide="ignore", invalid="ignore"):
        error_C = np.where(has_spread_C, np.sqrt(of_first_C + of_second_C), np.nan)
        df_C = (of_first_C + of_second_C) ** 2 / (of_first_C**2 / (n - 1) + of_second_C**2 / (m - 1))
        df_effect_C = (n - 1) * (m - 1) * (first_C + second_C) ** 2 / ((m - 1) * first_C**2 + (n - 1) * second_C**2)
        effect_C = difference_C / np.sqrt((first_C + second_C) / 2.0) * _small_sample(df_effect_C)
    statistic_C = np.where(is_equal_C, 0.0, difference_C / error_C)
    permuted = (2.0 if n == m else 1.0) / math.comb(n + m, n)
    half_C = stdtrit(df_C, (1.0 + confidence) / 2.0) * error_C
    return Welch(
        difference_C=difference_C,
        df_C=df_C,
        statistic_C=statistic_C,
        p_C=np.where(has_spread_C, 2.0 * stdtr(df_C, -np.abs(statistic_C)), np.where(is_equal_C, 1.0, permuted)),
        low_C=difference_C - half_C,
        high_C=difference_C + half_C,
        effect_C=np.where(has_spread_C, effect_C, np.where(is_equal_C, 0.0, np.nan)),
    )


def _variance(values_KC: np.ndarray) -> np.ndarray:
    """Of the sample; exactly 0 of values that differ by rounding alone."""
    return np.asarray(np.where(np.ptp(values_KC, axis=0) <= _ROUNDING, 0.0, values_KC.var(axis=0, ddof=1)))


def _small_sample(df_C: np.ndarray) -> np.ndarray:
    """By how much a standardised difference overestimates: Hedges' (1981) exact correction."""
    return np.asarray(np.exp(gammaln(df_C / 2.0) - gammaln((df_C - 1.0) / 2.0)) / np.sqrt(df_C / 2.0))


def sign_flip(net_N: np.ndarray) -> float:
    """The exact two-sided p-value of "it does not matter which networks are the pruned ones".

    If it does not, the net loss of an image is as likely with the other sign. Images are independent of each other;
    pairs need not be. The sum of all losses, the loss of recall times images and pairs, is compared with its
    distribution over all choices of signs. With one pair this is McNemar's exact test. A sign test would count images
    and not losses, and reject equal recalls where few images are lost by many pairs and many gained by few.

    Args:
        net_N: integers: pairs that lose the image minus pairs that gain it.

    Source: Fisher 1935, section 21, for this statistic.
    """
    sizes, counts = np.unique(np.abs(net_N[net_N != 0]), return_counts=True)
    total = int(np.abs(net_N).sum())
    # The chance of each sum of the losses that got a positive sign, from 0 to `total`.
    chance = np.ones(1)
    for size, num in zip(sizes, counts, strict=True):
        steps = np.zeros(int(size * num) + 1)
        steps[:: int(size)] = binom.pmf(np.arange(num + 1), num, 0.5)
        chance = np.convolve(chance, steps)
    # sum = 2 * positive - total, so that the upper tail begins where the positive ones reach this.
    least = (total + abs(int(net_N.sum()))) // 2
    return float(min(1.0, 2.0 * chance[least:].sum()))


def mean_interval(net_N: np.ndarray, *, num_pairs: int, confidence: float) -> Interval:
    """Of the mean loss of recall, over images, for several pairs that share them.

    The normal interval with two images more: one that does not change, half a one that all pairs lose and half a one
    that all gain. So it has a width also where all images agree. With one pair it is that of Agresti and Min 2005, who
    add half an observation to each cell.

    Args:
        net_N: pairs that lose the image minus pairs that gain it.
    """
    loss_N = net_N / num_pairs
    num = len(loss_N) + 2
    mean = float(loss_N.sum()) / num
    variance = (float(np.square(loss_N).sum()) + 1.0) / num - mean**2
    half = float(ndtri((1.0 + confidence) / 2.0)) * math.sqrt(variance / num)
    return Interval(
        low=max(-1.0, mean - half),
        high=min(1.0, mean + half),
        confidence=confidence,
        method="normal over images, after Agresti and Min",
    )
