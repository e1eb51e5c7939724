"""What every test stands on: a clean environment, no network, one cache of datasets, and the commands."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import settings

# One thread for torch and numpy, here and in the commands that tests start: networks this small are many times slower
# when several threads wait for each other, and the workers of one run share the cores as it is. It is read when those
# two are imported, which the conftest of a folder does: hence before any hook.
os.environ["OMP_NUM_THREADS"] = "1"

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "golden"

# What a person's shell or a CI service may have set, and a test must not feel.
FOREIGN = ("RAYPRUNING_", "MLFLOW_", "AWS_")
FOREIGN_NAMES = ("RAY_ADDRESS", "GITHUB_ACTIONS", "FORCE_COLOR", "PY_COLORS", "NO_COLOR", "COLUMNS", "TERMINAL_WIDTH")

# A sweep of seconds: a network that hardly learns is as good as another to show what commands do.
TINY = [
    *("--dataset", "strokes", "--method", "wt", "--task", "nominal", "--seed", "0", "--budget", "1"),
    *("--gpus-per-probe", "0", "--set", "data.train_images=200", "--set", "data.test_images=300"),
    *("--set", "recipe.epochs=1", "--set", "recipe.warmup_epochs=0"),
    *("--set", "search.low=0.1", "--set", "search.high=0.98", "--resolution", "0.3"),
]
INLINE = ["--executor", "inline", "--tracking-uri", "none"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="write tests/golden anew instead of comparing with it"
    )


def pytest_configure() -> None:
    # Here, before anything is imported: some of them are read at import.
    for name in _foreign():
        del os.environ[name]
    # For S3 servers in this process, and for workers of a Ray that starts before such a server does.
    os.environ |= {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}
    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
    # The same examples on every run and machine, so that CI cannot fail by luck; no deadline: CI shares its cores.
    settings.register_profile("deterministic", derandomize=True, deadline=None)
    settings.load_profile("deterministic")


@pytest.fixture(scope="session", autouse=True)
def dataset_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder shared by the workers of one run: the strokes are drawn once, and no run sees another's."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "dataset-cache"
    os.environ["RAYPRUNING_CACHE_DIR"] = str(folder)
    yield folder
    del os.environ["RAYPRUNING_CACHE_DIR"]


@pytest.fixture(autouse=True)
def environment_as_before() -> Iterator[None]:
    """What a command sets for itself in this process is gone after the test."""
    before = _foreign()
    yield
    for name in _foreign().keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


class NetworkUseError(Exception):
    """A test tried to reach another machine."""


@pytest.fixture(scope="session", autouse=True)
def no_network() -> Iterator[None]:
    """No connection leaves this machine. Its own addresses are open: Ray talks to itself through them."""
    here = {address.address.partition("%")[0] for known in psutil.net_if_addrs().values() for address in known}
    here |= {"localhost", "0.0.0.0", "::", "::1", socket.gethostname()}

    def guarded(real: Callable[[socket.socket, Any], Any]) -> Callable[[socket.socket, Any], Any]:
        def connect(self: socket.socket, address: Any) -> Any:
            # Connecting a datagram socket sends nothing: it is how a program asks for its own address.
            if self.family in (socket.AF_INET, socket.AF_INET6) and self.type == socket.SOCK_STREAM:
                host = str(address[0]).partition("%")[0]
                if host not in here and not host.startswith("127."):
                    raise NetworkUseError(f"a test tried to reach {host}:{address[1]}")
            return real(self, address)

        return connect

    patch = pytest.MonkeyPatch()
    patch.setattr(socket.socket, "connect", guarded(socket.socket.connect))
    patch.setattr(socket.socket, "connect_ex", guarded(socket.socket.connect_ex))
    yield
    patch.undo()


@dataclass(frozen=True)
class Ran:
    """What a command left behind.

    Attributes:
        out, err: standard output and standard error.
    """

    code: int
    out: str
    err: str

    @property
    def answer(self) -> dict[str, Any]:
        """Standard output as the one JSON object that it must be."""
        found = json.loads(self.out)
        assert isinstance(found, dict)
        return found

    @property
    def error_line(self) -> str:
        """The one line that a mistake ends in."""
        lines = [line for line in self.err.splitlines() if line.startswith("prune-cli: ")]
        assert len(lines) == 1, self.err
        assert "Traceback" not in self.err
        return lines[0]


PruneCli = Callable[..., Ran]


@pytest.fixture(scope="session")
def prune_cli() -> PruneCli:
    """`prune-cli` in this process. An exception that would be a traceback is raised here."""
    from typer.testing import CliRunner

    import cli

    def run(*words: object) -> Ran:
        result = CliRunner().invoke(cli.app, [str(word) for word in words], prog_name="prune-cli")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Ran(result.exit_code, result.stdout, result.stderr)

    return run


@pytest.fixture
def prune_cli_process(tmp_path: Path) -> PruneCli:
    """`prune-cli` as a process of its own, in an empty folder."""

    def run(*words: object, cwd: Path = tmp_path, timeout: float = 120, env: Mapping[str, str] | None = None) -> Ran:
        command = [sys.executable, "-m", "cli", *map(str, words)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **(env or {})}
        done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout)
        return Ran(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="session")
def tiny() -> list[str]:
    """Options that make a sweep of lenet5 one of seconds, without Ray and MLflow."""
    return [*TINY, *INLINE]


@pytest.fixture(scope="session")
def tiny_data() -> list[str]:
    """The same without a word on how it runs."""
    return TINY


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Compare a text with a file below tests/golden, to the letter."""

    def compare(name: str, found: str) -> None:
        path = GOLDEN / name
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(found)
        assert path.is_file(), f"{path} is missing: look at the text, then write it with --update-golden"
        assert found == path.read_text(), f"{path} says something else; --update-golden writes it anew"

    return compare


def _foreign() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith(FOREIGN) or name in FOREIGN_NAMES}
