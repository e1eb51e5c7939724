"""The answer of a sweep: potentials, excess errors and their intervals, from stored records and predictions."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple

import numpy as np

from raypruning.analysis.bootstrap import Resampler, interval_of, resampled_potentials
from raypruning.analysis.metrics import metric_of
from raypruning.core.excess import excess_errors
from raypruning.core.plan import Plan, Results, next_probes, results_of, walk
from raypruning.core.potential import Threshold, potential
from raypruning.core.records import (
    Cost,
    Curve,
    ExcessError,
    Potential,
    PotentialSummary,
    ProbeResult,
    SweepResults,
    SweepSpec,
    Task,
)
from raypruning.errors import SpecError, StoreError, unknown_name_message
from raypruning.runtime.dispatcher import stored_result
from raypruning.runtime.store import ObjectStore

SPEC_FILE, RUN_FILE = "spec.json", "run.json"


class SweepRecord(NamedTuple):
    """What a sweep's folder holds.

    Attributes:
        run: data_fingerprint, tasks, failed probes, wall_seconds, tracking_uri and the like.
    """

    spec: SweepSpec
    run: Mapping[str, Any]

    @property
    def plan(self) -> Plan:
        """The plan of the sweep as it was run."""
        tasks = tuple(Task.model_validate(task) for task in self.run["tasks"])
        return Plan(spec=self.spec, data_fingerprint=self.run["data_fingerprint"], tasks=tasks)

    @property
    def is_cleaned(self) -> bool:
        """Whether `clean` deleted probes that the search asked for, so that it cannot be walked again."""
        return bool(self.run.get("is_cleaned"))

    @property
    def failed(self) -> dict[str, ProbeResult]:
        """Probes that failed in the last run, by id."""
        results = [ProbeResult.model_validate(failed) for failed in self.run.get("failed", [])]
        return {result.probe.id: result for result in results}


def read_record(store: ObjectStore, name: str) -> SweepRecord:
    """A sweep's folder. Raises SpecError when there is none, with near names; StoreError when it is damaged."""
    spec, run = store.read_sweep_file(name, SPEC_FILE), store.read_sweep_file(name, RUN_FILE)
    if spec is None or run is None:
        raise SpecError(f"{unknown_name_message('sweep', name, store.sweep_names())} in {store.uri}")
    try:
        record = SweepRecord(SweepSpec.model_validate_json(spec), json.loads(run))
        _ = record.plan, record.failed  # What they are made of is there, or the record is damaged.
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = str(error).partition("\n")[0]
        raise StoreError(
            f"the record of the sweep {name} in {store.uri} is damaged ({reason}): "
            "the command that ran the sweep writes it anew and trains nothing that is stored"
        ) from error
    return record


def write_record(store: ObjectStore, plan: Plan, run: Mapping[str, Any]) -> None:
    """Put a sweep's spec and run into its folder."""
    tasks = [task.model_dump(mode="json") for task in plan.tasks]
    whole = {**run, "data_fingerprint": plan.data_fingerprint, "tasks": tasks}
    name = plan.spec.name
    store.write_sweep_file(name, SPEC_FILE, plan.spec.model_dump_json(indent=1).encode())
    store.write_sweep_file(name, RUN_FILE, json.dumps(whole, indent=1, default=str).encode())


def stored_results(store: ObjectStore, record: SweepRecord) -> dict[str, ProbeResult]:
    """The results a sweep has, by walking its search over the store; failures as the last run recorded them."""
    plan = record.plan
    failed = record.failed
    results: dict[str, ProbeResult] = {}
    while True:
        asked = next_probes(plan, results)
        found = [stored_result(store, probe, plan.tasks) or failed.get(probe.id) for probe in asked]
        new = {result.probe.id: result for result in found if result is not None}
        if not new:
            return results
        results |= new


def every_stored_result(store: ObjectStore, plan: Plan) -> dict[Curve, list[ProbeResult]]:
    """Per curve, all that the store holds of it, whichever sweep asked for it."""
    curves = {(curve.method, curve.budget, curve.seed): curve for curve in plan.curves}
    found: dict[Curve, list[ProbeResult]] = {curve: [] for curve in plan.curves}
    for training_id in store.training_ids():
        stored = store.training(training_id)
        if stored is None:
            continue
        training = stored.training
        mask = training.mask
        curve = curves.get((mask.method.label, training.epochs, training.seed)) if mask else None
        # Its id tells whether it is of this schedule, recipe and data, and not of a curve with the same label.
        probe = plan.pruned(curve, mask.ratio) if curve and mask else None
        if curve is None or probe is None or probe.id != training_id:
            continue
        result = stored_result(store, probe, plan.tasks)
        if result is not None:
            found[curve].append(result)
    return found


def collect(
    plan: Plan,
    results: Results,
    store: ObjectStore,
    *,
    run: Mapping[str, Any],
    all_probes: bool = False,
    searched: Plan | None = None,
) -> SweepResults:
    """Everything a report is made of.

    Args:
        results: of the probes the search asked for.
        run: of the sweep's record.
        all_probes: use everything the store knows of the curves, and not what this search asked for alone.
        searched: the plan that asked for the probes, when `plan` only reads them at other deltas.
    """
    if all_probes:
        by_curve: Mapping[Curve, Sequence[ProbeResult]] = every_stored_result(store, plan)
    else:
        by_curve = {curve: results_of(searched or plan, curve, results) for curve in plan.curves}
    parents = {seed: results.get(plan.parent(seed).id) for seed in plan.spec.seeds}
    controls = [results[p.id] for seed in plan.spec.seeds for p in plan.controls(seed) if p.id in results]
    analysis = _Analysis(plan, store, by_curve, parents)
    potentials = analysis.potentials()
    probes = [result for result in parents.values() if result] + controls
    probes += [result for curve in plan.curves for result in by_curve[curve]]
    return SweepResults(
        spec=plan.spec,
        tasks=plan.tasks,
        data_fingerprint=plan.data_fingerprint,
        probes=tuple(probes),
        potentials=potentials,
        summaries=analysis.summaries(potentials),
        excess_errors=analysis.excess_errors(),
        cost=_cost(probes, run=run),
        storage=store.uri,
        tracking_uri=run.get("tracking_uri") or "",
        experiment_url=run.get("experiment_url") or "",
        warnings=tuple(_warnings(searched or plan, results, run=run)),
        versions=_versions(),
    )


class _Analysis:
    """Potentials and excess errors of a plan, reading each network's predictions on a task once."""

    def __init__(
        self,
        plan: Plan,
        store: ObjectStore,
        by_curve: Mapping[Curve, Sequence[ProbeResult]],
        parents: Mapping[int, ProbeResult | None],
    ) -> None:
        self._plan, self._store, self._by_curve, self._parents = plan, store, by_curve, parents
        self._tasks = {task.name: task for task in plan.tasks}
        self._networks = {
            result.probe.id: result
            for results in (*by_curve.values(), parents.values())
            for result in results
            if result is not None and result.is_done
        }
        self._resampler = Resampler()
        self._errors: dict[str, dict[str, np.ndarray]] = {}
        self._resampled: dict[tuple[Curve, Threshold], np.ndarray] = {}

    def potentials(self) -> tuple[Potential, ...]:
        """One for each curve, task and delta."""
        found = []
        for curve in self._plan.curves:
            results, dense = self._by_curve[curve], self._parents[curve.seed]
            for threshold in self._plan.thresholds:
                one = potential(
                    curve,
                    threshold,
                    results=results,
                    dense=dense,
                    search=self._plan.search,
                    num_examples=self._tasks[threshold.task].num_examples,
                )
                found.append(self._with_interval(one, threshold, results, dense))
        return tuple(found)

    def summaries(self, potentials: Iterable[Potential]) -> tuple[PotentialSummary, ...]:
        """Potentials over seeds."""
        groups: dict[tuple[str, str, int, float], list[Potential]] = {}
        for one in potentials:
            groups.setdefault((one.curve.method, one.task, one.curve.budget, one.delta), []).append(one)
        return tuple(self._summary(group) for group in groups.values())

    def excess_errors(self) -> tuple[ExcessError, ...]:
        """One for each measured probe and shifted task."""
        found = []
        for curve in self._plan.curves:
            dense = self._parents[curve.seed]
            for result in self._by_curve[curve]:
                if dense is None or not (result.is_done and dense.is_done):
                    continue
                for one in excess_errors(result, dense, tasks=self._plan.tasks):
                    lost_R = {
                        name: self._errors_R(result, name) - self._errors_R(dense, name)
                        for name in (one.task, one.nominal)
                    }
                    interval = interval_of(lost_R[one.task] - lost_R[one.nominal])
                    found.append(one.model_copy(update={"interval": interval}))
        return tuple(found)

    def _with_interval(
        self, one: Potential, threshold: Threshold, results: Sequence[ProbeResult], dense: ProbeResult | None
    ) -> Potential:
        done = [result for result in results if result.is_done]
        if dense is None or not dense.is_done or not done:
            return one
        task = self._tasks[threshold.task]
        samples = resampled_potentials(
            np.stack([self._errors_R(result, task.name) for result in done], axis=1),
            self._errors_R(dense, task.name),
            [result.ratio_reached for result in done],
            delta=threshold.delta,
            num_images=task.num_examples,
            counts=metric_of(task.metric).counts,
        )
        self._resampled[one.curve, threshold] = samples
        return one.model_copy(update={"interval": interval_of(samples)})

    def _summary(self, group: Sequence[Potential]) -> PotentialSummary:
        first = group[0]
        known = [one.ratio for one in group if one.ratio is not None]
        key = Threshold(first.task, first.delta)
        samples = [self._resampled[one.curve, key] for one in group if (one.curve, key) in self._resampled]
        return PotentialSummary(
            method=first.curve.method,
            task=first.task,
            budget=first.curve.budget,
            delta=first.delta,
            n=len(group),
            num_known=len(known),
            mean=float(np.mean(known)) if known else None,
            sd=float(np.std(known, ddof=1)) if len(known) > 1 else None,
            low=min(known, default=None),
            high=max(known, default=None),
            interval=interval_of(np.mean(samples, axis=0)) if samples else None,
            num_at_top=sum(one.status == "at_top" for one in group),
            num_open=sum(one.status == "open" for one in group),
            num_not_monotone=sum(one.status == "not_monotone" for one in group),
        )

    def _errors_R(self, result: ProbeResult, task_name: str) -> np.ndarray:
        """A network's error on a task in each resample. All networks at once, for one product of matrices."""
        if task_name not in self._errors:
            task = self._tasks[task_name]
            predictions = [self._store.predictions(one.evaluations[task_name]) for one in self._networks.values()]
            errors_RP = self._resampler.errors(metric_of(task.metric), predictions, images=task.images)
            self._errors[task_name] = dict(zip(self._networks, errors_RP.T, strict=True))
        return self._errors[task_name][result.probe.id]


def _cost(probes: Sequence[ProbeResult], *, run: Mapping[str, Any]) -> Cost:
    seconds: dict[str, float] = {}
    for result in probes:
        for phase, value in result.seconds.items():
            seconds[phase] = seconds.get(phase, 0.0) + value
    done = [result for result in probes if result.is_done]
    return Cost(
        num_probes=len(probes),
        num_trained=int(run.get("num_trained", 0)),
        num_evaluated=sum(len(result.evaluations) for result in done),
        num_failed=sum(not result.is_done for result in probes),
        epochs=sum(result.probe.training.epochs for result in done),
        seconds=seconds,
        wall_seconds=float(run.get("wall_seconds", 0.0)),
    )


def _warnings(plan: Plan, results: Results, *, run: Mapping[str, Any]) -> Iterable[str]:
    """What only the search knows; the report adds what the records show by themselves."""
    if run.get("is_cleaned"):
        yield "prune-cli clean deleted networks of this sweep: what is left of its probes is shown"
    hit = [curve.label for curve in plan.curves if walk(plan, curve, results).hit_limit]
    if hit:
        yield f"limits.max_probes = {plan.spec.limits.max_probes} ended the search early on {len(hit)} curves"


def _versions() -> dict[str, str]:
    found = {}
    for package in ("raypruning", "torch", "torchvision", "ray", "mlflow", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def with_deltas(record: SweepRecord, deltas: Sequence[float]) -> SweepRecord:
    """The same sweep read at other deltas. What its search did not ask for stays open."""
    if not deltas:
        return record
    if not all(0 < delta < 1 for delta in deltas):
        raise SpecError(f"delta must be in (0, 1), got {', '.join(map(str, deltas))}; write 0.005 for half a point")
    return record._replace(spec=record.spec.model_copy(update={"deltas": tuple(deltas)}))
