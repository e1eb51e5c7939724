"""Who is let in, what is listened to, and where secrets go: on a real local Ray and on real runs of the commands."""

from __future__ import annotations

import ast
import contextlib
import os
import socket
import ssl
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from tests.conftest import TINY

ROOT = Path(__file__).parents[2]
AUTH = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
NO_HOME = "/nonexistent/home"
UNWRITABLE_HOME = "/proc"  # In which not even root can make a file.

# The executor on a source that never has a job, until a file says that it is over.
DRIVE = """
import os, pathlib, sys
folder = pathlib.Path(sys.argv[1])
from raypruning.core.records import Resources
from raypruning.runtime.ray_tune import RayExecutor, ray

class Waiting:
    @property
    def is_finished(self):
        return (folder / "over").exists()

    def next_job(self):
        if not (folder / "ready").exists():
            @ray.remote
            def token():
                return os.environ["RAY_AUTH_TOKEN"]
            assert ray.get(token.remote()) == os.environ["RAY_AUTH_TOKEN"]
            (folder / "part").write_text(ray.get_runtime_context().gcs_address + " " + os.environ["RAY_AUTH_TOKEN"])
            (folder / "part").rename(folder / "ready")

RayExecutor(
    storage=str(folder), resources=Resources(), max_concurrent=None, address=None, log_path=folder / "ray.log"
).drive(Waiting())
print("done")
"""

JOIN = """
import sys
from raypruning.core.records import Resources
from raypruning.errors import RaypruningError
from raypruning.runtime.ray_tune import cluster_room
try:
    print(cluster_room(sys.argv[1], Resources()))
except RaypruningError as error:
    print(error)
"""


def environment(home: str, **more: str) -> dict[str, str]:
    """As a fresh shell has it, with another home folder."""
    kept = {name: value for name, value in os.environ.items() if name not in AUTH and not name.startswith("RAY_")}
    return {**kept, "HOME": home, "PYTHONPATH": str(ROOT), **more}


class LocalRay(NamedTuple):
    """A Ray that a sweep started: its address, its token, its driver and where that writes."""

    address: str
    token: str
    driver: psutil.Process
    folder: Path

    @property
    def processes(self) -> list[psutil.Process]:
        return [self.driver, *self.driver.children(recursive=True)]

    def stop(self, process: subprocess.Popen[str]) -> tuple[str, str]:
        (self.folder / "over").touch()
        return process.communicate(timeout=60)


def start(folder: Path, home: str) -> tuple[LocalRay, subprocess.Popen[str]]:
    command = [sys.executable, "-c", DRIVE, str(folder)]
    process = subprocess.Popen(
        command, env=environment(home), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    until = time.monotonic() + 90
    while not (folder / "ready").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.1)
    address, token = (folder / "ready").read_text().split()
    return LocalRay(address, token, psutil.Process(process.pid), folder), process


@pytest.fixture(scope="module")
def local_ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRay]:
    """Of a driver without a home folder."""
    found, process = start(tmp_path_factory.mktemp("local-ray"), NO_HOME)
    yield found
    out, err = found.stop(process)
    assert (process.returncode, out) == (0, "done\n"), err


@pytest.mark.ray
def test_ray_starts_with_a_token_where_the_home_folder_cannot_be_written(tmp_path: Path):
    found, process = start(tmp_path, UNWRITABLE_HOME)
    out, err = found.stop(process)
    assert (process.returncode, out) == (0, "done\n"), err
    assert len(found.token) == 64
    assert not Path(UNWRITABLE_HOME, ".ray").exists()


@pytest.mark.ray
def test_token_is_in_no_command_line_and_in_no_file(local_ray: LocalRay):
    words = [word for process in local_ray.processes for word in process.cmdline()]
    assert len(words) > 20
    assert not [word for word in words if local_ray.token in word]
    (session,) = {word.partition("=")[2] for word in words if word.startswith("--session-dir=")}
    files = [path for path in Path(session).rglob("*") if path.is_file()]
    files += [path for path in local_ray.folder.rglob("*") if path.is_file() and path.name != "ready"]
    assert len(files) > 10
    assert not [path for path in files if local_ray.token.encode() in path.read_bytes()]


@pytest.mark.ray
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "asks for its token: set RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH to a file that holds it"),
        ({"RAY_AUTH_MODE": "token"}, "asks for its token: set RAY_AUTH_TOKEN"),
        ({"RAY_AUTH_MODE": "disabled"}, "asks for its token: unset RAY_AUTH_MODE=disabled and set RAY_AUTH_TOKEN"),
        ({"RAY_AUTH_TOKEN": "0" * 64}, "refused the token of RAY_AUTH_TOKEN: set RAY_AUTH_TOKEN"),
    ],
    ids=["no token", "no token, mode on", "mode off", "wrong token"],
)
def test_cluster_refuses_a_driver_in_one_line(local_ray: LocalRay, given: dict[str, str], said: str):
    line = join(local_ray.address, environment(NO_HOME, **given))
    assert line.startswith(f"the Ray cluster at {local_ray.address} {said}")
    assert "\n" not in line


@pytest.mark.ray
@pytest.mark.parametrize("place", ["environment", "file", "home"])
def test_cluster_takes_a_driver_that_shows_its_token(local_ray: LocalRay, place: str, tmp_path: Path):
    file = tmp_path / ".ray" / "auth_token"
    file.parent.mkdir()
    file.write_text(local_ray.token)
    given = {
        "environment": {"HOME": NO_HOME, "RAY_AUTH_TOKEN": local_ray.token},
        "file": {"HOME": NO_HOME, "RAY_AUTH_TOKEN_PATH": str(file)},
        "home": {"HOME": str(tmp_path)},
    }
    assert int(join(local_ray.address, {**environment(NO_HOME), **given[place]})) >= 1


def join(address: str, env: dict[str, str]) -> str:
    command = [sys.executable, "-c", JOIN, address]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.ray
def test_whatever_a_local_ray_listens_to_asks_for_the_token(local_ray: LocalRay):
    listeners = sorted(
        {
            (connection.laddr.ip, connection.laddr.port, process.name())
            for process in local_ray.processes
            for connection in process.net_connections(kind="tcp")
            if connection.status == psutil.CONN_LISTEN
        }
    )
    assert len(listeners) > 4, "Ray's servers were not found"
    assert "dashboard" not in {name for _, _, name in listeners}
    answers = {(ip, name): answer_without_token(ip, port) for ip, port, name in listeners}
    assert set(answers.values()) <= {"grpc", "401"}, answers
    # That those of gRPC ask: `test_cluster_refuses_a_driver_in_one_line` for the server that all others hang on.
    assert "401" in answers.values()


def answer_without_token(ip: str, port: int) -> str:
    """What a server says to a plain HTTP request: its status, or `grpc` where it speaks HTTP/2 alone."""
    host = {"::": "127.0.0.1", "0.0.0.0": "127.0.0.1"}.get(ip, ip)
    try:
        with urllib.request.urlopen(f"http://{host}:{port}/metrics", timeout=10) as response:
            return str(response.status)
    except urllib.error.HTTPError as error:
        return str(error.code)
    except (ssl.SSLError, OSError):
        raise
    except Exception:  # A frame of HTTP/2 is no line of HTTP/1.
        return "grpc"


# -- MLflow's pages


@pytest.mark.mlflow
def test_pages_of_mlflow_listen_to_this_machine_alone(tmp_path: Path):
    from raypruning.runtime.mlflow_tracker import create_database

    create_database(f"sqlite:///{tmp_path}/mlflow.db")
    with serving(tmp_path) as (port, server):
        processes = [server, *server.children(recursive=True)]
        listening = {
            (connection.laddr.ip, connection.laddr.port)
            for process in processes
            for connection in process.net_connections(kind="tcp")
            if connection.status == psutil.CONN_LISTEN
        }
    assert listening == {("127.0.0.1", port)}


@contextlib.contextmanager
def serving(storage: Path) -> Iterator[tuple[int, psutil.Process]]:
    """`prune-cli ui` over a storage that has a database."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "cli", "ui", "--storage", str(storage), "--port", str(port)]
    process = subprocess.Popen(
        command, cwd=storage, env=environment(str(storage)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        until = time.monotonic() + 120
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                break
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.2)
        yield port, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(timeout=60)


# -- what could run code


# Where something that could is used all the same, and why it cannot.
ALLOWED = {
    ("datasets/cifar_files.py", "pickle"): "CIFAR comes so; everything that a pickle can call is made there",
    ("models/pretrained.py", "pickle"): "the kind of error that torch.load raises",
    ("corruptions/corruption.py", "import_module"): "modules of this package, from a table of its own",
    ("runtime/rayjob.py", "yaml"): "read by safe_load_all, which makes nothing but text, numbers, lists and tables",
    ("registry.py", "import_module"): "plugins are code: of modules that the user names",
}
MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "yaml", "code", "runpy"}
CALLS = {"eval", "exec", "compile", "__import__", "import_module", "load_module", "system", "popen"}


def suspects(path: Path) -> Iterator[str]:
    """What in a module could run what it reads."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            yield from {name.partition(".")[0] for name in names} & MODULES
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        given = {one.arg: ast.unparse(one.value) for one in node.keywords}
        module, _, name = called.rpartition(".")
        if (not module and name in CALLS) or (module in ("importlib", "os") and name in CALLS):
            yield name
        if called == "torch.load" and given.get("weights_only") != "True":
            yield called
        if called in ("np.load", "numpy.load") and given.get("allow_pickle") != "False":
            yield called
        if given.get("allow_pickle", "False") != "False" or given.get("shell", "False") != "False":
            yield called


def test_nothing_that_is_read_can_run_but_for_what_is_listed_with_its_reason():
    package = ROOT / "raypruning"
    found = {(path.relative_to(package).as_posix(), what) for path in package.rglob("*.py") for what in suspects(path)}
    assert found == set(ALLOWED)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("import pickle", "pickle"),
        ("from yaml import load", "yaml"),
        ("eval('1')", "eval"),
        ("torch.load(path)", "torch.load"),
        ("torch.load(path, weights_only=False)", "torch.load"),
        ("np.load(path)", "np.load"),
        ("np.save(path, x, allow_pickle=True)", "np.save"),
        ("subprocess.run(words, shell=True)", "subprocess.run"),
        ("os.system(words)", "system"),
    ],
)
def test_search_for_what_could_run_finds_it(text: str, what: str, tmp_path: Path):
    (tmp_path / "module.py").write_text(text)
    assert what in list(suspects(tmp_path / "module.py"))


# -- versions with known holes

# Below these: CVE-2026-41486, CVE-2026-57516 and no token by default (ray); CVE-2026-2652, CVE-2026-0545 (mlflow).
FLOORS = {"ray": "2.59", "mlflow": "3.17"}


@pytest.mark.parametrize("package", FLOORS)
def test_no_version_with_a_known_hole_is_allowed_or_pinned(package: str):
    floor = Version(FLOORS[package])
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    (requirement,) = [one for one in map(Requirement, dependencies) if one.name == package]
    assert max(Version(one.version) for one in requirement.specifier if one.operator == ">=") >= floor
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    assert Version(pins[package]) >= floor


# -- secrets

PASSWORD, KEY = "correct-horse-battery", "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY"


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """All that a sweep leaves behind which was given a password and keys: files by name, and what it printed."""
    storage = tmp_path_factory.mktemp("secrets")
    from raypruning.runtime.mlflow_tracker import create_database

    create_database(f"sqlite:///{storage}/mlflow.db")
    env = environment(
        str(storage),
        AWS_ACCESS_KEY_ID="AKIAIOSFODNN7EXAMPLE",
        AWS_SECRET_ACCESS_KEY=KEY,
        AWS_SESSION_TOKEN=KEY,
        RAY_AUTH_TOKEN=KEY,
        MLFLOW_TRACKING_TOKEN=KEY,
    )
    found: dict[str, bytes] = {}
    with serving(storage) as (port, _):
        uri = f"http://someone:{PASSWORD}@127.0.0.1:{port}"
        words = ["sweep", "lenet5", *TINY, "--executor", "inline", "--storage", str(storage), "--tracking-uri", uri]
        for number, command in enumerate([words, ["report", "lenet5", "--storage", str(storage), "--json"]]):
            done = subprocess.run(
                [sys.executable, "-m", "cli", *command], cwd=storage, env=env, capture_output=True, timeout=120
            )
            assert done.returncode in (0, 3), done.stderr.decode()
            found |= {f"stdout {number}": done.stdout, f"stderr {number}": done.stderr}
    found |= {str(path.relative_to(storage)): path.read_bytes() for path in storage.rglob("*") if path.is_file()}
    assert {"mlflow.db", "sweeps/lenet5/run.json", "sweeps/lenet5/report.html"} <= found.keys()
    assert b"training_id" in found["mlflow.db"], "MLflow was not written to"
    return found


@pytest.mark.mlflow
@pytest.mark.slow
def test_keys_of_the_environment_are_told_nowhere(told: dict[str, bytes]):
    assert [name for name, content in told.items() if KEY.encode() in content] == []


@pytest.mark.mlflow
@pytest.mark.slow
def test_password_of_a_tracking_uri_is_told_nowhere(told: dict[str, bytes]):
    assert [name for name, content in told.items() if PASSWORD.encode() in content] == []
