"""What a search strategy is: a pure function from what is known of one curve to the next whole round of ratios."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from raypruning.core.records import SearchSpec
from raypruning.errors import UnknownNameError, unknown_name_message

Outcomes = Mapping[float, bool]  # asked ratio -> within the threshold

# (search, outcomes of every (task, delta) threshold, asked ratios whose probe failed) -> ratios to ask for; none: done
Strategy = Callable[[SearchSpec, Collection[Outcomes], Collection[float]], tuple[float, ...]]


def strategy(name: str) -> Strategy:
    """The strategy of that name. Raises UnknownNameError."""
    from raypruning.core.search.bisect import next_ratios as bisect
    from raypruning.core.search.grid import next_ratios as grid

    strategies: dict[str, Strategy] = {"bisect": bisect, "grid": grid}
    if name not in strategies:
        raise UnknownNameError(unknown_name_message("search strategy", name, strategies))
    return strategies[name]


STRATEGY_NAMES = ("bisect", "grid")
