"""The workers of a probe that has several, on a Ray cluster: actors in the placement group of its trial."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from raypruning.core.ports import ProbeJob
from raypruning.core.records import Failure
from raypruning.runtime.crew import DIED, Crew, CrewError, Place, device_of, help_with, worst_of

if TYPE_CHECKING:
    from raypruning.training.data_parallel import Meeting

log = logging.getLogger("raypruning.worker")

# A machine without power breaks no connection: rank 0 would wait for it in a collective operation.
PATIENCE_SECONDS = 30.0


@contextlib.contextmanager
def ray_crew(job: ProbeJob) -> Iterator[Crew]:
    """Workers with the resources of one of the bundles that `ray_tune.bundles_of` asks for, each."""
    crew = _RayCrew(job)
    try:
        yield crew
    finally:
        crew.end()


class _Assistant:
    """One worker other than rank 0."""

    def up(self) -> str:
        """The address of its machine."""
        import raypruning.assist  # torch, which takes seconds

        assert raypruning.assist
        return str(ray.util.get_node_ip_address())

    def work(self, job: str, meeting: Meeting, rank: int) -> str | None:
        """See `crew.help_with`."""
        given = ProbeJob.model_validate_json(job)
        failure = help_with(given, meeting, rank, device=device_of(given.device, 0))  # Of those that Ray lets it see.
        return failure.model_dump_json() if failure else None


class _RayCrew:
    def __init__(self, job: ProbeJob) -> None:
        self._job = job
        self._is_over = threading.Event()
        self._work: list[Any] = []
        resources, group = job.resources, ray.util.get_current_placement_group()
        self._assistants = [
            ray.remote(_Assistant)
            .options(
                num_cpus=resources.cpus_per_worker,
                num_gpus=resources.gpus_per_worker,
                scheduling_strategy=PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=rank),
            )
            .remote()
            for rank in range(1, resources.num_workers)
        ]

    def place(self) -> Place:
        """See Crew."""
        from raypruning.training.data_parallel import LOOPBACK, Meeting

        try:
            addresses = ray.get([one.up.remote() for one in self._assistants])
        except RayError as error:
            log.warning("a worker of probe %s did not come up", self._job.probe.id, exc_info=error)
            raise CrewError(DIED) from error
        mine = ray.util.get_node_ip_address()
        is_local = set(addresses) == {mine}
        host = LOOPBACK if is_local else mine
        listener = socket.create_server((host, 0))
        meeting = Meeting(f"{host}:{listener.getsockname()[1]}", is_local)
        job = self._job.model_dump_json()
        self._work = [one.work.remote(job, meeting, rank) for rank, one in enumerate(self._assistants, start=1)]
        threading.Thread(target=self._watch, daemon=True, name="crew").start()
        return Place(meeting, listener)

    def failure(self) -> Failure | None:
        """See Crew."""
        failures = []
        for one in ray.wait(self._work, num_returns=len(self._work), timeout=0)[0]:
            try:
                said = ray.get(one)
            except RayError:
                failures.append(DIED)
            else:
                failures += [Failure.model_validate_json(said)] if said else []
        return worst_of(failures)

    def end(self) -> None:
        """They may wait for a rank 0 that is gone: they are not asked."""
        self._is_over.set()
        for one in self._assistants:
            ray.kill(one)

    def _watch(self) -> None:
        """End this process, and with it the trial, if it does not notice by itself that another worker is gone."""
        while not self._is_over.wait(1.0):
            with contextlib.suppress(RayError):  # Of a Ray that is being shut down, and this process with it.
                if self.failure() is not None and not self._is_over.wait(PATIENCE_SECONDS):
                    os._exit(1)
