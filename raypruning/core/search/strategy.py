"""What a search strategy is: a pure function from what is known of one curve to the next whole round of ratios."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

from raypruning.core.records import SearchSpec
from raypruning.errors import UnknownNameError, unknown_name_message

Outcomes = Mapping[float, bool]  # asked ratio -> within the threshold


class Loss(NamedTuple):
    """What a network loses on a task.

    Attributes:
        value: its error minus its parent's.
        standard_error: of that, over test images.
    """

    value: float
    standard_error: float


class TaskLosses(NamedTuple):
    """What the probes of one curve lose on one task, and the losses that are asked about.

    Attributes:
        by_ratio: asked ratio -> loss; a failed probe is not in it.
    """

    deltas: tuple[float, ...]
    by_ratio: Mapping[float, Loss]


class Known(NamedTuple):
    """What the probes of one curve have shown.

    Attributes:
        outcomes: of every (task, delta) threshold; a failed probe is in none.
        clear: of every threshold, asked ratios that are beyond it by more than noise.
        failed: asked ratios whose probe failed.
        tasks: the numbers behind the outcomes, for strategies that weigh them.
    """

    outcomes: tuple[Outcomes, ...]
    clear: tuple[Collection[float], ...]
    failed: Collection[float]
    tasks: tuple[TaskLosses, ...] = ()

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
    from raypruning.core.search.model import next_ratios as model

    strategies: dict[str, Strategy] = {"bisect": bisect, "chain": chain, "grid": grid, "model": model}
    if name not in strategies:
        raise UnknownNameError(unknown_name_message("search strategy", name, strategies))
    return strategies[name]


STRATEGY_NAMES = ("bisect", "chain", "grid", "model")
