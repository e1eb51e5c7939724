"""Jobs of a cluster whose answers are made up: ids that others took, and a head that stops answering."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import requests

from raypruning.errors import ResourceError
from raypruning.runtime import ray_jobs
from raypruning.runtime.ray_jobs import SWEEP, RayJobs


class Head:
    """A client of Ray's that keeps its jobs in a list, and takes no id twice."""

    def __init__(self, *jobs: tuple[str, str | None, str]) -> None:
        self.jobs: dict[str, Any] = {}
        for job_id, sweep, state in jobs:
            self.add(job_id, {SWEEP: sweep} if sweep else None, state)

    def add(self, job_id: str, metadata: dict | None, state: str) -> None:
        fields = {"submission_id": job_id, "metadata": metadata, "status": state, "message": "", "entrypoint": ""}
        self.jobs[job_id] = {**fields, "driver_exit_code": None}

    def list_jobs(self) -> list[Any]:
        return list(self.jobs.values())

    def get_job_info(self, job_id: str) -> Any:
        return self.jobs[job_id]

    def submit_job(self, *, submission_id: str, metadata: dict, **_: object) -> None:
        if submission_id in self.jobs:
            raise RuntimeError(f"Request failed with status code 500: {submission_id} already exists")
        self.add(submission_id, metadata, "PENDING")


def jobs_of(head: Any, monkeypatch: pytest.MonkeyPatch) -> RayJobs:
    monkeypatch.setattr(ray_jobs, "_connect", lambda _: head)
    return RayJobs("http://head:8265")


@pytest.mark.parametrize(
    ("known", "job_id"),
    [
        ([], "night-1"),
        ([("night-1", "night", "STOPPED"), ("night-2", "night", "FAILED")], "night-3"),
        ([("night-9", "night", "SUCCEEDED"), ("night-10", "night", "SUCCEEDED")], "night-11"),
        ([("night-1", None, "RUNNING")], "night-2"),
        ([("night-long-7", "night-long", "RUNNING"), ("7", None, "RUNNING")], "night-1"),
    ],
)
def test_job_has_a_number_beyond_all_that_are_taken(known: list, job_id: str, monkeypatch: pytest.MonkeyPatch):
    submitted = jobs_of(Head(*known), monkeypatch).submit("night", "prune-cli sweep night")
    assert (submitted.job.id, submitted.job.sweep, submitted.is_new) == (job_id, "night", True)


def test_job_at_work_is_found_and_not_doubled(monkeypatch: pytest.MonkeyPatch):
    head = Head(("night-1", "night", "RUNNING"), ("night-2", None, "RUNNING"))
    submitted = jobs_of(head, monkeypatch).submit("night", "prune-cli sweep night")
    assert (submitted.job.id, submitted.is_new) == ("night-1", False)
    assert len(head.jobs) == 2


@pytest.mark.parametrize("call", ["list_jobs", "get_job_info", "get_job_logs", "stop_job", "submit_job"])
@pytest.mark.parametrize(
    ("error", "says"),
    [
        (requests.ConnectionError("connection\nreset"), "http://head:8265 does not answer: connection reset"),
        (RuntimeError("status code 500"), "http://head:8265 refused: status code 500"),
    ],
)
def test_head_that_fails_is_told_of_in_one_line(
    call: str, error: Exception, says: str, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: object, **__: object) -> None:
        raise error

    head = SimpleNamespace(list_jobs=list, get_job_info=fail, get_job_logs=fail, stop_job=fail, submit_job=fail)
    setattr(head, call, fail)
    jobs = jobs_of(head, monkeypatch)
    job = ray_jobs.RayClusterJob("night-1", "night", "RUNNING", "", "", None)
    do = {
        "list_jobs": lambda: jobs.of("night"),
        "get_job_info": lambda: next(jobs.follow(job)),
        "get_job_logs": lambda: jobs.logs(job),
        "stop_job": lambda: jobs.cancel(job),
        "submit_job": lambda: jobs.submit("night", "prune-cli sweep night"),
    }[call]
    with pytest.raises(ResourceError) as raised:
        do()
    assert str(raised.value) == says
