"""Walk an iterative schedule link by link, then cut the last brackets by branches off the last good link.

The links are the `ratios` of the search. They are asked for one after another, since each begins from the one before,
until no threshold needs another. What lies between two links is asked for by branches: networks that begin from the
largest link below their ratio. A branch decides no link, so that the chain is the same whatever was refined.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import pairwise

from raypruning.core.records import Schedule, SearchSpec
from raypruning.core.search.bisect import next_ratios as halvings
from raypruning.core.search.brackets import bracket
from raypruning.core.search.grids import Link, even_steps, named_grid, with_steps_between
from raypruning.core.search.strategy import Known, Outcomes


def chain_links(schedule: Schedule, search: SearchSpec) -> tuple[Link, ...]:
    """The links of an iterative schedule, ascending; none for another schedule.

    Raises KeyError for a grid that does not exist.
    """
    if schedule.kind != "iterative":
        return ()
    links: tuple[Link, ...] = ()
    if schedule.grid is not None:
        links = named_grid(schedule.grid)
        if schedule.prunes_per_link == 1:
            return links
    ratios = schedule.ratios or tuple(link.ratio for link in links)
    if schedule.steps is not None:
        ratios = _even_ratios(search.low, search.high, schedule.steps)
    return with_steps_between(ratios, num_steps=schedule.prunes_per_link)


def chain_search(links: Sequence[Link], search: SearchSpec) -> SearchSpec:
    """The search of a chain: its range begins at the parent, whatever `low` is, and ends with the last link."""
    ratios = tuple(link.ratio for link in links)
    return search.model_copy(update={"strategy": "chain", "low": 0.0, "high": ratios[-1], "ratios": ratios})


def next_ratios(search: SearchSpec, known: Known) -> tuple[float, ...]:
    """The next link; when there is none to ask for, up to `probes_per_round` ratios that halve the open brackets.

    A failed link ends the chain. What it leaves unsettled stays as wide as it is.
    """
    link = _next_link(search, known)
    if link is not None:
        return (link,)
    settled = tuple(
        outcomes
        for outcomes, clear in zip(known.outcomes, known.clear, strict=True)
        if is_settled(outcomes, clear, links=search.ratios) and bracket(outcomes, top=search.high).is_high_measured
    )
    return halvings(search, known._replace(outcomes=settled, failed=known.asked)) if settled else ()


def is_settled(outcomes: Outcomes, clear: Collection[float], *, links: Sequence[float]) -> bool:
    """Whether a threshold needs no further link: since the last one that passed, two in a row failed beyond noise.

    True as well when the last link of all is measured. Branches have no say.
    """
    measured = [ratio for ratio in links if ratio in outcomes]
    if measured and measured[-1] == links[-1]:
        return True
    last_good = max((index for index, ratio in enumerate(measured) if outcomes[ratio]), default=-1)
    beyond = [ratio in clear for ratio in measured[last_good + 1 :]]
    return any(one and other for one, other in pairwise(beyond))


def _next_link(search: SearchSpec, known: Known) -> float | None:
    link = next((ratio for ratio in search.ratios if not all(ratio in outcomes for outcomes in known.outcomes)), None)
    if link is None or link in known.failed:
        return None
    rows = zip(known.outcomes, known.clear, strict=True)
    return None if all(is_settled(*row, links=search.ratios) for row in rows) else link


def _even_ratios(low: float, high: float, num: int) -> tuple[float, ...]:
    """`num` ratios from low, which a chain prunes to first unless it is 0, to high."""
    if low == 0.0 or num == 1:
        return even_steps(low if num > 1 else 0.0, high, num)
    return (low, *even_steps(low, high, num - 1))
