"""Every command on real sweeps of seconds: what is printed where, what is written where, and what is not done again."""

from __future__ import annotations

import csv
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import raypruning
from raypruning.runtime import leases
from raypruning.runtime.store import open_store

# Networks that hardly learn lose at most 30 of 300 images: every ratio passes, and the sweep finishes.
LARGE_DELTA = ("--delta", "0.1")
TASKS = ("--task", "nominal", "--task", "noise/uniform/0.5")
FLAT_FIELDS = {"method", "task", "budget", "seed", "delta", "ratio", "status", "interval"}
CURVE_FIELDS = {"model", "dataset", "method", "schedule", "budget", "seed"}


@pytest.fixture(scope="module")
def swept(prune_cli: Callable, tiny: list[str], tmp_path_factory: pytest.TempPathFactory):
    """A finished sweep, for tests that only look: what the command said, and its storage."""
    storage = tmp_path_factory.mktemp("swept") / "store"
    return prune_cli("sweep", "lenet5", *tiny, *TASKS[2:], *LARGE_DELTA, "--storage", storage), storage


@pytest.fixture
def storage(swept, tmp_path: Path) -> Path:
    """A copy of the finished sweep's storage, to change."""
    return Path(shutil.copytree(swept[1], tmp_path / "store"))


@pytest.fixture
def again(prune_cli: Callable, tiny: list[str]) -> Callable:
    """The sweep's command once more, on a storage, with other options."""

    def run(storage: Path, *options: object, delta: tuple[str, ...] = LARGE_DELTA):
        return prune_cli("sweep", "lenet5", *tiny, *TASKS[2:], *delta, "--storage", storage, "--json", *options)

    return run


def committed(storage: Path) -> dict[str, int]:
    """When each training and evaluation was committed: one that ran again has another time."""
    return {
        path.relative_to(storage).as_posix(): path.stat().st_mtime_ns for path in storage.glob("trainings/**/*.json")
    }


def trainings(storage: Path) -> dict[str, int]:
    return {path: time for path, time in committed(storage).items() if path.endswith("training.json")}


def snapshot(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# -- sweep


def test_sweep_prints_its_answer_on_stdout_and_the_rest_on_stderr(swept):
    ran, storage = swept
    assert ran.code == 0
    assert "nominal" in ran.out and "noise/uniform/0.5" in ran.out and "wt" in ran.out
    assert "Cost" in ran.out
    assert "lenet5 on strokes, 1 curve, 2 tasks, delta 0.1" in ran.err
    assert f"report   {storage}/sweeps/lenet5/report.html" in ran.err
    assert f"again    prune-cli report lenet5 --storage {storage}" in ran.err
    assert str(storage) not in ran.out
    assert "\x1b" not in ran.out + ran.err, "no colours into a pipe"


def test_sweep_leaves_its_report_and_its_record_in_the_storage(swept):
    folder = swept[1] / "sweeps" / "lenet5"
    assert {path.name for path in folder.iterdir()} == {
        "lost.html",
        "report.html",
        "report.json",
        "run.json",
        "spec.json",
    }
    assert (folder / "report.html").read_text().startswith("<!doctype html>")


def test_same_command_again_trains_nothing_and_answers_the_same(swept, storage: Path, again: Callable):
    before = committed(storage)
    first, second = again(storage), again(storage)
    assert first.code == 0
    assert committed(storage) == before
    assert first.answer["cost"]["num_trained"] == 0
    assert first.answer["potentials"] == second.answer["potentials"]
    stored = json.loads((swept[1] / "sweeps" / "lenet5" / "report.json").read_text())
    assert first.answer["potentials"] == stored["potentials"]


def test_json_is_one_object_with_flat_potentials_and_nothing_else(storage: Path, again: Callable):
    answer = again(storage).answer
    assert {"sweep", "potentials", "excess_errors", "probes", "cost"} <= answer.keys()
    assert len(answer["potentials"]) == 2
    for potential in answer["potentials"]:
        assert potential.keys() >= FLAT_FIELDS | CURVE_FIELDS
        assert not any(isinstance(potential[field], dict) for field in FLAT_FIELDS - {"interval"})
        assert potential["status"] == "at_top"
        assert potential["ratio"] == pytest.approx(0.98, abs=1e-3)  # a weight of 21840 is 5e-5
        assert potential["interval"]["low"] <= potential["interval"]["high"]
    assert {one["task"] for one in answer["excess_errors"]} == {"noise/uniform/0.5"}
    assert all(one.keys() >= CURVE_FIELDS for one in (*answer["excess_errors"], *answer["probes"]))


def test_quiet_says_nothing_but_the_answer(storage: Path, again: Callable):
    ran = again(storage, "--quiet")
    assert ran.err == ""
    assert ran.answer["sweep"]["name"] == "lenet5"


def test_another_delta_keeps_all_that_was_trained(storage: Path, again: Callable):
    before = committed(storage)
    ran = again(storage, delta=("--delta", "0.02"))
    after = committed(storage)
    assert before.items() <= after.items()
    assert ran.answer["cost"]["num_trained"] == len(trainings(storage)) - len(set(before) & set(trainings(storage)))
    assert {one["delta"] for one in ran.answer["potentials"]} == {0.02}


def test_two_deltas_give_what_each_gives_alone(storage: Path, again: Callable):
    both = again(storage, delta=("--delta", "0.1", "--delta", "0.02")).answer["potentials"]
    alone = again(storage).answer["potentials"]
    first = [one["ratio"] for one in both if one["delta"] == 0.1]
    assert first == [one["ratio"] for one in alone]


def test_another_task_only_evaluates(storage: Path, again: Callable):
    before, num_evaluated = trainings(storage), len(committed(storage)) - len(trainings(storage))
    ran = again(storage, "--task", "noise/uniform/1.0")
    assert trainings(storage) == before
    assert len(committed(storage)) - len(before) == num_evaluated + len(before)
    assert ran.answer["cost"]["num_trained"] == 0
    assert [one["task"] for one in ran.answer["potentials"]] == ["nominal", "noise/uniform/0.5", "noise/uniform/1.0"]


def test_sweep_cut_off_by_max_probes_ends_with_3_and_goes_on_when_there_may_be_more(
    prune_cli: Callable, tiny: list[str], tmp_path: Path
):
    command = ("sweep", "lenet5", *tiny, *LARGE_DELTA, "--storage", tmp_path / "store", "--json")
    cut = prune_cli(*command, "--max-probes", "2")
    assert cut.code == 3
    assert [one["status"] for one in cut.answer["potentials"]] == ["open"]
    assert any("max_probes = 2" in warning for warning in cut.answer["warnings"])
    before = committed(tmp_path / "store")
    whole = prune_cli(*command)
    assert whole.code == 0
    assert before.items() <= committed(tmp_path / "store").items()
    assert whole.answer["cost"]["num_trained"] == len(trainings(tmp_path / "store")) - 4


def test_fresh_trains_everything_again_but_what_another_sweep_asked_for(storage: Path, again: Callable):
    before = trainings(storage)
    fresh = again(storage, "--fresh")
    assert trainings(storage).keys() == before.keys()
    assert not before.items() & trainings(storage).items()
    assert fresh.answer["cost"]["num_trained"] == len(before)
    again(storage, "--name", "other")
    shared = trainings(storage)
    assert again(storage, "--fresh").answer["cost"]["num_trained"] == 0
    assert trainings(storage) == shared


def test_sweep_of_a_toml_file_is_the_same_as_by_flags(prune_cli: Callable, storage: Path, tmp_path: Path):
    file = tmp_path / "mine.toml"
    file.write_text(
        'name = "mine"\nmodel = "lenet5"\ndataset = "strokes"\nmethods = ["wt"]\n'
        'tasks = ["nominal", "noise/uniform/0.5"]\ndeltas = [0.1]\nbudgets = [1]\n'
        "[data]\ntrain_images = 200\ntest_images = 300\n[search]\nlow = 0.1\nhigh = 0.98\nresolution = 0.3\n"
        '[recipe]\nbase = "quick_lenet5"\nepochs = 1\nwarmup_epochs = 0\n'
    )
    options = ("--executor", "inline", "--tracking-uri", "none", "--gpus-per-probe", "0")
    ran = prune_cli("sweep", file, "--storage", storage, "--json", *options)
    assert ran.code == 0
    assert ran.answer["cost"]["num_trained"] == 0
    assert ran.answer["sweep"]["name"] == "mine"


# -- dry run


def test_dry_run_writes_nothing_and_says_what_it_would_take_and_where(
    prune_cli: Callable, tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    ran = prune_cli("sweep", "lenet5", *tiny, "--storage", tmp_path / "store", "--dry-run")
    assert ran.code == 0
    assert list(tmp_path.iterdir()) == []
    assert "2 dense, at most " in ran.out
    for heading in ("probes", "epochs", "time", "disk", f"storage   {tmp_path / 'store'}", "MLflow    none"):
        assert heading in ran.out
    assert f"{tmp_path / 'store'}/sweeps/lenet5/ray.log" in ran.out


def test_dry_run_counts_what_is_stored_and_bounds_what_is_trained(prune_cli: Callable, tiny: list[str], storage: Path):
    before = snapshot(storage)
    words = ("sweep", "lenet5", *tiny, *TASKS[2:], *LARGE_DELTA, "--storage", storage)
    found = prune_cli(*words, "--dry-run", "--json").answer
    assert snapshot(storage) == before
    assert (found["num_dense"], found["num_stored"]) == (2, 1)
    num_pruned = len(trainings(storage)) - 2
    assert num_pruned <= found["num_pruned"]
    assert found["num_epochs"] == 2 + found["num_pruned"]
    assert found["seconds"] > 0
    per_training = sum(path.stat().st_size for path in storage.glob("trainings/**/*")) / len(trainings(storage))
    # An estimate of weights, masks and predictions; records and headers of these tiny files come on top.
    assert 0.5 * per_training < found["num_bytes"] / (2 + found["num_pruned"]) < 1.5 * per_training


def test_dry_run_with_limit_counts_no_more(prune_cli: Callable, tiny: list[str], tmp_path: Path):
    words = ("sweep", "lenet5", *tiny, "--storage", tmp_path / "store", "--dry-run", "--json", "--max-probes", "3")
    assert prune_cli(*words).answer["num_pruned"] == 3


# -- report


def test_report_shows_the_answer_again_and_writes_every_format(prune_cli: Callable, storage: Path, tmp_path: Path):
    before = snapshot(storage)
    html, tables, text = tmp_path / "report.html", tmp_path / "tables", tmp_path / "report.md"
    ran = prune_cli("report", "lenet5", "--storage", storage, "--html", html, "--csv", tables, "--markdown", text)
    assert ran.code == 0
    assert "nominal" in ran.out
    assert f"wrote {html}" in ran.err and f"wrote {text}" in ran.err
    assert "<svg" in html.read_text() and "noise/uniform/0.5" in html.read_text()
    assert text.read_text().startswith("# lenet5")
    potentials = list(csv.DictReader((tables / "potentials.csv").read_text().splitlines()))
    assert [(row["method"], row["task"], row["status"]) for row in potentials] == [
        ("wt", "nominal", "at_top"),
        ("wt", "noise/uniform/0.5", "at_top"),
    ]
    assert snapshot(storage) == before, "a report changes nothing"


def test_report_as_json_is_what_the_sweep_said(prune_cli: Callable, storage: Path, again: Callable):
    said = again(storage).answer
    shown = prune_cli("report", "lenet5", "--storage", storage, "--json").answer
    for part in ("potentials", "excess_errors", "summaries", "tasks"):
        assert shown[part] == said[part]


def test_report_at_another_delta_reads_the_same_probes(prune_cli: Callable, storage: Path):
    words = ("report", "lenet5", "--storage", storage, "--json")
    own, other = prune_cli(*words).answer, prune_cli(*words, "--delta", "0.003").answer
    assert {one["delta"] for one in other["potentials"]} == {0.003}
    assert {one["num_lost_allowed"] for one in other["potentials"]} == {0}
    assert [probe["training"] for probe in other["probes"]] == [probe["training"] for probe in own["probes"]]
    for at_other, at_own in zip(other["potentials"], own["potentials"], strict=True):
        assert at_other["ratio"] <= at_own["ratio"]


def test_report_of_all_probes_uses_what_another_sweep_trained(prune_cli: Callable, storage: Path, again: Callable):
    again(storage, "--name", "grid", "--search", "grid", "--set", "search.ratios=[0.3, 0.4]")
    words = ("report", "lenet5", "--storage", storage, "--json")
    asked, known = prune_cli(*words).answer["probes"], prune_cli(*words, "--all-probes").answer["probes"]
    more = {probe["ratio_asked"] for probe in known} - {probe["ratio_asked"] for probe in asked}
    assert more == {0.3, 0.4}


# -- compare


def test_compare_shows_two_sweeps_side_by_side(prune_cli: Callable, storage: Path, again: Callable, tmp_path: Path):
    again(storage, "--name", "second")
    page = tmp_path / "compare.html"
    ran = prune_cli("compare", "lenet5", "second", "--storage", storage, "--html", page)
    assert ran.code == 0
    assert "lenet5" in ran.out and "second" in ran.out and "nominal" in ran.out
    assert f"wrote {page}" in ran.err
    assert "<svg" in page.read_text()


# -- list


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("models", "lenet5"),
        ("methods", "wt      raypruning"),
        ("datasets", "strokes"),
        ("tasks", "noise/uniform/…"),
        ("sweeps", "resnet101  resnet101 on imagenet"),
    ],
)
def test_list_names_what_there_is(kind: str, expected: str, prune_cli: Callable):
    ran = prune_cli("list", kind)
    assert ran.code == 0
    assert ran.err == ""
    lines = [re_spaced(line) for line in ran.out.splitlines()]
    assert any(line.startswith(re_spaced(expected)) for line in lines), ran.out


def test_list_of_runs_tells_finished_from_interrupted_and_damaged(prune_cli: Callable, storage: Path, again: Callable):
    again(storage, "--name", "cut")
    again(storage, "--name", "damaged")
    run = json.loads((storage / "sweeps" / "cut" / "run.json").read_text())
    del run["wall_seconds"]  # as a run that was killed leaves it
    (storage / "sweeps" / "cut" / "run.json").write_text(json.dumps(run))
    (storage / "sweeps" / "damaged" / "run.json").write_text("{")
    ran = prune_cli("list", "runs", "--storage", storage)
    assert ran.code == 0
    cut, damaged, finished = ran.out.splitlines()
    assert re_spaced(finished) == "lenet5 lenet5 on strokes, delta 0.1, finished"
    assert "interrupted: the same command continues it" in cut
    assert "damaged" in damaged


def test_list_of_runs_in_a_storage_that_is_not_there_is_empty_and_makes_none(prune_cli: Callable, tmp_path: Path):
    ran = prune_cli("list", "runs", "--storage", tmp_path / "none")
    assert (ran.code, ran.out) == (0, "")
    assert list(tmp_path.iterdir()) == []


# -- status


def test_status_of_a_finished_sweep(prune_cli: Callable, swept):
    ran = prune_cli("status", "lenet5", "--storage", swept[1])
    num_done = len(trainings(swept[1]))
    assert ran.code == 0
    assert ran.out.startswith(f"lenet5: finished; {num_done} probes done, 0 failed, 0 waiting")
    found = prune_cli("status", "lenet5", "--storage", swept[1], "--json").answer
    assert (found["state"], found["num_waiting"]) == ("finished", 0)
    (curve,) = found["curves"]
    assert (curve["method"], curve["num_open"]) == ("wt", 0)


def test_status_of_a_sweep_that_lacks_a_probe_is_interrupted(prune_cli: Callable, storage: Path):
    last = max(trainings(storage), key=trainings(storage).__getitem__)
    shutil.rmtree((storage / last).parent)
    found = prune_cli("status", "lenet5", "--storage", storage, "--json").answer
    assert (found["state"], found["num_waiting"]) == ("interrupted", 1)


def test_status_of_a_sweep_that_somebody_runs_names_the_process(prune_cli: Callable, storage: Path):
    owner = leases.this_owner()
    leases.acquire(open_store(str(storage)).blobs, "sweeps/lenet5", now=time.time, owner=owner)
    ran = prune_cli("status", "lenet5", "--storage", storage)
    assert ran.out.startswith(f"lenet5: running by process {owner.pid} on {owner.host}; ")


# -- clean


def test_clean_deletes_what_no_sweep_asked_for_and_says_so_first(prune_cli: Callable, storage: Path, again: Callable):
    before = trainings(storage)
    again(storage, "--name", "gone", "--search", "grid", "--set", "search.ratios=[0.3]")
    shutil.rmtree(storage / "sweeps" / "gone")
    whole = snapshot(storage)
    foretold = prune_cli("clean", "--storage", storage, "--dry-run")
    assert foretold.out.startswith("would delete 1 stored network, ")
    assert snapshot(storage) == whole, "a dry run deletes nothing"
    done = prune_cli("clean", "--storage", storage)
    assert done.out == foretold.out.replace("would delete", "deleted")
    assert trainings(storage) == before
    assert again(storage).answer["cost"]["num_trained"] == 0


def test_clean_to_the_potentials_keeps_the_reports_potentials(prune_cli: Callable, storage: Path, again: Callable):
    again(storage, delta=("--delta", "0.02"))
    report = ("report", "lenet5", "--storage", storage, "--json")
    before = prune_cli(*report).answer
    ran = prune_cli("clean", "--keep", "potential", "--storage", storage)
    assert ran.code == 0
    after = prune_cli(*report).answer
    assert len(trainings(storage)) < len(before["probes"])
    fields = ("task", "ratio", "next_ratio", "status", "training", "error", "dense_error")
    assert [[one[field] for field in fields] for one in after["potentials"]] == [
        [one[field] for field in fields] for one in before["potentials"]
    ]
    assert any("prune-cli clean deleted" in warning for warning in after["warnings"])
    assert prune_cli("status", "lenet5", "--storage", storage, "--json").answer["state"] == "cleaned"
    assert prune_cli("clean", "--keep", "potential", "--storage", storage).out.startswith("deleted 0 stored networks")
    # The same command trains what was deleted, and the answer is the first one.
    assert again(storage, delta=("--delta", "0.02")).answer["potentials"] == before["potentials"]


# -- in Python


def test_open_sweep_gives_tidy_frames_and_what_is_stored(swept):
    sweep = raypruning.open_sweep("lenet5", storage=str(swept[1]))
    assert len(sweep.potentials) == 2
    assert {"method", "task", "delta", "ratio", "status"} <= set(sweep.potentials.columns)
    assert len(sweep.probes) == len(trainings(swept[1]))
    assert len(sweep.errors) == 2 * len(sweep.probes)
    assert set(sweep.excess_errors["task"]) == {"noise/uniform/0.5"}
    assert len(sweep.summaries) == 2
    table = sweep.potentials.pivot_table(index="task", columns="method", values="ratio")
    assert table.loc["nominal", "wt"] == pytest.approx(0.98, abs=1e-3)
    row = sweep.errors.iloc[-1]
    predictions = sweep.predictions(row["training"], row["task"])
    assert len(predictions) == 300
    assert (predictions["predicted"] != predictions["label"]).mean() == pytest.approx(row["error"])
    weights = sweep.weights(row["training"])
    assert sum(value.size for name, value in weights.items()) == 21840
    with pytest.raises(KeyError, match="no evaluation"):
        sweep.predictions(row["training"], "nothing")


def test_open_sweep_finds_its_storage_as_the_commands_do(swept, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RAYPRUNING_STORAGE", str(swept[1]))
    assert len(raypruning.open_sweep("lenet5", deltas=[0.1, 0.2]).potentials) == 4


# -- MLflow and Ray


@pytest.mark.mlflow
def test_track_writes_a_sweep_that_was_run_without_its_mlflow(prune_cli: Callable, storage: Path, tmp_path: Path):
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    ran = prune_cli("track", "lenet5", "--storage", storage, "--tracking-uri", uri)
    assert (ran.code, ran.out) == (0, "")
    assert "prune-cli" not in ran.err, "no problem"
    client = MlflowClient(uri)
    (experiment,) = [found for found in client.search_experiments() if found.name != "Default"]
    runs = client.search_runs([experiment.experiment_id])
    assert sum(run.data.tags.get("kind") == "probe" for run in runs) == len(trainings(storage))
    curves = [run for run in runs if run.data.tags["kind"] == "curve" and run.data.params["seed"] == "0"]
    (curve,) = [run for run in curves if run.info.run_name.startswith("wt")]
    shown = prune_cli("report", "lenet5", "--storage", storage, "--json").answer["potentials"]
    logged = [value for key, value in curve.data.metrics.items() if key.startswith("potential_0.1/")]
    assert sorted(logged) == sorted(potential["ratio"] for potential in shown)


@pytest.mark.mlflow
@pytest.mark.ray
def test_json_of_a_real_run_with_ray_and_mlflow_is_all_of_stdout(
    prune_cli_process: Callable, tiny_data: list[str], swept, tmp_path: Path
):
    ran = prune_cli_process(
        "sweep", "lenet5", *tiny_data, *TASKS[2:], *LARGE_DELTA, "--storage", tmp_path / "store", "--json"
    )
    assert ran.code == 0, ran.err
    stored = json.loads((swept[1] / "sweeps" / "lenet5" / "report.json").read_text())
    assert ran.answer["potentials"] == stored["potentials"], "Ray's workers give the same bits"
    assert "http://127.0.0.1:5000" in ran.err
    assert (tmp_path / "store" / "mlflow.db").is_file()
    assert [line for line in ran.err.splitlines() if "WARN" in line or "ray" in line.split()] == []


def re_spaced(text: str) -> str:
    """With single spaces."""
    return " ".join(text.split())
