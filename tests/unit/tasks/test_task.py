"""A task as a record: what its fingerprint stands for."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest

from raypruning import registry
from raypruning.corruptions.parameters import NAMES
from raypruning.errors import DataError, SpecError, UnknownNameError
from raypruning.tasks.task import describe_task, expand_tasks, resolve_task, task_names


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


def test_patterns_stand_for_the_tasks_they_match_in_order():
    found = expand_tasks(["nominal", "corruption/*/3", "noise/uniform/*"])
    assert found[0] == "nominal"
    assert found[1:20] == [f"corruption/{name}/3" for name in NAMES]
    assert found[20:] == [f"noise/uniform/{step / 20:g}" for step in range(1, 15)]


def test_pattern_adds_only_what_is_not_named_already():
    assert expand_tasks(["corruption/fog/3", "corruption/fog/*"]) == [f"corruption/fog/{s}" for s in (3, 1, 2, 4, 5)]
    assert expand_tasks(["corruption/f*/3", "corruption/fog/3"]) == ["corruption/frost/3", "corruption/fog/3"]
    assert expand_tasks(["nominal", "nominal"]) == ["nominal", "nominal"], "for the spec to refuse"


def test_pattern_that_matches_nothing_is_refused():
    with pytest.raises(UnknownNameError, match=r"no task matches 'corruption/\*/9'"):
        expand_tasks(["corruption/*/9"])


def test_every_name_that_a_list_shows_is_a_task():
    names = task_names()
    assert names[0] == "nominal" and len(set(names)) == len(names)
    for name in names:
        resolve_task(name)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("corruption/fog", "a name and a severity from 1 to 5, such as corruption/fog/3"),
        ("corruption/fog/x", "such as corruption/fog/3"),
        ("corruption/fog/6", "must be a whole number from 1 to 5, got 6"),
        ("corruption/fgo/3", "no corruption is called 'fgo': did you mean fog"),
    ],
)
def test_corruption_that_does_not_exist_is_refused(name: str, says: str):
    with pytest.raises(SpecError, match=says):
        resolve_task(name)


def test_frost_of_other_pictures_is_another_task(tmp_path, monkeypatch):
    ours = fingerprint_of("corruption/frost/3")
    monkeypatch.setenv("RAYPRUNING_FROST_DIR", str(tmp_path))
    with pytest.raises(DataError, match=r"RAYPRUNING_FROST_DIR.* has none"):
        fingerprint_of("corruption/frost/3")
    (tmp_path / "frost1.png").write_bytes(b"a picture")
    theirs = fingerprint_of("corruption/frost/3")
    (tmp_path / "frost1.png").write_bytes(b"another")
    assert len({ours, theirs, fingerprint_of("corruption/frost/3")}) == 3
    assert fingerprint_of("corruption/fog/3") == fingerprint_of("corruption/fog/3")
