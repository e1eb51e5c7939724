"""A task as a record: what its fingerprint stands for."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest

from raypruning import registry
from raypruning.errors import SpecError
from raypruning.tasks.task import describe_task, resolve_task


def fingerprint_of(name, *, dataset="strokes", data_fingerprint="d" * 20, num_examples=1000):
    return describe_task(
        name, dataset=dataset, data_fingerprint=data_fingerprint, num_examples=num_examples
    ).fingerprint


def test_nominal_task_changes_nothing_and_is_its_own_reference():
    definition = resolve_task("nominal")
    assert (definition.on_pixels, definition.on_normalised, dict(definition.corruption)) == (None, None, {})
    record = describe_task("nominal", dataset="strokes", data_fingerprint="d" * 20, num_examples=7)
    assert (record.name, record.nominal, record.num_examples, record.dataset) == ("nominal", "nominal", 7, "strokes")


def test_nominal_task_takes_no_argument():
    from raypruning.tasks.nominal import nominal

    with pytest.raises(SpecError, match="the task nominal takes no argument, got '2'"):
        nominal("2")


def test_noisy_task_records_what_is_done_and_names_its_nominal():
    record = describe_task("noise/uniform/0.1", dataset="strokes", data_fingerprint="d" * 20, num_examples=7)
    assert record.corruption == {"kind": "uniform noise", "space": "normalised", "amplitude": 0.1}
    assert record.nominal == "nominal"


def test_fingerprint_differs_for_other_data_kinds_and_amplitudes():
    names = ["nominal", "noise/uniform/0.1", "noise/uniform/0.2", "noise/uniform_pixel/0.1"]
    found = [fingerprint_of(name, data_fingerprint=data) for name in names for data in ("d" * 20, "e" * 20)]
    assert len(set(found)) == 8


def test_fingerprint_is_the_same_for_the_same_images_under_another_name():
    assert fingerprint_of("noise/uniform/0.1") == fingerprint_of("noise/uniform/1e-1", dataset="folder/strokes")


def test_plugin_that_gives_something_else_than_a_task_is_refused_by_name(monkeypatch):
    monkeypatch.setattr(registry, "tasks", registry.Registry("task", known=[EntryPoint("odd", "builtins:str", "")]))
    with pytest.raises(SpecError, match="task odd gave a str where a TaskDefinition was expected"):
        resolve_task("odd")


def test_tasks_are_described_without_torch():
    program = "import sys; from raypruning.tasks.task import resolve_task\n"
    program += "resolve_task('noise/uniform/0.1'); resolve_task('nominal'); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
