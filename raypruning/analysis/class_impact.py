"""What pruning does to each class: whose recall falls, and whether it falls by more than accuracy does.

Two questions, by how many networks there are to answer them:

- Five or more on both sides: did the recall of a class change by another amount than accuracy did? Welch's t-test over
  networks, of recall minus accuracy: what holds for other seeds. Source: Hooker et al. 2019, who subtract the mean
  accuracy of the population. That takes what accuracy varies by for no error, and calls halves of one population
  different far too often (docs/impact.md), so here each network's own accuracy is subtracted: the difference of means
  is the same, its standard error is right. The study's numbers are kept beside it.
- Fewer: did the recall of a class change at all? An exact test over its images, each pruned network against its own
  parent: what holds for other images, for these networks.

A loss is positive, in the recall of a class as elsewhere in error; so is the statistic of a class that fell.
"""

# N images, K networks, C classes

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np

from raypruning.analysis.class_tests import mean_interval, sign_flip, welch
from raypruning.analysis.multiple import CORRECTIONS, Correction
from raypruning.analysis.paired import Discordance, interval, mcnemar
from raypruning.core.populations import Population
from raypruning.core.records import Interval

MIN_NETWORKS = 5
# A class collapses when it keeps less than half of its recall, and loses twice as large a share of it as accuracy.
_COLLAPSE = 0.5
_FAR_MORE = 2.0

Test = Literal["welch", "permutation", "mcnemar", "sign_flip"]
Verdict = Literal["lost", "gained", "none"]


class Answers(NamedTuple):
    """What the networks of a population answer on the images of a task.

    Attributes:
        seeds: of the networks, each another one.
        right_KN: whether each network has each image right; images in the same order for everybody.
    """

    seeds: tuple[int, ...]
    right_KN: np.ndarray

    @property
    def accuracy_K(self) -> np.ndarray:
        """Of each network."""
        return np.asarray(self.right_KN.mean(axis=1))


class Spread(NamedTuple):
    """A fraction over networks.

    Attributes:
        sd: sample standard deviation; None of one network.
        low, high: the smallest and the largest.
        num_zero: networks of which it is exactly 0.
        num: networks, at least 1.
    """

    mean: float
    sd: float | None
    low: float
    high: float
    num_zero: int
    num: int

    @classmethod
    def of(cls, values_K: np.ndarray) -> Spread:
        """Of a value of each network."""
        num = len(values_K)
        return cls(
            mean=float(values_K.mean()),
            sd=float(values_K.std(ddof=1)) if num > 1 else None,
            low=float(values_K.min()),
            high=float(values_K.max()),
            num_zero=int((values_K == 0).sum()),
            num=num,
        )


class ClassImpact(NamedTuple):
    """A class of a task, before and after.

    Attributes:
        label: its number.
        num_images: of the class, in the test set of the task; at least 1.
        dense, pruned: recall over networks.
        lost: of mean recall; negative where it rose.
        lost_beyond: `lost` without what mean accuracy lost.
        test: which one `p_value` is of. `welch` and `permutation` are about `lost_beyond`, `mcnemar` and `sign_flip`
            about `lost`.
        statistic: of Welch's test, positive where the class fell by more than accuracy; None of other tests.
        study_statistic, study_p_value: of Welch's test as the study has it; None of exact tests.
        p_value, p_adjusted: two-sided, as it is and adjusted over the classes of the task.
        effect_size: Hedges' g* of `lost_beyond`, see `welch`; None of other tests.
        interval: of what the test is about; None of `permutation`.
        num_lost, num_gained: images that the parent has right and the pruned network wrong, and the converse, summed
            over the pairs of an exact test; None of other tests.
        seeds_without: of the pruned networks that find no image of the class.
        accuracy_without: the largest accuracy of one of those; None where there is none.
    """

    label: int
    num_images: int
    dense: Spread
    pruned: Spread
    lost: float
    lost_beyond: float
    test: Test
    statistic: float | None
    p_value: float
    p_adjusted: float
    effect_size: float | None
    interval: Interval | None
    study_statistic: float | None
    study_p_value: float | None
    num_lost: int | None
    num_gained: int | None
    seeds_without: tuple[int, ...]
    accuracy_without: float | None
    verdict: Verdict

    @property
    def tested(self) -> float:
        """The loss that the test is about."""
        return self.lost_beyond if self.test in ("welch", "permutation") else self.lost


class PopulationImpact(NamedTuple):
    """The classes of a task, before and after a population was pruned.

    Attributes:
        method, budget, ratio, ratio_reached: of the population.
        seeds_dense, seeds_pruned: of the networks that were compared: all of them in a test over networks, those that
            make a pair in an exact one.
        test: of the classes; single ones without any spread are of `permutation` where this is `welch`.
        accuracy_dense, accuracy_pruned: over networks.
        classes: those that have an image, by number.
    """

    task: str
    method: str
    budget: int
    ratio: float
    ratio_reached: float
    seeds_dense: tuple[int, ...]
    seeds_pruned: tuple[int, ...]
    test: Test
    accuracy_dense: Spread
    accuracy_pruned: Spread
    classes: tuple[ClassImpact, ...]

    @property
    def is_paired(self) -> bool:
        """Whether it was tested if recall changed at all, and not if it changed by another amount than accuracy."""
        return self.test in ("mcnemar", "sign_flip")

    @property
    def accuracy_lost(self) -> float:
        """Of the mean."""
        return self.accuracy_dense.mean - self.accuracy_pruned.mean

    @property
    def worst_first(self) -> tuple[ClassImpact, ...]:
        """All classes, by the loss that was tested; equal ones by number."""
        return tuple(sorted(self.classes, key=lambda one: (-one.tested, one.label)))

    @property
    def lost(self) -> tuple[ClassImpact, ...]:
        """Those that lost significantly, worst first."""
        return tuple(one for one in self.worst_first if one.verdict == "lost")

    @property
    def gained(self) -> tuple[ClassImpact, ...]:
        """Those that gained significantly, the largest gain first."""
        return tuple(one for one in reversed(self.worst_first) if one.verdict == "gained")

    @property
    def never_found(self) -> tuple[ClassImpact, ...]:
        """Classes that most dense networks find and no pruned one does, by the recall that was lost."""
        gone = [
            one
            for one in self.classes
            if one.pruned.num_zero == one.pruned.num and 2 * one.dense.num_zero < one.dense.num and self._is_known(one)
        ]
        return tuple(sorted(gone, key=lambda one: -one.lost))

    @property
    def missed_by_some(self) -> tuple[ClassImpact, ...]:
        """Classes that every dense network finds, and some pruned ones do not; missed at the best accuracy first."""
        missed = [
            one
            for one in self.classes
            if 0 < one.pruned.num_zero < one.pruned.num and one.dense.num_zero == 0 and self._is_known(one)
        ]
        return tuple(sorted(missed, key=lambda one: -(one.accuracy_without or 0.0)))

    def _is_known(self, one: ClassImpact) -> bool:
        """Whether dense networks find more of a class than guessing would: otherwise there is nothing to lose."""
        return one.dense.mean > 1.0 / len(self.classes)

    @property
    def collapsed(self) -> tuple[ClassImpact, ...]:
        """Those that lost more than half of their recall, significantly, and far more of it than accuracy did."""
        share = self.accuracy_lost / self.accuracy_dense.mean if self.accuracy_dense.mean else 0.0
        return tuple(
            one
            for one in self.lost
            if one.lost > max(_COLLAPSE, _FAR_MORE * share) * one.dense.mean and not one.seeds_without
        )


class Impact(NamedTuple):
    """What pruning does to the classes of a sweep.

    Attributes:
        class_names: by number; empty where they are not known.
        populations: task by task, in the order of the sweep; at least one.
        left_out: tasks whose predictions tell no class of an image.
    """

    sweep: str
    storage: str
    model: str
    dataset: str
    class_names: tuple[str, ...]
    correction: Correction
    level: float
    populations: tuple[PopulationImpact, ...]
    left_out: tuple[str, ...] = ()


def population_impact(
    task: str,
    population: Population,
    *,
    dense: Answers,
    pruned: Answers,
    label_N: np.ndarray,
    correction: Correction = "bh",
    level: float = 0.05,
) -> PopulationImpact:
    """Every class of a task, tested.

    Args:
        population: of the pruned networks.
        dense: of the parents, at least of those of the pruned networks.
        label_N: true class of each image.
        level: an adjusted p-value up to this is significant, in (0, 1); intervals are of confidence 1 - level.
    """
    is_paired = min(len(dense.seeds), len(pruned.seeds)) < MIN_NETWORKS
    if is_paired:
        dense, pruned = _paired(dense, pruned)
    test = _test_images if is_paired else _test_networks
    tested = list(test(dense, pruned, label_N, confidence=1.0 - level))
    adjusted = CORRECTIONS[correction]([one.p_value for one in tested])
    return PopulationImpact(
        task=task,
        method=population.method,
        budget=population.budget,
        ratio=population.ratio,
        ratio_reached=population.ratio_reached,
        seeds_dense=dense.seeds,
        seeds_pruned=pruned.seeds,
        test=_exact_test(len(pruned.seeds)) if is_paired else "welch",
        accuracy_dense=Spread.of(dense.accuracy_K),
        accuracy_pruned=Spread.of(pruned.accuracy_K),
        classes=tuple(_class_impacts(dense, pruned, label_N, tested=tested, adjusted=adjusted, level=level)),
    )


def _class_impacts(
    dense: Answers,
    pruned: Answers,
    label_N: np.ndarray,
    *,
    tested: Sequence[_Tested],
    adjusted: Sequence[float],
    level: float,
) -> Iterator[ClassImpact]:
    dense_KC, pruned_KC = recalls(dense.right_KN, label_N), recalls(pruned.right_KN, label_N)
    accuracy_lost = float(dense.accuracy_K.mean() - pruned.accuracy_K.mean())
    for index, (label, num_images) in enumerate(zip(*np.unique(label_N, return_counts=True), strict=True)):
        before, after = Spread.of(dense_KC[:, index]), Spread.of(pruned_KC[:, index])
        lost = before.mean - after.mean
        without = np.flatnonzero(pruned_KC[:, index] == 0)
        found = ClassImpact(
            label=int(label),
            num_images=int(num_images),
            dense=before,
            pruned=after,
            lost=lost,
            lost_beyond=lost - accuracy_lost,
            p_adjusted=adjusted[index],
            seeds_without=tuple(pruned.seeds[place] for place in without),
            accuracy_without=float(pruned.accuracy_K[without].max()) if len(without) else None,
            verdict="none",
            **tested[index]._asdict(),
        )
        if found.p_adjusted <= level:
            found = found._replace(verdict="lost" if found.tested > 0 else "gained")
        yield found


def recalls(right_KN: np.ndarray, label_N: np.ndarray) -> np.ndarray:
    """The share of its images that each network has right, for each class that has any, by number: (K, C)."""
    labels_C, index_N = np.unique(label_N, return_inverse=True)
    num_C = np.bincount(index_N)
    right_KC = [np.bincount(index_N[right_N], minlength=len(labels_C)) for right_N in right_KN]
    return np.asarray(right_KC) / num_C


class _Tested(NamedTuple):
    """What a test says of a class: see `ClassImpact`."""

    test: Test
    p_value: float
    interval: Interval | None
    statistic: float | None = None
    effect_size: float | None = None
    study_statistic: float | None = None
    study_p_value: float | None = None
    num_lost: int | None = None
    num_gained: int | None = None


# -- tested over networks, and over images ---------------------------------------------------------------------------


def _test_networks(dense: Answers, pruned: Answers, label_N: np.ndarray, *, confidence: float) -> Iterator[_Tested]:
    dense_KC, pruned_KC = recalls(dense.right_KN, label_N), recalls(pruned.right_KN, label_N)
    dense_K, pruned_K = dense.accuracy_K, pruned.accuracy_K
    found = welch(dense_KC - dense_K[:, None], pruned_KC - pruned_K[:, None], confidence=confidence)
    study = welch(dense_KC - dense_K.mean(), pruned_KC - pruned_K.mean())
    for index, p_value in enumerate(found.p_C):
        low, high = float(found.low_C[index]), float(found.high_C[index])
        has_spread = not math.isnan(low)
        yield _Tested(
            test="welch" if has_spread else "permutation",
            p_value=float(p_value),
            interval=Interval(low=low, high=high, confidence=confidence, method="Welch") if has_spread else None,
            statistic=_number(found.statistic_C[index]),
            effect_size=_number(found.effect_C[index]),
            study_statistic=_number(study.statistic_C[index]),
            study_p_value=float(study.p_C[index]),
        )


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _paired(dense: Answers, pruned: Answers) -> tuple[Answers, Answers]:
    """Those of both sides that have a seed in common, in the same order."""
    place = {seed: index for index, seed in enumerate(dense.seeds)}
    kept = [index for index, seed in enumerate(pruned.seeds) if seed in place]
    seeds = tuple(pruned.seeds[index] for index in kept)
    return (
        Answers(seeds, dense.right_KN[[place[seed] for seed in seeds]]),
        Answers(seeds, pruned.right_KN[kept]),
    )


def _exact_test(num_pairs: int) -> Test:
    return "mcnemar" if num_pairs == 1 else "sign_flip"


def _test_images(dense: Answers, pruned: Answers, label_N: np.ndarray, *, confidence: float) -> Iterator[_Tested]:
    num_pairs = len(pruned.seeds)
    lost_N = (dense.right_KN & ~pruned.right_KN).sum(axis=0, dtype=np.int64)
    gained_N = (pruned.right_KN & ~dense.right_KN).sum(axis=0, dtype=np.int64)
    order_N = np.argsort(label_N, kind="stable")
    ends_C = np.flatnonzero(np.diff(label_N[order_N])) + 1
    for images in np.split(order_N, ends_C):
        lost, gained = int(lost_N[images].sum()), int(gained_N[images].sum())
        pair = Discordance(lost, gained, len(images))
        if num_pairs == 1:
            p_value, ends = mcnemar(pair), interval(pair, confidence=confidence)
        else:
            net = lost_N[images] - gained_N[images]
            p_value, ends = sign_flip(net), mean_interval(net, num_pairs=num_pairs, confidence=confidence)
        yield _Tested(_exact_test(num_pairs), p_value, ends, num_lost=lost, num_gained=gained)


def mean_loss(classes: Sequence[ClassImpact]) -> float | None:
    """The mean of what was tested; None of no class."""
    return sum(one.tested for one in classes) / len(classes) if classes else None
