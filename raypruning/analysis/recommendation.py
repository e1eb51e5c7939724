"""Which network to ship: the largest ratio that is proven to lose at most delta on every task, and what lies around it.

Three rules make the proof one of the stated confidence. All tasks at once, each at the full level: an
intersection-union test, which needs no correction (Berger 1982). Along a curve, ratios in increasing order up to the
first that fails (see `certified`). The best of several curves: the level is shared out over them (Bonferroni).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from raypruning.analysis.certified import certified
from raypruning.analysis.multiple import holm
from raypruning.analysis.paired import Discordance, images_needed, mcnemar
from raypruning.core.records import Curve, Potential, ProbeResult


class TaskLoss(NamedTuple):
    """Of a pruned network against its parent, on one task.

    Attributes:
        num: images of the test set.
        bound: one-sided upper bound of `loss`, at the confidence that each curve is tested at.
        discordance: None where the metric does not count images.
    """

    task: str
    num: int
    loss: float
    bound: float
    discordance: Discordance | None = None


class Network(NamedTuple):
    """A pruned network that was measured.

    Attributes:
        training: its id.
        ratio: reached.
        uri: of its checkpoint, relative to the storage.
        losses: on every task that counts, at least one.
    """

    curve: Curve
    training: str
    ratio: float
    uri: str
    losses: Sequence[TaskLoss]

    @property
    def worst(self) -> TaskLoss:
        """The task whose bound is largest: from a delta of that on, the network is within it everywhere."""
        return max(self.losses, key=lambda one: one.bound)

    def failing(self, delta: float) -> list[TaskLoss]:
        """Tasks on which it is not proven to be within delta, the worst first."""
        return sorted((one for one in self.losses if one.bound > delta), key=lambda one: -one.bound)


class Choice(NamedTuple):
    """What one curve has to offer.

    Attributes:
        certified: the network at the largest certified ratio; None where only the dense parent is within delta.
        tighter: the next smaller ratio, certified as well.
        looser: the next larger one that was measured, which is not.
    """

    curve: Curve
    certified: Network | None = None
    tighter: Network | None = None
    looser: Network | None = None

    @property
    def ratio(self) -> float:
        """The certified one; 0 for dense."""
        return self.certified.ratio if self.certified else 0.0


class Recommendation(NamedTuple):
    """What to ship, what else there is, and what could not be decided.

    Attributes:
        storage: that checkpoints are relative to.
        level: confidence that each of the competing curves is tested at.
        tasks: names of those on which delta must be kept.
        choices: one for each competing curve.
        chosen: None where nothing is certified.
        cheaper: the best with fewer epochs than `chosen`.
        nearest: where nothing is certified, what would be at the smallest delta; None if nothing was measured.
        potentials: measured ones of the competing curves on the tasks, for comparison.
        failed: probes of the competing curves or their parents that measured nothing.
    """

    sweep: str
    storage: str
    delta: float
    confidence: float
    level: float
    tasks: tuple[str, ...]
    choices: tuple[Choice, ...]
    chosen: Choice | None
    cheaper: Choice | None
    nearest: Choice | None
    potentials: tuple[Potential, ...]
    failed: tuple[ProbeResult, ...]

    @property
    def network(self) -> Network | None:
        """What is shown task by task: the network to ship, else the one that is nearest to it."""
        if self.chosen is not None:
            return self.chosen.certified
        return self.nearest.looser if self.nearest else None

    @property
    def beyond(self) -> Network | None:
        """The network on which the proof ends: the next one after that to ship, else the nearest."""
        choice = self.chosen or self.nearest
        return choice.looser if choice else None


class Unresolved(NamedTuple):
    """A task whose test set is too small to tell a network that loses nothing from one that loses delta.

    Attributes:
        num: images it has.
        num_needed: images with which a network that loses nothing is certified in four of five cases.
    """

    task: str
    num: int
    num_needed: int


def shared_confidence(confidence: float, num_curves: int) -> float:
    """What each of several curves is tested at, so that the best of them holds at `confidence` (Bonferroni)."""
    return 1.0 - (1.0 - confidence) / num_curves


def choice_of(curve: Curve, networks: Iterable[Network], *, delta: float) -> Choice:
    """Test the networks of one curve in the order of their ratios, each on its worst task."""
    ordered = sorted(networks, key=lambda one: one.ratio)
    index = certified([one.ratio for one in ordered], [one.worst.bound <= delta for one in ordered])
    num_certified = 0 if index is None else index + 1
    return Choice(
        curve,
        certified=ordered[num_certified - 1] if num_certified else None,
        tighter=ordered[num_certified - 2] if num_certified > 1 else None,
        looser=ordered[num_certified] if num_certified < len(ordered) else None,
    )


def best(choices: Iterable[Choice]) -> Choice | None:
    """The choice to ship: the largest certified ratio; of equal ones the cheapest budget, then the smallest bound."""
    found = [(one, one.certified) for one in choices if one.certified is not None]
    if not found:
        return None
    return max(found, key=lambda pair: (pair[1].ratio, -pair[0].curve.budget, -pair[1].worst.bound))[0]


def cheaper(choices: Iterable[Choice], chosen: Choice) -> Choice | None:
    """The best choice that takes fewer epochs of retraining; None if there is none."""
    return best(one for one in choices if one.curve.budget < chosen.curve.budget)


def nearest(choices: Iterable[Choice]) -> Choice | None:
    """Where nothing is certified: the choice that would be at the smallest delta; None if nothing was measured."""
    found = [(one, one.looser.worst.bound) for one in choices if one.looser is not None]
    return min(found, key=lambda pair: pair[1])[0] if found else None


def weakest_potentials(potentials: Iterable[Potential]) -> Mapping[Curve, float]:
    """By curve: the measured potential on its weakest task, as far as the parent was measured."""
    ratios: dict[Curve, list[float]] = {}
    for one in potentials:
        if one.ratio is not None:
            ratios.setdefault(one.curve, []).append(one.ratio)
    return {curve: min(found) for curve, found in ratios.items()}


def unresolved(network: Network, *, delta: float, confidence: float) -> list[Unresolved]:
    """Tasks that a network fails on although it lost no more than delta there, for want of images.

    Args:
        confidence: that each curve is tested at.
    """
    found = []
    for one in network.failing(delta):
        if one.loss > delta or one.discordance is None:
            continue
        num_needed = images_needed(one.discordance.rate, delta, confidence=confidence)
        if num_needed > one.num:
            found.append(Unresolved(one.task, one.num, num_needed))
    return found


def differences(network: Network) -> Mapping[str, float]:
    """By task: the exact McNemar p-value of "wrong as often as the parent", adjusted for the tasks after Holm.

    Tasks whose metric does not count images have none.
    """
    tested = {one.task: mcnemar(one.discordance) for one in network.losses if one.discordance is not None}
    return dict(zip(tested, holm(list(tested.values())), strict=True))
