"""The workers that run one probe together: rank 0 is where the job was given, the others are started for it."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext, ForkServerProcess
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

from raypruning.core.ports import ProbeJob
from raypruning.core.records import Failure
from raypruning.errors import RaypruningError

if TYPE_CHECKING:
    import socket

    from raypruning.bench import Bench
    from raypruning.training.data_parallel import Group, Meeting

log = logging.getLogger("raypruning.worker")

# A worker that fails is noticed by the others at once, by their broken connections; it may still be saying why.
REASON_SECONDS = 5.0
DIED = Failure(kind="WorkerDied", message="a worker of the probe died before it finished", is_retriable=True)


class Crew(Protocol):
    """The workers of one job other than rank 0, from when they are started until they are ended."""

    def place(self) -> Place:
        """Where they meet, once all of them are up. Raises CrewError: one of them did not come up."""

    def failure(self) -> Failure | None:
        """Why one of them ended before it was told to; None if none has."""


class Place(NamedTuple):
    """Where workers meet, and what rank 0 listens with where they are on several machines."""

    meeting: Meeting
    listener: socket.socket | None = None


MakeCrew = Callable[[ProbeJob], AbstractContextManager[Crew]]


@contextlib.contextmanager
def joined_by(crew: Crew, job: ProbeJob) -> Iterator[Group]:
    """Be rank 0 among the workers of a job.

    Raises: CrewError: another worker failed, and with it the probe.
    """
    import torch

    from raypruning.training.data_parallel import Share, is_of_the_connection, joined

    place, share = crew.place(), Share(0, job.resources.num_workers)
    device = torch.device(device_of(job.device, 0))
    try:
        with joined(
            place.meeting,
            share,
            device=device,
            sync_batch_norm=job.resources.sync_batch_norm,
            listener=place.listener,
        ) as group:
            yield group
    except RuntimeError as error:
        if not is_of_the_connection(error):
            raise
        until = time.monotonic() + REASON_SECONDS
        while (failure := crew.failure()) is None and time.monotonic() < until:
            time.sleep(0.1)
        if failure is None:
            raise
        raise CrewError(failure) from error


class CrewError(Exception):
    """A worker other than rank 0 failed."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


def help_with(job: ProbeJob, meeting: Meeting, rank: int, *, device: str) -> Failure | None:
    """Be a worker other than rank 0, to the end. Returns why it ended before that."""
    from raypruning.assist import assist
    from raypruning.training.data_parallel import Share, joined

    share, sync = Share(rank, job.resources.num_workers), job.resources.sync_batch_norm
    try:
        bench = bench_of(job, device)
        with joined(meeting, share, device=bench.device, sync_batch_norm=sync) as group:
            assist(job, bench, group)
        return None
    except RaypruningError as error:
        return Failure(kind=type(error).__name__, message=str(error), is_retriable=error.is_retriable)
    except Exception as error:
        # It may be that rank 0 or a third worker is gone, whose own reason is the better one.
        log.warning("worker %d of probe %s: %s", rank, job.probe.id, error)
        return Failure(kind=type(error).__name__, message=f"worker {rank}: {error}", is_retriable=True)


def bench_of(job: ProbeJob, device: str) -> Bench:
    """The bench of one of a job's workers: with more than one CPU, it has processes that decode images."""
    from raypruning.bench import Bench

    cpus = int(job.resources.cpus_per_worker)
    return Bench(device, num_decoders=cpus if cpus > 1 else 0)


def device_of(device: str, rank: int) -> str:
    """The device of a worker that shares a machine with the others."""
    return f"{device}:{rank}" if device == "cuda" else device


@contextlib.contextmanager
def local_crew(job: ProbeJob) -> Iterator[Crew]:
    """Workers that are processes of this machine."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["raypruning.assist"])
    with tempfile.TemporaryDirectory(prefix="raypruning-") as folder:
        crew = _LocalCrew(job, Path(folder) / "meeting", context)
        try:
            yield crew
        finally:
            crew.end()


class _LocalCrew:
    def __init__(self, job: ProbeJob, file: Path, context: BaseContext) -> None:
        from raypruning.training.data_parallel import Meeting

        self._place = Place(Meeting(str(file), is_local=True))
        self._processes: list[ForkServerProcess] = []
        self._reasons: list[Connection] = []
        for rank in range(1, job.resources.num_workers):
            here, there = context.Pipe(duplex=False)
            given = (there, job.model_dump_json(), self._place.meeting, rank)
            process = cast("ForkServerProcess", context.Process(target=_work, args=given))  # type: ignore[attr-defined]
            process.start()
            there.close()
            self._processes.append(process)
            self._reasons.append(here)

    def place(self) -> Place:
        """See Crew."""
        for up in self._reasons:
            try:
                up.recv()
            except EOFError:
                raise CrewError(DIED) from None
        return self._place

    def failure(self) -> Failure | None:
        """See Crew."""
        failures = []
        for reason in cast("list[Connection]", wait(self._reasons, timeout=0)):
            try:
                said = reason.recv()
            except EOFError:
                self._reasons.remove(reason)
                failures.append(DIED)
            else:
                failures += [Failure.model_validate_json(said)] if said else []
        return worst_of(failures)

    def end(self) -> None:
        """They may wait for a rank 0 that is gone: they are not asked."""
        for process in self._processes:
            process.kill()
            process.join()


def worst_of(failures: list[Failure]) -> Failure | None:
    """The one that says most: what will not pass before what may, an error of ours before a broken connection."""
    return min(failures, key=lambda one: (one.is_retriable, one.kind == "RuntimeError"), default=None)


def _work(reason: Connection, job: str, meeting: Meeting, rank: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # A terminal sends it to everybody; rank 0 ends this process.
    reason.send("up")
    given = ProbeJob.model_validate_json(job)
    failure = help_with(given, meeting, rank, device=device_of(given.device, rank))
    with contextlib.suppress(OSError):  # Rank 0 was killed: nobody wants to know.
        reason.send(failure.model_dump_json() if failure else None)
