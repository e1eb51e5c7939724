"""Corrupted test sets from the command line: as tasks of a sweep, on disk, and while training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from raypruning.tasks import task_store

LARGE_DELTA = ["--delta", "0.2"]
FOGGY = ["--task", "nominal", "--task", "corruption/f*/3"]  # fog and frost
# What `tiny` takes of its dataset is a dataset of its own.
NUM_TEST = 300


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RAYPRUNING_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def sweep(prune_cli: Callable, tiny: list[str], tmp_path: Path) -> Callable:
    options = [option for option in tiny if option != "nominal"]
    options.remove("--task")

    def run(*more: str):
        return prune_cli("sweep", "lenet5", *options, *LARGE_DELTA, "--storage", tmp_path / "store", "--json", *more)

    return run


def test_sweep_on_a_pattern_of_tasks_measures_each_and_keeps_their_sets(cache: Path, sweep: Callable):
    ran = sweep(*FOGGY)
    assert ran.code == 0, ran.err
    names = {"nominal", "corruption/frost/3", "corruption/fog/3"}
    assert {task["name"] for task in ran.answer["tasks"]} == names
    assert {one["task"] for one in ran.answer["potentials"]} == names
    assert {one["task"] for one in ran.answer["excess_errors"]} == names - {"nominal"}
    assert all(set(probe["errors"]) == names for probe in ran.answer["probes"])
    assert sorted(one.task for one in task_store.stored_sets()) == sorted(names - {"nominal"})


def test_another_corruption_is_only_evaluated(cache: Path, sweep: Callable):
    sweep("--task", "nominal")
    ran = sweep("--task", "nominal", "--task", "corruption/fog/3")
    assert ran.code == 0, ran.err
    before = {probe["training"] for probe in ran.answer["probes"] if not probe["is_new"]}
    assert len(before) >= 2  # What the nominal search asked for was not trained again.


def test_dry_run_says_what_test_sets_will_take_and_makes_none(cache: Path, sweep: Callable):
    ran = sweep(*FOGGY, "--dry-run")
    assert ran.code == 0, ran.err
    assert ran.answer["num_test_set_bytes"] == 2 * NUM_TEST * 28 * 28
    assert task_store.stored_sets() == []


def test_frost_of_other_pictures_on_the_worker_is_a_failure_and_not_a_number(
    cache: Path, sweep: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Each machine reads its own folder; a driver that has one and a worker that has another would mix two tasks."""
    from raypruning.runtime.worker import Worker
    from raypruning.tasks import corruption

    machine = ["the driver"]
    run = Worker.run

    def run_elsewhere(worker, job):
        machine[:] = ["the worker"]
        return run(worker, job)

    monkeypatch.setattr(Worker, "run", run_elsewhere)
    monkeypatch.setattr(corruption, "_own_pictures", lambda: {"pictures": f"of {machine[0]}"})
    ran = sweep("--task", "nominal", "--task", "corruption/frost/3")
    assert "corruption/frost/3 is another one on this machine" in ran.err
    assert all(one["status"] == "open" for one in ran.answer["potentials"] if one["task"] == "corruption/frost/3")


def test_robust_sweep_trains_on_what_it_was_told_to(cache: Path, sweep: Callable):
    ran = sweep(*FOGGY, "--task", "noise/uniform/0.1", "--set", "recipe.train_corruptions=['fog', 'contrast']")
    assert ran.code == 0, ran.err
    assert ran.answer["sweep"]["recipe"]["train_corruptions"] == ["fog", "contrast"]
    found = {one["tasks"]: one["num_tasks"] for one in ran.answer["distributions"]}
    assert found == {"training": 2, "shifted": 2}  # nominal and fog; frost and the noise
    clean = sweep(*FOGGY, "--name", "clean")
    assert not {p["training"] for p in ran.answer["probes"]} & {p["training"] for p in clean.answer["probes"]}


def test_mix_is_the_same_training_as_its_corruptions_by_name(cache: Path, sweep: Callable):
    by_name = ["shot_noise", "impulse_noise", "motion_blur", "zoom_blur", "snow", "contrast", "elastic_transform"]
    by_name += ["pixelate", "gaussian_blur"]
    ran = [sweep("--task", "nominal", "--set", f"recipe.train_corruptions={names}") for names in (["mix1"], by_name)]
    assert [one.code for one in ran] == [0, 0], ran[0].err
    assert not any(probe["is_new"] for probe in ran[1].answer["probes"])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["tasks", "--build"], "needs a dataset: prune-cli tasks mnist --build"),
        (["tasks", "strokes", "--build", "--clear"], "takes one of --build and --clear"),
        (["tasks", "strkes"], "no dataset is called 'strkes': did you mean strokes"),
        (
            ["tasks", "strokes", "--build", "--task", "corruption/fogg/*"],
            "no task of strokes matches 'corruption/fogg/*'",
        ),
        (["tasks", "strokes", "--build", "--task", "corruption/fogg/3"], "no corruption is called 'fogg'"),
        (["list", "tasks", "strkes"], "no dataset is called 'strkes'"),
        (["list", "models", "strokes"], "only tasks belong to a dataset: prune-cli list tasks strokes"),
        (["sweep", "lenet5", "--task", "corruption/*/7"], "no task of strokes matches 'corruption/*/7'"),
        (["sweep", "lenet5", "--task", "corruption/fog/7"], "from 1 to 5, got 7"),
        (["sweep", "lenet5", "--set", "recipe.train_corruptions=['mix9']"], "no corruption is called 'mix9'"),
    ],
)
def test_wrong_words_about_tasks_are_one_line(prune_cli: Callable, cache: Path, words: list[str], says: str):
    ran = prune_cli(*words)
    assert ran.code == 2
    assert says in ran.error_line
    assert task_store.stored_sets() == []


def test_sets_are_built_ahead_listed_and_cleared(prune_cli: Callable, cache: Path):
    built = prune_cli("tasks", "digits", "--build", "--task", "corruption/*_noise/3")
    assert built.code == 0
    assert "making 4 test sets, 1.1 MB in " in built.err  # 360 images of 28 x 28 px
    assert built.out.splitlines()[-1].startswith("4 test sets, ")
    again = prune_cli("tasks", "digits", "--build", "--task", "corruption/*_noise/3")
    assert "making 0 test sets" in again.err
    listed = prune_cli("tasks", "digits", "--task", "corruption/shot*")
    assert [line.split()[-1] for line in listed.out.splitlines()[:-1]] == ["corruption/shot_noise/3"]
    assert prune_cli("tasks", "--clear", "--task", "corruption/shot*").out.startswith("deleted 1 test set, ")
    assert prune_cli("tasks", "mnist", "--clear").out.startswith("deleted 0 test sets")
    assert prune_cli("tasks", "--clear").out.startswith("deleted 3 test sets, ")


def test_tasks_of_a_dataset_are_listed_by_name(prune_cli: Callable):
    names = prune_cli("list", "tasks", "mnist").out.splitlines()
    assert names[0] == "nominal" and {"corruption/fog/3", "noise/gaussian/0.1", "noise/uniform/0.7"} < set(names)
