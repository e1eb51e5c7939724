"""A sweep as curves, and the probes to run next. Pure: results in, probes out, no memory and no clock."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence

from raypruning.core.identity import make_training
from raypruning.core.potential import Threshold, outcomes_by_ratio
from raypruning.core.records import DENSE, Curve, Mask, Probe, ProbeResult, SearchSpec, SweepSpec, Task
from raypruning.core.search.axis import position, width
from raypruning.core.search.grid import grid_ratios
from raypruning.core.search.strategy import strategy

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

    @property
    def curves(self) -> tuple[Curve, ...]:
        """The pruned curves, seeds innermost, so that all seeds of a method advance together."""
        spec = self.spec
        return tuple(
            self._curve(method.name, budget=budget, seed=seed)
            for budget, method, seed in itertools.product(spec.budgets, spec.methods, spec.seeds)
        )

    def parent(self, seed: int) -> Probe:
        """The dense network of a seed: what its pruned networks start from and are compared with."""
        return self._probe(self._curve(DENSE, budget=0, seed=seed), ratio=0.0)

    def controls(self, seed: int) -> tuple[Probe, ...]:
        """The parent retrained without pruning, one for each budget: pruned networks train longer than their parent."""
        budgets = (budget for budget in self.spec.budgets if budget > 0)
        return tuple(self._probe(self._curve(DENSE, budget=budget, seed=seed), ratio=0.0) for budget in budgets)

    def pruned(self, curve: Curve, ratio: float) -> Probe:
        """The probe of a pruned curve at a ratio."""
        return self._probe(curve, ratio=ratio)

    def max_probes(self, curve: Curve) -> int | None:
        """This curve's share of the sweep's limit: even, the first curves taking what is left over."""
        limit = self.spec.limits.max_probes
        if limit is None:
            return None
        share, rest = divmod(limit, len(self.curves))
        return share + (self.curves.index(curve) < rest)

    def _curve(self, method: str, *, budget: int, seed: int) -> Curve:
        spec = self.spec
        return Curve(
            model=spec.model.name,
            dataset=spec.data.name,
            method=method,
            schedule=spec.schedule,
            budget=budget,
            seed=seed,
        )

    def _probe(self, curve: Curve, *, ratio: float) -> Probe:
        spec = self.spec
        is_parent = curve.is_dense and curve.budget == 0
        method = next((method for method in spec.methods if method.name == curve.method), None)
        training = make_training(
            model=spec.model,
            data=spec.data,
            data_fingerprint=self.data_fingerprint,
            recipe=spec.recipe,
            epochs=spec.recipe.epochs if is_parent else curve.budget,
            seed=curve.seed,
            mask=Mask(method=method, ratio=ratio) if method else None,
            start=None if is_parent else self.parent(curve.seed).id,
        )
        return Probe(curve=curve, ratio=ratio, training=training)


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
    next_ratios = strategy(plan.spec.search.strategy)
    limit = plan.max_probes(curve)
    asked: list[Probe] = []
    while True:
        known = [results[probe.id] for probe in asked]
        failed = {result.probe.ratio for result in known if not result.is_done}
        thresholds = [outcomes_by_ratio(known, parent, threshold) for threshold in plan.thresholds]
        ratios = next_ratios(plan.spec.search, thresholds, failed)
        allowed = ratios if limit is None else ratios[: limit - len(asked)]
        missing = [probe for ratio in allowed if (probe := plan.pruned(curve, ratio)).id not in results]
        asked += [plan.pruned(curve, ratio) for ratio in allowed]
        if missing or not allowed:
            return Walk(curve=curve, asked=tuple(asked), missing=tuple(missing), hit_limit=bool(ratios) and not allowed)


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
    search = plan.spec.search
    if search.strategy == "grid":
        each = len(grid_ratios(search))
    else:
        each = _max_bisections(search, num_thresholds=len(plan.thresholds))
    limits = [plan.max_probes(curve) for curve in plan.curves]
    return sum(each if limit is None else min(each, limit) for limit in limits)


def _max_bisections(search: SearchSpec, *, num_thresholds: int) -> int:
    """A bound on the probes of one curve, none of which fails."""
    num_widths = (position(search.high) - position(search.low)) / width(search.resolution)
    if num_widths <= 1:
        return 2  # Both ends, and nothing to cut between them.
    k = search.probes_per_round
    # n cuts at once divide a bracket by n + 1, so that halvings are dearest at n = k; the last round may overshoot.
    cuts = math.ceil(math.log2(num_widths) * k / math.log2(k + 1)) - 1 + k
    # Halves of halves; in general, no piece is smaller than a (k + 1)th of a bracket that was still to be cut.
    num_pieces = 2 ** math.ceil(math.log2(num_widths)) if k == 1 else math.ceil(num_widths * (k + 1)) - 1
    return min((cuts + 1) * num_thresholds, num_pieces + 1)


def results_of(plan: Plan, curve: Curve, results: Results) -> Sequence[ProbeResult]:
    """The results of the probes that the search on one curve asked for, in the order they were asked."""
    return [results[probe.id] for probe in walk(plan, curve, results).asked if probe.id in results]
