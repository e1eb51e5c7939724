"""Sweeps to report on, made once: they are frozen."""

import pytest

from raypruning.core.records import SweepResults

from . import sample


@pytest.fixture(scope="session")
def results() -> SweepResults:
    return sample.realistic()


@pytest.fixture(scope="session", params=["realistic", "level", "tiny", "empty", "nothing"])
def any_results(request: pytest.FixtureRequest) -> SweepResults:
    return {
        "realistic": sample.realistic,
        "level": sample.level,
        "tiny": sample.tiny,
        "empty": sample.empty,
        "nothing": sample.nothing,
    }[request.param]()


@pytest.fixture(scope="session")
def hostile() -> SweepResults:
    """Names that would be markup somewhere: HTML, rich, Markdown, mathtext, a link that runs."""
    name = 'x<script>alert("1")</script>[red]|$\\frac$'
    full = sample.realistic(name=name, note=name)
    rename = {"wt": name}
    potentials = tuple(_renamed(one, rename) for one in full.potentials)
    return full.model_copy(
        update={
            "potentials": potentials,
            "summaries": tuple(_with_method(one, rename) for one in full.summaries),
            "tasks": tuple(_with_task(task, name) if task.name == "nominal" else task for task in full.tasks),
            "experiment_url": "javascript:alert(1)",
            "warnings": (name,),
        }
    )


def _renamed(potential, rename):
    return potential.model_copy(update={"curve": _with_method(potential.curve, rename)})


def _with_method(record, rename):
    return record.model_copy(update={"method": rename.get(record.method, record.method)})


def _with_task(task, name):
    return task.model_copy(update={"name": name, "nominal": name})
