"""The executor that runs every probe in this process: for tests, for debugging, and where Ray is not wanted."""

from __future__ import annotations

from raypruning.core.ports import JobSource
from raypruning.runtime.store import ObjectStore
from raypruning.runtime.worker import Worker


class InlineExecutor:
    """One probe after the other. Same core, same store, same answers as any other executor."""

    def __init__(self, store: ObjectStore) -> None:
        self._worker = Worker(store)

    def drive(self, source: JobSource) -> None:
        """Run everything that the source has."""
        while (job := source.next_job()) is not None:
            source.complete(job, self._worker.run(job))
