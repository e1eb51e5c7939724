"""What is known of one threshold: which ratios pass, which fail, and between which two the potential lies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from raypruning.core.records import SearchSpec
from raypruning.core.search.axis import position, width


class Bracket(NamedTuple):
    """Ratios asked for, between which the largest passing one lies.

    Attributes:
        low: the largest measured ratio that passes; 0, dense, if none does.
        high: the smallest measured ratio above it, which fails; the top of the search if there is none.
        is_high_measured: False when nothing above `low` was measured.
    """

    low: float
    high: float
    is_high_measured: bool


def bracket(outcomes: Mapping[float, bool], *, top: float) -> Bracket:
    """The bracket of a threshold from its outcomes so far.

    Args:
        outcomes: measured asked ratio -> whether its error is within the threshold. Failed probes are not in it.
        top: the largest ratio the search may ask for.

    Returns: the bracket above the *largest* passing ratio: the paper's potential is a maximum over measured ratios.
    """
    low = max((ratio for ratio, passes in outcomes.items() if passes), default=0.0)
    above = [ratio for ratio in outcomes if ratio > low]
    return Bracket(low, min(above), True) if above else Bracket(low, top, False)


def is_narrow(bracket: Bracket, *, resolution: float) -> bool:
    """Whether what its ends keep differs by at most `resolution` of the larger."""
    # One part in a million of slack: asked ratios are rounded to a millionth.
    return position(bracket.high) - position(bracket.low) <= width(resolution) * (1 + 1e-6) + 2e-6 / (1 - bracket.high)


def is_monotone(outcomes: Mapping[float, bool]) -> bool:
    """Whether no measured ratio fails below one that passes."""
    low = max((ratio for ratio, passes in outcomes.items() if passes), default=0.0)
    return all(passes for ratio, passes in outcomes.items() if ratio < low)


def missing_end(bracket: Bracket, *, search: SearchSpec) -> float | None:
    """The end of the range that decides a bracket which has shrunk against it."""
    if not bracket.is_high_measured and bracket.low < search.high:
        return search.high
    # Nothing in the range passes so far: is it the lowest ratio, or none at all?
    return search.low if bracket.low == 0.0 < search.low < bracket.high else None
