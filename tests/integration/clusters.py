"""Several Ray nodes on this machine, sweeps that run on them, and what is seen of both from outside."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote

import psutil

from raypruning.runtime.mlflow_tracker import create_database, serve

ROOT = Path(__file__).parents[2]
RAY = Path(sys.executable).with_name("ray")
T = TypeVar("T")
OBJECT_STORE_BYTES = 80 << 20  # about the least that Ray takes

# Ten or so trainings of half a second, which save after every epoch.
SWEEP = [
    *("lenet5", "--delta", "0.04", "--seed", "0", "--budget", "3", "--method", "wt", "--method", "ft"),
    *("--task", "nominal", "--task", "noise/uniform/0.5", "--resolution", "0.5", "--set", "search.high=0.95"),
    *("--set", "data.train_images=600", "--set", "data.test_images=500", "--set", "recipe.epochs=8"),
]

# A dead node or head is known after seconds instead of a minute. Nothing is served to whoever asks without a token.
QUICK = {
    "RAY_health_check_initial_delay_ms": "2000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "5000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "8",
    "RAY_enable_metrics_collection": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "AUTOSCALER_METRIC_PORT": "-1",
    "DASHBOARD_METRIC_PORT": "-1",
}


class Node:
    """One `ray start` with all that it started."""

    def __init__(self, words: list[str], *, folder: Path, environment: Mapping[str, str]) -> None:
        folder.mkdir(parents=True)
        self._said = folder / "start.log"
        command = [str(RAY), "start", *words, "--block", "--temp-dir", str(folder / "ray")]
        command += ["--object-store-memory", str(OBJECT_STORE_BYTES), "--dashboard-agent-listen-port", "0"]
        command += ["--min-worker-port", "0", "--max-worker-port", "0"]  # any that are free: nodes share this machine
        with self._said.open("w") as said:
            self._process = subprocess.Popen(
                command, env=dict(environment), stdout=said, stderr=subprocess.STDOUT, start_new_session=True
            )

    def wait_until_up(self, *, seconds: float = 120.0) -> None:
        wait_for(lambda: "Ray runtime started" in self._said.read_text() or self._process.poll() is not None, seconds)
        assert self._process.poll() is None, self._said.read_text()

    @property
    def processes(self) -> list[psutil.Process]:
        """All of it that runs now."""
        if self._process.poll() is not None:
            return []
        with contextlib.suppress(psutil.NoSuchProcess):
            top = psutil.Process(self._process.pid)
            return [top, *top.children(recursive=True)]
        return []

    @property
    def workers(self) -> list[psutil.Process]:
        """Its processes that run probes, as rank 0 where several run one."""
        return self.running("Trainable")

    def running(self, what: str) -> list[psutil.Process]:
        """Its processes that run something of that name: Ray calls a process after what it runs."""
        found = []
        for process in self.processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                if any(part.startswith("ray::") and what in part for part in process.cmdline()):
                    found.append(process)
        return found

    def runs(self, pid: int) -> bool:
        """Whether a process is one of it. Raises psutil.NoSuchProcess."""
        return self._process.pid in [process.pid for process in psutil.Process(pid).parents()]

    def kill(self) -> None:
        """As if the power were cut: every process at once, none of which is asked."""
        family = self.processes
        for process in family:  # The top one first: it would report what dies below it.
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait(timeout=60)
        psutil.wait_procs(family, timeout=60)


class Cluster:
    """A head that runs no probes, and nodes of one CPU each, with a token of their own.

    Nothing of it outlives `close`, and nobody else's Ray is touched: `ray stop` would end everybody's.
    """

    def __init__(self, *, num_workers: int) -> None:
        self._folder = Path("/tmp", f"rp-{secrets.token_hex(4)}")  # Ray's sockets: a short path
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
            **QUICK,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAYPRUNING_SAVE_SECONDS": "0",
        }
        port = free_port()
        self.address = f"127.0.0.1:{port}"
        self.workers: list[Node] = []
        self.head = self._start("--head", "--port", str(port), num_cpus=0)
        try:
            wait_for(lambda: is_open(port), 120)  # Others may join while the rest of the head starts.
            self.add(num_workers)
            self.head.wait_until_up()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *about: object) -> None:
        self.close()

    def add(self, num_workers: int = 1) -> list[Node]:
        """Nodes that joined, at the end of `workers` as well."""
        added = [self._start("--address", self.address, num_cpus=1) for _ in range(num_workers)]
        self.workers += added
        for node in added:
            node.wait_until_up()
        return added

    def remove(self, node: Node) -> None:
        self.workers.remove(node)
        node.kill()

    def close(self) -> None:
        for node in [self.head, *self.workers]:
            node.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _start(self, *words: str, num_cpus: int) -> Node:
        folder = self._folder / secrets.token_hex(2)
        words = (*words, "--node-ip-address", "127.0.0.1", "--num-cpus", str(num_cpus))
        if "--head" in words:
            words += ("--include-dashboard", "false")
        return Node(list(words), folder=folder, environment=self.environment)


class Ended(NamedTuple):
    """A command that is over."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def answer(self) -> dict[str, Any]:
        return json.loads(self.stdout)


class Driver:
    """`prune-cli sweep` as a process of its own; whatever it started ends with the block."""

    def __init__(self, *words: object, said: Path, environment: Mapping[str, str], tracking_uri: str = "none") -> None:
        command = [sys.executable, "-m", "cli", "sweep", *map(str, words), "--tracking-uri", tracking_uri, "--json"]
        self._out, self._err = said.with_suffix(".out"), said.with_suffix(".err")
        with self._out.open("w") as out, self._err.open("w") as err:
            self.process = subprocess.Popen(
                command, env=dict(environment), stdout=out, stderr=err, cwd=said.parent, start_new_session=True
            )

    def __enter__(self) -> Driver:
        return self

    def __exit__(self, *about: object) -> None:
        self.kill()

    def kill(self) -> None:
        """With its children, which are of its process group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(timeout=60)

    @property
    def is_over(self) -> bool:
        return self.process.poll() is not None

    def wait_for(self, look: Callable[[], T], *, seconds: float = 180.0, every: float = 0.03) -> T:
        """What is seen as soon as it is true. The command must be at work, before and after."""
        until = time.monotonic() + seconds
        while True:
            seen = look()
            assert not self.is_over, f"ended with {self.process.returncode} too early: {self._err.read_text()}"
            assert time.monotonic() < until, f"not so within {seconds:g} s"
            if seen:
                return seen
            time.sleep(every)  # a file does not announce itself

    def wait(self, *, seconds: float = 300.0) -> Ended:
        self.process.wait(timeout=seconds)
        return Ended(self.process.returncode, self._out.read_text(), self._err.read_text())


class Watch:
    """Sees, while it is entered, every save of every training in a folder, and when each was committed."""

    def __init__(self, storage: Path) -> None:
        self._storage = storage
        self._saved: dict[str, set[int]] = {}
        self._committed: dict[str, set[tuple[int, int]]] = {}
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look_on, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *about: object) -> None:
        self._is_over.set()
        self._thread.join()
        self._look()

    @property
    def num_saves(self) -> int:
        return sum(map(len, self._saved.values()))

    @property
    def repeated(self) -> set[str]:
        """Trainings that went on after they were finished, or were finished twice."""
        again = {key for key, found in self._committed.items() if len(found) > 1}
        for key, saved in self._saved.items():
            if key in self._committed and max(saved) > min(at for at, _ in self._committed[key]):
                again.add(key)
        return again

    def _look_on(self) -> None:
        while not self._is_over.wait(0.03):
            self._look()

    def _look(self) -> None:
        for key, path in _states(self._storage):
            with contextlib.suppress(OSError):
                self._saved.setdefault(key, set()).add(path.stat().st_mtime_ns)
        for path in self._storage.glob("trainings/*/training.json"):
            with contextlib.suppress(OSError):
                found = path.stat()
                self._committed.setdefault(path.parent.name, set()).add((found.st_mtime_ns, found.st_ino))


def _states(storage: Path) -> Iterator[tuple[str, Path]]:
    for path in storage.glob("trainings/*/resume/state.safetensors"):
        yield path.parts[-3], path


class Paused:
    """Processes that stand still while it is entered."""

    def __init__(self, *pids: int) -> None:
        self._processes = [psutil.Process(pid) for pid in pids]

    def __enter__(self) -> Paused:
        for process in self._processes:
            process.suspend()
        return self

    def __exit__(self, *about: object) -> None:
        for process in self._processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()


def stop_in_a_write(driver: Driver, storage: Path) -> Path:
    """Stop a process, with SIGSTOP, between the beginning and the end of a write. Returns the unfinished file."""
    process = psutil.Process(driver.process.pid)
    until = time.monotonic() + 180
    while time.monotonic() < until and not driver.is_over:
        found = [path for path in storage.glob("trainings/*/**/.tmp-*")]
        if not found:
            continue  # at full speed: a write takes a millisecond or two
        process.suspend()
        wait_for(lambda: process.status() == psutil.STATUS_STOPPED, 10, every=0.001)
        unfinished = [path for path in found if path.exists()]
        if unfinished:
            return unfinished[0]
        process.resume()
    raise AssertionError("no write was seen")


class S3Server:
    """An S3 server on loopback, in this process: what it holds outlives `stop`."""

    def __init__(self) -> None:
        self.port = free_port()
        self.bucket = f"sweeps-{self.port}"  # All servers of a process hold the same things.
        self.uri = f"s3://{self.bucket}/store?endpoint_override={quote(f'http://127.0.0.1:{self.port}', safe='')}"
        self.uri += "&region=us-east-1"

    def __enter__(self) -> S3Server:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self.start()
        self.files.create_dir(self.bucket)
        return self

    def __exit__(self, *about: object) -> None:
        self.stop()

    @property
    def files(self) -> Any:
        from pyarrow.fs import S3FileSystem

        address = f"127.0.0.1:{self.port}"
        return S3FileSystem(endpoint_override=address, scheme="http", region="us-east-1", allow_bucket_creation=True)

    def start(self) -> None:
        from moto.server import ThreadedMotoServer

        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=self.port, verbose=False)
        self._server.start()

    def stop(self) -> None:
        """Refuse every connection."""
        self._server.stop()

    def copy_to(self, folder: Path) -> None:
        """Everything of the storage as plain files."""
        from pyarrow.fs import FileType, LocalFileSystem, copy_files

        source, local = f"{self.bucket}/store", LocalFileSystem()
        for tries_left in reversed(range(10)):
            folder.mkdir()
            if self.files.get_file_info(source).type is FileType.NotFound:
                return
            try:
                copy_files(source, str(folder), source_filesystem=self.files, destination_filesystem=local)
            except OSError:  # The server may still be at the last request of somebody who was killed.
                if not tries_left:
                    raise
                shutil.rmtree(folder)
                time.sleep(0.5)
            else:
                return


class MlflowServer:
    """MLflow's server on a database of its own."""

    def __init__(self, folder: Path) -> None:
        self.database = f"sqlite:///{folder / 'mlflow.db'}"
        self.address = f"http://127.0.0.1:{free_port()}"
        self._folder = folder
        create_database(self.database)

    def __enter__(self) -> MlflowServer:
        self.start()
        return self

    def __exit__(self, *about: object) -> None:
        self.kill()

    def start(self) -> None:
        command = serve(self.database, port=int(self.address.rpartition(":")[2]))
        self._process = subprocess.Popen(
            command.argv,
            env={**os.environ, **command.env},
            cwd=self._folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        wait_for(self._answers, 120, every=0.2)

    def kill(self) -> None:
        """With its children, which are of its process group; none is asked."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(timeout=60)

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.address}/health", timeout=5):
            return True
        return False

    def shown(self) -> dict[str, object]:
        """What it holds of each run of the one sweep, but for how long things took."""
        return shown(self.database)


def shown(database: str) -> dict[str, object]:
    """What a database of MLflow holds of each run of sweeps of lenet5, but for times and places."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=database)
    experiment = client.get_experiment_by_name("raypruning/lenet5")
    runs = client.search_runs([experiment.experiment_id]) if experiment else []
    found = {run.info.run_name: run for run in runs}
    assert len(found) == len(runs), "two runs of one name"

    def points(run_id: str, key: str) -> list[tuple[int, float]]:
        return sorted((point.step, point.value) for point in client.get_metric_history(run_id, key))

    return {
        name: (
            run.info.status,
            run.data.params,
            {key: points(run.info.run_id, key) for key in run.data.metrics if "seconds" not in key},
        )
        for name, run in found.items()
    }


def in_mid_training(storage: Path, *, on: Node | None = None) -> dict[int, str]:
    """Trainings that saved their state and are not finished, by the pid of the process that is at each.

    Args:
        on: the node whose processes count; None for all.
    """
    found = {}
    for key, path in _states(storage):
        if (path.parents[1] / "training.json").exists():
            continue
        with contextlib.suppress(OSError, ValueError, psutil.NoSuchProcess):
            pid = json.loads((storage / "leases" / "trainings" / f"{key}.json").read_text())["owner"]["pid"]
            if on is None or on.runs(pid):
                found[psutil.Process(pid).pid] = key
    return found


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def is_open(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def wait_for(is_so: Callable[[], bool], seconds: float, *, every: float = 0.05) -> None:
    until = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < until, f"not so within {seconds:g} s"
        time.sleep(every)  # neither a node nor a server announces itself
