"""A sweep as curves, and the probes to run next. Pure: results in, probes out, no memory and no clock."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from raypruning.core.budgets import Verdict, next_budget, verdict
from raypruning.core.identity import make_training
from raypruning.core.potential import Threshold, clear_failures, outcomes_by_ratio, potential
from raypruning.core.records import (
    DENSE,
    Curve,
    Gradual,
    Mask,
    MethodChoice,
    Potential,
    Probe,
    ProbeResult,
    SearchSpec,
    SweepSpec,
    Task,
    Training,
)
from raypruning.core.search.chain import chain_links, chain_search
from raypruning.core.search.grids import Link
from raypruning.core.search.strategy import Known, Loss, TaskLosses, strategy

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

    @property
    def weighs_losses(self) -> bool:
        """Whether the search looks at how large a loss is and how sure, and not only at which side of delta it lies."""
        return self.search.strategy == "model"

    @functools.cached_property
    def curves(self) -> tuple[Curve, ...]:
        """The pruned curves, seeds innermost, so that all seeds of a method advance together."""
        spec = self.spec
        return tuple(
            self._curve(method.label, budget=budget, seed=seed)
            for budget, method, seed in itertools.product(spec.budgets, spec.methods, spec.seeds)
        )

    @property
    def has_snapshots(self) -> bool:
        """Whether what retrains for the largest budget passes through the networks of the smaller ones.

        Not in a chain, whose links begin from those of their own budget, nor where pruning is spread over the budget.
        """
        spec = self.spec
        return len(spec.budgets) > 1 and spec.recipe.is_anytime and spec.schedule.kind == "one_shot"

    def snapshots(self, probe: Probe) -> tuple[Training, ...]:
        """Trainings of smaller budgets that a probe of the largest passes through, the shortest first; else none."""
        training = probe.training
        if not self.has_snapshots or probe.curve.budget < max(self.spec.budgets):
            return ()
        return tuple(
            self._training(
                training.seed,
                epochs=budget,
                mask=training.mask,
                start=training.start,
                rewind_epochs=training.rewind_epochs,
            )
            for budget in sorted(self.spec.budgets)[:-1]
            if budget > 0 or training.mask is not None  # The parent itself is what a control begins from.
        )

    def lead(self, curve: Curve) -> Curve | None:
        """The curve of the largest budget, at whose ratios a curve has snapshots; None if it has none."""
        largest = max(self.spec.budgets)
        if not self.has_snapshots or curve.budget == largest:
            return None
        return curve.model_copy(update={"budget": largest})

    def parent(self, seed: int) -> Probe:
        """The dense network of a seed: what its pruned networks are compared with, and start from as a rule."""
        if seed not in self._known_parents:
            training = self._training(seed, epochs=self.spec.recipe.epochs)
            self._known_parents[seed] = self._probe(self._curve(DENSE, budget=0, seed=seed), 0.0, training)
        return self._known_parents[seed]

    def controls(self, seed: int) -> tuple[Probe, ...]:
        """Dense networks that train as long as the pruned ones of each budget do in all.

        The parent retrained without pruning; for pruning from scratch one trained from scratch, unless that is the
        parent.
        """
        if seed not in self._known_controls:
            self._known_controls[seed] = self._controls(seed)
        return self._known_controls[seed]

    def _controls(self, seed: int) -> tuple[Probe, ...]:
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

    # What is pure is computed once: a driver asks for all of it whenever a probe ends, and there may be thousands.

    @functools.cached_property
    def _known_parents(self) -> dict[int, Probe]:
        return {}

    @functools.cached_property
    def _known_controls(self) -> dict[int, tuple[Probe, ...]]:
        return {}

    @functools.cached_property
    def known_walks(self) -> dict[Curve, _Replayed]:
        """The last walk of each curve, and what it looked at."""
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
    """How far the search on one curve got: the probes it asked for, and those of its present round without a result.

    Attributes:
        waits: for the search on the curve of the largest budget.
    """

    curve: Curve
    asked: tuple[Probe, ...]
    missing: tuple[Probe, ...]
    hit_limit: bool = False
    waits: bool = False

    @property
    def is_finished(self) -> bool:
        """True when nothing is left to ask."""
        return not self.missing and not self.waits


class _Replayed(NamedTuple):
    """A walk, and all that it depends on."""

    seen: tuple[tuple[str, ProbeResult | None], ...]
    lead: Walk | None
    walk: Walk

    def holds(self, results: Results, lead: Walk | None) -> bool:
        """Whether it would come out the same."""
        return lead is self.lead and all(results.get(key) is result for key, result in self.seen)


def walk(plan: Plan, curve: Curve, results: Results) -> Walk:
    """Replay the search on one curve against the results, round by round, until one is missing.

    Only probes that the search itself asks for are looked at: what else `results` holds changes nothing. Where the
    curve of the largest budget leaves snapshots, its ratios are the first round of a smaller budget's search.
    """
    lead = plan.lead(curve)
    return _walk(plan, curve, results, lead=None if lead is None else _walk(plan, lead, results, lead=None))


def _walk(plan: Plan, curve: Curve, results: Results, *, lead: Walk | None) -> Walk:
    """As it was, where nothing that it looks at has changed."""
    known = plan.known_walks.get(curve)
    if known is None or not known.holds(results, lead):
        found = _replay(plan, curve, results, lead=lead)
        looked_at = (plan.parent(curve.seed).id, *(probe.id for probe in found.asked))
        known = _Replayed(tuple((key, results.get(key)) for key in looked_at), lead, found)
        plan.known_walks[curve] = known
    return known.walk


def _replay(plan: Plan, curve: Curve, results: Results, *, lead: Walk | None) -> Walk:
    parent = results.get(plan.parent(curve.seed).id)
    if parent is None or not parent.is_done:
        return Walk(curve=curve, asked=(), missing=())
    if lead is not None and not lead.is_finished:
        return Walk(curve=curve, asked=(), missing=(), waits=True)
    next_ratios = strategy(plan.search.strategy)
    limit = plan.max_probes(curve)
    asked: list[Probe] = []
    given = tuple(probe.ratio for probe in lead.asked if results[probe.id].is_done) if lead else ()
    while True:
        known = [results[probe.id] for probe in asked]
        ratios = given if given and not asked else next_ratios(plan.search, _known(plan, known, parent))
        allowed = ratios if limit is None else ratios[: limit - len(asked)]
        missing = [probe for ratio in allowed if (probe := plan.pruned(curve, ratio)).id not in results]
        asked += [plan.pruned(curve, ratio) for ratio in allowed]
        if missing or not allowed:
            return Walk(curve=curve, asked=tuple(asked), missing=tuple(missing), hit_limit=bool(ratios) and not allowed)


def walks(plan: Plan, results: Results) -> dict[Curve, Walk]:
    """How far the search got on each curve, in the order of the plan.

    A search over budgets leaves out the curves that its answer does not need.
    """
    groups: dict[tuple[str, int], dict[int, Curve]] = {}
    for curve in plan.curves:
        groups.setdefault((curve.method, curve.seed), {})[curve.budget] = curve
    walk_group = _search_budgets if plan.spec.search.budget_search else _walk_budgets
    found = {one.curve: one for curves in groups.values() for one in walk_group(plan, curves, results).values()}
    return {curve: found[curve] for curve in plan.curves if curve in found}


def _walk_budgets(plan: Plan, curves: Mapping[int, Curve], results: Results) -> dict[int, Walk]:
    """By budget: all curves of one method and seed."""
    found: dict[int, Walk] = {}
    for budget in sorted(curves, reverse=True):
        found[budget] = _walk(plan, curves[budget], results, lead=_lead(plan, curves[budget], found))
    return found


def _search_budgets(plan: Plan, curves: Mapping[int, Curve], results: Results) -> dict[int, Walk]:
    """By budget: the curves that the search over budgets asked for, one after the other."""
    found: dict[int, Walk] = {}
    potentials: dict[int, list[Potential]] = {}
    verdicts: dict[int, Verdict] = {}
    while (budget := next_budget(curves, verdicts)) is not None:
        one = _walk(plan, curves[budget], results, lead=_lead(plan, curves[budget], found))
        found[budget] = one
        if not one.is_finished:
            break
        potentials[budget] = _potentials(plan, one, results)
        verdicts[budget] = verdict(
            potentials[budget], potentials[max(curves)], distance=plan.spec.search.budget_distance
        )
    return found


def _lead(plan: Plan, curve: Curve, found: Mapping[int, Walk]) -> Walk | None:
    lead = plan.lead(curve)
    return None if lead is None else found[lead.budget]


def _potentials(plan: Plan, one: Walk, results: Results) -> list[Potential]:
    examples = {task.name: task.num_examples for task in plan.tasks}
    return [
        potential(
            one.curve,
            threshold,
            results=[results[probe.id] for probe in one.asked],
            dense=results.get(plan.parent(one.curve.seed).id),
            search=plan.search,
            num_examples=examples[threshold.task],
            is_cut_short=one.hit_limit,
        )
        for threshold in plan.thresholds
    ]


def _known(plan: Plan, results: Sequence[ProbeResult], parent: ProbeResult) -> Known:
    return Known(
        outcomes=tuple(outcomes_by_ratio(results, parent, threshold) for threshold in plan.thresholds),
        clear=tuple(clear_failures(results, parent, threshold) for threshold in plan.thresholds),
        failed={result.probe.ratio for result in results if not result.is_done},
        tasks=tuple(_losses(plan, task.name, results, parent) for task in plan.tasks) if plan.weighs_losses else (),
    )


def _losses(plan: Plan, task: str, results: Sequence[ProbeResult], parent: ProbeResult) -> TaskLosses:
    return TaskLosses(
        plan.spec.deltas,
        {
            result.probe.ratio: Loss(
                result.evaluations[task].error - parent.evaluations[task].error, result.standard_errors[task]
            )
            for result in results
            if result.is_done
        },
    )


def next_probes(plan: Plan, results: Results) -> tuple[Probe, ...]:
    """All probes that the sweep wants and has no result for: parents first, then controls, then each curve's round.

    A seed whose parent failed asks for nothing more: without it there is nothing to compare with.
    """
    parents = [plan.parent(seed) for seed in plan.spec.seeds]
    seeds = [p.curve.seed for p in parents if (known := results.get(p.id)) is not None and known.is_done]
    controls = [probe for seed in seeds for probe in _controls_due(plan, seed, results)]
    rounds = [one.missing for one in walks(plan, results).values()]
    # A curve's next probe before another curve's second: what is known grows evenly.
    interleaved = [probe for row in itertools.zip_longest(*rounds) for probe in row if probe is not None]
    return tuple(probe for probe in [*parents, *controls, *interleaved] if probe.id not in results)


def _controls_due(plan: Plan, seed: int, results: Results) -> tuple[Probe, ...]:
    """The longest control first where it leaves the others behind as snapshots."""
    controls = plan.controls(seed)
    if not plan.has_snapshots:
        return controls
    longest = max(controls, key=lambda probe: probe.training.epochs)
    return controls if longest.id in results else (longest,)


def asked_probes(plan: Plan, results: Results) -> tuple[Probe, ...]:
    """Every probe that the sweep asked for so far, in the order of the plan; those without a result included."""
    dense = [plan.parent(seed) for seed in plan.spec.seeds]
    dense += [probe for seed in plan.spec.seeds for probe in plan.controls(seed)]
    return (*dense, *(probe for one in walks(plan, results).values() for probe in one.asked))


def results_of(plan: Plan, curve: Curve, results: Results) -> Sequence[ProbeResult]:
    """The results of the probes that the search on one curve asked for, in the order they were asked."""
    return [results[probe.id] for probe in walk(plan, curve, results).asked if probe.id in results]
