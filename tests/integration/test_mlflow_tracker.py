"""The tracker against a real MLflow: a sqlite file, a server that is not there, and the server that `serve` starts."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path

import psutil
import pytest

from raypruning.core.identity import make_training
from raypruning.core.records import (
    DENSE,
    Checkpoint,
    Cost,
    Curve,
    DataChoice,
    Epoch,
    Evaluation,
    ExcessError,
    Failure,
    Mask,
    MethodChoice,
    ModelChoice,
    Potential,
    Probe,
    ProbeResult,
    Provenance,
    Recipe,
    SweepResults,
    SweepSpec,
    Task,
    TrainingResult,
)
from raypruning.errors import SpecError
from raypruning.runtime.mlflow_tracker import MlflowTracker, create_database, serve, track_sweep

pytestmark = [
    pytest.mark.mlflow,
    # SQLAlchemy 2.1 about a mapper of mlflow 3.17.
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated"),
]

TASKS = ("nominal", "noise/uniform/0.1")
DENSE_ERRORS = (0.02, 0.05)
RATIOS = (0.5, 0.8, 0.9)
ERRORS: Mapping[str, tuple[tuple[float, float], ...]] = {
    "wt": ((0.02, 0.05), (0.022, 0.07), (0.03, 0.12)),
    "ft": ((0.021, 0.06), (0.04, 0.15), (0.2, 0.4)),
}
RECIPE = Recipe(epochs=2, learning_rate=0.1)
SPEC = SweepSpec(
    name="small",
    model=ModelChoice(name="lenet5"),
    data=DataChoice(name="digits"),
    methods=(MethodChoice(name="wt"), MethodChoice(name="ft")),
    tasks=TASKS,
    budgets=(2,),
    recipe=RECIPE,
)


def probe(method: str, ratio: float, *, start: str | None = None, epochs: int = 2) -> Probe:
    training = make_training(
        model=SPEC.model,
        data=SPEC.data,
        data_fingerprint="data",
        recipe=RECIPE,
        epochs=epochs,
        seed=0,
        mask=None if method == DENSE else Mask(method=MethodChoice(name=method), ratio=ratio),
        start=start,
    )
    budget = 0 if start is None else 2
    curve = Curve(model="lenet5", dataset="digits", method=method, budget=budget, seed=0)
    return Probe(curve=curve, ratio=ratio, training=training)


def done(probe: Probe, errors: tuple[float, float], *, minute: int) -> ProbeResult:
    reached = probe.ratio
    checkpoint = Checkpoint(
        uri=f"trainings/{probe.id}/weights.safetensors",
        sha256="ab" * 32,
        num_bytes=1000,
        ratio_asked=probe.ratio,
        ratio_reached=reached,
        num_nonzero=round(1000 * (1 - reached)),
        num_params=1000,
        num_prunable=1000,
        macs=round(5000 * (1 - reached / 2)),
        macs_dense=5000,
    )
    history = tuple(
        Epoch(epoch=epoch, learning_rate=0.1, train_loss=1 / epoch, validation_error=0.1 / epoch) for epoch in (1, 2)
    )
    evaluations = {
        task: Evaluation(
            training=probe.id,
            task=task,
            task_fingerprint=f"fingerprint of {task}",
            error=error,
            num_examples=1000,
            num_wrong=round(1000 * error),
            loss=3 * error,
            predictions=f"evaluations/{task}",
            sha256="cd" * 32,
            seconds=0.5,
        )
        for task, error in zip(TASKS, errors, strict=True)
    }
    provenance = Provenance(versions={"torch": "2.13.0"}, created=f"2026-11-20T10:{minute:02}:00+00:00")
    result = TrainingResult(
        training=probe.training,
        checkpoint=checkpoint,
        history=history,
        seconds={"train": 12.0, "prune": 0.2},
        provenance=provenance,
    )
    return ProbeResult(probe=probe, status="done", result=result, evaluations=evaluations, is_new=True)


def recorded(*, num_failed: int = 0) -> SweepResults:
    """A parent, its retrained control, and two methods at three ratios each; the last probes failed."""
    parent = probe(DENSE, 0.0)
    results = [done(parent, DENSE_ERRORS, minute=0)]
    results.append(done(probe(DENSE, 0.0, start=parent.id), (0.019, 0.048), minute=1))
    for method, errors in ERRORS.items():
        for ratio, error in zip(RATIOS, errors, strict=True):
            results.append(done(probe(method, ratio, start=parent.id), error, minute=len(results)))
    for position in range(len(results) - num_failed, len(results)):
        failure = Failure(kind="TrainingError", message="the loss is NaN")
        results[position] = ProbeResult(probe=results[position].probe, status="failed", failure=failure)
    curves = dict.fromkeys(result.probe.curve for result in results if not result.probe.curve.is_dense)
    return SweepResults(
        spec=SPEC,
        tasks=tuple(
            Task(
                name=name, dataset="digits", nominal="nominal", num_examples=1000, fingerprint=f"fingerprint of {name}"
            )
            for name in TASKS
        ),
        data_fingerprint="data",
        probes=tuple(results),
        potentials=tuple(
            Potential(
                curve=curve,
                task=task,
                delta=0.005,
                status="closed",
                ratio=0.8 if curve.method == "wt" and task == "nominal" else 0.5,
                next_ratio=0.9,
                num_examples=1000,
                num_lost_allowed=5,
            )
            for curve in curves
            for task in TASKS
        ),
        summaries=(),
        excess_errors=tuple(
            ExcessError(
                curve=result.probe.curve,
                ratio=result.ratio_reached,
                task=TASKS[1],
                nominal=TASKS[0],
                value=result.evaluations[TASKS[1]].error - result.evaluations[TASKS[0]].error - 0.03,
                raw_gap=result.evaluations[TASKS[1]].error - result.evaluations[TASKS[0]].error,
            )
            for result in results
            if result.is_done and not result.probe.curve.is_dense
        ),
        cost=Cost(num_probes=8, num_trained=8, num_evaluated=16, num_failed=0, epochs=16, seconds={}, wall_seconds=1.0),
        storage="/storage",
    )


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database, made once: it takes two seconds."""
    path = tmp_path_factory.mktemp("template") / "mlflow.db"
    create_database(f"sqlite:///{path}")
    return path


@pytest.fixture
def uri(template: Path, tmp_path: Path) -> str:
    path = tmp_path / "mlflow.db"
    path.write_bytes(template.read_bytes())
    return f"sqlite:///{path}"


class Seen:
    """What MLflow holds of the sweep, through its own client."""

    def __init__(self, uri: str) -> None:
        from mlflow import MlflowClient

        self.client = MlflowClient(tracking_uri=uri)
        self.experiment = self.client.get_experiment_by_name("raypruning/small")
        runs = self.client.search_runs([self.experiment.experiment_id])
        self.runs = {run.info.run_name: run for run in runs}
        assert len(self.runs) == len(runs), "two runs of one name"

    def history(self, name: str, key: str) -> list[tuple[int, float]]:
        points = self.client.get_metric_history(self.runs[name].info.run_id, key)
        return sorted((point.step, point.value) for point in points)

    def everything(self) -> dict[str, object]:
        return {
            name: (
                run.info.run_id,
                run.info.status,
                run.data.params,
                run.data.tags,
                {key: self.history(name, key) for key in run.data.metrics},
            )
            for name, run in self.runs.items()
        }


def no_files(training_id: str) -> Mapping[str, bytes]:
    raise AssertionError(f"nothing of {training_id} was to be uploaded")


def test_sweep_shows_as_one_run_per_curve_with_its_probes_nested(uri: str) -> None:
    assert track_sweep(uri, recorded(), read=no_files) == ()
    seen = Seen(uri)
    top = {name for name, run in seen.runs.items() if "mlflow.parentRunId" not in run.data.tags}
    assert top == {
        "dense · seed 0",
        "dense retrained · 2 epochs · seed 0",
        "wt · 2 epochs · seed 0",
        "ft · 2 epochs · seed 0",
    }
    wt = seen.runs["wt · 2 epochs · seed 0"].info.run_id
    nested = seen.client.search_runs([seen.experiment.experiment_id], f"tags.mlflow.parentRunId = '{wt}'")
    assert {run.data.params["ratio_asked"] for run in nested} == {"0.5", "0.8", "0.9"}
    assert {run.info.status for run in seen.runs.values()} == {"FINISHED"}


def test_curve_begins_at_the_parent_and_steps_by_ratio(uri: str) -> None:
    track_sweep(uri, recorded(), read=no_files)
    seen, name = Seen(uri), "wt · 2 epochs · seed 0"
    assert seen.history(name, "error/nominal") == [(0, 0.02), (5000, 0.02), (8000, 0.022), (9000, 0.03)]
    assert [step for step, _ in seen.history(name, "excess_error/noise_uniform_0.1")] == [0, 5000, 8000, 9000]
    assert seen.history(name, "potential_0.005/nominal") == [(0, 0.8)]
    assert seen.history("dense retrained · 2 epochs · seed 0", "error/nominal") == [(0, 0.019)]


def test_replaying_a_sweep_changes_nothing(uri: str) -> None:
    track_sweep(uri, recorded(), read=no_files)
    before = Seen(uri).everything()
    assert track_sweep(uri, recorded(), read=no_files) == ()
    assert Seen(uri).everything() == before


def test_continued_sweep_adds_what_is_new_and_updates_the_answer(uri: str) -> None:
    whole = recorded()
    first = whole.model_copy(
        update={
            "probes": whole.probes[:-1],
            "potentials": tuple(p.model_copy(update={"ratio": 0.9}) for p in whole.potentials),
            "excess_errors": (),
        }
    )
    track_sweep(uri, first, read=no_files)
    track_sweep(uri, whole, read=no_files)
    seen, name = Seen(uri), "ft · 2 epochs · seed 0"
    assert [step for step, _ in seen.history(name, "error/nominal")] == [0, 5000, 8000, 9000]
    # 0.9 came first and is larger; the latest answer is what must be shown.
    assert seen.runs[name].data.metrics["potential_0.005/nominal"] == 0.5


def test_interrupted_sweep_is_killed_until_it_is_continued(uri: str) -> None:
    results = recorded()
    tracker = MlflowTracker(uri)
    tracker.start(SPEC)
    for result in results.probes[:-1]:
        tracker.log_probe(result)
    tracker.close()
    assert tracker.problems == ()
    assert Seen(uri).runs["ft · 2 epochs · seed 0"].info.status == "KILLED"
    track_sweep(uri, results, read=no_files)
    assert Seen(uri).runs["ft · 2 epochs · seed 0"].info.status == "FINISHED"


def test_failed_probe_ends_failed_and_has_no_error(uri: str) -> None:
    track_sweep(uri, recorded(num_failed=1), read=no_files)
    failed = Seen(uri).runs["ft · 2 epochs · seed 0 · ratio 0.9000"]
    assert failed.info.status == "FAILED"
    assert failed.data.metrics == {}
    assert failed.data.tags["failure.message"] == "the loss is NaN"
    assert Seen(uri).history("ft · 2 epochs · seed 0", "error/nominal")[-1][0] == 8000
    track_sweep(uri, recorded(), read=no_files)
    mended = Seen(uri).runs["ft · 2 epochs · seed 0 · ratio 0.9000"]
    assert (mended.info.status, mended.data.tags["probe_status"]) == ("FINISHED", "done")
    assert mended.data.metrics["error/nominal"] == 0.2


def test_checkpoints_become_artifacts_of_their_probes_once(uri: str, tmp_path: Path) -> None:
    results = recorded()
    chosen = results.probes[3].probe.id
    reads: list[str] = []

    def read(training_id: str) -> Mapping[str, bytes]:
        reads.append(training_id)
        return {"weights.safetensors": b"weights", "masks.safetensors": b"masks"}

    for _ in range(2):
        assert track_sweep(uri, results, checkpoints=[chosen], read=read) == ()
    assert reads == [chosen]
    seen = Seen(uri)
    run = next(run for run in seen.runs.values() if run.data.tags.get("training_id") == chosen)
    files = seen.client.list_artifacts(run.info.run_id, "checkpoint")
    assert [file.path for file in files] == ["checkpoint/masks.safetensors", "checkpoint/weights.safetensors"]
    assert run.info.artifact_uri.startswith(str(tmp_path / "mlartifacts" / "small"))


def test_unreadable_checkpoint_is_a_problem_and_the_rest_is_written(uri: str) -> None:
    def read(training_id: str) -> Mapping[str, bytes]:
        raise FileNotFoundError(training_id)

    results = recorded()
    (problem,) = track_sweep(uri, results, checkpoints=[results.probes[3].probe.id], read=read)
    assert f"checkpoint {results.probes[3].probe.id}" in problem
    assert "| task | delta |" in Seen(uri).experiment.tags["mlflow.note.content"]


def test_deleted_experiment_is_restored(uri: str) -> None:
    track_sweep(uri, recorded(), read=no_files)
    before = Seen(uri)
    before.client.delete_experiment(before.experiment.experiment_id)
    assert track_sweep(uri, recorded(), read=no_files) == ()
    assert Seen(uri).everything() == before.everything()


@pytest.mark.slow
def test_missing_database_is_made_whole_by_several_processes_at_once(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'new' / 'mlflow.db'}"
    code = f"from raypruning.runtime.mlflow_tracker import create_database as c; c({uri!r})"
    makers = [subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True) for _ in range(2)]
    errors = [maker.communicate(timeout=120)[1] for maker in makers]
    assert [maker.returncode for maker in makers] == [0, 0], errors
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["mlflow.db"]
    assert track_sweep(uri, recorded(), read=no_files) == ()


def test_unreachable_server_costs_a_warning_and_no_time(caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as closed:  # bound but not listening: connections are refused
        closed.bind(("127.0.0.1", 0))
        tracker = MlflowTracker(f"http://user:secret@127.0.0.1:{closed.getsockname()[1]}")
        begun = time.monotonic()
        tracker.start(SPEC)
        for result in recorded().probes:
            tracker.log_probe(result)
        logged = time.monotonic()
        tracker.finish(recorded(), checkpoints=[recorded().probes[3].probe.id], read=no_files)
    assert logged - begun < 1  # nothing but a queue; the import alone takes longer
    assert time.monotonic() - begun < 20  # 15 s of patience and the import
    assert tracker.problems
    assert [record.name for record in caplog.records if record.levelname == "WARNING"] == ["raypruning.mlflow"]
    assert "secret" not in caplog.text + "".join(tracker.problems)


@pytest.mark.slow
def test_what_an_outage_left_out_is_written_at_the_end_through_the_server(uri: str, tmp_path: Path) -> None:
    results, chosen = recorded(), recorded().probes[3].probe.id
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    tracker = MlflowTracker(address)
    tracker.start(SPEC)
    for result in results.probes:
        tracker.log_probe(result)
    wait_for(lambda: bool(tracker.problems), seconds=60)
    command = serve(uri, port=port)
    server = subprocess.Popen(
        command.argv,
        env={**os.environ, **command.env},
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_for(lambda: is_up(address), seconds=120)
        tracker.finish(results, checkpoints=[chosen], read=lambda _: {"weights.safetensors": b"weights"})
        assert tracker.problems == ()
        assert tracker.experiment_url.startswith(f"{address}/#/experiments/{tracker.experiment_id}/runs?")
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=60)
    seen = Seen(uri)
    assert {run.info.status for run in seen.runs.values()} == {"FINISHED"}
    assert len(list((tmp_path / "mlartifacts").rglob("checkpoint/weights.safetensors"))) == 1


def is_up(address: str) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}/health", timeout=5):
        return True
    return False


def wait_for(is_so: Callable[[], bool], *, seconds: float) -> None:
    until = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < until, f"not so within {seconds} s"
        time.sleep(0.1)  # neither a server nor an outage announces itself


def test_nothing_is_printed(uri: str) -> None:
    code = (
        "from raypruning.runtime.mlflow_tracker import track_sweep; import pathlib, sys; "
        "from raypruning.core.records import SweepResults; "
        f"results = SweepResults.model_validate_json(sys.stdin.read()); "
        f"assert not track_sweep({uri!r}, results, read=lambda _: {{}})"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], input=recorded().model_dump_json(), capture_output=True, text=True, timeout=120
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


def test_server_command_is_local_and_small(tmp_path: Path) -> None:
    argv, env = serve(f"sqlite:///{tmp_path}/mlflow.db", port=5000)
    assert argv[1:4] == ["-m", "mlflow", "server"]
    assert argv[argv.index("--host") + 1] == "127.0.0.1"
    assert argv[argv.index("--workers") + 1] == "1"
    assert argv[argv.index("--artifacts-destination") + 1] == f"{tmp_path}/mlartifacts"
    assert env["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"


def test_server_of_a_server_is_refused() -> None:
    with pytest.raises(SpecError, match="is a server already"):
        serve("http://user:secret@mlflow:5000", port=5000)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_pages_end_with_the_command_that_opened_them(tmp_path: Path, signum: signal.Signals):
    create_database(f"sqlite:///{tmp_path}/mlflow.db")
    port = free_port()
    command = [sys.executable, "-m", "cli", "ui", "--storage", str(tmp_path), "--port", str(port)]
    ui = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        wait_for_server(port, ui)
        children = psutil.Process(ui.pid).children(recursive=True)
        assert children
        ui.send_signal(signum)
        _, said = ui.communicate(timeout=30)
    finally:
        ui.kill()
    assert ui.returncode == 128 + signum
    assert f"stopped by {signum.name}" in said
    gone, alive = psutil.wait_procs(children, timeout=20)
    assert alive == [] and len(gone) == len(children)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def wait_for_server(port: int, process: subprocess.Popen[str], *, seconds: float = 90.0) -> None:
    for _ in range(round(seconds / 0.5)):
        assert process.poll() is None, "the server ended by itself"
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
            return
        time.sleep(0.5)
    raise AssertionError(f"nothing answers on port {port}")
