"""Sweeps as jobs of a Ray cluster, through its Jobs API: whoever submits one need not stay.

A job's id is the sweep's name and a number. The API takes no id twice, so that of two who submit one sweep at the same
moment the second finds the first one's job.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from raypruning.errors import ResourceError, SpecError
from raypruning.runtime.jobs import Submitted
from raypruning.runtime.ray_token import HOW_TO_GIVE, MODE, token_source

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

SWEEP = "raypruning.sweep"  # metadata of a job: the sweep's name
CONNECT_SECONDS = 10.0
START_SECONDS = 60.0  # that a head may need until it can run jobs
POLL_SECONDS = 2.0
ALIVE = ("PENDING", "RUNNING")


class RayClusterJob(NamedTuple):
    """A job as the cluster knows it.

    Attributes:
        state: PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED.
        exit_code: of the command; None while it runs, or where Ray does not know.
    """

    id: str
    sweep: str
    state: str
    message: str
    entrypoint: str
    exit_code: int | None

    @property
    def is_alive(self) -> bool:
        """Whether it waits or runs."""
        return self.state in ALIVE


class RayJobs:
    """The jobs of one cluster.

    Args:
        address: of its dashboard, `http://HOST:8265`. The token is that of the environment (RAY_AUTH_TOKEN,
            RAY_AUTH_TOKEN_PATH) or of ~/.ray/auth_token.

    Raises:
        SpecError: an address of another form. ResourceError: nothing answers, or it refuses the token.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._client = _connect(address)

    def submit(self, sweep: str, entrypoint: str, *, folder: Path | None = None) -> Submitted:
        """Run a command as the job of a sweep; the one that is at work already, if there is one.

        Args:
            folder: files that the command needs in its working folder.
        """
        give_up_at = time.monotonic() + START_SECONDS
        while True:
            known = self._all()
            at_work = [job for job in _of(sweep, known) if job.is_alive]
            if at_work:
                return Submitted(at_work[0], is_new=False)
            # Beyond the ids of others too, which need not be of ours.
            job_id = f"{sweep}-{1 + max((_number(job.id, sweep) for job in known), default=0)}"
            try:
                self._client.submit_job(
                    entrypoint=entrypoint,
                    submission_id=job_id,
                    runtime_env={"working_dir": str(folder)} if folder else {},
                    metadata={SWEEP: sweep},
                    entrypoint_num_cpus=0,  # It only drives: probes have the CPUs.
                )
            except (RuntimeError, OSError) as error:
                if "already exists" in str(error):
                    continue
                # A head that has just begun has nobody yet to start a job.
                if "try again later" in str(error) and time.monotonic() < give_up_at:
                    time.sleep(POLL_SECONDS)
                    continue
                raise self._refusal(error) from error
            return Submitted(self._job(job_id), is_new=True)

    def of(self, sweep: str) -> list[RayClusterJob]:
        """The jobs of a sweep, the latest first."""
        return _of(sweep, self._all())

    def latest(self, sweep: str) -> RayClusterJob:
        """The last job of a sweep. Raises SpecError if there is none."""
        known = self.of(sweep)
        if not known:
            raise SpecError(f"no job of the sweep {sweep} was submitted to {self.address}")
        return known[0]

    def logs(self, job: RayClusterJob) -> str:
        """All that a job has printed."""
        with self._in_one_line():
            return str(self._client.get_job_logs(job.id))

    def follow(self, job: RayClusterJob, *, sleep: Callable[[float], None] = time.sleep) -> Iterator[str]:
        """What a job prints, until it ends."""
        shown = 0
        while True:
            is_alive = self._job(job.id).is_alive  # Before its output, so that none of its last words is missed.
            text = self.logs(job)
            if len(text) > shown:
                yield text[shown:]
                shown = len(text)
            if not is_alive:
                return
            sleep(POLL_SECONDS)

    def cancel(self, job: RayClusterJob) -> None:
        """Ask a job to stop, as a signal would: what is finished is kept."""
        with self._in_one_line():
            self._client.stop_job(job.id)

    def _all(self) -> list[RayClusterJob]:
        with self._in_one_line():
            return [_job_of(details) for details in self._client.list_jobs()]

    def _job(self, job_id: str) -> RayClusterJob:
        with self._in_one_line():
            return _job_of(self._client.get_job_info(job_id))

    @contextmanager
    def _in_one_line(self) -> Iterator[None]:
        """Ray's client raises RuntimeError for what the head answers, and OSErrors of `requests` where none comes."""
        try:
            yield
        except (RuntimeError, OSError) as error:
            raise self._refusal(error) from error

    def _refusal(self, error: Exception) -> ResourceError:
        what = "refused" if isinstance(error, RuntimeError) else "does not answer"
        return ResourceError(f"{self.address} {what}: {' '.join(str(error).split())[:300]}")


def _connect(address: str) -> JobSubmissionClient:
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SpecError(f"--address must be that of the cluster's dashboard, such as http://head:8265, got {address}")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname, port), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise ResourceError(f"--address {address}: nothing answers there: {error}") from error
    if token_source():
        os.environ.setdefault(MODE, "token")
    # Ray would take an address of the environment in place of the one that was typed.
    os.environ["RAY_API_SERVER_ADDRESS"] = address
    logging.getLogger("ray.dashboard").setLevel(logging.WARNING)  # It tells of every file that it sends.
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    try:
        return JobSubmissionClient(address)
    except AuthenticationError as error:
        raise ResourceError(f"{address} refused the token: {HOW_TO_GIVE}") from error
    except (RuntimeError, ConnectionError, ValueError) as error:
        raise ResourceError(f"{address} is no Ray cluster: {' '.join(str(error).split())[:300]}") from error


def _job_of(details: object) -> RayClusterJob:
    found: dict[str, object] = dict(details)  # type: ignore[call-overload]
    metadata = found["metadata"] or {}
    assert isinstance(metadata, dict)
    code = found["driver_exit_code"]
    return RayClusterJob(
        id=str(found["submission_id"]),
        sweep=str(metadata.get(SWEEP, "")),
        state=str(getattr(found["status"], "value", found["status"])),
        message=str(found["message"] or ""),
        entrypoint=str(found["entrypoint"]),
        exit_code=code if isinstance(code, int) else None,
    )


def _of(sweep: str, jobs: Iterable[RayClusterJob]) -> list[RayClusterJob]:
    """The jobs of a sweep, the latest first."""
    own = [job for job in jobs if job.sweep == sweep]
    return sorted(own, key=lambda job: _number(job.id, sweep), reverse=True)


def _number(job_id: str, sweep: str) -> int:
    """Of an id such as `NAME-3`; 0 for any other."""
    found = re.fullmatch(rf"{re.escape(sweep)}-(\d+)", job_id)
    return int(found[1]) if found else 0
