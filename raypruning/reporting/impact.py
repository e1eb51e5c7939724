"""What pruning does to each class, in words: headlines, a conclusion, what was tested; and as numbers by name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from raypruning.analysis.class_impact import MIN_NETWORKS, ClassImpact, Impact, PopulationImpact, mean_loss
from raypruning.core.populations import PopulationNumber
from raypruning.reporting import wording
from raypruning.reporting.populations import class_name, setting

# Where less than half of the accuracy is left, that a class is lost as well surprises nobody.
_TOLERABLE = 0.5
_MAX_NAMED = 3

CORRECTION_NAMES = {"bh": "Benjamini-Hochberg", "holm": "Holm", "none": "none"}


# -- names -----------------------------------------------------------------------------------------------------------


def short_name(found: Impact, label: int, *, letters: int = 15) -> str:
    """The class's name, cut where it is longer."""
    name = class_name(found.class_names, label)
    return name if len(name) <= letters else name[: letters - 1] + "\N{HORIZONTAL ELLIPSIS}"


def is_tolerable(one: PopulationImpact) -> bool:
    """Whether most of the accuracy is left."""
    return one.accuracy_pruned.mean >= _TOLERABLE * one.accuracy_dense.mean


def _classes(found: Impact, classes: Sequence[ClassImpact], *, num_all: int) -> str:
    """Such as `class 6 Shirt`, `classes 2, 4 and 6`, `7 of 10 classes`."""
    if len(classes) > _MAX_NAMED:
        return f"{len(classes)} of {num_all} classes"
    names = wording.listing([class_name(found.class_names, one.label) for one in classes])
    return f"class {names}" if len(classes) == 1 else f"classes {names}"


Block = Sequence[PopulationImpact]


def blocks(found: Impact) -> list[Block]:
    """Populations that differ in their ratio alone, and are compared with the same parents; ratios ascending."""
    groups: dict[tuple[object, ...], list[PopulationImpact]] = {}
    for one in found.populations:
        groups.setdefault((one.task, one.method, one.budget, one.seeds_dense), []).append(one)
    return list(groups.values())


# -- headlines -------------------------------------------------------------------------------------------------------


class Headline(NamedTuple):
    """What cannot wait for a table: classes that are not found any more, or hardly.

    Attributes:
        accuracy: what it says of the whole, such as `accuracy is still 75.7 % (dense 98.0 %)`.
        harm: what it says of the classes.
        kept: the largest share of the dense accuracy that networks have which lost a class like that.
    """

    population: PopulationImpact
    accuracy: str
    harm: str
    kept: float

    @property
    def text(self) -> str:
        """As one sentence."""
        one = self.population
        return f"{one.task}, {setting(one)}: {self.accuracy}, and {self.harm}."


def headlines(found: Impact) -> list[Headline]:
    """Of each task and population at most one: first those of classes that are not found, by what accuracy is left."""
    told = [
        (one, _never_found(found, one) + _missed_by_some(found, one), _collapsed(found, one))
        for one in found.populations
    ]
    ranked = sorted(
        ((not gone, -_kept(one), one, [*gone, *fallen]) for one, gone, fallen in told if gone or fallen),
        key=lambda row: row[:2],
    )
    return [Headline(one, _accuracy(one), "; ".join(parts), -kept) for _, kept, one, parts in ranked]


def _kept(one: PopulationImpact) -> float:
    """The share of the dense accuracy that is left where a class is not found, or in all, where classes collapsed."""
    if not one.accuracy_dense.mean:
        return 0.0
    gone = [each.accuracy_without for each in (*one.never_found, *one.missed_by_some)]
    left = [accuracy for accuracy in gone if accuracy is not None] or [one.accuracy_pruned.mean]
    return max(left) / one.accuracy_dense.mean


def _accuracy(one: PopulationImpact) -> str:
    verb = "is still" if is_tolerable(one) else "is down to"
    after, before = wording.percent(one.accuracy_pruned.mean), wording.percent(one.accuracy_dense.mean)
    return f"accuracy {verb} {after} (dense {before})"


def _never_found(found: Impact, one: PopulationImpact) -> list[str]:
    gone = one.never_found
    if not gone:
        return []
    num = one.accuracy_pruned.num
    who = "never found" if num == 1 else f"never found by any of {num} networks"
    names = _classes(found, gone, num_all=len(one.classes))
    return [f"{names} {'is' if len(gone) == 1 else 'are'} {who} ({_recall_before(gone)})"]


def _recall_before(classes: Sequence[ClassImpact]) -> str:
    low, high = (wording.percent(end(one.dense.mean for one in classes)) for end in (min, max))
    return f"dense recall {low}" if low == high else f"dense recall {low} to {high}"


def _missed_by_some(found: Impact, one: PopulationImpact) -> list[str]:
    """A part for each group of networks that miss the same classes; one for all where they are many."""
    missed = one.missed_by_some
    num = one.accuracy_pruned.num
    groups: dict[tuple[int, ...], list[ClassImpact]] = {}
    for each in missed:
        groups.setdefault(each.seeds_without, []).append(each)
    if len(groups) > _MAX_NAMED:
        most = missed[0]
        return [
            f"{len(missed)} of {len(one.classes)} classes are never found by some of {num} networks, class "
            f"{class_name(found.class_names, most.label)} by one with "
            f"{wording.percent(most.accuracy_without or 0.0)} accuracy"
        ]
    return [
        f"{len(seeds)} of {num} networks never find{'s' if len(seeds) == 1 else ''} "
        f"{_classes(found, classes, num_all=len(one.classes))} ({_accuracy_without(seeds, classes)})"
        for seeds, classes in groups.items()
    ]


def _accuracy_without(seeds: Sequence[int], classes: Sequence[ClassImpact]) -> str:
    accuracy = wording.percent(classes[0].accuracy_without or 0.0)
    return f"seed {seeds[0]}, accuracy {accuracy}" if len(seeds) == 1 else f"accuracy up to {accuracy}"


def _collapsed(found: Impact, one: PopulationImpact) -> list[str]:
    fallen = one.collapsed
    if not fallen:
        return []
    names = _classes(found, fallen, num_all=len(one.classes))
    if len(fallen) > 1:
        return [f"{names} keep less than half of their recall"]
    (each,) = fallen
    return [f"{names} keeps less than half of its recall ({_fall(each)})"]


def _fall(one: ClassImpact) -> str:
    return f"{wording.percent(one.dense.mean)} to {wording.percent(one.pruned.mean)}"


# -- conclusion ------------------------------------------------------------------------------------------------------


def conclusion(found: Impact) -> str:
    """One sentence: the class that pays most while accuracy looks tolerable, or that none can be told to."""
    telling = [one for one in headlines(found) if one.kept >= _TOLERABLE]
    if telling:
        top = telling[0]
        more = f" ({len(telling)} such cases in all)" if len(telling) > 1 else ""
        return f"At {_place(top.population)}, {top.accuracy}, and {top.harm}{more}."
    harmed = [one for one in found.populations if one.lost]
    if not harmed:
        return _unharmed(found)
    worst = max([one for one in harmed if is_tolerable(one)] or harmed, key=lambda one: one.lost[0].tested)
    alike = [one for one in found.populations if one.is_paired == worst.is_paired]
    first = worst.lost[0]
    return (
        f"Class {class_name(found.class_names, first.label)} pays most: at {_place(worst)} its recall goes from "
        f"{_fall(first)} while accuracy goes from {wording.percent(worst.accuracy_dense.mean)} to "
        f"{wording.percent(worst.accuracy_pruned.mean)}; in {sum(bool(one.lost) for one in alike)} of "
        f"{wording.count(len(alike), 'comparison')} some class loses significantly"
        f"{'' if worst.is_paired else ' more than accuracy does'}."
    )


def _place(one: PopulationImpact) -> str:
    return (
        f"{wording.percent(one.ratio_reached)} removed ({one.method}, {wording.count(one.budget, 'epoch')}, {one.task})"
    )


def _unharmed(found: Impact) -> str:
    what = (
        "loses significantly"
        if all(one.is_paired for one in found.populations)
        else "loses significantly more than accuracy does"
    )
    largest = max(one.ratio_reached for one in found.populations)
    nums = sorted({one.accuracy_pruned.num for one in found.populations})
    networks = wording.count(nums[0], "network") if len(nums) == 1 else f"{nums[0]} to {nums[-1]} networks"
    where = (
        "in the one comparison" if len(found.populations) == 1 else f"in any of {len(found.populations)} comparisons"
    )
    return f"No class {what} {where} of {networks} each, up to {wording.percent(largest)} removed."


# -- what was tested -------------------------------------------------------------------------------------------------


def what_was_tested(found: Impact) -> list[str]:
    """Which tests the p-values are of, why, and what the words mean."""
    notes = []
    if any(not one.is_paired for one in found.populations):
        notes.append(
            "Test over networks, Welch's t-test of each class: did its recall change by another amount than accuracy "
            "did? lost: it fell by more; gained: it fell by less, or rose. g: Hedges' g*, the loss beyond accuracy in "
            "standard deviations over networks."
        )
    kinds = {one.test for one in found.populations if one.is_paired}
    if kinds:
        which = wording.listing([text for kind, text in _EXACT.items() if kind in kinds])
        notes.append(
            f"Fewer than {MIN_NETWORKS} networks on a side, too few to see how networks differ: {which}, each pruned "
            "network against its own parent. Did the recall of a class change at all? lost: it fell; gained: it rose. "
            "What is found holds for these networks, and says nothing of other seeds."
        )
    notes.append(_correction_note(found))
    if any(each.test == "permutation" for one in found.populations for each in one.classes):
        notes.append(
            "Where networks of a side do not differ from each other there is no t: p is of a permutation test."
        )
    if found.left_out:
        notes.append(f"Left out, no class of a whole image: {wording.listing(found.left_out)}.")
    return notes


_EXACT = {
    "mcnemar": "McNemar's exact test over the images of a class",
    "sign_flip": "an exact sign-flip test over the images of a class, net losses of all pairs added up",
}


def _correction_note(found: Impact) -> str:
    significant = f"significant is p up to {found.level:g}"
    if found.correction == "none":
        return f"p is not adjusted for the number of classes: {significant}, also by chance, in that share of them."
    return f"p is adjusted over the classes of a row ({CORRECTION_NAMES[found.correction]}); {significant}."


# -- numbers ---------------------------------------------------------------------------------------------------------


def numbers(found: Impact) -> list[PopulationNumber]:
    """What is kept by name of each task and population. Losses are fractions, as they were tested."""
    return [
        PopulationNumber(one.method, one.budget, one.ratio_reached, f"impact/{one.task}/{name}", value)
        for one in found.populations
        for name, value in _numbers(one)
    ]


def _numbers(one: PopulationImpact) -> Iterable[tuple[str, float]]:
    yield "classes_lost", float(len(one.lost))
    yield "classes_gained", float(len(one.gained))
    yield "classes_never_found", float(len(one.never_found))
    yield "classes_missed_by_some", float(len(one.missed_by_some))
    yield "worst_class_loss", one.worst_first[0].tested
    yield "worst_class_recall", min(each.pruned.mean for each in one.classes)
    for name, classes in (("mean_loss_of_lost", one.lost), ("mean_gain_of_gained", one.gained)):
        mean = mean_loss(classes)
        if mean is not None:
            yield name, abs(mean)
