"""The pictures that pruned networks forget, as one HTML page: true, dense and pruned labels, and all votes.

The page sorts and filters without a script: what is chosen above decides, by CSS, the order of the cards and which are
shown.
"""

# N images, L classes that some network answers

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from raypruning.analysis.exemplars import Exemplars, PopulationExemplars
from raypruning.reporting import wording
from raypruning.reporting.drawing import DARK, LIGHT
from raypruning.reporting.exemplars import conclusion, notes
from raypruning.reporting.pages import environment
from raypruning.reporting.populations import class_name

# Colours of wrong answers on a card; of more classes than that they are grey.
_MAX_COLOURS = 3


class Segment(NamedTuple):
    """A part of a bar: how many networks answer a class.

    Attributes:
        kind: `right`, `wrong-1` and so on, `other`.
    """

    kind: str
    votes: int
    name: str


class Votes(NamedTuple):
    """A row of a card: what a population answers.

    Attributes:
        answer: the most common one; both where two are tied.
        num: networks.
    """

    name: str
    segments: Sequence[Segment]
    answer: str
    num: int
    is_right: bool
    is_tied: bool
    is_pie: bool


class Card(NamedTuple):
    """An image.

    Attributes:
        source: the picture, as an address that holds it.
        kinds: colours by name of class.
        orders: places by CSS variable: d by distance over all populations, d0 and so on in one, c by class, r by ratio.
        pie_of: places of the populations of which it is a PIE.
    """

    image: int
    true: str
    source: str
    distance: str
    rows: Sequence[Votes]
    kinds: Sequence[tuple[str, str]]
    orders: Mapping[str, int]
    pie_of: Sequence[int]


class Choice(NamedTuple):
    """A population, as the page lets one choose it.

    Attributes:
        num_shown: cards of it on the page.
        rates: PIEs between whole populations, without common seeds, by luck, and beyond it.
    """

    name: str
    num_pies: str
    num_shown: int
    rates: Sequence[str]


def ranked_images(found: Exemplars) -> np.ndarray:
    """Positions of all images that are a PIE of some population: the largest distance first, equal ones by position.

    Args:
        found: of one task.
    """
    distance_N = _distances(found).max(axis=0)
    positions = np.flatnonzero(distance_N > 0)
    return positions[np.argsort(-distance_N[positions], kind="stable")]


def _distances(found: Exemplars) -> np.ndarray:
    """Distance of each image in each population of which it is a PIE; 0 elsewhere, since that of a PIE is more."""
    distance_PN = np.zeros((len(found.populations), found.populations[0].num_images))
    for distance_N, one in zip(distance_PN, found.populations, strict=True):
        distance_N[one.pies] = one.distance_M[one.is_pie_M]
    return distance_PN


def render_gallery(found: Exemplars, pictures: Mapping[int, bytes], *, num_pies: int) -> str:
    """The page, self-contained. The same exemplars and pictures give the same bytes.

    Args:
        found: of one task.
        pictures: PNG by position, of those that are shown.
        num_pies: images that are a PIE of some population, shown or not.
    """
    one = found.populations[0]
    positions = [int(position) for position in ranked_images(found) if int(position) in pictures]
    cards = _cards(found, positions, pictures)
    return (
        environment()
        .get_template("gallery.html.j2")
        .render(
            light=LIGHT,
            dark=DARK,
            name=found.sweep,
            context=f"{found.model} on {found.dataset}, {one.task}",
            conclusion=conclusion(found),
            notes=notes(found),
            num_pies=wording.count(num_pies, "image"),
            num_shown=wording.thousands(len(cards)),
            is_part=len(cards) < num_pies,
            num_networks=one.groups.num_networks,
            choices=[_choice(found, index, cards) for index in range(len(found.populations))],
            cards=cards,
            command=f"prune-cli pie find {found.sweep}",
        )
    )


def _row_name(found: Exemplars, one: PopulationExemplars) -> str:
    """Such as `−90.0 %`, with what else tells populations apart."""
    parts = [one.method] if len({other.method for other in found.populations}) > 1 else []
    parts += [f"{one.budget} ep."] if len({other.budget for other in found.populations}) > 1 else []
    return " ".join([*parts, f"{wording.MINUS}{wording.percent(one.ratio_reached)}"])


def _choice(found: Exemplars, index: int, cards: Sequence[Card]) -> Choice:
    one = found.populations[index]
    groups = one.groups
    luck, excess = groups.null_interval, groups.excess_interval
    return Choice(
        _row_name(found, one),
        wording.thousands(one.num_pies),
        sum(index in card.pie_of for card in cards),
        [
            wording.percent(one.rate),
            wording.percent(groups.pruned),
            wording.percent(groups.null) + (f" ({wording.interval(luck.low, luck.high)})" if luck else ""),
            wording.signed_points(groups.excess)
            + (f" ({wording.signed_interval(excess.low, excess.high)})" if excess else ""),
        ],
    )


def _cards(found: Exemplars, positions: Sequence[int], pictures: Mapping[int, bytes]) -> list[Card]:
    """In the order of the positions."""
    distance_PC = _distances(found)[:, positions]
    label_C = found.populations[0].label_N[positions]
    ratios = np.array([one.ratio for one in found.populations])
    first_C = np.where(distance_PC > 0, ratios[:, None], 2.0).min(axis=0)
    places = {
        "d": np.arange(len(positions)),
        **{f"d{index}": _places(-distance_C) for index, distance_C in enumerate(distance_PC)},
        "c": _places(label_C),
        "r": _places(first_C),
    }
    return [
        _card(
            found,
            position,
            pictures[position],
            distance_P=distance_PC[:, index],
            orders={name: int(place_C[index]) for name, place_C in places.items()},
        )
        for index, position in enumerate(positions)
    ]


def _places(values_C: np.ndarray) -> np.ndarray:
    """Of each value in ascending order; equal ones as they come."""
    places_C = np.empty(len(values_C), np.int64)
    places_C[np.argsort(values_C, kind="stable")] = np.arange(len(values_C))
    return places_C


def _card(
    found: Exemplars, position: int, picture: bytes, *, distance_P: np.ndarray, orders: Mapping[str, int]
) -> Card:
    label = int(found.populations[0].label_N[position])
    dense, *pruned = _all_votes(found, position)
    totals: dict[int, int] = {}
    for votes in (dense, *pruned):
        for each, num in votes.items():
            totals[each] = totals.get(each, 0) + num
    wrong = sorted((each for each in totals if each != label), key=lambda each: (-totals[each], each))
    kinds = {label: "right", **{each: f"wrong-{place}" for place, each in enumerate(wrong[:_MAX_COLOURS], start=1)}}
    names = found.class_names

    def row(name: str, votes: Mapping[int, int], *, is_pie: bool = False) -> Votes:
        most = max(votes.values())
        modes = sorted(each for each, num in votes.items() if num == most)
        order = sorted(votes, key=lambda each: (each != label, -totals[each], each))
        return Votes(
            name=name,
            segments=[Segment(kinds.get(each, "other"), votes[each], class_name(names, each)) for each in order],
            answer=" or ".join(class_name(names, each) for each in modes),
            num=sum(votes.values()),
            is_right=modes == [label],
            is_tied=len(modes) > 1,
            is_pie=is_pie,
        )

    rows = [row("dense", dense)]
    for one, votes, distance in zip(found.populations, pruned, distance_P, strict=True):
        rows.append(row(_row_name(found, one), votes, is_pie=distance > 0))
    return Card(
        image=position,
        true=class_name(names, label),
        source=f"data:image/png;base64,{base64.b64encode(picture).decode()}",
        distance=f"{distance_P.max():.2f}",
        rows=rows,
        kinds=[(kind, class_name(names, each)) for each, kind in kinds.items() if each in totals],
        orders=orders,
        pie_of=[index for index, distance in enumerate(distance_P) if distance > 0],
    )


def _all_votes(found: Exemplars, position: int) -> list[dict[int, int]]:
    """Networks by class: the dense ones, then those of each population."""
    first = found.populations[0]
    return [
        _votes(first, first.dense_ML, position, num=len(first.seeds_dense)),
        *(_votes(one, one.pruned_ML, position, num=len(one.seeds_pruned)) for one in found.populations),
    ]


def _votes(one: PopulationExemplars, votes_ML: np.ndarray, position: int, *, num: int) -> dict[int, int]:
    place = int(np.searchsorted(one.images_M, position))
    if place == len(one.images_M) or one.images_M[place] != position:
        return {int(one.agreed_N[position]): num}
    pairs = zip(one.classes_ML[place], votes_ML[place], strict=True)
    return {int(label): int(votes) for label, votes in pairs if votes}
