"""What random faults do to a sweep that is started again until it is done: nothing may be lost, repeated or wrong.

    python -m benchmarks.faults --faults 50

A sweep of nine LeNet-5 trainings, over and over: on a Ray cluster of one to three nodes on this machine, which share a
folder; in one process beside an MLflow server; and in one process into an S3 server (moto). At random moments, counted
in saves of training states, something is killed, asked to end, filled up or taken away; then the same command is
typed again, until the sweep is done. Counted, from one fault to the next:

lost      finished trainings that are gone, or are not the file they were
repeated  finished trainings that a process went on with, or that were trained once more
wrong     trainings with other weights or predictions than an undisturbed sweep in one process; answers that differ;
          runs in MLflow that differ after `prune-cli track`
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from tests.integration.clusters import (
    ROOT,
    SWEEP,
    Cluster,
    Driver,
    Ended,
    MlflowServer,
    S3Server,
    Watch,
    in_mid_training,
    shown,
    stop_in_a_write,
    wait_for,
)
from tests.integration.stored import all_predictions, weights_sha256

ENVIRONMENT = {"PYTHONPATH": str(ROOT), "RAYPRUNING_SAVE_SECONDS": "0", "OMP_NUM_THREADS": "1"}
MAX_NODES = 3
SECONDS_AWAY = (1.0, 4.0, 40.0)  # of a server: the store's patience is 30 s, so the last one ends the command
PARTS = ("potentials", "excess_errors", "summaries")


class Held(NamedTuple):
    """What a storage holds: of each finished training the checksum of its document, its weights, its predictions."""

    documents: Mapping[str, str]
    weights: Mapping[str, str]
    predictions: Mapping[str, Mapping[str, bytes]]


class Expected(NamedTuple):
    """An undisturbed sweep."""

    ended: Ended
    held: Held
    runs: Mapping[str, object]


class Fault(NamedTuple):
    """One that happened, and what it cost."""

    kind: str
    lost: int = 0
    repeated: int = 0
    wrong: int = 0


class Round:
    """One sweep in a storage of its own, disturbed until it is done."""

    kinds: Mapping[str, Callable[[], None]]

    def __init__(self, folder: Path, expected: Expected, rng: random.Random) -> None:
        self.folder, self.expected, self.rng = folder, expected, rng
        self.storage: Path | str = folder / "disk" / "store"
        self.faults: list[Fault] = []
        self._watch: Watch | None = None
        self._known: Mapping[str, str] = {}  # documents at the last fault
        self._was_repeated: set[str] = set()
        self._was_wrong: set[str] = set()

    def run(self, *, at_most: int) -> list[Fault]:
        """Disturb the sweep so often at most, and let it end; the faults, with what they cost."""
        with self._looked_at(), contextlib.ExitStack() as stack:
            ended, num_commands = None, 0
            while ended is None:
                self.driver = stack.enter_context(self.start())
                num_commands += 1
                assert num_commands <= at_most + 5, "the sweep does not come to its end"
                num_before = len(self.held().documents)
                while len(self.faults) < at_most and self._moment():
                    self._disturb()
                ended = self._if_done(self.driver.wait())
            self._settle(num_trained=ended.answer["cost"]["num_trained"], num_before=num_before)
            self._compare(ended)
        return self.faults

    def start(self) -> Driver:
        raise NotImplementedError

    def held(self) -> Held:
        assert isinstance(self.storage, Path)
        return held_in(self.storage)

    def num_runs_wrong(self) -> int:
        """Runs of the tracker that are not as in an undisturbed sweep."""
        return 0

    @contextlib.contextmanager
    def _looked_at(self) -> Iterator[None]:
        if not isinstance(self.storage, Path):
            yield
            return
        with Watch(self.storage) as self._watch:
            yield

    def _moment(self) -> bool:
        """Wait for a random moment of work; False where the command ended before."""
        assert self._watch is not None
        wanted = self._watch.num_saves + self.rng.randint(1, 10)
        wait_for(lambda: self._watch.num_saves >= wanted or self.driver.is_over, 300)
        time.sleep(self.rng.uniform(0.0, 0.2))
        return not self.driver.is_over

    def _disturb(self) -> None:
        self._settle()
        kind = self.rng.choice([*self.kinds])
        say(f"  {kind}, with {len(self._known)} trainings finished")
        self.faults.append(Fault(kind))
        self.kinds[kind]()

    def _settle(self, *, num_trained: int = 0, num_before: int = 0) -> None:
        """Count what the last fault did, which is known now."""
        now = self.held()
        repeated = self._watch.repeated if self._watch else set()
        wrong = {key for key, value in now.weights.items() if value != self.expected.held.weights.get(key)}
        wrong |= {key for key, one in now.predictions.items() if one != self.expected.held.predictions.get(key)}
        lost = sum(now.documents.get(key) != value for key, value in self._known.items())
        self._charge(
            lost=lost,
            repeated=len(repeated - self._was_repeated) + max(0, num_trained - (len(now.documents) - num_before)),
            wrong=len(wrong - self._was_wrong),
        )
        self._known, self._was_repeated, self._was_wrong = now.documents, repeated, wrong

    def _charge(self, *, lost: int = 0, repeated: int = 0, wrong: int = 0) -> None:
        if not self.faults:
            assert not (lost or repeated or wrong), "without any fault"
            return
        kind, *before = self.faults[-1]
        self.faults[-1] = Fault(kind, lost + before[0], repeated + before[1], wrong + before[2])

    def _if_done(self, ended: Ended) -> Ended | None:
        """The command that ended the sweep; None for one that a fault ended, or that gave a probe up after it."""
        if ended.exit_code == self.expected.ended.exit_code and not ended.answer["cost"]["num_failed"]:
            return ended
        said = ended.stderr.strip().splitlines()
        say(f"  the command ended with {ended.exit_code}: {said[-1][:160] if said else ''}")
        if "Traceback" in ended.stderr:
            say(ended.stderr)
        return None

    def _compare(self, ended: Ended) -> None:
        differing = sum(ended.answer[part] != self.expected.ended.answer[part] for part in PARTS)
        differing += len(self.expected.held.documents.keys() ^ self._known.keys())
        self._charge(wrong=differing + self.num_runs_wrong())


class Clusters:
    """The cluster that is up: a round goes on with the one that the round before left."""

    def __init__(self) -> None:
        self.now: Cluster | None = None

    def __enter__(self) -> Clusters:
        return self

    def __exit__(self, *about: object) -> None:
        if self.now is not None:
            self.now.close()

    def start(self, *, num_workers: int) -> Cluster:
        self.now = Cluster(num_workers=num_workers)
        return self.now


class OnCluster(Round):
    """Of nodes that share a folder, which is a small disk where one can be made."""

    def __init__(self, folder: Path, expected: Expected, rng: random.Random, clusters: Clusters) -> None:
        super().__init__(folder, expected, rng)
        self.clusters = clusters
        self.cluster = clusters.now or clusters.start(num_workers=2)
        self.kinds = {
            "driver killed": lambda: self.driver.kill(),
            "driver asked to end": self.ask_driver,
            "worker killed": lambda: self.signal_worker(psutil.Process.kill),
            "worker asked to end": lambda: self.signal_worker(psutil.Process.terminate),
            "node added or removed": self.change_nodes,
            "head lost": self.lose_head,
        }
        if is_disk(folder / "disk"):
            self.kinds["disk full"] = self.fill_disk

    def start(self) -> Driver:
        words = (*SWEEP, "--storage", self.storage, "--executor", "ray", "--address", self.cluster.address)
        return Driver(*words, said=self.folder / "driver", environment={**self.cluster.environment, **ENVIRONMENT})

    def ask_driver(self) -> None:
        self.driver.process.terminate()
        self.driver.wait()

    def signal_worker(self, send: Callable[[psutil.Process], None]) -> None:
        assert isinstance(self.storage, Path)
        at_work = list(in_mid_training(self.storage))
        workers = [worker.pid for node in self.cluster.workers for worker in node.workers]
        if at_work or workers:
            with contextlib.suppress(psutil.NoSuchProcess):
                send(psutil.Process(self.rng.choice(at_work or workers)))

    def change_nodes(self) -> None:
        num_nodes = len(self.cluster.workers)
        if num_nodes == 1 or (num_nodes < MAX_NODES and self.rng.random() < 0.5):
            self.cluster.add()
        else:
            self.cluster.remove(self.rng.choice(self.cluster.workers))

    def lose_head(self) -> None:
        self.cluster.close()
        self.driver.wait()
        self.cluster = self.clusters.start(num_workers=self.rng.randint(1, 2))

    def fill_disk(self) -> None:
        disk = self.folder / "disk"
        resize_disk(disk, f"{psutil.disk_usage(str(disk)).used // 1024}k")
        self.driver.wait()
        resize_disk(disk, "30m")


class BesideMlflow(Round):
    """In one process, which writes to a server."""

    def __init__(self, folder: Path, expected: Expected, rng: random.Random, server: MlflowServer) -> None:
        super().__init__(folder, expected, rng)
        self.server = server
        self.kinds = {"MLflow away": self.take_away, "driver killed in a write": self.kill_in_a_write}

    def start(self) -> Driver:
        words = (*SWEEP, "--storage", self.storage, "--executor", "inline")
        environment = {**os.environ, **ENVIRONMENT}
        return Driver(*words, said=self.folder / "driver", environment=environment, tracking_uri=self.server.address)

    def take_away(self) -> None:
        self.server.kill()
        time.sleep(self.rng.choice(SECONDS_AWAY[:2]))
        self.server.start()

    def kill_in_a_write(self) -> None:
        assert isinstance(self.storage, Path)
        with contextlib.suppress(AssertionError):  # It ended first.
            stop_in_a_write(self.driver, self.storage)
        self.driver.kill()

    def num_runs_wrong(self) -> int:
        cli("track", "lenet5", "--storage", self.storage)
        found = self.server.shown()
        return sum(found.get(name) != run for name, run in self.expected.runs.items()) + len(
            found.keys() - self.expected.runs.keys()
        )


class IntoBucket(Round):
    """In one process, whose storage is a server."""

    def __init__(self, folder: Path, expected: Expected, rng: random.Random, server: S3Server) -> None:
        super().__init__(folder, expected, rng)
        self.server = server
        self.storage = server.uri
        self.kinds = {"S3 away": self.take_away, "driver killed": lambda: self.driver.kill()}

    def start(self) -> Driver:
        words = (*SWEEP, "--storage", self.storage, "--executor", "inline")
        environment = {**os.environ, **ENVIRONMENT}
        return Driver(*words, said=self.folder / "driver", environment=environment)

    def held(self) -> Held:
        while True:
            copy = Path(tempfile.mkdtemp(dir=self.folder), "store")
            with contextlib.suppress(FileNotFoundError):  # Something was deleted in between.
                self.server.copy_to(copy)
                return held_in(copy)

    def take_away(self) -> None:
        self.server.stop()
        time.sleep(self.rng.choice(SECONDS_AWAY))
        self.server.start()

    def _moment(self) -> bool:
        from pyarrow.fs import FileSelector

        selector = FileSelector(f"{self.server.bucket}/store/trainings", recursive=True, allow_not_found=True)

        def written() -> set[tuple[str, Any]]:
            return {(found.path, found.mtime_ns) for found in self.server.files.get_file_info(selector)}

        seen = before = written()
        wanted = self.rng.randint(1, 10)
        until = time.monotonic() + 300
        while len(seen - before) < wanted and not self.driver.is_over and time.monotonic() < until:
            seen = seen | written()
            time.sleep(0.05)
        time.sleep(self.rng.uniform(0.0, 0.2))
        return not self.driver.is_over


def held_in(storage: Path) -> Held:
    documents = {
        path.parent.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in storage.glob("trainings/*/training.json")
    }
    return Held(documents, weights_sha256(storage), all_predictions(storage))


def is_disk(folder: Path) -> bool:
    """Make a file system in memory, which only root can."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=30m", "tmpfs", folder]
    return os.geteuid() == 0 and subprocess.run(mount, capture_output=True, check=False).returncode == 0


def resize_disk(folder: Path, size: str) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", folder], check=True)


def cli(*words: object) -> None:
    command = [sys.executable, "-m", "cli", *map(str, words)]
    subprocess.run(command, env={**os.environ, **ENVIRONMENT}, check=True, capture_output=True)


def undisturbed(folder: Path) -> Expected:
    storage, database = folder / "undisturbed", f"sqlite:///{folder / 'undisturbed.db'}"
    words = (*SWEEP, "--storage", storage, "--executor", "inline")
    environment = {**os.environ, **ENVIRONMENT}
    with Driver(*words, said=folder / "first", environment=environment) as driver:
        ended = driver.wait()
    assert ended.exit_code in (0, 3), ended.stderr
    cli("track", "lenet5", "--storage", storage, "--tracking-uri", database)
    return Expected(ended, held_in(storage), shown(database))


def one_round(
    number: int, folder: Path, expected: Expected, rng: random.Random, clusters: Clusters, *, at_most: int
) -> list[Fault]:
    folder.mkdir()
    where = number % 4
    with contextlib.ExitStack() as stack:
        if where == 1:
            say(f"round {number}, in one process beside MLflow")
            return BesideMlflow(folder, expected, rng, stack.enter_context(MlflowServer(folder))).run(at_most=at_most)
        if where == 3:
            say(f"round {number}, in one process into a bucket")
            return IntoBucket(folder, expected, rng, stack.enter_context(S3Server())).run(at_most=at_most)
        say(f"round {number}, on a cluster")
        stack.callback(subprocess.run, ["umount", "--lazy", folder / "disk"], capture_output=True, check=False)
        return OnCluster(folder, expected, rng, clusters).run(at_most=at_most)


def say(line: str) -> None:
    print(line, flush=True)


def table(faults: list[Fault]) -> str:
    lines = [f"{'fault':<26}{'injected':>9}{'lost':>6}{'repeated':>10}{'wrong':>7}"]
    for kind in [*sorted({fault.kind for fault in faults}), "all"]:
        mine = [fault for fault in faults if kind in ("all", fault.kind)]
        lost, repeated, wrong = (sum(getattr(one, name) for one in mine) for name in ("lost", "repeated", "wrong"))
        lines.append(f"{kind:<26}{len(mine):>9}{lost:>6}{repeated:>10}{wrong:>7}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--each", type=int, default=5, help="faults to one sweep at most")
    parser.add_argument("--json", type=Path, help="also write the faults here")
    arguments = parser.parse_args()
    # For the S3 server, which asks for some credentials and takes any.
    os.environ |= {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any", "AWS_EC2_METADATA_DISABLED": "true"}
    os.environ["MLFLOW_LOGGING_LEVEL"] = "WARNING"
    rng, faults, started = random.Random(arguments.seed), [], time.monotonic()
    number = 0
    with tempfile.TemporaryDirectory() as name, Clusters() as clusters:
        folder = Path(name)
        os.environ["RAYPRUNING_CACHE_DIR"] = str(folder / "cache")
        expected = undisturbed(folder)
        while len(faults) < arguments.faults:
            left = arguments.faults - len(faults)
            at_most = min(left, arguments.each)
            faults += one_round(number, folder / f"round{number}", expected, rng, clusters, at_most=at_most)
            number += 1
            say(table(faults))
    minutes = (time.monotonic() - started) / 60
    say(f"\n{len(faults)} faults in {number} sweeps, {minutes:.0f} min, {platform.machine()}, {os.cpu_count()} cores")
    if arguments.json:
        arguments.json.write_text(json.dumps([fault._asdict() for fault in faults], indent=1) + "\n")
    return int(any(fault.lost or fault.repeated or fault.wrong for fault in faults))


if __name__ == "__main__":
    sys.exit(main())
