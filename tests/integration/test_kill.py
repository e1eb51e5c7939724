"""Sweeps whose driver is killed, or asked to stop, at random moments: the same command ends with the same bits."""

from __future__ import annotations

import contextlib
import json
import os
import random
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest

from raypruning.runtime.store import open_store
from tests.integration.commands import Ran, run_sweep
from tests.integration.conftest import ROOT
from tests.integration.stored import all_predictions, commits, evaluations, weights_sha256

# In the environment of what this module starts, and of nothing that other tests start at the same time.
MINE = {"STARTED_BY": secrets.token_hex(8)}

pytestmark = pytest.mark.slow

# Ten or so trainings of a second, which save after every epoch.
SWEEP = [
    *("lenet5", "--delta", "0.04", "--seed", "0", "--budget", "3", "--method", "wt", "--method", "ft"),
    *("--task", "nominal", "--task", "noise/uniform/0.5", "--resolution", "0.5", "--set", "search.high=0.95"),
    *("--set", "data.train_images=600", "--set", "data.test_images=500", "--set", "recipe.epochs=8"),
]
# The same as chains of three links and what branches off them, whose weights go back to those of the first epoch.
LINKS = [
    *(*SWEEP, "--schedule", "iterative", "--set", "schedule.steps=3", "--set", "search.low=0.5"),
    *("--set", "search.high=0.99", "--resolution", "0.2"),
    *("--set", "schedule.prunes_per_link=2", "--set", "schedule.rewind_epochs=1"),
]
RAY_TWO, RAY_ONE = ("--executor", "ray"), ("--executor", "ray", "--max-concurrent", "1")
INLINE = ("--executor", "inline")

# How the commands of a chain end, and by what they run; the last of a chain is left in peace.
CHAINS = {
    "inline": [
        (signal.SIGKILL, INLINE),
        (signal.SIGTERM, INLINE),
        (signal.SIGINT, INLINE),
        (None, INLINE),
    ],
    "links": [
        (signal.SIGTERM, INLINE),
        (signal.SIGKILL, INLINE),
        (signal.SIGINT, INLINE),
        (None, INLINE),
    ],
    "ray": [
        (signal.SIGKILL, RAY_TWO),
        (signal.SIGTERM, RAY_ONE),
        (signal.SIGINT, RAY_TWO),
        (signal.SIGKILL, RAY_ONE),
        (None, RAY_TWO),
    ],
}
START_SECONDS = 120.0  # A loaded machine takes half a minute to start Ray and import torch.


class Ended(NamedTuple):
    """A command, and what the storage held when it was over.

    Attributes:
        left: processes of the command that were still there 15 s later, although it was asked to stop and had said so.
    """

    sent: signal.Signals | None
    exit_code: int
    stdout: str
    stderr: str
    commits: dict[str, int]
    evaluations: dict[str, int]
    num_unfinished: int
    left: list[str]


class Chain(NamedTuple):
    """The same command again and again, until it ends by itself."""

    ended: list[Ended]
    storage: Path

    @property
    def answer(self) -> dict[str, Any]:
        return json.loads(self.ended[-1].stdout)


@pytest.fixture(scope="module", params=["inline", "links", pytest.param("ray", marks=pytest.mark.ray)])
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def undisturbed_runs() -> dict[bool, Ran]:
    return {}


@pytest.fixture(scope="module")
def undisturbed(name: str, undisturbed_runs: dict[bool, Ran], tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """In this process, and in a storage of its own; once for each sweep."""
    if (key := name == "links") not in undisturbed_runs:
        undisturbed_runs[key] = run_sweep(*sweep_of(name), storage=tmp_path_factory.mktemp("undisturbed"))
    ran = undisturbed_runs[key]
    assert ran.exit_code in (0, 3), ran.stderr
    return ran


@pytest.fixture(scope="module")
def chain(name: str, tmp_path_factory: pytest.TempPathFactory, undisturbed: Ran) -> Chain:
    storage = tmp_path_factory.mktemp(name)
    moments = random.Random(f"moments of {name}")
    ended = [disturbed(sweep_of(name), storage, sent, how, moments) for sent, how in CHAINS[name]]
    return Chain(ended, storage)


def sweep_of(name: str) -> list[str]:
    return LINKS if name == "links" else SWEEP


def disturbed(
    sweep: list[str], storage: Path, sent: signal.Signals | None, how: tuple[str, ...], moments: random.Random
) -> Ended:
    """Run the command; send it a signal after some files were written, SIGKILL to its whole process group."""
    command = [sys.executable, "-m", "cli", "sweep", *sweep, *how, "--json"]
    command += ["--storage", str(storage), "--tracking-uri", "none"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAYPRUNING_SAVE_SECONDS": "0", **MINE}
    # The first one in the middle of the parent, which saves seven times before it is committed; then anywhere.
    is_first = not commits(storage)
    num_files, delay_seconds = moments.randint(2, 5) if is_first else moments.randint(3, 18), moments.uniform(0.0, 0.1)
    said = storage.with_name(f"{storage.name}.stderr")
    with (
        said.open("w") as stderr,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment, start_new_session=True
        ) as driver,
    ):
        family: list[psutil.Process] = []
        try:
            if sent is not None:
                wait_for_writes(driver, storage, num_files, said=said)
                time.sleep(delay_seconds)  # Synchronises nothing: files are written at moments that are all alike.
                family = psutil.Process(driver.pid).children(recursive=True)
                send(driver, sent)
            stdout, _ = driver.communicate(timeout=START_SECONDS * 2)
            left = [] if sent in (None, signal.SIGKILL) else still_there(family, within_seconds=15.0)
        finally:
            driver.kill()
            if sent is not signal.SIGKILL:  # What a killed driver leaves behind may meet the next one: it does in life.
                end(family)
    num_unfinished = len(open_store(str(storage), read_only=True).unfinished_ids())
    seen = commits(storage), evaluations(storage)
    return Ended(sent, driver.returncode, stdout, said.read_text(), *seen, num_unfinished, left)


def wait_for_writes(driver: subprocess.Popen[str], storage: Path, num_files: int, *, said: Path) -> None:
    """Return when a command that has begun sees so many files written: weights, states, predictions, commits.

    Some may be of a worker that has outlived the driver before: a sweep must stand that, too.
    """

    def versions() -> set[tuple[str, int]]:
        found = set()
        for path in storage.glob("trainings/**/*.*"):
            with contextlib.suppress(FileNotFoundError):
                found.add((str(path), path.stat().st_mtime_ns))
        return found

    before: set[tuple[str, int]] | None = None
    seen: set[tuple[str, int]] = set()
    deadline = time.monotonic() + START_SECONDS
    while len(seen) < num_files:
        if before is None and said.read_text():
            before = versions()
        if before is not None:
            seen |= versions() - before
        if driver.poll() is not None:
            raise AssertionError(f"ended with {driver.returncode} before it was disturbed: {said.read_text()}")
        if time.monotonic() > deadline:
            raise AssertionError(f"wrote {len(seen)} files in {START_SECONDS:g} s")
        time.sleep(0.005)


def send(driver: subprocess.Popen[str], sent: signal.Signals) -> None:
    if sent is signal.SIGKILL:
        os.killpg(driver.pid, sent)
    else:
        driver.send_signal(sent)


def still_there(family: list[psutil.Process], *, within_seconds: float) -> list[str]:
    """Names of those that do not end in time."""
    _, alive = psutil.wait_procs(family, timeout=within_seconds)
    return [process.name() for process in alive if process.is_running()]


def end(family: list[psutil.Process]) -> None:
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


@pytest.fixture(scope="module", autouse=True)
def no_process_left_behind():
    before = {process.pid for process in psutil.process_iter()}
    yield
    mine = [
        process
        for process in psutil.process_iter(["cmdline", "environ"])
        if process.pid not in before and MINE.items() <= (process.info["environ"] or {}).items()
    ]
    end(mine)


def test_a_disturbed_sweep_ends_with_the_bits_of_an_undisturbed_one(chain: Chain, undisturbed: Ran):
    last = chain.ended[-1]
    assert last.exit_code == undisturbed.exit_code, last.stderr
    assert weights_sha256(chain.storage) == weights_sha256(undisturbed.storage)
    assert all_predictions(chain.storage) == all_predictions(undisturbed.storage)
    for part in ("potentials", "excess_errors", "summaries"):
        assert chain.answer[part] == undisturbed.answer[part]


def test_no_finished_training_or_evaluation_of_a_disturbed_sweep_ran_twice(chain: Chain):
    commits_at_the_end, evaluations_at_the_end = chain.ended[-1].commits, chain.ended[-1].evaluations
    for one in chain.ended:
        assert one.commits.items() <= commits_at_the_end.items()
        assert one.evaluations.items() <= evaluations_at_the_end.items()
    num_trained = chain.answer["cost"]["num_trained"]
    assert num_trained <= len(commits_at_the_end) - len(chain.ended[-2].commits)


def test_a_sweep_was_disturbed_while_it_was_at_work(chain: Chain):
    """What the tests here stand on: there was half-done work when a command ended, and work left for the last one."""
    assert any(one.num_unfinished for one in chain.ended[:-1])
    assert len(chain.ended[-2].commits) < len(chain.ended[-1].commits)


def test_a_sweep_that_is_over_leaves_nothing_half_done(chain: Chain):
    assert chain.ended[-1].num_unfinished == 0
    assert not list(chain.storage.glob("trainings/*/resume/*"))
    assert not list(chain.storage.glob("leases/sweeps/*.json"))


@pytest.mark.parametrize(("sent", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_sweep_that_is_asked_to_stop_says_in_a_line_how_to_go_on(chain: Chain, sent: signal.Signals, exit_code: int):
    (one,) = (one for one in chain.ended if one.sent is sent)
    assert one.exit_code == exit_code, one.stderr
    expected = f"prune-cli: stopped by {sent.name}; what is finished is kept: the same command continues"
    assert one.stderr.splitlines()[-1] == expected
    assert "Traceback" not in one.stderr
    assert one.stdout == ""
    assert one.left == []


def test_a_killed_driver_does_not_keep_the_next_one_waiting_for_its_lease(chain: Chain):
    assert all("another process" not in one.stderr for one in chain.ended)


def test_a_chain_that_was_killed_continues_from_its_last_finished_link(chain: Chain, name: str):
    """No link is begun before the one it starts from, and what one command finished the next one finds."""
    probes = {probe["training"]: probe for probe in chain.answer["probes"]}
    committed = chain.ended[-1].commits
    for probe in probes.values():
        if probe["start"] is not None:
            assert committed[probe["start"]] < committed[probe["training"]]
    places = {probe["place"] for probe in probes.values() if probe["method"] != "dense"}
    assert places == ({"link", "branch"} if name == "links" else {None})
