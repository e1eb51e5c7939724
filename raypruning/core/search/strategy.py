"""What a search strategy is: a pure function from what is known of one curve to the next whole round of ratios."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

from raypruning.core.records import SearchSpec
from raypruning.errors import UnknownNameError, unknown_name_message

Outcomes = Mapping[float, bool]  # asked ratio -> within the threshold


class Known(NamedTuple):
    """What the probes of one curve have shown.

    Attributes:
        outcomes: of every (task, delta) threshold; a failed probe is in none.
        clear: of every threshold, asked ratios that are beyond it by more than noise.
        failed: asked ratios whose probe failed.
    """

    outcomes: tuple[Outcomes, ...]
    clear: tuple[Collection[float], ...]
    failed: Collection[float]

    @property
    def asked(self) -> set[float]:
        """All ratios that there is a result of."""
        return {ratio for outcomes in self.outcomes for ratio in outcomes} | set(self.failed)


# What is known -> ratios to ask for; none: done.
Strategy = Callable[[SearchSpec, Known], tuple[float, ...]]


def strategy(name: str) -> Strategy:
    """The strategy of that name. Raises UnknownNameError."""
    from raypruning.core.search.bisect import next_ratios as bisect
    from raypruning.core.search.chain import next_ratios as chain
    from raypruning.core.search.grid import next_ratios as grid

    strategies: dict[str, Strategy] = {"bisect": bisect, "chain": chain, "grid": grid}
    if name not in strategies:
        raise UnknownNameError(unknown_name_message("search strategy", name, strategies))
    return strategies[name]


STRATEGY_NAMES = ("bisect", "chain", "grid")
