"""What the workers of a probe on Ray do that needs no Ray: their device, and the end of one that waits for nobody."""

from __future__ import annotations

import threading

import pytest

from raypruning.core.ports import ProbeJob
from raypruning.core.records import Curve, Failure, Probe
from raypruning.runtime import ray_crew
from raypruning.runtime.crew import DIED
from raypruning.testing.store_contract import sample_result
from raypruning.training.data_parallel import Meeting

CURVE = Curve(model="lenet5", dataset="strokes", method="wt", budget=1, seed=0)
JOB = ProbeJob(probe=Probe(curve=CURVE, ratio=0.5, training=sample_result().training), tasks=())


@pytest.mark.parametrize(("device", "own"), [("cuda", "cuda:0"), ("cpu", "cpu")])
def test_a_worker_takes_the_first_gpu_of_those_that_ray_lets_it_see(monkeypatch, device: str, own: str):
    seen = []
    monkeypatch.setattr(ray_crew, "help_with", lambda job, meeting, rank, *, device: seen.append((rank, device)))
    job = JOB.model_copy(update={"device": device})
    assert ray_crew._Assistant().work(job.model_dump_json(), Meeting("127.0.0.1:1", is_local=True), 3) is None
    assert seen == [(3, own)]


class Crew(ray_crew._RayCrew):
    """Without workers; `failure` is what the test says."""

    def __init__(self, failure: Failure | None) -> None:
        self._is_over = threading.Event()
        self._said = failure

    def failure(self) -> Failure | None:
        return self._said


@pytest.mark.parametrize(
    ("failure", "notices", "ends"), [(DIED, False, True), (DIED, True, False), (None, False, False)]
)
def test_rank_0_ends_when_another_worker_is_gone_and_it_does_not_notice(
    monkeypatch, failure: Failure | None, notices: bool, ends: bool
):
    class Ended(BaseException):
        pass

    def end(code: int) -> None:
        raise Ended

    monkeypatch.setattr(ray_crew.os, "_exit", end)
    monkeypatch.setattr(ray_crew, "PATIENCE_SECONDS", 0.5)
    crew = Crew(failure)
    # What notices leaves the block that the crew is for, which ends it.
    timer = threading.Timer(1.2 if notices else 2.5, crew._is_over.set)
    timer.start()
    try:
        if ends:
            with pytest.raises(Ended):
                crew._watch()
        else:
            crew._watch()
    finally:
        timer.cancel()
