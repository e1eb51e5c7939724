"""Probes of several sizes on one Ray: each gets what it is to have, and processes serve many of a size."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import ray

from raypruning.core.ports import ProbeJob, ProbeOutcome
from raypruning.core.records import Curve, Probe, Resources
from raypruning.errors import ResourceError
from raypruning.runtime import ray_tune
from raypruning.runtime.ray_tune import ProbeTrainable, RayExecutor
from raypruning.testing.store_contract import sample_result

pytestmark = [pytest.mark.ray, pytest.mark.slow]

SMALL, LARGE = Resources(cpus_per_probe=0.5), Resources(cpus_per_probe=1.0)
CURVE = Curve(model="lenet5", dataset="strokes", method="wt", budget=1, seed=0)


class Says(ProbeTrainable):
    """What it was given, in place of a probe."""

    def step(self):
        job = ProbeJob.model_validate_json(self.config["job"])
        given = ray.get_runtime_context().get_assigned_resources()
        outcome = ProbeOutcome(training=job.probe.id, seconds={"cpus": given["CPU"], "pid": os.getpid()})
        return {"outcome": outcome.model_dump_json(), "done": True}


class Jobs:
    """A JobSource of probes of the given sizes."""

    def __init__(self, sizes: list[Resources]) -> None:
        training = sample_result().training
        self._waiting = [
            ProbeJob(
                probe=Probe(curve=CURVE, ratio=0.5, training=training.model_copy(update={"id": f"{number:020}"})),
                tasks=(),
                resources=size,
            )
            for number, size in enumerate(sizes)
        ]
        self._running = 0
        self.done: list[tuple[Resources, ProbeOutcome]] = []

    def next_job(self) -> ProbeJob | None:
        if not self._waiting:
            return None
        self._running += 1
        return self._waiting.pop(0)

    def complete(self, job: ProbeJob, outcome: ProbeOutcome) -> None:
        self._running -= 1
        self.done.append((job.resources, outcome))

    @property
    def is_finished(self) -> bool:
        return not self._waiting and not self._running


def executor(folder: Path, resources: Resources) -> RayExecutor:
    return RayExecutor(
        storage=str(folder), resources=resources, max_concurrent=2, address=None, log_path=folder / "ray.log"
    )


def test_probes_get_the_size_they_ask_for_in_processes_that_serve_many_of_that_size(tmp_path: Path):
    jobs = Jobs([SMALL] * 8 + [LARGE] * 8)  # as after one that ran out of memory
    one = executor(tmp_path, SMALL)
    one.trainable = Says
    one.drive(jobs)
    assert len(jobs.done) == 16
    processes: dict[float, set[float]] = {}
    for resources, outcome in jobs.done:
        assert outcome.failure is None and outcome.seconds["cpus"] == resources.cpus_per_probe
        processes.setdefault(resources.cpus_per_probe, set()).add(outcome.seconds["pid"])
    small, large = processes[0.5], processes[1.0]
    assert not small & large
    assert len(small) < 8 and len(large) < 8, "a process serves more than one probe"


def test_a_tuner_that_has_had_enough_is_followed_by_another_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ray_tune, "TRIALS", 3)
    monkeypatch.setattr(ray_tune, "TRIALS_A_PLACE", 1)
    jobs = Jobs([LARGE] * 7)
    one = executor(tmp_path, LARGE)
    one.trainable = Says
    tuners = []
    make = one._tuner
    monkeypatch.setattr(one, "_tuner", lambda *given, **how: tuners.append(make(*given, **how)) or tuners[-1])
    one.drive(jobs)
    assert len(tuners) == 3
    assert len(jobs.done) == 7 and all(outcome.failure is None for _, outcome in jobs.done)


def test_a_custom_resource_that_no_node_has_is_one_line(tmp_path: Path):
    wants = Resources(custom={"accelerator_type:A100": 0.001})
    with pytest.raises(
        ResourceError, match=r"no 0.001 of accelerator_type:A100 for a probe \(resources.custom\): it has CPU"
    ):
        executor(tmp_path, wants).drive(Jobs([wants]))
