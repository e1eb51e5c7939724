"""Ask for every ratio of a given list, whatever comes out: the paper's way."""

from __future__ import annotations

from raypruning.core.records import SearchSpec
from raypruning.core.search.axis import position, ratio_at
from raypruning.core.search.strategy import Known

DEFAULT_POINTS = 12


def grid_ratios(search: SearchSpec) -> tuple[float, ...]:
    """The ratios given, or twelve from low to high that are evenly spaced in the logarithm of what is kept."""
    if search.ratios:
        return tuple(sorted(set(search.ratios)))
    begin, end = position(search.low), position(search.high)
    # A set, because neighbours in a range of a few millionths round to the same ratio.
    points = {ratio_at(begin + (end - begin) * i / (DEFAULT_POINTS - 1)) for i in range(DEFAULT_POINTS)}
    return tuple(sorted(points - {0.0}))  # The parent is known.


def next_ratios(search: SearchSpec, known: Known) -> tuple[float, ...]:
    """All ratios of the grid that were not asked yet: one round holds them all."""
    asked = known.asked
    return tuple(ratio for ratio in grid_ratios(search) if ratio not in asked)
