"""Most common answers of populations, and how many of them differ by luck alone.

A null rate has no source: the studies of pruning identified exemplars compare dense networks with pruned ones only. How
it is made comparable with theirs is told at `Groups`.
"""

# N images, M contested images, K networks, L classes that some network answers, R draws of two groups, H networks in a
# group

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from scipy.stats import t as student

from raypruning.analysis.paired import CONFIDENCE
from raypruning.core.identity import derive_seed
from raypruning.core.records import Interval

Ties = Literal["undecided", "largest"]

MIN_SEEDS = 2
# Draws of two groups: all there are up to so many (7 networks have 210), otherwise so many random ones.
MAX_DRAWS = 400
# Images times draws at once: 2 MB of single floats, which stay in a core's cache.
_MAX_VALUES = 500_000


class Answers(NamedTuple):
    """What the networks of a population answer.

    Attributes:
        seeds: of the networks, each another one.
        predicted_KN: class by number; images in the same order for everybody.
    """

    seeds: tuple[int, ...]
    predicted_KN: np.ndarray


class Modes(NamedTuple):
    """The most common answer for each image; any number of axes before that of images.

    Attributes:
        place_M: among the classes of the image, see `Ballots`; of tied ones that of the largest class.
        is_tied_M: whether another class has as many votes.
    """

    place_M: np.ndarray
    is_tied_M: np.ndarray


class Ballots(NamedTuple):
    """Answers of networks on the same images, class by class.

    Attributes:
        classes_ML: that some network answers, descending for each image; -1 behind the last. By place in it, classes
            are counted: of 1000 classes no image gets more than a few.
        voted_KML: uint8, 1 where that network answers that class.
    """

    classes_ML: np.ndarray
    voted_KML: np.ndarray

    @classmethod
    def of(cls, predicted_KM: np.ndarray) -> Ballots:
        """From classes by number."""
        order_KM = np.argsort(-predicted_KM.astype(np.int64), axis=0, kind="stable")
        falling_KM = np.take_along_axis(predicted_KM, order_KM, axis=0).astype(np.int64)
        is_next_KM = np.zeros(falling_KM.shape, np.int64)
        is_next_KM[1:] = falling_KM[1:] != falling_KM[:-1]
        rank_KM = np.cumsum(is_next_KM, axis=0)
        num_places = int(rank_KM.max(initial=0)) + 1
        columns_M = np.arange(predicted_KM.shape[1])
        classes_ML = np.full((len(columns_M), num_places), -1, np.int32)
        classes_ML[columns_M, rank_KM] = falling_KM
        place_KM = np.empty_like(rank_KM)
        np.put_along_axis(place_KM, order_KM, rank_KM, axis=0)
        return cls(classes_ML, (place_KM[:, :, None] == np.arange(num_places)).astype(np.uint8))

    def votes_ML(self) -> np.ndarray:
        """Networks that answer each class."""
        return np.asarray(self.voted_KML.sum(axis=0, dtype=np.uint16))


def modes_of(votes_ML: np.ndarray) -> Modes:
    """The most common answers. Classes are in descending order, so that the largest of tied ones comes first."""
    place_M = votes_ML.argmax(axis=-1)
    most_M = votes_ML.max(axis=-1, keepdims=True)
    return Modes(place_M, (votes_ML == most_M).sum(axis=-1) > 1)


def differ(first: Modes, second: Modes, *, ties: Ties) -> np.ndarray:
    """Whether two populations answer each image differently.

    Args:
        ties: `undecided`: an image that is tied on either side is never one; `largest`: the largest class of tied ones
            counts (the PIE study's rule).
    """
    differs_M = first.place_M != second.place_M
    return differs_M & ~(first.is_tied_M | second.is_tied_M) if ties == "undecided" else differs_M


# -- how many luck makes -----------------------------------------------------------------------------------------------


class Groups(NamedTuple):
    """Dense networks against each other, and against pruned networks of other seeds; as many on every side.

    The rate of PIEs between whole populations cannot be held against a null rate: dense networks are too few to make
    two such populations of them, a mode of fewer networks is less steady, and a pruned network starts from the dense
    one of its seed, which makes the two more alike than separate ones. So two groups of seeds, A and B, are drawn, and
    the dense networks of A are compared with those of B (null), and with the pruned ones of B instead (pruned). All is
    equal in both but that B was pruned: if that changes no more than another seed does, they are the same on average.

    Attributes:
        num_networks: in a group: two fifths of the seeds, so that every draw leaves a fifth of them out, and the
            jackknife is had for nothing; at least 1, and two seeds leave none out.
        num_draws: of A and B; every pair is there in both orders.
        null: mean rate of dense against dense.
        pruned: mean rate of dense against pruned.
        excess: mean of pruned - null.
        null_interval, excess_interval: over networks: Student's t with the standard error of the jackknife that leaves
            one seed out, dense and pruned (Efron and Tibshirani 1993, section 11.5); None of two seeds. How single
            draws spread would be no interval: they share their networks.
        dense_accuracy, pruned_accuracy: mean over all networks on the images that dense groups differ on; None where
            they never do.
    """

    num_networks: int
    num_draws: int
    null: float
    pruned: float
    excess: float
    null_interval: Interval | None
    excess_interval: Interval | None
    dense_accuracy: float | None
    pruned_accuracy: float | None

    @property
    def verdict(self) -> Literal["more", "same", "fewer", "unknown"]:
        """PIEs beyond those of luck, no difference that could be told, fewer, or too few networks to tell."""
        if self.excess_interval is None:
            return "unknown"
        if self.excess_interval.low > 0:
            return "more"
        return "fewer" if self.excess_interval.high < 0 else "same"


def draws(num: int) -> np.ndarray:
    """Two groups of seeds without a common one, ordered: places of the seeds, (R, 2, H).

    All there are up to MAX_DRAWS; otherwise random ones, the same in every run.
    """
    half = _group_size(num)
    if _num_draws(num) <= MAX_DRAWS:
        return np.array(
            [
                (first, second)
                for first in itertools.combinations(range(num), half)
                for second in itertools.combinations(sorted({*range(num)} - {*first}), half)
            ]
        )
    generator = np.random.default_rng(derive_seed(0, "exemplars", "draws", num))
    found = [generator.permutation(num)[: 2 * half].reshape(2, half) for _ in range(MAX_DRAWS // 2)]
    return np.array([order for one in found for order in (one, one[::-1])])


def _group_size(num: int) -> int:
    return max(1, min((num - 1) // 2, 2 * num // 5))


def _num_draws(num: int) -> int:
    """How many draws of so many seeds there are."""
    half = _group_size(num)
    return math.comb(num, half) * math.comb(num - half, half)


class Counts(NamedTuple):
    """Images that differ in each draw; and of those of the null, answers of networks that are right, summed up.

    Attributes:
        is_out_RK: seeds that are in neither group.
    """

    is_out_RK: np.ndarray
    null_R: np.ndarray
    pruned_R: np.ndarray
    dense_right: int
    pruned_right: int


def count_differing(
    dense_KML: np.ndarray,
    pruned_KML: np.ndarray,
    *,
    right_dense_M: np.ndarray,
    right_pruned_M: np.ndarray,
    ties: Ties,
) -> Counts:
    """Count what differs between groups, for every draw.

    Args:
        dense_KML, pruned_KML: `Ballots.voted_KML` of as many networks, in the order of the same seeds.
        right_dense_M, right_pruned_M: networks of whole populations that have each image right.
    """
    groups_R2H = draws(len(dense_KML))
    chosen_2RK = np.zeros((2, len(groups_R2H), len(dense_KML)), np.float32)
    np.put_along_axis(chosen_2RK, groups_R2H.swapaxes(0, 1), 1.0, axis=2)
    null_R, pruned_R = np.zeros((2, len(groups_R2H)), np.int64)
    dense_right = pruned_right = 0
    # Images that use many places come first, so that a place that few use costs little.
    is_used_ML = dense_KML.any(axis=0) | pruned_KML.any(axis=0)
    num_places_M = is_used_ML.shape[1] - is_used_ML[:, ::-1].argmax(axis=1)
    order_M = np.argsort(-num_places_M, kind="stable")
    step = max(1, _MAX_VALUES // len(groups_R2H))
    for start in range(0, len(order_M), step):
        part = order_M[start : start + step]
        widths = [int((num_places_M[part] > place).sum()) for place in range(int(num_places_M[part[0]]))]
        dense, pruned = (
            [voted_KML[:, part[:width], place].astype(np.float32) for place, width in enumerate(widths)]
            for voted_KML in (dense_KML, pruned_KML)
        )
        first = _group_modes(chosen_2RK[0], dense)
        is_null_RM = differ(first, _group_modes(chosen_2RK[1], dense), ties=ties)
        null_R += is_null_RM.sum(axis=1)
        pruned_R += differ(first, _group_modes(chosen_2RK[1], pruned), ties=ties).sum(axis=1)
        times_M = is_null_RM.sum(axis=0)
        dense_right += int(times_M @ right_dense_M[part])
        pruned_right += int(times_M @ right_pruned_M[part])
    return Counts(~chosen_2RK.any(axis=0), null_R, pruned_R, dense_right, pruned_right)


def _group_modes(chosen_RK: np.ndarray, voted: Sequence[np.ndarray]) -> Modes:
    """As `modes_of`, of every group.

    Args:
        voted: for each place who voted for its class, (K, first images): images beyond have no class at that place.
    """
    shape = (len(chosen_RK), voted[0].shape[1])
    most_RM, place_RM, is_tied_RM = np.zeros(shape, np.uint16), np.zeros(shape, np.uint16), np.zeros(shape, bool)
    for place, voted_KM in enumerate(voted):
        votes_RM = (chosen_RK @ voted_KM).astype(np.uint16)  # exact: small whole numbers
        there = (slice(None), slice(voted_KM.shape[1]))
        is_more_RM = votes_RM > most_RM[there]
        is_tied_RM[there] = (is_tied_RM[there] & ~is_more_RM) | (votes_RM == most_RM[there])
        np.copyto(place_RM[there], place, where=is_more_RM)
        np.maximum(most_RM[there], votes_RM, out=most_RM[there])
    return Modes(place_RM, is_tied_RM)


def groups_of(counts: Counts, *, num_images: int, num_dense: int, num_pruned: int) -> Groups:
    """Rates and their intervals.

    Args:
        num_images: of the task.
        num_dense, num_pruned: networks of whole populations.
    """
    null_R, pruned_R = counts.null_R / num_images, counts.pruned_R / num_images
    num_seeds = counts.is_out_RK.shape[1]
    num_differing = int(counts.null_R.sum())
    null_interval = excess_interval = None
    if num_seeds > MIN_SEEDS:
        found = _jackknife(null_R, counts.is_out_RK)
        null_interval = found.model_copy(update={"low": max(0.0, found.low)})  # it is a rate
        excess_interval = _jackknife(pruned_R - null_R, counts.is_out_RK)
    return Groups(
        num_networks=_group_size(num_seeds),
        num_draws=len(null_R),
        null=float(null_R.mean()),
        pruned=float(pruned_R.mean()),
        excess=float((pruned_R - null_R).mean()),
        null_interval=null_interval,
        excess_interval=excess_interval,
        dense_accuracy=counts.dense_right / (num_differing * num_dense) if num_differing else None,
        pruned_accuracy=counts.pruned_right / (num_differing * num_pruned) if num_differing else None,
    )


def _jackknife(value_R: np.ndarray, is_out_RK: np.ndarray) -> Interval:
    """Of the mean over draws: draws that leave a seed out are those of a sweep without it.

    That few random draws leave out a given seed adds to the variance, by as much as can be told and is taken off again;
    what is left is at least the variance of the mean over draws.
    """
    num_seeds = is_out_RK.shape[1]
    without_K = np.array([value_R[is_out_R].mean() for is_out_R in is_out_RK.T])
    variance = float(without_K.var())
    if _num_draws(num_seeds) > MAX_DRAWS:
        # Both orders of a draw are one: they come one after the other, and leave out the same seeds.
        own = float(value_R.reshape(-1, 2).mean(axis=1).var(ddof=1))
        num_draws = len(value_R) / 2
        by_chance = own * (float((2.0 / is_out_RK.sum(axis=0)).mean()) - 1.0 / num_draws)
        variance = max(variance - by_chance, own / num_draws / (num_seeds - 1))
    error = math.sqrt((num_seeds - 1) * variance)
    reach = float(student.ppf(0.5 + CONFIDENCE / 2, num_seeds - 1)) * error
    mean = float(value_R.mean())
    return Interval(low=mean - reach, high=mean + reach, confidence=CONFIDENCE, method="jackknife over networks")
