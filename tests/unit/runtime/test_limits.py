"""When a run may begin one more probe, on a clock of the test's own."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from raypruning.core.plan import next_probes
from raypruning.core.ports import ProbeJob, ProbeOutcome
from raypruning.core.records import Resources
from raypruning.runtime.limits import RunLimits
from tests.unit.runtime.test_dispatcher import TASKS, make_plan


@dataclass
class Clock:
    seconds: float = 1000.0

    def __call__(self) -> float:
        return self.seconds


def make_job(index: int, *, gpus: float = 1.0) -> ProbeJob:
    probes = next_probes(make_plan(seeds=(0, 1, 2, 3)), {})
    return ProbeJob(probe=probes[index], tasks=TASKS, resources=Resources(gpus_per_probe=gpus))


def run(limits: RunLimits, clock: Clock, index: int, *, seconds: float, gpus: float = 1.0) -> bool:
    """Begin and end a job, if it may begin."""
    job = make_job(index, gpus=gpus)
    if not limits.allow(job):
        return False
    clock.seconds += seconds
    limits.end(job, ProbeOutcome(training=job.probe.id, was_trained=True))
    return True


def test_without_limits_everything_may_begin():
    clock = Clock()
    limits = RunLimits(now=clock)
    assert all(run(limits, clock, index, seconds=1e6) for index in range(3))
    assert limits.reached is None


def test_deadline_lets_begin_what_would_end_in_time_and_nothing_after_the_first_refusal():
    clock = Clock()
    limits = RunLimits(now=clock, deadline=1000.0 + 250)
    assert run(limits, clock, 0, seconds=100)  # nothing is known yet of how long one takes
    assert run(limits, clock, 1, seconds=100)  # ends at 200, as far as the first one tells
    assert not run(limits, clock, 2, seconds=100)  # would end at 300
    assert limits.reached == "the deadline"
    limits.deadline = None
    assert not run(limits, clock, 3, seconds=1)


def test_deadline_that_has_passed_lets_nothing_begin():
    limits = RunLimits(now=Clock(), deadline=999.0)
    assert not limits.allow(make_job(0))


@pytest.mark.parametrize(("gpus", "num_begun"), [(1.0, 3), (0.5, 6), (2.0, 1)])
def test_gpu_hours_are_seconds_times_gpus_of_what_ran(gpus, num_begun):
    clock = Clock()
    limits = RunLimits(now=clock, gpu_hours=1.0)
    begun = sum(run(limits, clock, index % 4, seconds=1200, gpus=gpus) for index in range(8))
    assert begun == num_begun
    assert limits.reached == "the limit of 1 GPU hours"


def test_gpu_hours_count_what_is_running():
    clock = Clock()
    limits = RunLimits(now=clock, gpu_hours=1.0)
    assert run(limits, clock, 0, seconds=1000)
    assert limits.allow(make_job(1))
    clock.seconds += 1000
    # 1000 s are spent, 1000 s run, and another 1000 s are to be expected: 3000 of 3600.
    assert limits.allow(make_job(2))
    clock.seconds += 400
    assert not limits.allow(make_job(3))
