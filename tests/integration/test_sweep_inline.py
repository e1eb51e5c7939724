"""Whole sweeps in this process, with an answer that is known: see known_answer."""

from __future__ import annotations

import dataclasses
import itertools
import shutil
from pathlib import Path

import pytest

from raypruning.app.read import open_sweep
from raypruning.runtime.store import open_store
from tests.integration.commands import run_sweep
from tests.integration.known_answer import SWEEP, error
from tests.integration.stored import all_predictions, commits, evaluations, weights_sha256

METHODS, TASKS = ("known-in-order", "known-backwards"), ("nominal", "known-shift")
# Potential and the next ratio, by hand, for 5 and 10 points.
KNOWN = {
    ("known-in-order", "nominal", 0.05): (0.65, 0.66),
    ("known-in-order", "known-shift", 0.05): (0.60, 0.61),
    ("known-backwards", "nominal", 0.05): (0.05, 0.06),
    ("known-backwards", "known-shift", 0.05): (0.10, 0.11),
    ("known-in-order", "nominal", 0.1): (0.70, 0.71),
    ("known-in-order", "known-shift", 0.1): (0.65, 0.66),
    ("known-backwards", "nominal", 0.1): (0.10, 0.11),
    ("known-backwards", "known-shift", 0.1): (0.15, 0.16),
}


def potentials(ran) -> dict[tuple[str, str, float], tuple[float | None, float | None]]:
    return {
        (one["method"], one["task"], one["delta"]): (one["ratio"], one["next_ratio"])
        for one in ran.answer["potentials"]
    }


def statuses(ran) -> set[str]:
    return {one["status"] for one in ran.answer["potentials"]}


@pytest.fixture(scope="module")
def finished_once(tmp_path_factory):
    folder = tmp_path_factory.mktemp("known")
    (folder / "known.toml").write_text(SWEEP)
    ran = run_sweep(folder / "known.toml", storage=folder / "store")
    assert ran.exit_code == 0, ran.stderr
    return ran


@pytest.fixture
def finished(finished_once, tmp_path: Path):
    """A sweep that is done, in a storage of the test's own, where `sweep` goes on by default."""
    shutil.copytree(finished_once.storage, tmp_path / "store")  # with the times of its files
    return dataclasses.replace(finished_once, storage=tmp_path / "store")


def test_a_sweep_finds_the_potentials_that_are_known(finished):
    assert potentials(finished) == {key: value for key, value in KNOWN.items() if key[2] == 0.05}
    assert statuses(finished) == {"closed"}


def test_every_error_of_a_sweep_is_the_known_one(finished):
    probes = finished.answer["probes"]
    assert probes[0]["method"] == "dense" and probes[0]["errors"] == {"nominal": 0.0, "known-shift": 0.0}
    for probe in probes[1:]:
        num_removed = round(probe["ratio_reached"] * 100)
        assert probe["checkpoint"]["num_nonzero"] == 100 - num_removed
        assert probe["errors"] == {task: error(probe["method"], task, num_removed) for task in TASKS}


def test_excess_errors_of_a_sweep_are_the_known_ones(finished):
    found = finished.answer["excess_errors"]
    assert {one["task"] for one in found} == {"known-shift"} and len(found) == len(finished.answer["probes"]) - 1
    for one in found:
        num_removed = round(one["ratio"] * 100)
        expected = error(one["method"], "known-shift", num_removed) - error(one["method"], "nominal", num_removed)
        assert one["value"] == one["raw_gap"] == pytest.approx(expected, abs=1e-12)


def test_a_sweep_read_back_in_python_says_the_same(finished):
    again = open_sweep("known", storage=str(finished.storage))
    rows = again.potentials.set_index(["method", "task", "delta"])["ratio"].to_dict()
    assert rows == {key: ratio for key, (ratio, _) in potentials(finished).items()}
    report = finished.storage / "sweeps" / "known" / "report.html"
    assert report.exists()


def test_a_grid_finds_the_known_potentials_on_its_ratios(sweep, known_sweep):
    ran = sweep(known_sweep, "--search", "grid", "--set", "search.ratios=[0.05, 0.1, 0.3, 0.62, 0.66, 0.8]")
    assert potentials(ran) == {
        ("known-in-order", "nominal", 0.05): (0.62, 0.66),
        ("known-in-order", "known-shift", 0.05): (0.3, 0.62),
        ("known-backwards", "nominal", 0.05): (0.05, 0.1),
        ("known-backwards", "known-shift", 0.05): (0.1, 0.3),
    }
    assert ran.exit_code == 0 and statuses(ran) == {"closed"}


def test_a_sweep_whose_largest_ratio_passes_says_that_it_is_at_the_top(sweep, known_sweep):
    ran = sweep(known_sweep, "--method", "known-in-order", "--set", "search.high=0.5")
    assert ran.exit_code == 0 and statuses(ran) == {"at_top"}
    assert set(potentials(ran).values()) == {(0.5, None)}


def test_the_same_command_again_trains_and_measures_nothing(finished, sweep, known_sweep):
    before = commits(finished.storage), evaluations(finished.storage)
    again = sweep(known_sweep)
    assert (commits(again.storage), evaluations(again.storage)) == before
    assert again.answer["cost"]["num_trained"] == 0
    assert again.answer["potentials"] == finished.answer["potentials"]
    assert again.exit_code == 0


def test_another_delta_trains_only_what_is_missing(finished, sweep, known_sweep, tmp_path: Path):
    before = commits(finished.storage)
    wider = sweep(known_sweep, "--delta", "0.05", "--delta", "0.1")
    after = commits(wider.storage)
    assert {key: after[key] for key in before} == before
    asked = {probe["training"] for probe in wider.answer["probes"]}
    assert set(after) == set(before) | asked
    assert wider.answer["cost"]["num_trained"] == len(after) - len(before) > 0
    assert potentials(wider) == KNOWN
    # What was there already changes nothing of what is asked for.
    cold = sweep(known_sweep, "--delta", "0.05", "--delta", "0.1", storage=tmp_path / "cold")
    assert cold.answer["potentials"] == wider.answer["potentials"]
    assert set(commits(cold.storage)) == asked


def test_a_delta_that_needs_no_other_probe_trains_nothing(finished, sweep, known_sweep):
    # 0.0509 of 1000 images are 50 images, as 0.05 is.
    again = sweep(known_sweep, "--delta", "0.0509")
    assert again.answer["cost"]["num_trained"] == 0
    assert [ratio for ratio, _ in potentials(again).values()] == [ratio for ratio, _ in potentials(finished).values()]


def test_another_task_only_evaluates(sweep, known_sweep):
    grid = ("--search", "grid", "--set", "search.ratios=[0.05, 0.1, 0.6, 0.65, 0.7]")
    first = sweep(known_sweep, "--task", "nominal", *grid)
    trained, measured = commits(first.storage), evaluations(first.storage)
    wider = sweep(known_sweep, *grid)
    assert commits(wider.storage) == trained and wider.answer["cost"]["num_trained"] == 0
    after = evaluations(wider.storage)
    assert {key: after[key] for key in measured} == measured and len(after) == 2 * len(measured)
    assert potentials(wider)["known-in-order", "known-shift", 0.05][0] == 0.6


def test_fresh_trains_everything_again_and_finds_the_same(finished, sweep, known_sweep):
    before, weights = commits(finished.storage), weights_sha256(finished.storage)
    again = sweep(known_sweep, "--fresh")
    after = commits(again.storage)
    assert set(after) == set(before) and all(after[key] > before[key] for key in before)
    assert weights_sha256(again.storage) == weights
    assert again.answer["cost"]["num_trained"] == len(before)
    assert again.answer["potentials"] == finished.answer["potentials"]


def test_fresh_leaves_what_another_sweep_asked_for(finished, sweep, known_sweep):
    other = sweep(known_sweep, "--name", "other", "--method", "known-backwards")
    shared = {probe["training"] for probe in other.answer["probes"]}
    assert other.answer["cost"]["num_trained"] == 0
    before = commits(finished.storage)
    after = commits(sweep(known_sweep, "--fresh").storage)
    assert {key for key in before if after[key] == before[key]} == shared


def test_a_sweep_cut_off_by_its_limit_stays_open_and_says_so(sweep, known_sweep):
    ran = sweep(known_sweep, "--max-probes", "4")
    assert ran.exit_code == 3 and "open" in statuses(ran)
    assert sum(probe["method"] != "dense" for probe in ran.answer["probes"]) == 4
    assert any("max_probes" in warning for warning in ran.answer["warnings"])


def test_a_sweep_whose_parents_all_fail_leaves_every_potential_open(sweep, known_sweep):
    ran = sweep(known_sweep, "--seed", "0", "--seed", "1", "--set", "model.options.is_broken=true")
    assert ran.exit_code == 3
    assert statuses(ran) == {"open"} and set(potentials(ran).values()) == {(None, None)}
    assert len(ran.answer["probes"]) == 2 and ran.answer["cost"]["num_failed"] == 2
    assert "lower recipe.learning_rate" in ran.stderr and "Traceback" not in ran.stderr
    assert commits(ran.storage) == {}


def test_a_sweep_whose_parents_failed_is_done_after_the_mistake_is_mended(sweep, known_sweep):
    sweep(known_sweep, "--set", "model.options.is_broken=true")
    ran = sweep(known_sweep)
    assert ran.exit_code == 0 and potentials(ran)["known-in-order", "nominal", 0.05] == (0.65, 0.66)


def test_seeds_have_potentials_of_their_own_and_share_nothing(sweep, known_sweep):
    ran = sweep(known_sweep, "--seed", "0", "--seed", "1", "--method", "known-in-order")
    by_seed = {(one["seed"], one["task"]): one["ratio"] for one in ran.answer["potentials"]}
    assert by_seed == {(seed, task): KNOWN["known-in-order", task, 0.05][0] for seed in (0, 1) for task in TASKS}
    summaries = {one["task"]: (one["n"], one["mean"], one["sd"]) for one in ran.answer["summaries"]}
    assert summaries == {"nominal": (2, 0.65, 0.0), "known-shift": (2, 0.6, 0.0)}


def test_a_storage_that_cannot_be_written_is_one_line_and_exit_code_2(sweep, known_sweep, tmp_path: Path):
    (tmp_path / "file").write_text("")
    ran = sweep(known_sweep, storage=tmp_path / "file" / "store")
    assert ran.exit_code == 2
    assert ran.stderr.startswith("prune-cli: ") and ran.stderr.count("\n") == 1


def test_damage_to_any_file_of_a_finished_sweep_is_mended_by_the_same_command(finished, sweep, known_sweep):
    """A bit of each kind of file: the answer must be the same, or the command must say what it found."""
    expected, predictions = finished.answer["potentials"], all_predictions(finished.storage)
    parent = finished.answer["probes"][0]["training"]
    folder = finished.storage / "trainings"
    victims = [folder / parent / "weights.safetensors", folder / parent / "training.json"]
    victims += sorted(folder.glob("*/evaluations/*.json"))[:1] + sorted(folder.glob("*/evaluations/*.safetensors"))[-1:]
    for path in victims:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(bytes(data))
    runs = [run for run, _ in zip(_until_done(sweep, known_sweep), range(4), strict=False)]
    assert runs[-1].exit_code == 0
    assert runs[-1].answer["potentials"] == expected
    # What is found only when the answer is put together ends the command, which mends it when it is typed again.
    assert [run.exit_code for run in runs] == [1, 0]
    assert runs[0].stderr.splitlines()[-1].startswith("prune-cli: ") and "checksum" in runs[0].stderr
    assert all_predictions(runs[-1].storage) == predictions
    # Nothing read the parent's weights: they are mended when something does.
    store = open_store(str(finished.storage))
    assert len(store.damaged_files()) >= 3


def _until_done(sweep, known_sweep):
    for _ in itertools.count():
        run = sweep(known_sweep)
        yield run
        if run.exit_code == 0:
            return
