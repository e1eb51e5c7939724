"""A sweep as curves, and the probes to run next. Pure: results in, probes out, no memory and no clock."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from raypruning.core.identity import make_training
from raypruning.core.potential import Threshold, clear_failures, outcomes_by_ratio
from raypruning.core.records import (
    DENSE,
    Curve,
    Gradual,
    Mask,
    MethodChoice,
    Probe,
    ProbeResult,
    SearchSpec,
    SweepSpec,
    Task,
    Training,
)
from raypruning.core.search.axis import position, width
from raypruning.core.search.chain import chain_links, chain_search
from raypruning.core.search.grid import grid_ratios
from raypruning.core.search.grids import Link
from raypruning.core.search.strategy import Known, strategy

Results = Mapping[str, ProbeResult]  # probe id -> what came of it, done or failed


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """A spec with what only the data can tell: its fingerprint, and the tasks as records."""

    spec: SweepSpec
    data_fingerprint: str
    tasks: tuple[Task, ...]

    @property
    def thresholds(self) -> tuple[Threshold, ...]:
        """Every (task, delta), tasks first."""
        return tuple(Threshold(task.name, delta) for task in self.tasks for delta in self.spec.deltas)

    @functools.cached_property
    def links(self) -> tuple[Link, ...]:
        """Of an iterative schedule; none of another."""
        return chain_links(self.spec.schedule, self.spec.search)

    @functools.cached_property
    def search(self) -> SearchSpec:
        """What is searched: as the spec has it, or the range and the links of a chain."""
        return chain_search(self.links, self.spec.search) if self.links else self.spec.search

    @functools.cached_property
    def curves(self) -> tuple[Curve, ...]:
        """The pruned curves, seeds innermost, so that all seeds of a method advance together."""
        spec = self.spec
        return tuple(
            self._curve(method.label, budget=budget, seed=seed)
            for budget, method, seed in itertools.product(spec.budgets, spec.methods, spec.seeds)
        )

    def parent(self, seed: int) -> Probe:
        """The dense network of a seed: what its pruned networks are compared with, and start from as a rule."""
        epochs = self.spec.recipe.epochs
        return self._probe(self._curve(DENSE, budget=0, seed=seed), 0.0, self._training(seed, epochs=epochs))

    def controls(self, seed: int) -> tuple[Probe, ...]:
        """Dense networks that train as long as the pruned ones of each budget do in all.

        The parent retrained without pruning; for pruning from scratch one trained from scratch, unless that is the
        parent.
        """
        is_from_scratch = self.spec.schedule.from_scratch
        parent = self.parent(seed)
        start = None if is_from_scratch else parent.id
        probes = (
            self._probe(
                self._curve(DENSE, budget=budget, seed=seed), 0.0, self._training(seed, epochs=budget, start=start)
            )
            for budget in self.spec.budgets
            if budget > 0
        )
        return tuple(probe for probe in probes if probe.id != parent.id)

    def pruned(self, curve: Curve, ratio: float) -> Probe:
        """The probe of a pruned curve at a ratio: in a chain a link if there is one at that ratio, else a branch."""
        key = (curve, ratio)
        if key not in self._known_probes:
            self._known_probes[key] = self._chained(curve, ratio) if self.links else self._unchained(curve, ratio)
        return self._known_probes[key]

    def max_probes(self, curve: Curve) -> int | None:
        """This curve's share of the sweep's limit: even, the first curves taking what is left over."""
        limit = self.spec.limits.max_probes
        if limit is None:
            return None
        share, rest = divmod(limit, len(self.curves))
        return share + (self.curves.index(curve) < rest)

    @functools.cached_property
    def _known_probes(self) -> dict[tuple[Curve, float], Probe]:
        """Made once each: the id of a link hashes all links before it."""
        return {}

    def _chained(self, curve: Curve, ratio: float) -> Probe:
        """A link begins from the one before, a branch from the largest one below; the first of them from the parent."""
        start = self.parent(curve.seed)
        for link in self.links:
            if link.ratio >= ratio:
                break
            start = self.pruned(curve, link.ratio)
        nearest = next((link for link in self.links if link.ratio >= ratio), None)
        # A branch prunes as the link that it stands in for, and stops short of it.
        via = tuple(step for step in nearest.via if step < ratio) if nearest else ()
        mask = Mask(method=self._method(curve), ratio=ratio, via=via)
        training = self._training(
            curve.seed,
            epochs=curve.budget,
            mask=mask,
            start=start.id,
            rewind_epochs=self.spec.schedule.rewind_epochs,
        )
        return self._probe(curve, ratio, training, place="link" if nearest and nearest.ratio == ratio else "branch")

    def _unchained(self, curve: Curve, ratio: float) -> Probe:
        schedule = self.spec.schedule
        gradual = Gradual(begin=schedule.begin, end=schedule.end, frequency=schedule.frequency)
        training = self._training(
            curve.seed,
            epochs=curve.budget,
            mask=Mask(method=self._method(curve), ratio=ratio),
            start=None if schedule.from_scratch else self.parent(curve.seed).id,
            rewind_epochs=schedule.rewind_epochs,
            gradual=gradual if schedule.kind == "gradual" else None,
        )
        return self._probe(curve, ratio, training)

    def _method(self, curve: Curve) -> MethodChoice:
        return next(method for method in self.spec.methods if method.label == curve.method)

    def _curve(self, method: str, *, budget: int, seed: int) -> Curve:
        spec = self.spec
        return Curve(
            model=spec.model.name,
            dataset=spec.data.name,
            method=method,
            schedule=spec.schedule.kind,
            budget=budget,
            seed=seed,
        )

    def _training(self, seed: int, **changes: Any) -> Training:
        spec = self.spec
        return make_training(
            model=spec.model,
            data=spec.data,
            data_fingerprint=self.data_fingerprint,
            recipe=spec.recipe,
            seed=seed,
            **changes,
        )

    def _probe(
        self, curve: Curve, ratio: float, training: Training, *, place: Literal["link", "branch"] | None = None
    ) -> Probe:
        return Probe(curve=curve, ratio=ratio, training=training, place=place)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Walk:
    """How far the search on one curve got: the probes it asked for, and those of its present round without a result."""

    curve: Curve
    asked: tuple[Probe, ...]
    missing: tuple[Probe, ...]
    hit_limit: bool = False

    @property
    def is_finished(self) -> bool:
        """True when nothing is left to ask."""
        return not self.missing


def walk(plan: Plan, curve: Curve, results: Results) -> Walk:
    """Replay the search on one curve against the results, round by round, until one is missing.

    Only probes that the search itself asks for are looked at: what else `results` holds changes nothing.
    """
    parent = results.get(plan.parent(curve.seed).id)
    if parent is None or not parent.is_done:
        return Walk(curve=curve, asked=(), missing=())
    next_ratios = strategy(plan.search.strategy)
    limit = plan.max_probes(curve)
    asked: list[Probe] = []
    while True:
        known = [results[probe.id] for probe in asked]
        ratios = next_ratios(plan.search, _known(plan, known, parent))
        allowed = ratios if limit is None else ratios[: limit - len(asked)]
        missing = [probe for ratio in allowed if (probe := plan.pruned(curve, ratio)).id not in results]
        asked += [plan.pruned(curve, ratio) for ratio in allowed]
        if missing or not allowed:
            return Walk(curve=curve, asked=tuple(asked), missing=tuple(missing), hit_limit=bool(ratios) and not allowed)


def _known(plan: Plan, results: Sequence[ProbeResult], parent: ProbeResult) -> Known:
    return Known(
        outcomes=tuple(outcomes_by_ratio(results, parent, threshold) for threshold in plan.thresholds),
        clear=tuple(clear_failures(results, parent, threshold) for threshold in plan.thresholds),
        failed={result.probe.ratio for result in results if not result.is_done},
    )


def next_probes(plan: Plan, results: Results) -> tuple[Probe, ...]:
    """All probes that the sweep wants and has no result for: parents first, then controls, then each curve's round.

    A seed whose parent failed asks for nothing more: without it there is nothing to compare with.
    """
    parents = [plan.parent(seed) for seed in plan.spec.seeds]
    seeds = [p.curve.seed for p in parents if (known := results.get(p.id)) is not None and known.is_done]
    controls = [probe for seed in seeds for probe in plan.controls(seed)]
    rounds = [walk(plan, curve, results).missing for curve in plan.curves if curve.seed in seeds]
    # A curve's next probe before another curve's second: what is known grows evenly.
    interleaved = [probe for row in itertools.zip_longest(*rounds) for probe in row if probe is not None]
    return tuple(probe for probe in [*parents, *controls, *interleaved] if probe.id not in results)


def asked_probes(plan: Plan, results: Results) -> tuple[Probe, ...]:
    """Every probe that the sweep asked for so far, in the order of the plan; those without a result included."""
    dense = [plan.parent(seed) for seed in plan.spec.seeds]
    dense += [probe for seed in plan.spec.seeds for probe in plan.controls(seed)]
    return (*dense, *(probe for curve in plan.curves for probe in walk(plan, curve, results).asked))


def max_pruned_probes(plan: Plan) -> int:
    """A bound on the pruned probes of the whole sweep, for an estimate before it starts."""
    search, num_thresholds = plan.search, len(plan.thresholds)
    if search.strategy == "grid":
        each = len(grid_ratios(search))
    elif search.strategy == "chain":
        each = len(plan.links) + _max_branches(search, num_thresholds=num_thresholds)
    else:
        each = _max_bisections(search, num_thresholds=num_thresholds)
    limits = [plan.max_probes(curve) for curve in plan.curves]
    return sum(each if limit is None else min(each, limit) for limit in limits)


def _max_bisections(search: SearchSpec, *, num_thresholds: int) -> int:
    """A bound on the probes of one curve, none of which fails."""
    num_widths = _num_widths(search.low, search.high, search=search)
    if num_widths <= 1:
        return 2  # Both ends, and nothing to cut between them.
    per_threshold = _max_cuts(num_widths, search=search)
    return min((per_threshold + 1) * num_thresholds, _max_pieces(num_widths, search=search) + 1)


def _max_branches(search: SearchSpec, *, num_thresholds: int) -> int:
    """A bound on the branches of one chain: each threshold refines between two neighbouring links."""
    gaps = [_num_widths(a, b, search=search) for a, b in itertools.pairwise((0.0, *search.ratios))]
    wide = [gap for gap in gaps if gap > 1]
    if not wide:
        return 0
    per_threshold = _max_cuts(max(wide), search=search)
    return min(per_threshold * num_thresholds, sum(_max_pieces(gap, search=search) - 1 for gap in wide))


def _num_widths(low: float, high: float, *, search: SearchSpec) -> float:
    return (position(high) - position(low)) / width(search.resolution)


def _max_cuts(num_widths: float, *, search: SearchSpec) -> int:
    """A bound on the probes that bring one bracket of so many resolutions down to one."""
    k = search.probes_per_round
    # n cuts at once divide a bracket by n + 1, so that halvings are dearest at n = k; the last round may overshoot.
    return math.ceil(math.log2(num_widths) * k / math.log2(k + 1)) - 1 + k


def _max_pieces(num_widths: float, *, search: SearchSpec) -> int:
    """A bound on the pieces that any number of thresholds cut a range of so many resolutions into."""
    k = search.probes_per_round
    # Halves of halves; in general, no piece is smaller than a (k + 1)th of a bracket that was still to be cut.
    return int(2 ** math.ceil(math.log2(num_widths))) if k == 1 else math.ceil(num_widths * (k + 1)) - 1


def results_of(plan: Plan, curve: Curve, results: Results) -> Sequence[ProbeResult]:
    """The results of the probes that the search on one curve asked for, in the order they were asked."""
    return [results[probe.id] for probe in walk(plan, curve, results).asked if probe.id in results]
