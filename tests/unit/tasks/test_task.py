"""A task as a record: what its fingerprint stands for."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint

import numpy as np
import pytest

from raypruning import registry
from raypruning.corruptions.parameters import NAMES
from raypruning.datasets.base import of_pixels
from raypruning.errors import DataError, SpecError, UnknownNameError
from raypruning.tasks.examples import Examples
from raypruning.tasks.task import TaskDefinition, describe_task, expand_tasks, open_task, resolve_task, task_names
from raypruning.testing.made_up import made_up_dataset


def fingerprint_of(name, *, dataset="strokes", data_fingerprint="d" * 20):
    return describe_task(name, made_up_dataset(name=dataset, fingerprint=data_fingerprint)).fingerprint


def test_nominal_task_changes_nothing_and_is_its_own_reference():
    definition = resolve_task("nominal")
    assert (definition.on_pixels, definition.on_normalised, dict(definition.corruption)) == (None, None, {})
    record = describe_task("nominal", made_up_dataset(name="strokes", num_test=7))
    assert (record.name, record.nominal, record.num_examples, record.dataset) == ("nominal", "nominal", 7, "strokes")


def test_nominal_task_takes_no_argument():
    from raypruning.tasks.nominal import nominal

    with pytest.raises(SpecError, match="the task nominal takes no argument, got '2'"):
        nominal("2")


def test_noisy_task_records_what_is_done_and_names_its_nominal():
    record = describe_task("noise/uniform/0.1", made_up_dataset())
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
    found = expand_tasks(["nominal", "corruption/*/3", "noise/uniform/*"], dataset="mnist")
    assert found[0] == "nominal"
    assert found[1:20] == [f"corruption/{name}/3" for name in NAMES]
    assert found[20:] == [f"noise/uniform/{step / 20:g}" for step in range(1, 15)]


def test_pattern_adds_only_what_is_not_named_already():
    assert expand_tasks(["corruption/fog/3", "corruption/fog/*"], dataset="mnist") == [
        f"corruption/fog/{s}" for s in (3, 1, 2, 4, 5)
    ]
    assert expand_tasks(["corruption/f*/3", "corruption/fog/3"], dataset="mnist") == [
        "corruption/frost/3",
        "corruption/fog/3",
    ]
    assert expand_tasks(["nominal", "nominal"], dataset="mnist") == ["nominal", "nominal"], "for the spec to refuse"


def test_pattern_that_matches_nothing_is_refused():
    with pytest.raises(UnknownNameError, match=r"no task of mnist matches 'corruption/\*/9'"):
        expand_tasks(["corruption/*/9"], dataset="mnist")


def test_every_name_that_a_list_shows_is_a_task():
    names = task_names("mnist")
    assert names[0] == "nominal" and len(set(names)) == len(names)
    for name in names:
        resolve_task(name)


def test_task_for_pixels_is_for_every_dataset_marked_so_and_for_no_other(monkeypatch):
    known = registry.Registry("dataset", known=[])
    known.register("mine")(of_pixels(lambda argument, *, data_dir, download: None))
    known.register("photos")(lambda argument, *, data_dir, download: None)
    monkeypatch.setattr(registry, "datasets", known)
    unmoved = resolve_task("corruption_unmoved/zoom_blur/3")
    assert unmoved.fits("mine") and not unmoved.fits("photos")
    assert resolve_task("corruption/zoom_blur/3").fits("photos")
    assert "corruption_unmoved/zoom_blur/3" in task_names("mine")
    assert "corruption_unmoved/zoom_blur/3" not in task_names("photos")


# --- Images of a task's own -------------------------------------------------------------------------------------------


@pytest.fixture
def with_own_images(monkeypatch):
    """Registers a task `own` with images of its own, for --dataset cars and for folders."""

    def register(**fields) -> None:
        split = made_up_dataset(num_test=4).split("test")

        def open_examples(dataset, data_dir) -> Examples:
            return Examples(**{"split": split, "fingerprint": "0wn", **fields})

        known = registry.Registry("task", known=[EntryPoint("nominal", "raypruning.tasks.nominal:nominal", "")])
        known.register("own")(lambda argument: TaskDefinition(examples=open_examples, datasets=("cars", "folder/")))
        monkeypatch.setattr(registry, "tasks", known)

    return register


def test_task_with_images_of_its_own_counts_these(with_own_images):
    with_own_images()
    task, examples = open_task("own", made_up_dataset(name="cars", num_test=7))
    assert examples is not None
    assert (task.num_examples, len(examples), task.images) == (4, 4, "0wn")
    assert open_task("nominal", made_up_dataset(name="cars", num_test=7))[1] is None
    # Whatever the dataset's own test images are.
    other = describe_task("own", made_up_dataset(name="cars", fingerprint="e" * 20))
    assert other.fingerprint == task.fingerprint != describe_task("nominal", made_up_dataset(name="cars")).fingerprint


@pytest.mark.parametrize(
    ("positions", "is_the_datasets", "is_the_same_twice"),
    [([0, 1, 2, 3], True, True), ([3, 1, 2, 0], False, True), ([0, 1, 2], False, True)],
)
def test_images_from_the_datasets_test_set_are_known_by_their_places(
    with_own_images, positions, is_the_datasets, is_the_same_twice
):
    with_own_images(positions_N=np.array(positions))
    dataset = made_up_dataset(name="cars", num_test=4)
    task = describe_task("own", dataset)
    assert (task.images == describe_task("nominal", dataset).images) == is_the_datasets
    with_own_images(positions_N=np.array(positions), fingerprint="other classes count")
    again = describe_task("own", dataset)
    assert (again.images == task.images) == is_the_same_twice and again.fingerprint != task.fingerprint


def test_task_for_other_datasets_is_refused_and_found_by_no_pattern(with_own_images):
    with_own_images()
    with pytest.raises(SpecError, match=r"the task own is for --dataset cars or folder/, not for boats"):
        describe_task("own", made_up_dataset(name="boats"))
    assert task_names("boats") == ["nominal"]
    assert task_names("cars") == task_names("folder/mine") == ["nominal", "own"]
    with pytest.raises(UnknownNameError, match="no task of boats matches 'o"):
        expand_tasks(["o*"], dataset="boats")


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
