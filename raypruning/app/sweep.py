"""Run a sweep from a resolved request to its answer."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from raypruning.app.lost import PAGE_FILE, REPORT_FILE, losses_of, write_lost
from raypruning.app.preflight import check_methods
from raypruning.app.request import Resolved, Setting
from raypruning.app.results import collect, read_record, stored_results, with_histories, write_record
from raypruning.app.task_sets import missing_bytes
from raypruning.core.identity import rewind_point
from raypruning.core.plan import Plan, asked_probes
from raypruning.core.ports import Executor, ProbeJob, Tracker
from raypruning.core.records import Probe, ProbeResult, SweepResults, SweepSpec, Task
from raypruning.datasets.base import Dataset
from raypruning.datasets.cache import cache_dir
from raypruning.datasets.resolve import open_dataset
from raypruning.errors import RaypruningError, ResourceError, StorageFullError
from raypruning.runtime import leases
from raypruning.runtime.dispatcher import Dispatcher
from raypruning.runtime.limits import RunLimits
from raypruning.runtime.mlflow_tracker import without_password
from raypruning.runtime.store import ObjectStore, open_store
from raypruning.tasks.task import describe_task

LARGE_TEST_SETS_BYTES = 1 << 30


class Watcher(Protocol):
    """Who is told how a sweep goes on."""

    def begin(self, plan: Plan) -> None:
        """The plan is made; nothing has run."""

    def update(self, result: ProbeResult, results: Mapping[str, ProbeResult], *, num_running: int) -> None:
        """One more result is there."""

    def say(self, line: str) -> None:
        """Something a person should read."""


class Finished(NamedTuple):
    """A sweep that ran to its end.

    Attributes:
        report: path or uri of the HTML report.
        problems: of the tracker, one line each.
    """

    results: SweepResults
    report: str
    problems: Sequence[str]

    @property
    def has_open(self) -> bool:
        """Whether a potential stayed open."""
        return any(potential.status == "open" for potential in self.results.potentials)


def open_data(spec: SweepSpec, setting: Setting) -> Dataset:
    """The dataset of a sweep."""
    return open_dataset(spec.data, data_dir=setting.data_dir, download=setting.download)


def make_plan(spec: SweepSpec, setting: Setting, dataset: Dataset) -> Plan:
    """The plan of a sweep, whose dataset's fingerprint is part of every identity. Imports no torch."""
    tasks = tuple(describe_task(name, dataset, data_dir=setting.data_dir) for name in spec.tasks)
    return Plan(spec=spec, data_fingerprint=dataset.fingerprint, tasks=tasks)


def run_sweep(resolved: Resolved, *, watcher: Watcher) -> Finished:
    """Run what the store lacks, then compute and show the answer.

    Side effects: commits to the store; writes the sweep's folder, its report and MLflow.
    Raises: Interrupted on a signal, with everything finished so far kept; errors of ours.
    """
    spec, setting = resolved
    started = time.monotonic()
    for notice in setting.notices:
        watcher.say(notice)
    dataset = open_data(spec, setting)
    plan = make_plan(spec, setting, dataset)
    if (num_bytes := missing_bytes(dataset, spec.tasks)) >= LARGE_TEST_SETS_BYTES:
        watcher.say(
            f"changed test sets take {num_bytes / 1e9:.1f} GB of {cache_dir()}; prune-cli tasks --clear frees it"
        )
    if not _was_begun(spec, setting):
        check_methods(plan, dataset)
    store = open_store(setting.storage)  # After the checks: what is refused leaves no empty storage behind.
    if setting.fresh:
        start_over(store, spec.name)
    with ExitStack() as stack:
        _take_lease(store, spec.name, watcher, stack)
        watcher.begin(plan)
        tracker = _make_tracker(setting)
        tracker.start(spec)
        stack.callback(tracker.close)
        run = {
            "tracking_uri": without_password(setting.tracking_uri or ""),
            "class_names": list(dataset.class_names),
            "started": _now(),
            "failed": [],
            "num_trained": 0,
        }
        write_record(store, plan, run)
        dispatcher = _dispatch(plan, store, setting, tracker, watcher)
        results = dispatcher.results
        failed = [result.model_dump(mode="json") for result in results.values() if not result.is_done]
        run |= {
            "failed": failed,
            "num_trained": sum(result.is_new for result in results.values()),
            "wall_seconds": time.monotonic() - started,
            "reached_limit": dispatcher.reached_limit,
            "asked": [probe.id for probe in asked_probes(plan, results)],
        }
        write_record(store, plan, run)
        answer = collect(plan, with_histories(results, store), store, run=run)
        tracker.finish(
            answer,
            checkpoints=wanted_checkpoints(answer, setting.log_checkpoints),
            read=store.training_files,
            losses=losses_of(answer, write_lost(store, answer)),
        )
        run |= {"experiment_url": tracker.experiment_url, "experiment_id": tracker.experiment_id}
        write_record(store, plan, run)
        answer = answer.model_copy(update={"experiment_url": run["experiment_url"]})
        report = write_report(store, answer)
    return Finished(answer, report, tracker.problems)


def _was_begun(spec: SweepSpec, setting: Setting) -> bool:
    """Whether the storage has this very sweep, which then passed the checks that it began with."""
    try:
        return read_record(open_store(setting.storage, read_only=True), spec.name).spec == spec
    except RaypruningError:  # No sweep, no storage, or one that cannot be read: the sweep will say so itself.
        return False


def _dispatch(plan: Plan, store: ObjectStore, setting: Setting, tracker: Tracker, watcher: Watcher) -> Dispatcher:
    full: list[StorageFullError] = []

    def on_result(result: ProbeResult, dispatcher: Dispatcher) -> None:
        if result.failure is not None and result.failure.kind == StorageFullError.__name__:
            full.append(StorageFullError(f"{result.failure.message}; then the same command continues"))
            raise full[0]
        tracker.log_probe(result)
        watcher.update(result, dispatcher.results, num_running=dispatcher.num_running)

    limits = RunLimits(now=time.time, gpu_hours=plan.spec.limits.gpu_hours, deadline=setting.deadline)
    dispatcher = Dispatcher(
        plan, store, make_job=_job_maker(plan, setting), on_result=on_result, limits=limits, say=watcher.say
    )
    if not dispatcher.is_finished:
        try:
            _make_executor(plan, store, setting).drive(dispatcher)
        except ResourceError:
            if not full:
                raise
    if full:  # Tune logs what a searcher raises, and comes to its end.
        raise full[0]
    return dispatcher


def _job_maker(plan: Plan, setting: Setting) -> Callable[[Probe, tuple[Task, ...], int], ProbeJob]:
    spec = plan.spec

    def make_job(probe: Probe, tasks: tuple[Task, ...], attempt: int) -> ProbeJob:
        return ProbeJob(
            probe=probe,
            tasks=tasks,
            attempt=attempt,
            data_dir=str(setting.data_dir) if setting.data_dir else None,
            download=setting.download,
            plugins=spec.plugins,
            device="cuda" if spec.resources.gpus_per_probe else "cpu",
            resources=spec.resources,
            save_seconds=float(os.environ.get("RAYPRUNING_SAVE_SECONDS", "30")),
            snapshots=plan.snapshots(probe),
        )

    return make_job


def _make_executor(plan: Plan, store: ObjectStore, setting: Setting) -> Executor:
    if setting.executor == "inline":
        from raypruning.runtime.inline import InlineExecutor

        return InlineExecutor(store)
    from raypruning.runtime.ray_tune import RayExecutor

    os.environ.setdefault("RAYPRUNING_GIT_COMMIT", git_commit())
    return RayExecutor(
        storage=setting.storage,
        resources=plan.spec.resources,
        max_concurrent=setting.max_concurrent,
        address=setting.address,
        log_path=log_path(setting, plan.spec.name),
    )


def log_path(setting: Setting, name: str) -> Path:
    """Where Ray's own output goes: beside the sweep's report, or into the working folder for an object store."""
    folder = Path("raypruning-store").resolve() if "://" in setting.storage else Path(setting.storage)
    return folder / "sweeps" / name / "ray.log"


def _make_tracker(setting: Setting) -> Any:
    if setting.tracking_uri is None:
        from raypruning.runtime.trackers import NullTracker

        return NullTracker()
    from raypruning.runtime.mlflow_tracker import MlflowTracker

    return MlflowTracker(setting.tracking_uri)


def wanted_checkpoints(answer: SweepResults, which: str) -> list[str]:
    """Trainings whose files MLflow keeps: those at a potential, all, or none."""
    if which == "none":
        return []
    if which == "all":
        return [result.probe.id for result in answer.probes if result.is_done]
    return sorted({one.training for one in answer.potentials if one.training})


def write_report(store: ObjectStore, answer: SweepResults) -> str:
    """Put the HTML report and the same as JSON into the sweep's folder. Returns the report's path or uri."""
    import json

    from raypruning.reporting.documents import to_json
    from raypruning.reporting.html import render_html

    name = answer.spec.name
    store.write_sweep_file(name, REPORT_FILE, render_html(answer, lost_page=PAGE_FILE).encode())
    store.write_sweep_file(name, "report.json", json.dumps(to_json(answer), indent=1).encode())
    # An s3 address carries its options behind the path.
    return f"{store.uri.partition('?')[0].removeprefix('file://').rstrip('/')}/sweeps/{name}/{REPORT_FILE}"


def start_over(store: ObjectStore, name: str) -> None:
    """Forget a sweep and the trainings that no other sweep asked for."""
    mine = asked_ids(store, name)
    others = {key for other in store.sweep_names() if other != name for key in asked_ids(store, other)}
    for training_id in mine - others:
        store.delete_training(training_id)
    store.delete_sweep(name)


def asked_ids(store: ObjectStore, name: str) -> set[str]:
    """Trainings a sweep asked for, finished or not; those they go back to, or pass through and leave behind.

    None if there is no such sweep.
    """
    if name not in store.sweep_names():
        return set()
    record = read_record(store, name)
    plan = record.plan
    probes = asked_probes(plan, stored_results(store, record))
    trainings = [training for probe in probes for training in (probe.training, *plan.snapshots(probe))]
    points = {rewind_point(training).id for training in trainings if training.rewind_epochs is not None}
    return points | {training.id for training in trainings}


def _take_lease(store: ObjectStore, name: str, watcher: Watcher, stack: ExitStack) -> None:
    """Tell others that this sweep runs, and tell the person if another process runs it: both write the same."""
    held = leases.acquire(store.blobs, f"sweeps/{name}", now=time.time, owner=leases.this_owner())
    if isinstance(held, leases.HeldBy):
        owner = f"process {held.lease.owner.pid} on {held.lease.owner.host}"
        watcher.say(f"{owner} runs the sweep {name} as well: both go on, and what either finishes counts")
        return
    stack.enter_context(leases.Heartbeat(store.blobs, held, now=time.time))


def git_commit() -> str:
    """The commit of the working folder's repository, "" outside one."""
    try:
        found = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return found.stdout.strip()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
