"""Which tasks, curves and populations of a sweep a command is about: from flags to what the sweep has."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

from raypruning.core.populations import Population, pruned_populations
from raypruning.core.records import Curve, MethodChoice, SweepResults, SweepSpec
from raypruning.core.spec import expanded
from raypruning.errors import SpecError, unknown_name_message

_WILDCARDS = "*?["


class Wanted(NamedTuple):
    """Methods, budgets and seeds; an empty field means all."""

    methods: frozenset[str] = frozenset()
    budgets: frozenset[int] = frozenset()
    seeds: frozenset[int] = frozenset()

    @classmethod
    def of(
        cls, spec: SweepSpec, *, methods: Sequence[str] = (), budgets: Sequence[int] = (), seeds: Sequence[int] = ()
    ) -> Wanted:
        """From what was typed. Raises SpecError for what the sweep does not have, with what it has."""
        # The parameters of a method may be typed in any order.
        typed = expanded({"methods": list(methods)})["methods"]
        labels = [MethodChoice.model_validate(one).label for one in typed]
        for kind, asked, offered in (
            ("method", labels, [one.label for one in spec.methods]),
            ("budget", budgets, spec.budgets),
            ("seed", seeds, spec.seeds),
        ):
            for one in asked:
                if one not in offered:
                    has = ", ".join(map(str, offered))
                    raise SpecError(f"the sweep {spec.name} has no {kind} {one}: it has {has}")
        return cls(frozenset(labels), frozenset(budgets), frozenset(seeds))

    def includes(self, curve: Curve) -> bool:
        """Whether a curve is one of those."""
        return (
            (not self.methods or curve.method in self.methods)
            and (not self.budgets or curve.budget in self.budgets)
            and (not self.seeds or curve.seed in self.seeds)
        )


def chosen_tasks(patterns: Sequence[str], known: Sequence[str], *, sweep: str) -> tuple[str, ...]:
    """Names of tasks, in the order of the sweep; all of them without a pattern.

    Raises: SpecError: a name or pattern that no task has, with those there are.
    """
    names = set(() if patterns else known)
    for pattern in patterns:
        is_pattern = pattern not in known and any(character in pattern for character in _WILDCARDS)
        found = [name for name in known if (fnmatchcase(name, pattern) if is_pattern else name == pattern)]
        if not found and is_pattern:
            some = ", ".join(known if len(known) <= 5 else [*known[:5], "..."])
            raise SpecError(f"no task of the sweep {sweep} matches {pattern!r}: it has {some}")
        if not found:
            raise SpecError(f"{unknown_name_message('task', pattern, known)} in the sweep {sweep}")
        names.update(found)
    return tuple(name for name in known if name in names)


def chosen_populations(
    results: SweepResults, *, methods: Sequence[str] = (), budgets: Sequence[int] = (), ratios: Sequence[float] = ()
) -> tuple[Population, ...]:
    """Pruned populations, of every method, budget and ratio that is not narrowed down; at least one.

    Raises: SpecError: the sweep has none like that, with what it has.
    """
    name = results.spec.name
    wanted = Wanted.of(results.spec, methods=methods, budgets=budgets)
    curves = [one for one in pruned_populations(results) if wanted.includes(one.networks[0].probe.curve)]
    if not curves:
        raise SpecError(f"no pruned network that this asks for was measured in the sweep {name}: run it first")
    offered = sorted({one.ratio for one in curves})
    for ratio in ratios:
        if ratio not in offered:
            has = ", ".join(f"{one:g}" for one in offered)
            raise SpecError(f"the sweep {name} has no ratio {ratio:g}: it has {has}")
    return tuple(one for one in curves if not ratios or one.ratio in ratios)
