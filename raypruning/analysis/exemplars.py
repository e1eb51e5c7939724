"""Examples that pruned networks forget: pruning identified exemplars (PIEs).

A PIE is an image that the dense population and the pruned one answer differently, each by its most common answer (its
mode). Source: Hooker et al. 2019, "What do compressed deep neural networks forget?", section 3.2; the distance between
label histograms: Hooker et al. 2020, "Characterising bias in compressed models".
"""

# N images, M contested images, K networks, L classes that some network answers

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from raypruning.analysis.modes import (
    Answers,
    Ballots,
    Groups,
    Modes,
    Ties,
    count_differing,
    differ,
    groups_of,
    modes_of,
)
from raypruning.analysis.paired import CONFIDENCE
from raypruning.core.identity import derive_seed
from raypruning.core.populations import Population
from raypruning.core.records import Interval

# Random samples of images: enough for the quantiles of 95 %.
NUM_SAMPLES = 200


class PopulationExemplars(NamedTuple):
    """The images of a task, as a pruned population answers them beside the dense one.

    Attributes:
        method, budget, ratio, ratio_reached: of the pruned population.
        label_N: true classes.
        agreed_N: the answer of a network; that of all of them on images that are not contested.
        right_dense_N, right_pruned_N: networks that have each image right.
        images_M: positions of the contested images, ascending: two networks at least, of whatever side, differ.
        classes_ML: see `Ballots`.
        dense_ML, pruned_ML: votes for them.
        dense, pruned: most common answers.
        is_pie_M: whether these differ, by the tie rule.
        distance_M: taxicab distance between both label histograms as fractions, in [0, 2].
    """

    task: str
    method: str
    budget: int
    ratio: float
    ratio_reached: float
    seeds_dense: tuple[int, ...]
    seeds_pruned: tuple[int, ...]
    label_N: np.ndarray
    agreed_N: np.ndarray
    right_dense_N: np.ndarray
    right_pruned_N: np.ndarray
    images_M: np.ndarray
    classes_ML: np.ndarray
    dense_ML: np.ndarray
    pruned_ML: np.ndarray
    dense: Modes
    pruned: Modes
    is_pie_M: np.ndarray
    distance_M: np.ndarray
    groups: Groups

    @property
    def num_images(self) -> int:
        """Of the task."""
        return len(self.label_N)

    @property
    def label_M(self) -> np.ndarray:
        """True classes of the contested images."""
        return np.asarray(self.label_N[self.images_M])

    @property
    def dense_mode_M(self) -> np.ndarray:
        """Class that most dense networks answer; the largest of tied ones."""
        return np.asarray(self.classes_ML[np.arange(len(self.images_M)), self.dense.place_M])

    @property
    def pruned_mode_M(self) -> np.ndarray:
        """The same of pruned networks."""
        return np.asarray(self.classes_ML[np.arange(len(self.images_M)), self.pruned.place_M])

    @property
    def pies(self) -> np.ndarray:
        """Positions of the PIEs among all images, ascending."""
        return np.asarray(self.images_M[self.is_pie_M])

    @property
    def num_pies(self) -> int:
        """PIEs between the whole populations."""
        return int(self.is_pie_M.sum())

    @property
    def rate(self) -> float:
        """PIEs out of all images of the task."""
        return self.num_pies / self.num_images

    @property
    def num_tied_dense(self) -> int:
        """Images on which the dense mode is tied."""
        return int(self.dense.is_tied_M.sum())

    @property
    def num_tied_pruned(self) -> int:
        """Images on which the pruned mode is tied."""
        return int(self.pruned.is_tied_M.sum())

    @property
    def num_tied(self) -> int:
        """Images on which either is."""
        return int((self.dense.is_tied_M | self.pruned.is_tied_M).sum())

    @property
    def pruned_correct_count(self) -> int:
        """PIEs of which the pruned mode is the true class."""
        return int((self.is_pie_M & (self.pruned_mode_M == self.label_M)).sum())

    @property
    def dense_correct_count(self) -> int:
        """PIEs of which the dense mode is the true class."""
        return int((self.is_pie_M & (self.dense_mode_M == self.label_M)).sum())

    @property
    def ranked(self) -> np.ndarray:
        """Places of the PIEs among the contested images: the largest distance first, equal ones by position."""
        places = np.flatnonzero(self.is_pie_M)
        return places[np.argsort(-self.distance_M[places], kind="stable")]


class Exemplars(NamedTuple):
    """What the pruned populations of a sweep forget.

    Attributes:
        class_names: by number; empty where they are not known.
        populations: task by task, in the order of the sweep; at least one.
        left_out: tasks whose predictions tell no class of an image.
        too_few: pruned populations with fewer than two seeds whose parent was measured: (method, budget, ratio).
    """

    sweep: str
    storage: str
    model: str
    dataset: str
    class_names: tuple[str, ...]
    ties: Ties
    populations: tuple[PopulationExemplars, ...]
    left_out: tuple[str, ...] = ()
    too_few: tuple[tuple[str, int, float], ...] = ()


def population_exemplars(
    task: str, population: Population, *, dense: Answers, pruned: Answers, label_N: np.ndarray, ties: Ties
) -> PopulationExemplars:
    """The PIEs of a population on a task, with their null rate.

    Args:
        population: of the pruned networks.
        dense, pruned: with two seeds in common at least.
        label_N: true classes.
    """
    everybody_KN = np.concatenate([dense.predicted_KN, pruned.predicted_KN])
    images_M = np.flatnonzero((everybody_KN != everybody_KN[0]).any(axis=0))
    ballots = Ballots.of(everybody_KN[:, images_M])
    num_dense, num_pruned = len(dense.seeds), len(pruned.seeds)
    sides = [
        Ballots(ballots.classes_ML, ballots.voted_KML[part]) for part in (slice(num_dense), slice(num_dense, None))
    ]
    dense_ML, pruned_ML = (side.votes_ML() for side in sides)
    right_dense_N, right_pruned_N = ((one.predicted_KN == label_N).sum(axis=0) for one in (dense, pruned))
    shared = sorted({*dense.seeds} & {*pruned.seeds})
    paired = [
        side.voted_KML[[one.seeds.index(seed) for seed in shared]]
        for side, one in zip(sides, (dense, pruned), strict=True)
    ]
    counts = count_differing(
        *paired, right_dense_M=right_dense_N[images_M], right_pruned_M=right_pruned_N[images_M], ties=ties
    )
    dense_modes, pruned_modes = modes_of(dense_ML), modes_of(pruned_ML)
    return PopulationExemplars(
        task=task,
        method=population.method,
        budget=population.budget,
        ratio=population.ratio,
        ratio_reached=population.ratio_reached,
        seeds_dense=dense.seeds,
        seeds_pruned=pruned.seeds,
        label_N=label_N,
        agreed_N=everybody_KN[0],
        right_dense_N=right_dense_N,
        right_pruned_N=right_pruned_N,
        images_M=images_M,
        classes_ML=ballots.classes_ML,
        dense_ML=dense_ML,
        pruned_ML=pruned_ML,
        dense=dense_modes,
        pruned=pruned_modes,
        is_pie_M=differ(dense_modes, pruned_modes, ties=ties),
        distance_M=np.abs(dense_ML / num_dense - pruned_ML / num_pruned).sum(axis=1),
        groups=groups_of(counts, num_images=len(label_N), num_dense=num_dense, num_pruned=num_pruned),
    )


def overlap(first: PopulationExemplars, second: PopulationExemplars) -> float | None:
    """Jaccard: PIEs of both out of those of either, in [0, 1]; None where there are none. Of the same task."""
    either = np.union1d(first.pies, second.pies)
    return len(np.intersect1d(first.pies, second.pies)) / len(either) if len(either) else None


# -- accuracy on them --------------------------------------------------------------------------------------------------


class Accuracy(NamedTuple):
    """On some images, mean over networks.

    Attributes:
        num_images: at least 1.
    """

    num_images: int
    dense: float
    pruned: float


class Drawn(NamedTuple):
    """On random samples of as many images as there are PIEs.

    Attributes:
        dense, pruned: mean over samples.
        dense_interval, pruned_interval: that so many of the samples lie within.
    """

    num_samples: int
    dense: float
    pruned: float
    dense_interval: Interval
    pruned_interval: Interval


class Evaluated(NamedTuple):
    """How accurate both populations are on PIEs, and elsewhere.

    Attributes:
        pies, rest: None where there are none.
        random: None where there are no PIEs.
    """

    population: PopulationExemplars
    all: Accuracy
    pies: Accuracy | None
    rest: Accuracy | None
    random: Drawn | None


def accuracy_on(one: PopulationExemplars, images: np.ndarray) -> Accuracy | None:
    """Of both populations on the images at some positions; None of no image."""
    if not len(images):
        return None
    shares = [
        float(right_N[images].sum() / (len(images) * len(seeds)))
        for right_N, seeds in ((one.right_dense_N, one.seeds_dense), (one.right_pruned_N, one.seeds_pruned))
    ]
    return Accuracy(len(images), *shares)


def accuracy_on_pies(one: PopulationExemplars) -> tuple[Accuracy | None, Accuracy | None]:
    """On the PIEs, and on the rest."""
    is_rest_N = np.ones(one.num_images, bool)
    is_rest_N[one.pies] = False
    return accuracy_on(one, one.pies), accuracy_on(one, np.flatnonzero(is_rest_N))


def evaluated(one: PopulationExemplars) -> Evaluated:
    """On PIEs, on the rest, on all, and on random samples as large as the PIEs are many."""
    pies, rest = accuracy_on_pies(one)
    whole = accuracy_on(one, np.arange(one.num_images))
    assert whole is not None
    return Evaluated(one, whole, pies, rest, _drawn(one, pies.num_images) if pies else None)


def _drawn(one: PopulationExemplars, num: int) -> Drawn:
    generator = np.random.default_rng(derive_seed(0, "exemplars", "sample", one.num_images, num))
    found: list[Accuracy] = []
    for _ in range(NUM_SAMPLES):
        sample = accuracy_on(one, generator.choice(one.num_images, num, replace=False))
        assert sample is not None
        found.append(sample)
    return Drawn(
        NUM_SAMPLES,
        *(float(np.mean([getattr(each, side) for each in found])) for side in ("dense", "pruned")),
        *(_spread([getattr(each, side) for each in found]) for side in ("dense", "pruned")),
    )


def _spread(values: Sequence[float]) -> Interval:
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(values, (tail, 1 - tail))
    return Interval(low=float(low), high=float(high), confidence=CONFIDENCE, method="random samples of images")
