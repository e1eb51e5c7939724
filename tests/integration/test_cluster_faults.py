"""Nodes, workers, drivers, disks and servers go away in mid-sweep: what is finished stays, and every bit is as it was.

What is killed at every write, and at random moments on one machine, is in test_stores.py, test_kill.py and test_ray.py.
"""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from raypruning.runtime.ray_tune import _quiet
from raypruning.runtime.store import open_store
from tests.integration.clusters import (
    ROOT,
    SWEEP,
    Cluster,
    Driver,
    MlflowServer,
    Paused,
    S3Server,
    Watch,
    in_mid_training,
    shown,
    stop_in_a_write,
)
from tests.integration.commands import Ran, run_sweep
from tests.integration.stored import all_predictions, commits, weights_sha256

pytestmark = [pytest.mark.ray, pytest.mark.slow]

ENVIRONMENT = {"PYTHONPATH": str(ROOT), "RAYPRUNING_SAVE_SECONDS": "0"}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """In this process."""
    ran = run_sweep(*SWEEP, storage=tmp_path_factory.mktemp("undisturbed"))
    assert ran.exit_code in (0, 3), ran.stderr
    return ran


@pytest.fixture(scope="module")
def start_cluster() -> Iterator[Callable[[], Cluster]]:
    """Of one node beside the head."""
    with contextlib.ExitStack() as stack:
        yield lambda: stack.enter_context(Cluster(num_workers=1))


@pytest.fixture(scope="module")
def clusters(start_cluster: Callable[[], Cluster]) -> list[Cluster]:
    """Those there were so far, of which the last one is up: each start costs seconds."""
    return [start_cluster()]


@pytest.fixture
def cluster(clusters: list[Cluster]) -> Cluster:
    return clusters[-1]


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    return tmp_path / "store"


def on(cluster: Cluster, storage: Path) -> Driver:
    words = (*SWEEP, "--storage", storage, "--executor", "ray", "--address", cluster.address)
    return Driver(*words, said=storage.with_name("driver"), environment=cluster.environment)


def in_one_process(storage: Path | str, said: Path, *, tracking_uri: str = "none") -> Driver:
    words = (*SWEEP, "--storage", storage, "--executor", "inline")
    return Driver(*words, said=said, environment={**os.environ, **ENVIRONMENT}, tracking_uri=tracking_uri)


def assert_same(answer: dict[str, Any], storage: Path, undisturbed: Ran) -> None:
    """The same trainings with the same weights, predictions and conclusions, and nothing left half done."""
    assert weights_sha256(storage) == weights_sha256(undisturbed.storage)
    assert all_predictions(storage) == all_predictions(undisturbed.storage)
    for part in ("potentials", "excess_errors", "summaries"):
        assert answer[part] == undisturbed.answer[part]
    assert not list(storage.glob("trainings/*/resume/*"))


def test_node_that_joins_is_used_and_its_loss_costs_one_probe_the_epoch_it_was_in(
    cluster: Cluster, storage: Path, undisturbed: Ran
):
    with Watch(storage) as watch, on(cluster, storage) as driver:
        at_work = driver.wait_for(lambda: len(commits(storage)) >= 2 and in_mid_training(storage))
        with Paused(*at_work):  # or the sweep would be over before a node of this machine is there
            (joined,) = cluster.add()
            driver.wait_for(lambda: in_mid_training(storage, on=joined))
            before = commits(storage)
            cluster.remove(joined)
        ended = driver.wait()
    assert ended.exit_code == undisturbed.exit_code, ended.stderr
    assert_same(ended.answer, storage, undisturbed)
    assert before.items() <= commits(storage).items()
    assert watch.repeated == set()
    # It had saved an epoch: a node that goes is then no failed attempt.
    assert {probe["attempts"] for probe in ended.answer["probes"]} == {1}


def test_worker_asked_to_end_and_a_head_that_is_lost_keep_what_is_finished_for_the_next_cluster(
    clusters: list[Cluster], start_cluster: Callable[[], Cluster], storage: Path, undisturbed: Ran
):
    with Watch(storage) as watch:
        with on(clusters[-1], storage) as driver:
            ((pid, training),) = driver.wait_for(lambda: commits(storage) and in_mid_training(storage)).items()
            worker = psutil.Process(pid)
            worker.terminate()  # what a spot machine gets before it goes
            driver.wait_for(lambda: training in commits(storage))
            assert psutil.wait_procs([worker], timeout=60)[1] == []
            driver.wait_for(lambda: in_mid_training(storage))
            before = commits(storage)
            clusters[-1].close()
            clusters.append(start_cluster())  # while the driver waits for the head to come back
            lost = driver.wait()
        assert lost.exit_code not in (0, 3)
        assert lost.stdout == ""
        with on(clusters[-1], storage) as driver:
            ended = driver.wait()
    assert ended.exit_code == undisturbed.exit_code, ended.stderr
    assert "another process" not in ended.stderr, "the lease of the lost driver is known to be nobody's"
    assert_same(ended.answer, storage, undisturbed)
    assert before.items() <= commits(storage).items()
    assert watch.repeated == set()
    assert ended.answer["cost"]["num_trained"] <= len(commits(storage)) - len(before)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 700 kB: half of the sweep fits."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=700k", "tmpfs", folder]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("only root can make a small disk")  # test_bad_input.py has one that is made up
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_disk_that_fills_up_under_the_workers_ends_the_sweep_in_one_line_and_loses_nothing(
    cluster: Cluster, small_disk: Path, tmp_path: Path, undisturbed: Ran
):
    storage = small_disk / "store"
    with Watch(storage) as watch:
        with on(cluster, storage) as driver:
            full = driver.wait()
        assert (full.exit_code, full.stdout) == (1, "")
        assert full.stderr.splitlines()[-1].endswith("then the same command continues")
        assert "Traceback" not in full.stderr
        before = commits(storage)
        assert before
        subprocess.run(["mount", "-o", "remount,size=30m", small_disk], check=True)
        with in_one_process(storage, tmp_path / "again") as driver:
            ended = driver.wait()
    assert_same(ended.answer, storage, undisturbed)
    assert before.items() <= commits(storage).items()
    assert watch.repeated == set()
    assert ended.answer["cost"]["num_trained"] == len(commits(storage)) - len(before)


def test_log_on_a_full_disk_is_cut_off_without_an_error(small_disk: Path, capsys: pytest.CaptureFixture):
    log = small_disk / "ray.log"
    with contextlib.suppress(OSError), (small_disk / "filler").open("wb") as filler:
        filler.write(bytes(1 << 20))
    with _quiet(log):
        print("x" * 100_000)
        logging.getLogger("ray.tune").warning("x" * 100_000)
    assert log.stat().st_size == 0
    assert capsys.readouterr() == ("", "")


def test_driver_killed_in_the_middle_of_a_write_leaves_half_a_file_that_counts_as_none(
    storage: Path, tmp_path: Path, undisturbed: Ran
):
    with Watch(storage) as watch:
        with in_one_process(storage, tmp_path / "first") as driver:
            driver.wait_for(lambda: commits(storage))
            unfinished = stop_in_a_write(driver, storage)
            before = commits(storage)
            driver.kill()
        assert unfinished.exists()
        with in_one_process(storage, tmp_path / "again") as driver:
            ended = driver.wait()
    assert ended.exit_code == undisturbed.exit_code, ended.stderr
    assert unfinished.exists(), "it may be of a writer at work; `prune-cli clean` removes it when it is old"
    assert_same(ended.answer, storage, undisturbed)
    assert before.items() <= commits(storage).items()
    assert watch.repeated == set()
    assert ended.answer["cost"]["num_trained"] == len(commits(storage)) - len(before)


@pytest.mark.mlflow
def test_mlflow_that_is_away_from_mid_sweep_on_is_made_whole_by_track(
    storage: Path, tmp_path: Path, undisturbed: Ran, prune_cli: Callable
):
    expected = f"sqlite:///{tmp_path / 'undisturbed.db'}"
    with MlflowServer(tmp_path) as server:
        with in_one_process(storage, tmp_path / "driver", tracking_uri=server.address) as driver:
            driver.wait_for(lambda: len(server.shown()) >= 2, every=0.2)
            server.kill()
            track = ("track", "lenet5", "--storage")
            assert prune_cli(*track, undisturbed.storage, "--tracking-uri", expected).code == 0
            ended = driver.wait()
        assert ended.exit_code == undisturbed.exit_code, ended.stderr
        assert "`prune-cli track` writes it later" in ended.stderr
        assert_same(ended.answer, storage, undisturbed)
        assert server.shown() != shown(expected)
        server.start()
        assert prune_cli(*track, storage).code == 0
        assert server.shown() == shown(expected)


def test_s3_that_is_away_for_a_while_delays_a_sweep_and_changes_nothing(tmp_path: Path, undisturbed: Ran):
    copy = tmp_path / "copy"
    with S3Server() as server:
        store = open_store(server.uri)
        with in_one_process(server.uri, tmp_path / "driver") as driver:
            driver.wait_for(lambda: len(store.training_ids()) >= 2 and store.unfinished_ids(), every=0.1)
            server.stop()
            time.sleep(4)  # how long it is away
            server.start()
            ended = driver.wait()
        server.copy_to(copy)
    assert ended.exit_code == undisturbed.exit_code, ended.stderr
    assert_same(ended.answer, copy, undisturbed)
    assert {probe["attempts"] for probe in ended.answer["probes"]} == {1}, (
        "each request was sent again until it came through"
    )
