"""Networks of a sweep that differ in their seed alone: what is said of one seed may be luck, of many it is the method.

Source: Hooker et al. 2019 ("What do compressed deep neural networks forget?"), who train 30 networks for each ratio.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from raypruning.core.records import DENSE, ProbeResult, SweepResults
from raypruning.errors import SpecError

# Seeds of one master seed: enough for any population, and a seed can be read.
SEEDS_PER_MASTER = 10_000


class Population(NamedTuple):
    """Networks of one method, budget and ratio, in the order of their seeds; at least one, each of another seed.

    Attributes:
        method: its label; `dense` for parents, whose budget and ratio are 0, and for retrained controls.
        ratio: as it was asked for; what was reached may differ a little from seed to seed.
    """

    method: str
    budget: int
    ratio: float
    networks: tuple[ProbeResult, ...]

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of the networks, ascending."""
        return tuple(one.probe.curve.seed for one in self.networks)

    @property
    def ratio_reached(self) -> float:
        """The mean of what came out."""
        return sum(one.ratio_reached for one in self.networks) / len(self.networks)


def seeds_of(num: int, *, master: int = 0) -> tuple[int, ...]:
    """The seeds of a population. Master seed 0 gives 0, 1, 2 and so on, and shares networks with any other sweep.

    Whatever is random in a training (initialisation, order, dropout, sample set) is derived from its seed and the role,
    see `identity.derive_seed`, and so from (master seed, index, role).

    Raises: SpecError: more than can be told apart, or none.
    """
    if not 1 <= num <= SEEDS_PER_MASTER:
        raise SpecError(f"a population has 1 to {SEEDS_PER_MASTER} seeds, got {num}")
    return tuple(master * SEEDS_PER_MASTER + index for index in range(num))


def dense_population(results: SweepResults) -> Population | None:
    """The parents that were measured; None if there is none."""
    parents = [one for one in results.probes if one.is_done and one.probe.curve.is_parent]
    return Population(DENSE, 0, 0.0, _by_seed(parents)) if parents else None


def pruned_populations(results: SweepResults) -> tuple[Population, ...]:
    """Of all pruned networks that were measured: methods and budgets in the order of the spec, ratios ascending."""
    groups: dict[tuple[str, int, float], list[ProbeResult]] = {}
    for one in results.probes:
        curve = one.probe.curve
        if one.is_done and not curve.is_dense:
            groups.setdefault((curve.method, curve.budget, one.probe.ratio), []).append(one)
    methods = [method.label for method in results.spec.methods]
    budgets = list(results.spec.budgets)
    order = sorted(groups, key=lambda key: (methods.index(key[0]), budgets.index(key[1]), key[2]))
    return tuple(Population(*key, _by_seed(groups[key])) for key in order)


def _by_seed(networks: Sequence[ProbeResult]) -> tuple[ProbeResult, ...]:
    return tuple(sorted(networks, key=lambda one: one.probe.curve.seed))


class PopulationNumber(NamedTuple):
    """A number that was found of a population, for whoever keeps numbers by name.

    Attributes:
        name: such as `pie_rate/noise/uniform/0.1`: a group of charts, and behind the first "/" a chart of it.
    """

    method: str
    budget: int
    ratio_reached: float
    name: str
    value: float


class Losses(NamedTuple):
    """What was lost, for whoever shows a sweep elsewhere.

    Attributes:
        files: pages and pictures, by name.
    """

    numbers: Sequence[PopulationNumber]
    files: Mapping[str, bytes]
