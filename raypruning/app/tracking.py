"""MLflow from the outside of a sweep: rebuild it from the store, and open its pages."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence

from raypruning.app.lost import losses_of, lost
from raypruning.app.read import read_sweep
from raypruning.app.request import resolve_storage, resolve_tracking_uri
from raypruning.app.results import read_record
from raypruning.app.sweep import wanted_checkpoints
from raypruning.errors import SpecError
from raypruning.runtime.signals import StopOnSignal
from raypruning.runtime.store import ObjectStore

UI_PORT = 5000


def track_from_store(store: ObjectStore, name: str, *, tracking_uri: str | None, log_checkpoints: str) -> Sequence[str]:
    """Write a whole sweep to MLflow; what is there already is left as it is. Returns what could not be written."""
    from raypruning.runtime.mlflow_tracker import track_sweep

    if log_checkpoints not in ("potential", "all", "none"):
        raise SpecError(f"--log-checkpoints must be potential, all or none, got {log_checkpoints}")
    results = read_sweep(store, name)
    uri = tracking_uri or results.tracking_uri or resolve_tracking_uri(None, storage=resolve_storage(store.uri))
    if not uri or uri == "none":
        raise SpecError("the sweep has no MLflow to write to: add --tracking-uri")
    checkpoints = wanted_checkpoints(results, log_checkpoints)
    losses = losses_of(results, lost(store, results))
    return track_sweep(uri, results, checkpoints=checkpoints, read=store.training_files, losses=losses)


def chart_link(store: ObjectStore, names: Sequence[str], *, port: int = UI_PORT) -> str:
    """The page of MLflow with the charts of these sweeps together; "" when they are not in one MLflow.

    For a database it is the page that `prune-cli ui` shows.
    """
    from raypruning.runtime.mlflow_layout import compare_url, experiment_url

    runs = [read_record(store, name).run for name in names]
    ids = [str(run["experiment_id"]) for run in runs if run.get("experiment_id")]
    uris = {run.get("tracking_uri") for run in runs}
    if len(ids) < len(names) or len(uris) > 1:
        return ""
    uri = str(uris.pop())
    base = uri if uri.startswith(("http://", "https://")) else f"http://127.0.0.1:{port}"
    return experiment_url(base, ids[0]) if len(ids) == 1 else compare_url(base, ids)


def serve_ui(*, storage: str | None, tracking_uri: str | None, port: int) -> int:
    """Run MLflow's server on loopback until it ends. Returns its exit code; raises Interrupted on a signal."""
    from raypruning.runtime.mlflow_tracker import database_file, serve

    uri = resolve_tracking_uri(tracking_uri, storage=resolve_storage(storage))
    if uri is None:
        raise SpecError("there is no MLflow to show: leave --tracking-uri none out")
    file = database_file(uri)
    if file is not None and not file.exists():
        raise SpecError(f"there is no MLflow database at {file}: run a sweep first, or name its --storage")
    command = serve(uri, port=port)
    # In a session of its own: MLflow's server has children, which end with it when the whole group is told to.
    server = subprocess.Popen(command.argv, env={**os.environ, **command.env}, start_new_session=True)
    try:
        with StopOnSignal():
            return server.wait()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        server.wait()
