"""`prune-cli submit`, `status --address`, `logs` and `cancel` against a real Ray head with a token and a dashboard."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from tests.integration.stored import commits

ROOT = Path(__file__).parents[2]
PRUNE_CLI = Path(sys.executable).with_name("prune-cli")
# Long enough to be stopped in between, and of seconds.
SLOW = [
    *("--method", "wt", "--task", "nominal", "--seed", "0", "--budget", "1"),
    *("--set", "data.train_images=2000", "--set", "data.test_images=300", "--set", "recipe.epochs=4"),
    *("--set", "recipe.warmup_epochs=0", "--set", "search.low=0.1", "--set", "search.high=0.98"),
    *("--resolution", "0.1", "--delta", "0.1", "--tracking-uri", "none"),
]

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@dataclasses.dataclass(frozen=True)
class Head:
    """A Ray head, and what reaches it."""

    address: str
    environment: Mapping[str, str]

    def __call__(self, *words: object, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [PRUNE_CLI, *map(str, words), "--address", self.address],
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=180,
        )

    def job(self, *words: object) -> str:
        """What `status` says of a sweep's job, without the sweep's name."""
        return self("status", *words).stdout.strip()


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    home, folder = tmp_path_factory.mktemp("home"), Path("/tmp", f"rp-{secrets.token_hex(4)}")  # sockets: a short path
    environment = {
        **os.environ,
        "HOME": str(home),
        "PATH": f"{PRUNE_CLI.parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        "OMP_NUM_THREADS": "1",
    }
    environment.pop("RAY_ADDRESS", None)
    port = free_port()
    command = [PRUNE_CLI.with_name("ray"), "start", "--head", "--block", "--port", str(free_port()), "--num-cpus", "2"]
    command += ["--dashboard-host", "127.0.0.1", "--dashboard-port", str(port), "--temp-dir", str(folder)]
    command += ["--object-store-memory", str(150 << 20)]
    started = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        wait_for(lambda: is_open(port), seconds=120)
        yield Head(f"http://127.0.0.1:{port}", environment)
    finally:
        family = psutil.Process(started.pid).children(recursive=True)
        for one in [psutil.Process(started.pid), *family]:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        started.wait(timeout=20)
        subprocess.run(["rm", "-rf", folder], check=True)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def is_open(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def wait_for(is_so: Callable[[], bool], *, seconds: float) -> None:
    until = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < until, f"not so within {seconds} s"
        time.sleep(0.3)  # neither a server nor a job announces itself


def test_sweep_is_submitted_once_stopped_and_continued_from_its_own_file(head: Head, tmp_path: Path) -> None:
    file, storage = tmp_path / "mine.toml", tmp_path / "store"
    file.write_text('name = "mine"\nmodel = "lenet5"\ndataset = "strokes"\nrecipe = "quick_lenet5"\n')
    submit = ("submit", file, *SLOW, "--storage", storage)
    with ThreadPoolExecutor(2) as both:
        first = list(both.map(lambda _: head(*submit), range(2)))
    assert [one.returncode for one in first] == [0, 0], [one.stderr for one in first]
    said = [one.stdout for one in first]
    first_job = said[0].partition(":")[0]
    assert re.fullmatch(r"mine-\d", first_job)
    assert all(one.startswith(f"{first_job}: ") for one in said)
    assert sum("nothing was submitted" in one for one in said) == 1, "of two at once, one finds the other's job"

    wait_for(lambda: len(commits(storage)) >= 2, seconds=120)
    assert head("cancel", "mine").stdout == f"{first_job}: asked to stop\n"
    wait_for(lambda: "stopped" in head.job("mine"), seconds=60)
    before = commits(storage)
    assert "the same command continues" in head("logs", "mine").stdout

    assert not head(*submit).stdout.startswith(first_job)
    followed = head("logs", "mine", "-f")
    assert followed.returncode == 0
    assert "wt keeps within 10 points" in followed.stdout
    assert re.fullmatch(r"mine-\d: finished( with open potentials)?", head.job("mine"))
    assert before.items() <= commits(storage).items(), "what was finished is kept, and not trained again"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("submit", "lenet55", "--storage", "s3://b/f"), "no sweep, model or TOML file is called 'lenet55'"),
        (("submit", "lenet5"), "needs a --storage that outlives the cluster: s3://BUCKET/FOLDER"),
        (("submit", "lenet5", "--storage", "s3://b/f", "--executor", "inline"), "leave --executor out"),
        (("submit", "lenet5", "--storage", "s3://b/f", "--delta", "2"), "delta must be in (0, 1), got 2.0"),
        (("submit", "lenet5", "--detla", "1"), "No such option: --detla"),
        (("logs", "never"), "no job of the sweep never was submitted to http://127.0.0.1:"),
        (("cancel", "never"), "no job of the sweep never was submitted"),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, tuple) else "",
)
def test_what_no_cluster_could_run_is_refused_before_anything_is_sent(
    head: Head, words: tuple[str, ...], says: str
) -> None:
    ran = head(*words)
    assert ran.returncode == 2
    assert says in ran.stderr
    assert ran.stdout == ""


def test_wrong_token_is_refused_in_one_line(head: Head) -> None:
    ran = head("status", "mine", RAY_AUTH_TOKEN=secrets.token_hex(32))
    assert ran.returncode == 2
    assert ran.stderr.count("\n") == 1
    assert "refused the token: set RAY_AUTH_TOKEN" in ran.stderr


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("head:8265", "must be that of the cluster's dashboard, such as http://head:8265"),
        ("http://127.0.0.1:1", "nothing answers there"),
    ],
)
def test_address_without_a_dashboard_is_refused_in_one_line(address: str, says: str) -> None:
    ran = subprocess.run([PRUNE_CLI, "logs", "mine", "--address", address], capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stderr.count("\n")) == (2, 1)
    assert says in ran.stderr
