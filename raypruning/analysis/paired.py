"""Two networks on the same images: how much one loses against the other, and how sure that is.

What both have right, and what both have wrong, says nothing about the difference: all that counts are the images on
which they disagree. Source: McNemar 1947; Tango 1998, "Equivalence test and confidence interval for the difference in
proportions for the paired-sample design", Statistics in Medicine 17.
"""

# N images, P networks

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy.special import ndtri

from raypruning.core.records import Interval

CONFIDENCE = 0.95
POWER = 0.8


class Discordance(NamedTuple):
    """On how many images two networks disagree.

    Attributes:
        lost: images that the parent has right and the pruned network wrong.
        gained: the converse.
        num: images in all, at least 1.
    """

    lost: int
    gained: int
    num: int

    @property
    def loss(self) -> float:
        """The pruned network's error minus the parent's, in [-1, 1]."""
        return (self.lost - self.gained) / self.num

    @property
    def rate(self) -> float:
        """The fraction of images that the networks disagree on."""
        return (self.lost + self.gained) / self.num

    @property
    def standard_error(self) -> float:
        """Of `loss`. 0 where no image is lost or gained, which is no proof that none can be: see `upper_bound`."""
        return math.sqrt(self.lost + self.gained - (self.lost - self.gained) ** 2 / self.num) / self.num


def discordance(wrong_parent_N: np.ndarray, wrong_pruned_N: np.ndarray) -> Discordance:
    """Count who is wrong where, on the same images in the same order."""
    lost_N, gained_N = wrong_pruned_N & ~wrong_parent_N, wrong_parent_N & ~wrong_pruned_N
    return Discordance(lost=int(lost_N.sum()), gained=int(gained_N.sum()), num=len(lost_N))


def upper_bound(discordance: Discordance, *, confidence: float = CONFIDENCE) -> float:
    """The one-sided upper bound of the true loss: Tango's score interval, in [-1, 1].

    It stays honest with few or no disagreements: n images without one bound the loss by z^2 / (n + z^2) and not by 0.

    Args:
        confidence: in (0.5, 1).
    """
    from scipy.optimize import brentq  # a third of a second that most reports have no need of

    z = float(ndtri(confidence))
    low = discordance.loss
    if low >= 1.0:
        return 1.0
    if discordance.standard_error == 0.0:
        # The score is 0 here as well, but the bound is z^2 / (n + z^2) away, twice that where all images were gained.
        low += z * z / (discordance.num + z * z) / 2.0
    return float(brentq(_score_excess, low, 1.0, args=(discordance, z)))


def is_within(discordance: Discordance, delta: float, *, confidence: float = CONFIDENCE) -> bool:
    """Whether the upper bound of the loss is at most delta: the score test of a true loss of delta or more."""
    return delta > discordance.loss and _score_excess(delta, discordance, float(ndtri(confidence))) <= 0.0


def interval(discordance: Discordance, *, confidence: float = 0.9) -> Interval:
    """The two-sided score interval of the true loss."""
    one_sided = (1.0 + confidence) / 2.0
    mirrored = discordance._replace(lost=discordance.gained, gained=discordance.lost)
    return Interval(
        low=-upper_bound(mirrored, confidence=one_sided),
        high=upper_bound(discordance, confidence=one_sided),
        confidence=confidence,
        method="Tango's score interval for paired proportions",
    )


def mcnemar(discordance: Discordance) -> float:
    """The exact two-sided p-value of "both networks are wrong equally often"; 1 where they never disagree."""
    from scipy.stats import binomtest  # as above

    num_discordant = discordance.lost + discordance.gained
    return float(binomtest(discordance.lost, num_discordant, 0.5).pvalue) if num_discordant else 1.0


def wilson(num_wrong_P: np.ndarray, num_P: np.ndarray, *, confidence: float = 0.9) -> tuple[np.ndarray, np.ndarray]:
    """Ends of Wilson's (1927) two-sided interval of each network's own error, (P,) each.

    Args:
        num_wrong_P, num_P: images that are wrong, and all.
    """
    z = float(ndtri((1.0 + confidence) / 2.0))
    middle_P = num_wrong_P + z * z / 2.0
    half_P = z * np.sqrt(num_wrong_P * (num_P - num_wrong_P) / num_P + z * z / 4.0)
    return (middle_P - half_P) / (num_P + z * z), (middle_P + half_P) / (num_P + z * z)


def images_needed(rate: float, delta: float, *, confidence: float = CONFIDENCE, power: float = POWER) -> int:
    """How many images certify, with a probability of `power`, a network that in truth loses nothing.

    Normal approximation, rate * (z_confidence + z_power)^2 / delta^2; but never fewer than it takes to certify a
    network that answers every image as its parent does.

    Args:
        rate: fraction of images that the two networks disagree on.
        delta: loss that is allowed, in (0, 1).
    """
    z = float(ndtri(confidence))
    for_noise = rate * (z + float(ndtri(power))) ** 2 / delta**2
    return math.ceil(max(for_noise, z * z * (1.0 - delta) / delta))


def _score_excess(loss: float, discordance: Discordance, z: float) -> float:
    """By how many images the measured loss is too near to a supposed true one to be told from it; 0 at the bound."""
    deviation = discordance.num * (discordance.loss - loss)
    gain_rate = _restricted_gain_rate(loss, discordance)
    variance = discordance.num * (2.0 * gain_rate + loss * (1.0 - loss))
    return deviation + z * math.sqrt(max(variance, 0.0))


def _restricted_gain_rate(loss: float, discordance: Discordance) -> float:
    """The likeliest rate of gained images where that of lost ones is larger by exactly `loss` (Tango, eq. 9 f.)."""
    lost, gained, num = discordance
    a = 2.0 * num
    b = (2.0 * num - lost + gained) * loss - lost - gained
    c = -gained * loss * (1.0 - loss)
    return (math.sqrt(max(b * b - 4.0 * a * c, 0.0)) - b) / (2.0 * a)
