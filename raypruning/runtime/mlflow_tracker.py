"""Shows a sweep in MLflow, from the records that make it up: a view that can be dropped and rebuilt.

Everything is written by one background thread of the driver, through `MlflowClient`, and only what MLflow lacks is. To
import this module is cheap: the thread imports mlflow.
"""

from __future__ import annotations

import hashlib
import logging
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit, urlunsplit

from raypruning.core.populations import Losses
from raypruning.core.records import Curve, ProbeResult, SweepResults, SweepSpec
from raypruning.errors import SpecError, StoreError
from raypruning.runtime import mlflow_layout as layout
from raypruning.runtime import mlflow_losses as lost
from raypruning.runtime.trackers import TIMEOUT_SECONDS, BackgroundTracker, Read, upload_seconds

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

logger = logging.getLogger("raypruning.mlflow")

# What mlflow reads when it is imported. A user's own setting wins.
CLIENT_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # What goes wrong is told in a line by `problems`; mlflow would print a page of traceback for every attempt.
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # the default, 7 with back-off, hangs for minutes; we retry ourselves
    "MLFLOW_HTTP_REQUEST_TIMEOUT": str(TIMEOUT_SECONDS),
}

# Codes by which a server that is there refuses one write. Every other failure is an outage, and is tried again.
REFUSALS = {
    "BAD_REQUEST",
    "INVALID_PARAMETER_VALUE",
    "INVALID_STATE",
    "RESOURCE_ALREADY_EXISTS",
    "RESOURCE_DOES_NOT_EXIST",
    "RESOURCE_EXHAUSTED",
}


class MlflowTracker(BackgroundTracker):
    """Writes a sweep to an MLflow server or database: see `core.ports.Tracker`.

    Idempotent: runs are found again by their tags `curve_key` and `training_id`, and only what they lack is written.

    Args:
        uri: `sqlite:///...`, `http://...` or whatever else MLflow takes.
        artifact_root: folder or uri below which each sweep gets a folder; None for the server's choice, and for
            `mlartifacts` beside the file of a sqlite database.
    """

    def __init__(self, uri: str, *, artifact_root: str | None = None) -> None:
        self._shown_uri = without_password(uri)
        super().__init__(
            lambda spec: _Experiment(uri, spec, artifact_root=artifact_root),
            name=f"MLflow at {self._shown_uri}",
            hide={uri: self._shown_uri},
            is_outage=_is_outage,
        )
        self.uri = uri

    @property
    def experiment_id(self) -> str | None:
        """Of the sweep's experiment, as soon as MLflow has said it."""
        return self._view.id if isinstance(self._view, _Experiment) else None

    @property
    def experiment_url(self) -> str:
        """The page of charts where the tracking server has one; empty for a database, or while it is not known."""
        is_server = self.uri.startswith(("http://", "https://"))
        return layout.experiment_url(self._shown_uri, self.experiment_id) if is_server and self.experiment_id else ""


def track_sweep(
    uri: str,
    results: SweepResults,
    *,
    artifact_root: str | None = None,
    checkpoints: Sequence[str] = (),
    read: Read,
    losses: Losses | None = None,
) -> Sequence[str]:
    """Show a whole sweep from its records; what MLflow has already is left as it is. Returns the problems."""
    tracker = MlflowTracker(uri, artifact_root=artifact_root)
    tracker.start(results.spec)
    for result in results.probes:
        tracker.log_probe(result)
    tracker.finish(results, checkpoints=checkpoints, read=read, losses=losses)
    return tracker.problems


def create_database(uri: str) -> None:
    """Make a sqlite database that is complete from its first moment on, or bring an old one up to date.

    Processes that make one at the same time break each other's, so a new one is made aside and moved into place. Does
    nothing for other uris.
    """
    path = database_file(uri)
    if path is None:
        return
    _set_environment()
    from mlflow.store.db import utils as database

    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        aside = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
        try:
            _migrate(f"sqlite:///{aside}", database._initialize_tables)
            with suppress(FileExistsError):  # another process was faster, and its database is as good
                os.link(aside, path)
        finally:
            aside.unlink(missing_ok=True)
    _migrate(uri, _bring_up_to_date)


def database_file(uri: str) -> Path | None:
    """The file of a `sqlite:///` uri, None for any other."""
    return Path(uri.removeprefix("sqlite:///")).absolute() if uri.startswith("sqlite:///") else None


class ServerCommand(NamedTuple):
    """A command line, and what is to be added to its environment."""

    argv: list[str]
    env: dict[str, str]


def serve(tracking_uri: str, *, host: str = "127.0.0.1", port: int) -> ServerCommand:
    """The command that shows a database in the browser, to this machine only unless `host` says otherwise.

    One worker and no job execution: 2 processes and 0.5 GB instead of 15 and 2.8 GB, and no way to start jobs by HTTP.

    Raises: SpecError: the uri is a server already.
    """
    if tracking_uri.startswith(("http://", "https://")):
        raise SpecError(f"{without_password(tracking_uri)} is a server already: open it in a browser")
    argv = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", tracking_uri]
    argv += ["--host", host, "--port", str(port), "--workers", "1"]
    root = _artifacts_beside(tracking_uri)
    if root is not None:
        argv += ["--artifacts-destination", root]
    env = {
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    }
    return ServerCommand(argv, env)


def without_password(uri: str) -> str:
    """The uri as it may be shown."""
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])) if "@" in parts.netloc else uri


@dataclass
class _KnownRun:
    """What one run is known to hold, so that only what is new is written.

    Attributes:
        settled: of a probe's run that is complete, what it was made of, as a digest in place of all the rest: there are
            thousands of them.
    """

    id: str
    status: str
    params: dict[str, str]
    tags: dict[str, str]
    latest: dict[str, layout.Point]
    points: dict[str, set[tuple[int, float]]] = field(default_factory=dict)  # key -> every (step, value), once read
    settled: str = ""

    def settle(self, digest: str) -> None:
        """Keep no more than it takes to see that nothing is to be written."""
        self.settled = digest
        self.tags = {name: value for name, value in self.tags.items() if name == UPLOADED}
        self.params, self.latest, self.points = {}, {}, {}


class _Experiment:
    """A sweep's experiment, and its runs: the `View` of the background thread."""

    def __init__(self, uri: str, spec: SweepSpec, *, artifact_root: str | None) -> None:
        _set_environment()
        create_database(uri)
        from mlflow import MlflowClient

        self._is_unsure = False
        self._client: MlflowClient = MlflowClient(tracking_uri=uri)
        self._sweep = spec.name
        self._results: dict[str, ProbeResult] = {}
        self.id, self._tags = self._open(artifact_root if artifact_root is not None else _artifacts_beside(uri))
        self._runs: dict[tuple[str, str], _KnownRun] = {}
        for run in self._search(""):
            self._remember(run)
        tags = layout.experiment_tags(spec, charts=layout.experiment_url("", self.id))
        # A note that is there may hold an answer, which stands until there is a newer one.
        self._set_tags({name: value for name, value in tags.items() if name != NOTE or NOTE not in self._tags})

    def show_probe(self, result: ProbeResult) -> None:
        """Write a probe's run and its points on the curve."""
        self._results[result.probe.id] = result.without_history()
        content = layout.probe_content(result, sweep=self._sweep)
        about = layout.curve_content(result.probe, sweep=self._sweep, start_ms=content.start_ms)
        parent = None if result.probe.curve.is_dense else layout.parent_of(result.probe, self._results)
        points = (layout.curve_points(parent) if parent else ()) + layout.curve_points(result)
        digest = hashlib.sha256(repr((content, about, points)).encode()).hexdigest()
        known = self._runs.get(content.identity)
        if known is not None and known.settled:
            if known.settled == digest:
                return
            self._remember(self._client.get_run(known.id))
        curve = self._run(about)
        self._write(curve, about, points=points)
        run = self._run(content, nested_in=curve)
        history = () if run.status == "FINISHED" else content.history
        self._write(run, content, points=content.points + history)
        self._end(run, content.status, end_ms=content.end_ms)
        run.settle(digest)

    def show_answer(self, results: SweepResults, curve: Curve) -> None:
        """Write the potentials and excess errors of a curve, and end its run."""
        probes = [result for result in results.probes if result.probe.curve == curve]
        content = layout.answer_content(results, curve)
        run = self._run(content)
        self._write(run, content, points=layout.excess_points(results, curve))
        self._end(run, layout.curve_status(probes), end_ms=content.end_ms)

    def show_losses(self, results: SweepResults, losses: Losses) -> None:
        """Write the numbers of each population, and keep the files by a run of their own, once as they are."""
        for content in lost.population_contents(results, losses.numbers):
            run = self._run(content)
            self._write(run, content, points=content.points)
            self._end(run, "FINISHED", end_ms=content.end_ms)
        if not losses.files:
            return
        pages = lost.pages_content(self._sweep)
        run = self._run(pages)
        for name, data in losses.files.items():
            # A tag for each, so that one that changes is all that is sent again.
            tag, digest = f"{UPLOADED_PAGE}{name}", hashlib.sha256(data).hexdigest()
            if run.tags.get(tag) != digest:
                self._keep(run, name, data)
                self._client.set_tag(run.id, tag, digest)
                run.tags[tag] = digest
        self._end(run, pages.status, end_ms=None)

    def _keep(self, run: _KnownRun, name: str, data: bytes) -> None:
        folder_name, _, file_name = name.rpartition("/")
        with (
            _request_timeout(upload_seconds(len(data))),
            tempfile.TemporaryDirectory(prefix="raypruning-") as folder,
        ):
            path = Path(folder, file_name)
            path.write_bytes(data)
            self._client.log_artifact(run.id, str(path), folder_name or None)

    def distrust(self) -> None:
        """A run may exist that we do not know of: look before making one."""
        self._is_unsure = True

    def interrupt(self) -> None:
        """End the runs of curves that are still open; they run again when the sweep is continued."""
        for (tag, _), run in self._runs.items():
            if tag == layout.CURVE_KEY and run.status == "RUNNING":
                self._end(run, "KILLED", end_ms=None)

    def upload(self, training_id: str, read: Read) -> None:
        """Keep a training's files as artifacts of its run, once for each checkpoint."""
        run = self._runs[layout.PROBE_KEY, training_id]
        checkpoint = self._results[training_id].checkpoint
        if checkpoint is None or run.tags.get(UPLOADED) == checkpoint.sha256:
            return
        try:
            files = read(training_id)
        except OSError as error:  # of the storage, and no outage of MLflow
            raise StoreError(f"the files of {training_id} cannot be read: {error}") from error
        for name, content in files.items():
            self._keep(run, f"checkpoint/{Path(name).name}", content)
        self._client.set_tag(run.id, UPLOADED, checkpoint.sha256)
        run.tags[UPLOADED] = checkpoint.sha256

    def describe(self, results: SweepResults) -> None:
        """Put the answer into the experiment's note."""
        self._set_tags(layout.experiment_tags(results.spec, results, charts=layout.experiment_url("", self.id)))

    def _open(self, artifact_root: str | None) -> tuple[str, dict[str, str]]:
        name = layout.experiment_name(self._sweep)
        experiment = self._client.get_experiment_by_name(name)
        if experiment is None:
            place = layout.artifact_location(artifact_root, self._sweep) if artifact_root is not None else None
            return str(self._client.create_experiment(name, artifact_location=place)), {}
        if experiment.lifecycle_stage == "deleted":
            # Its name stays taken, and whoever runs the sweep again wants to see it.
            logger.info("MLflow: restoring the experiment %s, which had been deleted", name)
            self._client.restore_experiment(experiment.experiment_id)
        return str(experiment.experiment_id), dict(experiment.tags)

    def _set_tags(self, tags: Mapping[str, str]) -> None:
        for name, value in tags.items():
            if self._tags.get(name) != value:
                self._client.set_experiment_tag(self.id, name, value)
                self._tags[name] = value

    def _search(self, filter_string: str) -> Iterator[Run]:
        token = None
        while True:
            page = self._client.search_runs([self.id], filter_string, max_results=1000, page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def _remember(self, run: Run) -> _KnownRun:
        latest = {m.key: layout.Point(m.key, m.value, m.step, m.timestamp) for m in run.data._metric_objs}
        known = _KnownRun(run.info.run_id, run.info.status, dict(run.data.params), dict(run.data.tags), latest)
        tag = TAG_OF_KIND.get(known.tags.get("kind", ""))
        if tag is not None and tag in known.tags:
            self._runs[tag, known.tags[tag]] = known
        return known

    def _run(self, content: layout.RunContent, *, nested_in: _KnownRun | None = None) -> _KnownRun:
        """The run of that identity, made if there is none."""
        tag, value = content.identity
        if self._is_unsure and content.identity not in self._runs:
            for run in self._search(f"tags.kind = '{content.tags['kind']}' AND tags.{tag} = '{value}'"):
                self._remember(run)
        known = self._runs.get(content.identity)
        if known is None:
            own = (
                {PARENT: nested_in.id} if nested_in else {layout.COLOR: layout.color_of(content.params, self._colors())}
            )
            tags = dict(content.tags) | own
            run = self._client.create_run(self.id, start_time=content.start_ms, tags=tags, run_name=content.name)
            return self._remember(run)
        if nested_in is not None and known.tags.get(PARENT) != nested_in.id:  # its curve's run had been deleted
            self._client.set_tag(known.id, PARENT, nested_in.id)
            known.tags[PARENT] = nested_in.id
        return known

    def _colors(self) -> dict[tuple[str, ...], str]:
        curves = [run for (tag, _), run in self._runs.items() if tag == layout.CURVE_KEY and layout.COLOR in run.tags]
        return {layout.color_family(run.params): run.tags[layout.COLOR] for run in curves}

    def _write(self, run: _KnownRun, content: layout.RunContent, *, points: Sequence[layout.Point]) -> None:
        """Write, in one batch, what the run does not hold yet."""
        from mlflow.entities import Metric, Param, RunTag

        new = [point for point in dict.fromkeys(points) if not self._holds(run, point)]
        for answer in content.answers:
            last = run.latest.get(answer.key)
            if last is None:
                new.append(answer)
            elif last.value != answer.value:  # later than the last one, or MLflow would go on showing that
                new.append(answer._replace(time_ms=max(answer.time_ms, last.time_ms + 1)))
        tags = {name: value for name, value in content.tags.items() if run.tags.get(name) != value}
        params = {name: value for name, value in content.params.items() if name not in run.params}
        if not (new or tags or params):
            return
        if new and run.status != "RUNNING" and run.tags.get("kind") == "curve":
            self._client.update_run(run.id, status="RUNNING")
            run.status = "RUNNING"
        self._client.log_batch(
            run.id,
            metrics=[Metric(point.key, point.value, point.time_ms, point.step) for point in new],
            params=[Param(name, value) for name, value in params.items()],
            tags=[RunTag(name, value) for name, value in tags.items()],
            synchronous=True,
        )
        run.tags |= tags
        run.params |= params
        for point in new:
            run.latest[point.key] = point
            run.points.setdefault(point.key, set()).add((point.step, point.value))

    def _holds(self, run: _KnownRun, point: layout.Point) -> bool:
        last = run.latest.get(point.key)
        if last is None:
            return False
        if (last.step, last.value) == (point.step, point.value):
            return True
        if point.key not in run.points:
            history = self._client.get_metric_history(run.id, point.key)
            run.points[point.key] = {(metric.step, metric.value) for metric in history}
        return (point.step, point.value) in run.points[point.key]

    def _end(self, run: _KnownRun, status: str, *, end_ms: int | None) -> None:
        if run.status != status:
            self._client.set_terminated(run.id, status=status, end_time=end_ms)
            run.status = status


TAG_OF_KIND = {"curve": layout.CURVE_KEY, "probe": layout.PROBE_KEY, "pages": lost.PAGES_KEY}
NOTE = "mlflow.note.content"
PARENT = "mlflow.parentRunId"
UPLOADED_PAGE = "page.uploaded."  # and a name: the sha256 of that file
UPLOADED = "checkpoint.uploaded"  # the sha256 of the checkpoint that lies in the artifacts


def _set_environment() -> None:
    for name, value in CLIENT_ENVIRONMENT.items():
        os.environ.setdefault(name, value)


@contextmanager
def _request_timeout(seconds: float) -> Iterator[None]:
    """Give requests more time: a server answers an upload when it has passed all of it on. mlflow has no other way."""
    name = "MLFLOW_HTTP_REQUEST_TIMEOUT"
    before = os.environ[name]
    os.environ[name] = str(max(int(before), round(seconds)))
    try:
        yield
    finally:
        os.environ[name] = before


def _artifacts_beside(uri: str) -> str | None:
    path = database_file(uri)
    return str(path.parent / "mlartifacts") if path is not None else None


def _migrate(uri: str, change: Callable[[object], None]) -> None:
    from mlflow.store.db import utils as database

    engine = database.create_sqlalchemy_engine_with_retry(uri)
    try:
        change(engine)
    finally:
        engine.dispose()


def _bring_up_to_date(engine: object) -> None:
    from mlflow.store.db import utils as database

    database._safe_initialize_tables(engine)
    if database._get_schema_version(engine) != database._get_latest_schema_revision():
        database._upgrade_db(engine)


def _is_outage(error: BaseException) -> bool:
    """Whether MLflow is not there, rather than refusing this one write."""
    origin = type(error).__module__.partition(".")[0]
    if origin == "mlflow":
        return getattr(error, "error_code", None) not in REFUSALS
    return isinstance(error, OSError | ImportError) or origin in {"sqlalchemy", "urllib3"}
