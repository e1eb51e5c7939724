"""What every executor runs in its processes: one job after the other over one store, on data that is loaded once."""

from __future__ import annotations

import logging
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING

from raypruning.core.ports import ProbeJob, ProbeOutcome
from raypruning.core.records import Failure
from raypruning.runtime import leases
from raypruning.runtime.crew import CrewError, MakeCrew, bench_of, device_of, joined_by, local_crew
from raypruning.runtime.store import ObjectStore

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from raypruning.bench import Bench

log = logging.getLogger("raypruning.worker")

POLL_SECONDS = 1.0


class Worker:
    """Runs jobs in this process, and in others that it starts for those jobs that several are to run together.

    Args:
        make_crew: starts the others.
    """

    def __init__(self, store: ObjectStore, *, make_crew: MakeCrew = local_crew) -> None:
        self._store = store
        self._make_crew = make_crew
        self._bench: Bench | None = None

    def run(self, job: ProbeJob) -> ProbeOutcome:
        """`run_probe`, with an error that nobody foresaw as a failure of this probe: a crash is not the sweep's end."""
        try:
            with self._lease(job.probe.id):
                return self._run(job)
        except CrewError as error:
            return ProbeOutcome(training=job.probe.id, failure=error.failure)
        except Exception as error:
            log.exception("probe %s crashed", job.probe.id)
            failure = Failure(kind=type(error).__name__, message=str(error) or repr(error), is_retriable=True)
            return ProbeOutcome(training=job.probe.id, failure=failure)

    def _run(self, job: ProbeJob) -> ProbeOutcome:
        from raypruning.probe import run_probe

        self._bench = self._bench or bench_of(job, device_of(job.device, 0))
        if job.resources.num_workers == 1:
            return run_probe(job, self._store, self._bench)
        with self._make_crew(job) as crew, joined_by(crew, job) as group:
            return run_probe(job, self._store, self._bench, group)

    def _lease(self, training_id: str) -> AbstractContextManager[object]:
        """Wait while another live process trains the same network, so that it is not trained twice.

        Advisory: it saves work and decides nothing. A lease ends with its owner's heartbeat, and so does the wait.
        """
        name, owner = f"trainings/{training_id}", leases.this_owner()
        while self._store.training(training_id) is None:
            held = leases.acquire(self._store.blobs, name, now=time.time, owner=owner)
            if not isinstance(held, leases.HeldBy):
                return leases.Heartbeat(self._store.blobs, held, now=time.time)
            time.sleep(POLL_SECONDS)
        return nullcontext()
