"""How alike a pruned network and its parent answer, and how sure that is; two separate networks are the control.

Source: Lost in Pruning, section 4 (function under noise). The study shows the spread over draws of noise; here errors
are those of the answer: images are the units, and seeds where there are several.
"""

# X quantities, S seeds, N images (here of a batch), P pairs of networks, L noise levels, K networks, Q matching and
# distance

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Literal, NamedTuple

import numpy as np
from scipy.special import ndtri, stdtrit

from raypruning.analysis.paired import wilson
from raypruning.core.records import Interval, Record

CONFIDENCE = 0.9
# One-sided, of "closer to its parent than a separate network is".
LEAD_CONFIDENCE = 0.95


class Estimate(Record):
    """A mean over pairs of networks and images.

    Attributes:
        standard_error: over images, and over seeds as well where there are several; None where nothing tells it.
        degrees: of freedom of the standard error: few where it is that of few seeds; None where it is None.
        sd: sample standard deviation over pairs of networks; None for one pair.
    """

    value: float
    standard_error: float | None
    degrees: float | None = None
    sd: float | None = None

    def margin(self, *, confidence: float) -> float:
        """How far the mean may be off to one side, by Student's t; 0 where nothing tells the error."""
        if self.standard_error is None or self.degrees is None:
            return 0.0
        return self.standard_error * float(stdtrit(self.degrees, confidence))


class NoiseLevel(Record):
    """How alike the networks of each pair answer under x + amplitude * U(-1, 1), in normalised space.

    Attributes:
        matching: fraction of images to which both give the same class.
        distance: mean Euclidean distance of both softmax outputs, in [0, sqrt(2)].
    """

    amplitude: float
    matching: Estimate
    distance: Estimate


class Churn(Record):
    """The fraction of a task's images to which the networks of a pair give different classes, from predictions."""

    task: str
    num_examples: int
    rate: Estimate
    interval: Interval


class Lead(Record):
    """How much closer pruned networks stay to their parents than separate networks do: means over all noise levels.

    Attributes:
        matching: of the pruned pairs minus of the separate ones.
        distance: of the separate pairs minus of the pruned ones.
    """

    matching: Estimate
    distance: Estimate

    @property
    def verdict(self) -> Literal["closer", "farther", "undecided"]:
        """By the matching predictions, each side at `LEAD_CONFIDENCE`."""
        if abs(self.matching.value) <= self.matching.margin(confidence=LEAD_CONFIDENCE):
            return "undecided"
        return "closer" if self.matching.value > 0 else "farther"


class Likeness(Record):
    """Pairs of networks that are alike in kind: pruned ones of one method, budget and ratio, each with its parent.

    Attributes:
        method: `dense` for the control: parents of different seeds, every two of them a pair.
        ratio, ratio_reached: as asked for, and the mean of what came out; 0 for the control.
        networks: ids of the trainings, in the order of `seeds`.
        cka: linear centred kernel alignment of the features before the last layer, in [0, 1]; its error is over seeds.
        lead: over the control; None for the control itself and where there is none.
    """

    method: str
    budget: int
    ratio: float
    ratio_reached: float
    seeds: tuple[int, ...]
    networks: tuple[str, ...]
    levels: tuple[NoiseLevel, ...]
    churn: tuple[Churn, ...]
    cka: Estimate
    lead: Lead | None = None

    @property
    def mean_matching(self) -> float:
        """Over all noise levels."""
        return sum(one.matching.value for one in self.levels) / len(self.levels)


class Similarity(Record):
    """What `prune-cli similarity` found of a sweep; the content of its `similarity.json`.

    Attributes:
        fingerprint: hash of all that the numbers depend on: networks, tasks, levels, draws, images.
        images: test images that noise was laid on, out of `num_test_images`.
        draws: of noise for each image.
        parents: ids of the dense networks, in the order of `seeds`.
        populations: methods and budgets in the order of the sweep, ratios ascending.
        control: None where the sweep has one parent only.
        features: name of the layer whose inputs are compared, and how many numbers it takes.
        num_forwards: images that went through networks.
    """

    format: Literal[1] = 1
    fingerprint: str
    sweep: str
    model: str
    dataset: str
    data_fingerprint: str
    images: int
    num_test_images: int
    draws: int
    amplitudes: tuple[float, ...]
    seeds: tuple[int, ...]
    parents: tuple[str, ...]
    populations: tuple[Likeness, ...]
    control: Likeness | None
    features: str
    num_features: int
    num_forwards: int
    seconds: float
    device: str
    versions: Mapping[str, str] = {}


# -- means over seeds and images ---------------------------------------------------------------------------------------


class CrossedMeans:
    """Means of X quantities over S seeds and all images, added batch by batch: only sums are kept.

    Every seed answers every image. With random effects of the seed, of the image and of both together, the mean has
    the variance (seed / S + image / N + both / (S N)); it is estimated from the mean squares of a two-way analysis of
    variance, where a negative part for the seeds counts as 0. With one seed it is the variance over images.

    Source: Searle, Casella and McCulloch 1992, "Variance Components", chapter 4; degrees of freedom by Satterthwaite
    1946, "An approximate distribution of estimates of variance components".
    """

    def __init__(self) -> None:
        self._num = 0
        self._sums_XS: np.ndarray | float = 0.0
        self._squares_X: np.ndarray | float = 0.0
        self._squares_of_means_X: np.ndarray | float = 0.0

    def add(self, values_XSN: np.ndarray) -> None:
        """The same quantities and seeds on further images."""
        values_XSN = np.asarray(values_XSN, dtype=np.float64)
        self._num += values_XSN.shape[2]
        self._sums_XS = self._sums_XS + values_XSN.sum(axis=2)
        self._squares_X = self._squares_X + np.square(values_XSN).sum(axis=(1, 2))
        self._squares_of_means_X = self._squares_of_means_X + np.square(values_XSN.mean(axis=1)).sum(axis=1)

    @property
    def by_seed_XS(self) -> np.ndarray:
        """Means over images."""
        return np.asarray(self._sums_XS) / self._num

    def estimates(self, *, sd_X: Sequence[float | None] | None = None) -> list[Estimate]:
        """Each quantity's mean.

        Args:
            sd_X: spreads to state; those over the seeds' means by default.
        """
        by_seed_XS = self.by_seed_XS
        num_seeds, num = by_seed_XS.shape[1], self._num
        mean_X = by_seed_XS.mean(axis=1)
        by_image_X = np.maximum(num_seeds * (self._squares_of_means_X - num * mean_X**2) / (num - 1), 0.0)
        beyond_X, terms_X = np.zeros_like(mean_X), by_image_X**2 / (num - 1)
        if num_seeds > 1:
            of_seeds_X = num * np.square(by_seed_XS - mean_X[:, None]).sum(axis=1)
            of_both_X = self._squares_X - num_seeds * self._squares_of_means_X - of_seeds_X
            by_seed_X, by_both_X = of_seeds_X / (num_seeds - 1), of_both_X / ((num_seeds - 1) * (num - 1))
            beyond_X = np.maximum(by_seed_X - by_both_X, 0.0)
            both_X = by_seed_X**2 / (num_seeds - 1) + by_both_X**2 / ((num_seeds - 1) * (num - 1))
            terms_X = terms_X + np.where(beyond_X > 0.0, both_X, 0.0)
        square_X = by_image_X + beyond_X
        # What never varies is as sure as the images are many.
        degrees_X = np.divide(square_X**2, terms_X, out=np.full_like(mean_X, num - 1.0), where=terms_X > 0.0)
        errors_X = np.sqrt(square_X / (num_seeds * num))
        rows = zip(mean_X, errors_X, degrees_X, spreads(by_seed_XS) if sd_X is None else sd_X, strict=True)
        return [
            Estimate(value=float(mean), standard_error=float(error), degrees=float(degrees), sd=sd)
            for mean, error, degrees, sd in rows
        ]


def spreads(values_XP: np.ndarray) -> list[float | None]:
    """Sample standard deviation of each row; None where it has one number."""
    if values_XP.shape[1] < 2:
        return [None] * len(values_XP)
    return [float(sd) for sd in values_XP.std(axis=1, ddof=1)]


def seed_parts(values_XPN: np.ndarray, seeds: Sequence[int], *, num_seeds: int) -> np.ndarray:
    """What each seed contributes to a mean over pairs of seeds, (X, S, N): the jackknife's pseudo-values.

    Their mean over seeds is the mean over all pairs of these seeds, and their variance over seeds tells its error
    although a network is in many pairs. With two seeds both have their only pair; a single seed has the mean of its
    pairs with all others.

    Args:
        values_XPN: of every pair of all seeds, in the order of `itertools.combinations`.
        seeds: places, among all seeds, of those that are wanted.
        num_seeds: in all.

    Source: Arvesen 1969, "Jackknifing U-statistics", Annals of Mathematical Statistics 40.
    """
    shape_X, _, shape_N = values_XPN.shape
    place = {seed: index for index, seed in enumerate(seeds)}
    of_seed_XSN = np.zeros((shape_X, len(seeds), shape_N))
    for index, pair in enumerate(combinations(range(num_seeds), 2)):
        inside = [place[seed] for seed in pair if seed in place]
        if len(inside) == 2 or len(seeds) == 1:
            for at in inside:
                of_seed_XSN[:, at] += values_XPN[:, index]
    if len(seeds) == 1:
        return of_seed_XSN / (num_seeds - 1)
    if len(seeds) == 2:
        return of_seed_XSN
    num = len(seeds)
    all_X1N = of_seed_XSN.sum(axis=1, keepdims=True) / 2.0
    return 2.0 * all_X1N / (num - 1) - 2.0 * (all_X1N - of_seed_XSN) / (num - 2)


# -- pairs of networks -------------------------------------------------------------------------------------------------


class Pairing:
    """Who is compared with whom: each pruned network with its parent, and every two parents.

    Networks are counted parents first, then population by population.

    Args:
        populations: for each, the places of its seeds among all parents.
        num_parents: at least 1.
    """

    def __init__(self, populations: Sequence[Sequence[int]], *, num_parents: int) -> None:
        self.populations = tuple(tuple(seeds) for seeds in populations)
        self.num_parents = num_parents
        self.pairs: list[tuple[int, int]] = []
        self.of_population: list[slice] = []
        network = num_parents
        for seeds in self.populations:
            start = len(self.pairs)
            self.pairs += [(seed, network + index) for index, seed in enumerate(seeds)]
            self.of_population.append(slice(start, len(self.pairs)))
            network += len(seeds)
        self.num_networks = network
        start = len(self.pairs)
        self.pairs += combinations(range(num_parents), 2)
        self.of_control = slice(start, len(self.pairs))

    @property
    def has_control(self) -> bool:
        """Whether there are two parents or more."""
        return self.num_parents > 1

    def control_parts(self, values_XPN: np.ndarray, seeds: Sequence[int] | None = None) -> np.ndarray:
        """`seed_parts` of the pairs of parents, for some of the seeds or, by default, all; one part for two parents."""
        return self.parts(values_XPN[:, self.of_control], seeds)

    def parts(self, control_XPN: np.ndarray, seeds: Sequence[int] | None = None) -> np.ndarray:
        """The same of values of the pairs of parents alone."""
        if seeds is None and self.num_parents == 2:
            return control_XPN
        every = range(self.num_parents)
        return seed_parts(control_XPN, every if seeds is None else seeds, num_seeds=self.num_parents)


class NoiseFound(NamedTuple):
    """Of one population, or of the control, which leads nothing."""

    levels: tuple[NoiseLevel, ...]
    lead: Lead | None


class NoiseTally:
    """Gathers how alike pairs of networks answer under noise, batch by batch."""

    def __init__(self, pairing: Pairing, amplitudes: Sequence[float]) -> None:
        self._pairing, self._amplitudes = pairing, tuple(amplitudes)
        self._pruned = [CrossedMeans() for _ in pairing.populations]
        self._leads = [CrossedMeans() for _ in pairing.populations]
        self._control = CrossedMeans()
        self._control_pairs = CrossedMeans()

    def add(self, matching_LPN: np.ndarray, distance_LPN: np.ndarray) -> None:
        """Of further images: whether, and how far, each pair agrees, averaged over draws."""
        both_XPN = np.concatenate([matching_LPN, distance_LPN], dtype=np.float64)
        pairing = self._pairing
        # The sign of a lead: more images in common, and less distance.
        means_QPN = np.stack([matching_LPN.mean(axis=0), -distance_LPN.mean(axis=0)])
        for index, seeds in enumerate(pairing.populations):
            own = pairing.of_population[index]
            self._pruned[index].add(both_XPN[:, own])
            if pairing.has_control:
                self._leads[index].add(means_QPN[:, own] - pairing.control_parts(means_QPN, seeds))
        if pairing.has_control:
            self._control.add(pairing.control_parts(both_XPN))
            self._control_pairs.add(both_XPN[:, pairing.of_control])

    def population(self, index: int) -> NoiseFound:
        """What was found of a population."""
        lead = None
        if self._pairing.has_control:
            matching, distance = self._leads[index].estimates()
            lead = Lead(matching=matching, distance=distance)
        return NoiseFound(self._levels(self._pruned[index].estimates()), lead)

    def control(self) -> NoiseFound | None:
        """What was found of separate networks; None where there is one parent."""
        if not self._pairing.has_control:
            return None
        sds = spreads(self._control_pairs.by_seed_XS)
        return NoiseFound(self._levels(self._control.estimates(sd_X=sds)), None)

    def _levels(self, found: Sequence[Estimate]) -> tuple[NoiseLevel, ...]:
        num = len(self._amplitudes)
        return tuple(
            NoiseLevel(amplitude=amplitude, matching=matching, distance=distance)
            for amplitude, matching, distance in zip(self._amplitudes, found[:num], found[num:], strict=True)
        )


# -- churn and features ------------------------------------------------------------------------------------------------


def churn_of(task: str, differs_PN: np.ndarray, parts: Callable[[np.ndarray], np.ndarray] | None = None) -> Churn:
    """How often the networks of each pair differ, with an interval.

    The interval is Wilson's; with several pairs, for as many independent images as would give the standard error, fewer
    where few seeds tell it. It holds near 0 as well.

    Args:
        task: its name.
        differs_PN: for each pair whether its networks give different classes to an image.
        parts: from values of pairs, (1, P, N), to those of seeds; where every pair has a seed of its own, none.

    Source: Korn and Graubard 1998, "Confidence intervals for proportions with small expected number of positive counts
    estimated from survey data", Survey Methodology 24.
    """
    values_1PN = differs_PN[None].astype(np.float64)
    means = CrossedMeans()
    means.add(values_1PN if parts is None else parts(values_1PN))
    (rate,) = means.estimates(sd_X=spreads(values_1PN.mean(axis=2)))
    num = differs_PN.shape[1]
    # A mean of pseudo-values is off by rounding.
    value = min(max(rate.value, 0.0), 1.0)
    effective = float(num)
    if len(differs_PN) > 1 and rate.standard_error:
        two_sided = (1.0 + CONFIDENCE) / 2.0
        effective = value * (1.0 - value) * (float(ndtri(two_sided)) / rate.margin(confidence=two_sided)) ** 2
    low, high = wilson(np.array([value * effective]), np.array([effective]), confidence=CONFIDENCE)
    method = "Wilson" if len(differs_PN) == 1 else "Wilson with the effective number of images"
    return Churn(
        task=task,
        num_examples=num,
        rate=rate.model_copy(update={"value": value}),
        interval=Interval(low=max(0.0, float(low[0])), high=float(high[0]), confidence=CONFIDENCE, method=method),
    )


def over_seeds(values_P: np.ndarray, *, num_separate: int | None = None) -> Estimate:
    """The mean over pairs of a number that is no mean over images; its standard error is over seeds.

    Args:
        values_P: one for each pair.
        num_separate: seeds, where the pairs are every two of these; None where each pair has a seed of its own.
    """
    parts_S = np.asarray(values_P, dtype=np.float64)
    if num_separate is not None:
        parts_S = seed_parts(parts_S[None, :, None], range(num_separate), num_seeds=num_separate)[0, :, 0]
    value, sd = float(np.mean(values_P)), spreads(np.asarray(values_P)[None])[0]
    if len(values_P) < 2:
        return Estimate(value=value, standard_error=None)
    error = float(parts_S.std(ddof=1)) / math.sqrt(len(parts_S))
    return Estimate(value=value, standard_error=error, degrees=len(parts_S) - 1.0, sd=sd)
