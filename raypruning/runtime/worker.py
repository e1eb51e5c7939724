"""What every executor runs in its processes: one job after the other over one store, on data that is loaded once."""

from __future__ import annotations

import logging
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING

from raypruning.core.ports import ProbeJob, ProbeOutcome
from raypruning.core.records import Failure
from raypruning.runtime import leases
from raypruning.runtime.store import ObjectStore

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from raypruning.probe import Bench

log = logging.getLogger("raypruning.worker")

POLL_SECONDS = 1.0


class Worker:
    """Runs jobs in this process."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._bench: Bench | None = None

    def run(self, job: ProbeJob) -> ProbeOutcome:
        """`run_probe`, with an error that nobody foresaw as a failure of this probe: a crash is not the sweep's end."""
        from raypruning.probe import Bench, run_probe

        try:
            self._bench = self._bench or Bench(job.device)
            with self._lease(job.probe.id):
                return run_probe(job, self._store, self._bench)
        except Exception as error:
            log.exception("probe %s crashed", job.probe.id)
            failure = Failure(kind=type(error).__name__, message=str(error) or repr(error), is_retriable=True)
            return ProbeOutcome(training=job.probe.id, failure=failure)

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
