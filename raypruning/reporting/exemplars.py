"""What pruned networks forget, in words, as numbers by name, as one JSON object and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from raypruning.analysis.exemplars import (
    Evaluated,
    Exemplars,
    PopulationExemplars,
    accuracy_on_pies,
    evaluated,
    overlap,
)
from raypruning.core.populations import PopulationNumber
from raypruning.core.records import Interval
from raypruning.reporting import wording
from raypruning.reporting.populations import setting

JSON = dict[str, object]
Block = Sequence[PopulationExemplars]

# Of the images: where more have no mode on one side, how many differ says little.
_MANY_TIED = 0.1


def blocks(found: Exemplars) -> list[Block]:
    """Populations that differ in their ratio alone; ratios ascending."""
    groups: dict[tuple[str, str, int], list[PopulationExemplars]] = {}
    for one in found.populations:
        groups.setdefault((one.task, one.method, one.budget), []).append(one)
    return list(groups.values())


# -- what to conclude --------------------------------------------------------------------------------------------------


def conclusion(found: Exemplars) -> str:
    """One sentence: how many images are forgotten at the most pruned ratio, beside luck, how accurate answers are."""
    one = blocks(found)[0][-1]
    where = f"At {wording.percent(one.ratio_reached)} removed ({setting(one).rpartition(', ')[0]}, {one.task})"
    tied = f", with {wording.percent(one.num_tied / one.num_images)} of images tied" if is_mostly_tied(one) else ""
    return (
        f"{where}, most pruned networks answer {wording.percent(one.rate)} of images otherwise than most dense "
        f"ones{tied}; {_beside_luck(one)}{_accuracies(one)}."
    )


def is_mostly_tied(one: PopulationExemplars) -> bool:
    """Whether so many images have no mode that the number of PIEs says little."""
    return one.num_tied > _MANY_TIED * one.num_images


def _beside_luck(one: PopulationExemplars) -> str:
    groups = one.groups
    rates = f"{wording.percent(groups.pruned)}, against {wording.percent(groups.null)} between dense networks"
    verdict = {
        "more": "more than luck",
        "same": "no more than luck can make",
        "fewer": "fewer than luck makes",
        "unknown": "of two seeds, too few to tell it from luck",
    }[groups.verdict]
    return f"{equal_terms(one)} it is {rates} ({verdict})"


def equal_terms(one: PopulationExemplars) -> str:
    """Such as `between 4 networks a side that share no seed`."""
    num = one.groups.num_networks
    return f"between {wording.count(num, 'network')} a side that share{'s' if num == 1 else ''} no seed"


def _accuracies(one: PopulationExemplars) -> str:
    pies, rest = accuracy_on_pies(one)
    if pies is None or rest is None:
        return ""
    return (
        f"; the pruned ones have {wording.percent(pies.pruned)} of these images right, and "
        f"{wording.percent(rest.pruned)} of the rest"
    )


def notes(found: Exemplars) -> list[str]:
    """What the words mean, and what was left out."""
    one = found.populations[0]
    tied = {
        "undecided": "such an image is never a PIE (--ties largest: the larger class counts, as in the study)",
        "largest": "the larger class counts, as in the study (--ties undecided: such an image is never a PIE)",
    }[found.ties]
    num = one.groups.num_networks
    lines = [
        "PIE: most pruned networks answer another class than most dense ones. right: of the PIEs, the pruned answer is "
        f"right. tied: two classes have the most votes on either side; {tied}.",
        f"{num} against {num}: % between so many dense networks and pruned ones of other seeds; luck: and dense ones "
        "of other seeds. Only these two compare: whole populations are larger, and share their seeds. beyond luck: "
        f"the difference in points. {_in_brackets(one)}",
    ]
    if any(is_mostly_tied(each) for each in found.populations):
        lines.append(
            f"Where more than {wording.percent(_MANY_TIED)} of images are tied, networks have little in common: the "
            "number of PIEs then tells little, and much of it is up to the rule for ties."
        )
    if found.too_few:
        left = [f"{method}, {wording.count(budget, 'epoch')}, {ratio:g}" for method, budget, ratio in found.too_few]
        some = wording.listing([*left[:3], *([f"{len(left) - 3} more"] if len(left) > 3 else [])])
        lines.append(f"Left out, fewer than two networks whose parent was measured: {some}.")
    if found.left_out:
        lines.append(f"Left out, no class of a whole image: {wording.listing(found.left_out)}.")
    return lines


def _in_brackets(one: PopulationExemplars) -> str:
    if one.groups.null_interval is None:
        return "Two seeds are one pair: there is no interval, and a most common answer is one that both give."
    draws = wording.count(one.groups.num_draws, "draw")
    return f"In brackets 95 % intervals over networks, by a jackknife on {draws} of seeds."


# -- numbers -----------------------------------------------------------------------------------------------------------


def numbers(found: Exemplars) -> list[PopulationNumber]:
    """What is kept by name of each task and population; rates are fractions of the images of the task."""
    return [
        PopulationNumber(one.method, one.budget, one.ratio_reached, f"pie/{one.task}/{name}", value)
        for one in found.populations
        for name, value in _numbers(one)
    ]


def _numbers(one: PopulationExemplars) -> Iterator[tuple[str, float]]:
    yield "num_pies", float(one.num_pies)
    yield "rate", one.rate
    yield "rate_without_shared_seeds", one.groups.pruned
    yield "null_rate", one.groups.null
    yield "excess_rate", one.groups.excess
    yield "num_tied", float(one.num_tied)
    for name, accuracy in zip(("on_pies", "on_the_rest"), accuracy_on_pies(one), strict=True):
        if accuracy is not None:
            yield f"accuracy_{name}", accuracy.pruned


# -- JSON --------------------------------------------------------------------------------------------------------------


def exemplars_json(found: Exemplars) -> JSON:
    """One object for `find --json`. The images themselves are in the CSV file."""
    return {
        **_head(found),
        "conclusion": conclusion(found),
        "populations": [_population(one) for one in found.populations],
        "overlaps": list(_overlaps(found)),
        **_left_out(found),
    }


def evaluated_json(found: Exemplars) -> JSON:
    """One object for `evaluate --json`. Accuracies are means over networks."""
    rows = []
    for one in found.populations:
        result = evaluated(one)
        rows.append(
            {
                **_key(one),
                "num_pies": one.num_pies,
                **{name: _tuple_json(getattr(result, name)) for name in ("pies", "rest", "all")},
                "random": _random_json(result),
                "differing_by_luck": {"dense": one.groups.dense_accuracy, "pruned": one.groups.pruned_accuracy},
            }
        )
    return {**_head(found), "populations": rows, **_left_out(found)}


def _head(found: Exemplars) -> JSON:
    return {
        "sweep": found.sweep,
        "storage": found.storage,
        "model": found.model,
        "dataset": found.dataset,
        "ties": found.ties,
    }


def _left_out(found: Exemplars) -> JSON:
    return {
        "tasks_left_out": list(found.left_out),
        "too_few_networks": [
            {"method": method, "budget": budget, "ratio": ratio} for method, budget, ratio in found.too_few
        ],
    }


def _key(one: PopulationExemplars) -> JSON:
    return {
        "task": one.task,
        "method": one.method,
        "budget": one.budget,
        "ratio": one.ratio,
        "ratio_reached": one.ratio_reached,
        "seeds_dense": list(one.seeds_dense),
        "seeds_pruned": list(one.seeds_pruned),
    }


def _population(one: PopulationExemplars) -> JSON:
    groups = one.groups
    return {
        **_key(one),
        "num_images": one.num_images,
        "num_pies": one.num_pies,
        "rate": one.rate,
        "num_tied_dense": one.num_tied_dense,
        "num_tied_pruned": one.num_tied_pruned,
        "num_tied": one.num_tied,
        "pruned_correct_count": one.pruned_correct_count,
        "dense_correct_count": one.dense_correct_count,
        "without_shared_seeds": {
            "num_networks": groups.num_networks,
            "num_draws": groups.num_draws,
            "null_rate": groups.null,
            "null_interval": _interval(groups.null_interval),
            "pruned_rate": groups.pruned,
            "excess_rate": groups.excess,
            "excess_interval": _interval(groups.excess_interval),
            "verdict": groups.verdict,
        },
    }


def _interval(one: Interval | None) -> object:
    return one.model_dump(mode="json") if one else None


def _tuple_json(one: object) -> object:
    return one._asdict() if one is not None else None  # type: ignore[attr-defined]


def _random_json(one: Evaluated) -> object:
    if one.random is None:
        return None
    intervals = {f"{side}_interval": _interval(getattr(one.random, f"{side}_interval")) for side in ("dense", "pruned")}
    return {**one.random._asdict(), **intervals}


def _overlaps(found: Exemplars) -> Iterable[JSON]:
    for index, first in enumerate(found.populations):
        for second in found.populations[index + 1 :]:
            if first.task == second.task:
                pair = [
                    {name: _key(one)[name] for name in ("method", "budget", "ratio", "ratio_reached")}
                    for one in (first, second)
                ]
                yield {"task": first.task, "of": pair, "jaccard": overlap(first, second)}


# -- CSV ---------------------------------------------------------------------------------------------------------------


_COLUMNS = (
    *("task", "method", "budget", "ratio", "ratio_reached", "image", "label", "dense_label", "pruned_label"),
    *("dense_tied", "pruned_tied", "pie", "distance", "dense_votes", "pruned_votes"),
)


def exemplars_csv(found: Exemplars, *, all_images: bool = False) -> str:
    """A row for each PIE of each population, the largest distance first; or for each image, by position.

    Votes are written as `class:networks`, most votes first.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for one in found.populations:
        head = [one.task, one.method, one.budget, one.ratio, one.ratio_reached]
        writer.writerows([*head, *row] for row in (_every_row(one) if all_images else _pie_rows(one)))
    return text.getvalue()


def _pie_rows(one: PopulationExemplars) -> Iterator[list[object]]:
    return (_row(one, place) for place in one.ranked)


def _every_row(one: PopulationExemplars) -> Iterator[list[object]]:
    place_of = {int(image): place for place, image in enumerate(one.images_M)}
    num_dense, num_pruned = len(one.seeds_dense), len(one.seeds_pruned)
    for image, (label, answer) in enumerate(zip(one.label_N, one.agreed_N, strict=True)):
        if image in place_of:
            yield _row(one, place_of[image])
        else:
            votes = [f"{answer}:{num_dense}", f"{answer}:{num_pruned}"]
            yield [image, int(label), int(answer), int(answer), 0, 0, 0, 0.0, *votes]


def _row(one: PopulationExemplars, place: int) -> list[object]:
    return [
        int(one.images_M[place]),
        int(one.label_M[place]),
        int(one.dense_mode_M[place]),
        int(one.pruned_mode_M[place]),
        int(one.dense.is_tied_M[place]),
        int(one.pruned.is_tied_M[place]),
        int(one.is_pie_M[place]),
        round(float(one.distance_M[place]), 6),
        *(_votes(one.classes_ML[place], votes_ML[place]) for votes_ML in (one.dense_ML, one.pruned_ML)),
    ]


def _votes(classes_L: np.ndarray, votes_L: np.ndarray) -> str:
    order = np.lexsort((classes_L, -votes_L.astype(int)))
    return " ".join(f"{classes_L[place]}:{votes_L[place]}" for place in order if votes_L[place])
