"""The Ray executor on a real local Ray: the same bits as in this process, also when a worker is killed."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from raypruning.runtime.ray_tune import JobSearcher, RayExecutor
from raypruning.runtime.signals import HoldSignals
from tests.integration.commands import Ran, run_sweep
from tests.integration.stored import all_predictions, weights_sha256

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.usefixtures("ray_cluster"),
]

# A LeNet-5 of seconds, with 20 images of delta so that brackets move.
LENET5 = [
    *("lenet5", "--dataset", "digits", "--delta", "0.1", "--seed", "0", "--budget", "2"),
    *("--method", "wt", "--method", "ft", "--task", "nominal", "--task", "noise/uniform/0.5"),
    *("--set", "data.train_images=400", "--set", "data.test_images=200", "--set", "recipe.epochs=5"),
    *("--set", "search.high=0.95", "--resolution", "0.5"),
]


@pytest.fixture(scope="module")
def inline(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    ran = run_sweep(*LENET5, storage=tmp_path_factory.mktemp("inline"))
    assert ran.exit_code == 0, ran.stderr
    return ran


def assert_same(ran: Ran, expected: Ran) -> None:
    """Weights and predictions to the bit, and everything that follows from them."""
    assert weights_sha256(ran.storage) == weights_sha256(expected.storage)
    assert all_predictions(ran.storage) == all_predictions(expected.storage)
    for part in ("potentials", "excess_errors", "summaries"):
        assert ran.answer[part] == expected.answer[part]
    assert [probe["training"] for probe in ran.answer["probes"]] == [
        probe["training"] for probe in expected.answer["probes"]
    ]


def test_two_workers_give_the_bits_of_this_process(inline: Ran, tmp_path: Path):
    ran = run_sweep(*LENET5, storage=tmp_path, executor="ray")
    assert ran.exit_code == 0, ran.stderr
    assert_same(ran, inline)
    assert all(probe["attempts"] == 1 for probe in ran.answer["probes"])


def test_one_worker_that_imports_a_plugin_finds_the_known_answer(known_sweep: Path, tmp_path: Path):
    inline = run_sweep(known_sweep, storage=tmp_path / "inline")
    ran = run_sweep(known_sweep, "--max-concurrent", "1", storage=tmp_path / "ray", executor="ray")
    assert ran.exit_code == 0, ran.stderr
    assert_same(ran, inline)
    assert {one["ratio"] for one in ran.answer["potentials"]} == {0.65, 0.6, 0.05, 0.1}


def test_a_sweep_that_is_done_starts_no_worker(inline: Ran):
    before = {process.pid for process in workers()}
    again = run_sweep(*LENET5, storage=inline.storage, executor="ray")
    assert again.answer["potentials"] == inline.answer["potentials"]
    assert again.answer["cost"]["num_trained"] == 0
    assert {process.pid for process in workers()} <= before


def test_a_worker_that_is_killed_after_it_saved_an_epoch_costs_no_attempt_and_changes_no_bit(
    inline: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("RAYPRUNING_SAVE_SECONDS", "0")
    killer = Killer(until=lambda: bool(list(tmp_path.glob("trainings/*/resume/state.safetensors"))))
    with killer:
        ran = run_sweep(*LENET5, "--max-concurrent", "1", storage=tmp_path, executor="ray")
    assert killer.killed, "no worker was seen at work"
    assert ran.exit_code == 0, ran.stderr
    assert_same(ran, inline)
    assert {probe["attempts"] for probe in ran.answer["probes"]} == {1}


def workers() -> list[psutil.Process]:
    """The processes of this one's Ray that run probes."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            # Ray names a process after what it runs; Tune wraps a Trainable in a class of its own.
            if any(part.startswith("ray::") and "Trainable" in part for part in process.cmdline()):
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


class Killer:
    """Kills every worker once, with SIGKILL, as soon as `until` is true."""

    def __init__(self, *, until: Callable[[], bool]) -> None:
        self.killed: list[int] = []
        self._until = until
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Killer:
        self._thread.start()
        return self

    def __exit__(self, *about: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._is_over.wait(0.01):
            if self._until():
                for process in workers():
                    process.send_signal(signal.SIGKILL)
                    self.killed.append(process.pid)
                return


def test_a_worker_killed_for_the_machines_memory_costs_an_attempt_and_changes_no_bit(
    inline: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Ray raises for such a death out of Tune instead of failing the trial; its text is that of Ray 2.60."""
    make_tuner = RayExecutor._tuner
    lost: list[str] = []

    class Killed:
        def __init__(self, searcher: JobSearcher) -> None:
            self.searcher = searcher

        def fit(self) -> None:
            self.searcher.set_search_properties(None, None, {})
            lost.append(self.searcher.suggest("trial")["job"])
            raise RuntimeError(
                "Caught unexpected exception: 2 worker(s) were killed due to the node running low on memory"
            )

    def tuner(self: RayExecutor, searcher: JobSearcher, signals: HoldSignals, *, folder: str):
        return make_tuner(self, searcher, signals, folder=folder) if lost else Killed(searcher)

    monkeypatch.setattr(RayExecutor, "_tuner", tuner)
    ran = run_sweep(*LENET5, storage=tmp_path, executor="ray")
    assert ran.exit_code == 0, ran.stderr
    assert "Traceback" not in ran.stderr
    assert_same(ran, inline)
    assert [probe["attempts"] for probe in ran.answer["probes"]].count(2) == len(lost) == 1
