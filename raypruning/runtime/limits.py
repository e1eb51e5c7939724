"""What ends a run before its answer is complete: GPU hours, and a moment in time.

Neither is part of a sweep's identity. A probe that would go beyond a limit, as long as probes of this run took for an
epoch, is not begun; one that runs is finished, and what is finished is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from raypruning.core.ports import ProbeJob, ProbeOutcome


@dataclass
class RunLimits:
    """The limits of one run, and what it has spent.

    Args:
        now: seconds since the epoch.
        gpu_hours: that this run may spend; None for any number.
        deadline: seconds since the epoch after which nothing should run; None for no end.
    """

    now: Callable[[], float]
    gpu_hours: float | None = None
    deadline: float | None = None
    reached: str | None = field(default=None, init=False)
    _begun: dict[str, tuple[float, float]] = field(default_factory=dict, init=False)
    _spent: float = field(default=0.0, init=False)
    _seconds_per_epoch: float = field(default=0.0, init=False)

    def allow(self, job: ProbeJob) -> bool:
        """Whether a job may begin. After the first that may not, none may: `reached` says which limit it was."""
        if self.reached is None:
            self.reached = self._limit_reached(job)
        if self.reached is not None:
            return False
        self._begun[job.probe.id] = self.now(), job.resources.gpus_per_probe
        return True

    def end(self, job: ProbeJob, outcome: ProbeOutcome) -> None:
        """Count what a job took."""
        begun, gpus = self._begun.pop(job.probe.id, (self.now(), 0.0))
        seconds = self.now() - begun
        self._spent += seconds * gpus
        if outcome.was_trained:
            self._seconds_per_epoch = max(self._seconds_per_epoch, seconds / max(job.probe.training.epochs, 1))

    def _limit_reached(self, job: ProbeJob) -> str | None:
        now, expected = self.now(), self._expected(job)
        if self.deadline is not None and now + expected > self.deadline:
            return "the deadline"
        if self.gpu_hours is None:
            return None
        # What runs now is counted with what it has taken so far.
        running = sum((now - begun) * gpus for begun, gpus in self._begun.values())
        planned = self._spent + running + expected * job.resources.gpus_per_probe
        return f"the limit of {self.gpu_hours:g} GPU hours" if planned > self.gpu_hours * 3600 else None

    def _expected(self, job: ProbeJob) -> float:
        return self._seconds_per_epoch * max(job.probe.training.epochs, 1)
