"""Sweeps that were submitted to a cluster: what can be said and done of them, whichever cluster it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol, TypeVar


class Job(Protocol):
    """A sweep's job as its cluster knows it. `RayJobs` and `KubernetesJobs` say what their states are."""

    @property
    def id(self) -> str:
        """The cluster's name for it."""

    @property
    def sweep(self) -> str:
        """The sweep's name."""

    @property
    def state(self) -> str:
        """In the cluster's words."""

    @property
    def message(self) -> str:
        """Why it is in that state; may be empty."""

    @property
    def exit_code(self) -> int | None:
        """Of the command; None where it is not known."""

    @property
    def is_alive(self) -> bool:
        """Whether it waits or runs."""

    def _asdict(self) -> dict[str, Any]:
        """All fields, by name."""


class Submitted(NamedTuple):
    """A sweep's job, and whether it was begun just now rather than found at work."""

    job: Job
    is_new: bool


AnyJob = TypeVar("AnyJob", bound=Job)


class Jobs(Protocol[AnyJob]):
    """The jobs of one cluster. Methods raise ResourceError where it does not answer or refuses."""

    def latest(self, sweep: str) -> AnyJob:
        """The last job of a sweep. Raises SpecError if there is none."""

    def logs(self, job: AnyJob) -> str:
        """All that a job has printed."""

    def follow(self, job: AnyJob) -> Iterator[str]:
        """What a job prints, until it ends."""

    def cancel(self, job: AnyJob) -> None:
        """End a job; what is finished is kept."""
