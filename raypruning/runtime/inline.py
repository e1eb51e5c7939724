"""The executor that runs every probe in this process: for tests, for debugging, and where Ray is not wanted."""

from __future__ import annotations

import logging

from raypruning.core.ports import JobSource, ProbeJob, ProbeOutcome, Store
from raypruning.core.records import Failure

log = logging.getLogger("raypruning.inline")


class InlineExecutor:
    """One probe after the other. Same core, same store, same answers as any other executor."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def drive(self, source: JobSource) -> None:
        """Run everything that the source has."""
        from raypruning.probe import Bench

        bench: Bench | None = None
        while (job := source.next_job()) is not None:
            bench = bench or Bench(job.device)
            source.complete(job, run_caught(job, self._store, bench))


def run_caught(job: ProbeJob, store: Store, bench: object) -> ProbeOutcome:
    """`run_probe`, with an error that nobody foresaw as a failure of this probe: a crash is not the sweep's end."""
    from raypruning.probe import Bench, run_probe

    assert isinstance(bench, Bench)
    try:
        return run_probe(job, store, bench)
    except Exception as error:
        log.exception("probe %s crashed", job.probe.id)
        failure = Failure(kind=type(error).__name__, message=str(error) or repr(error), is_retriable=True)
        return ProbeOutcome(training=job.probe.id, failure=failure)
