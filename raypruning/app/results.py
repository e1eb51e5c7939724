"""The answer of a sweep: potentials, excess errors and their intervals, from stored records and predictions."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict

from raypruning.app.analysis import Analysis
from raypruning.core.budgets import budget_choices
from raypruning.core.plan import Plan, Results, next_probes, walks
from raypruning.core.records import (
    BudgetChoice,
    Cost,
    Curve,
    Potential,
    Probe,
    ProbeResult,
    SweepResults,
    SweepSpec,
    Task,
)
from raypruning.errors import SpecError, StoreError, unknown_name_message
from raypruning.runtime.joined import stored_result, weighed
from raypruning.runtime.store import ObjectStore
from raypruning.runtime.untrusted import MAX_JSON_BYTES, parse_json

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


class _RunFile(BaseModel):
    """What of run.json is read, for its types: whoever can write to the storage wrote it."""

    model_config = ConfigDict(allow_inf_nan=False)

    data_fingerprint: str
    tasks: list[Task]
    failed: list[ProbeResult] = []
    asked: list[str] = []
    class_names: list[str] = []
    num_trained: int = 0
    wall_seconds: float = 0.0
    reached_limit: str | None = None
    tracking_uri: str | None = None
    experiment_url: str | None = None
    experiment_id: str | None = None


def read_record(store: ObjectStore, name: str) -> SweepRecord:
    """A sweep's folder. Raises SpecError when there is none, with near names; StoreError when it is damaged."""
    spec, run = (store.read_sweep_file(name, file, at_most=MAX_JSON_BYTES) for file in (SPEC_FILE, RUN_FILE))
    if spec is None or run is None:
        raise SpecError(f"{unknown_name_message('sweep', name, store.sweep_names())} in {store.uri}")
    try:
        record = SweepRecord(SweepSpec.model_validate(parse_json(spec)), parse_json(run))
        _RunFile.model_validate(record.run)
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


def stored_results(store: ObjectStore, record: SweepRecord, plan: Plan | None = None) -> dict[str, ProbeResult]:
    """The results a sweep has, by walking its search over the store; failures as the last run recorded them.

    Args:
        plan: the record's, for whoever has use for the walks that it keeps.
    """
    plan = plan or record.plan
    failed = record.failed
    results: dict[str, ProbeResult] = {}
    while True:
        asked = next_probes(plan, results)
        found = [_found(store, probe, results, plan=plan) or failed.get(probe.id) for probe in asked]
        new = {result.probe.id: result for result in found if result is not None}
        if not new:
            return results
        results |= new


def with_histories(results: Results, store: ObjectStore) -> dict[str, ProbeResult]:
    """Results as the store has them, for those that were kept without their epochs."""
    stored = {key: store.training(key) for key, result in results.items() if result.is_done}
    found = {key: one for key, one in stored.items() if one is not None}
    return {
        key: result.model_copy(update={"result": found[key]}) if key in found else result
        for key, result in results.items()
    }


def _found(store: ObjectStore, probe: Probe, results: Results, *, plan: Plan) -> ProbeResult | None:
    return weighed(stored_result(store, probe, plan.tasks), results, plan=plan, store=store)


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
    # Without the curves that a search over budgets had no need of: nothing of them is open.
    by_curve: dict[Curve, Sequence[ProbeResult]] = {
        curve: [results[probe.id] for probe in one.asked if probe.id in results]
        for curve, one in walks(searched or plan, results).items()
    }
    if all_probes:
        stored = every_stored_result(store, plan)
        by_curve = {curve: found for curve, found in stored.items() if found or curve in by_curve}
    parents = {seed: results.get(plan.parent(seed).id) for seed in plan.spec.seeds}
    controls = [results[p.id] for seed in plan.spec.seeds for p in plan.controls(seed) if p.id in results]
    analysis = Analysis(plan, store, by_curve, parents, cut_short=_cut_short(searched or plan, results))
    potentials = analysis.potentials()
    probes = [result for result in parents.values() if result] + controls
    probes += [result for found in by_curve.values() for result in found]
    return SweepResults(
        spec=plan.spec,
        tasks=plan.tasks,
        data_fingerprint=plan.data_fingerprint,
        class_names=tuple(map(str, run.get("class_names", ()))),
        probes=tuple(probes),
        potentials=potentials,
        summaries=analysis.summaries(potentials),
        excess_errors=analysis.excess_errors(),
        budget_choices=_budget_choices(plan, potentials),
        cost=_cost(probes, run=run),
        storage=store.uri,
        tracking_uri=run.get("tracking_uri") or "",
        experiment_url=run.get("experiment_url") or "",
        warnings=tuple(_warnings(searched or plan, results, run=run)),
        versions=_versions(),
    )


def _budget_choices(plan: Plan, potentials: Sequence[Potential]) -> tuple[BudgetChoice, ...]:
    search = plan.spec.search
    if not search.budget_search:
        return ()
    return budget_choices(potentials, budgets=plan.spec.budgets, distance=search.budget_distance)


def _cost(probes: Sequence[ProbeResult], *, run: Mapping[str, Any]) -> Cost:
    seconds: dict[str, float] = {}
    for result in probes:
        for phase, value in result.seconds.items():
            seconds[phase] = seconds.get(phase, 0.0) + value
    done = [result for result in probes if result.is_done]
    own = [result for result in done if not _is_snapshot(result, done)]
    return Cost(
        num_probes=len(probes),
        num_trained=int(run.get("num_trained", 0)),
        num_evaluated=sum(len(result.evaluations) for result in done),
        num_failed=sum(not result.is_done for result in probes),
        epochs=sum(result.probe.training.epochs for result in own),
        seconds=seconds,
        wall_seconds=float(run.get("wall_seconds", 0.0)),
    )


def _is_snapshot(one: ProbeResult, others: Sequence[ProbeResult]) -> bool:
    """Whether a network was kept on the way of another one, whose epochs count already."""
    longer = one.result.provenance.snapshot_of if one.result else None
    return longer is not None and any(other.probe.id == longer for other in others)


def _warnings(plan: Plan, results: Results, *, run: Mapping[str, Any]) -> Iterable[str]:
    """What only the search knows; the report adds what the records show by themselves."""
    if run.get("is_cleaned"):
        yield "prune-cli clean deleted networks of this sweep: what is left of its probes is shown"
    if run.get("reached_limit"):
        yield f"{run['reached_limit']} ended this run before the search was through: the same command continues"
    hit = [curve for curve, one in walks(plan, results).items() if one.hit_limit]
    if hit:
        yield f"limits.max_probes = {plan.spec.limits.max_probes} ended the search early on {len(hit)} curves"


def _cut_short(plan: Plan, results: Results) -> set[Curve]:
    """Curves whose search a limit ended."""
    return {curve for curve, one in walks(plan, results).items() if one.hit_limit or not one.is_finished}


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
