"""Tasks with images of their own from the command line: a folder of a user's pictures, classes of pixels."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raypruning.core.records import DataChoice
from raypruning.datasets.base import ImageArrays
from raypruning.datasets.resolve import open_dataset
from raypruning.runtime.store import open_store

LARGE_DELTA = ["--delta", "0.2"]


@pytest.fixture
def tasks_of(tiny: list[str]) -> Callable[..., list[str]]:
    """The options of a tiny sweep, on these tasks."""

    def options(*names: str) -> list[str]:
        others = [word for word in tiny if word not in ("--task", "nominal")]
        return [*others, *(word for name in names for word in ("--task", name))]

    return options


@pytest.fixture
def pictures(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """A folder of some test images of strokes, of 3 and 7 alone; and where they stand in the test set of `tiny`."""
    split = open_dataset(DataChoice(name="strokes", test_images=300), data_dir=None, download=False).split("test")
    assert isinstance(split, ImageArrays)
    chosen = np.flatnonzero(np.isin(split.labels_N, (3, 7)))[:40]
    root = tmp_path / "pictures"
    for label in (3, 7):
        (root / str(label)).mkdir(parents=True)
    for position in chosen:
        name = f"{split.labels_N[position]}/{position:05}.png"
        Image.fromarray(split.images_NCHW[position, 0]).save(root / name)
    return root, chosen


def test_own_pictures_are_judged_as_the_same_images_of_the_test_set_are(
    prune_cli: Callable, tasks_of: Callable, pictures: tuple[Path, np.ndarray], tmp_path: Path
):
    root, positions = pictures
    shift, nominal = f"shift/folder/{root}", f"nominal/folder/{root}"
    storage = tmp_path / "store"
    ran = prune_cli(
        "sweep", "lenet5", *tasks_of("nominal", shift, nominal), *LARGE_DELTA, "--storage", storage, "--json"
    )
    assert ran.code == 0, ran.err
    store = open_store(str(storage), read_only=True)
    by_name = {task["name"]: task for task in ran.answer["tasks"]}
    for probe in ran.answer["probes"]:
        found = {
            name: store.predictions(store.evaluation(probe["training"], by_name[name]["fingerprint"]))
            for name in by_name
        }
        # The folder is listed by class and name, and names are positions.
        labels = found["nominal"]["label"][positions]
        order = positions[np.lexsort((positions, labels))]
        assert np.array_equal(found[shift]["label"], found["nominal"]["label"][order])
        assert set(found[shift]["predicted"].tolist()) <= {3, 7}, "only the classes of the folder count"
        assert set(found[nominal]["predicted"].tolist()) <= {3, 7}
        # What was 3 or 7 of all ten is so of two.
        kept = np.isin(found["nominal"]["predicted"][order], (3, 7))
        assert np.array_equal(found[shift]["predicted"][kept], found["nominal"]["predicted"][order][kept])
    assert {one["task"] for one in ran.answer["excess_errors"]} == {shift}
    assert all(one["nominal"] == nominal for one in ran.answer["excess_errors"])


def test_own_pictures_without_their_nominal_task_are_refused(
    prune_cli: Callable, tasks_of: Callable, pictures: tuple[Path, np.ndarray], tmp_path: Path
):
    shift = f"shift/folder/{pictures[0]}"
    ran = prune_cli("sweep", "lenet5", *tasks_of("nominal", shift), "--storage", tmp_path / "store")
    assert ran.code == 2
    assert f"add --task nominal/folder/{pictures[0]}" in ran.err
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("task", "says"),
    [
        ("shift/cifar10.1", "the task shift/cifar10.1 is for --dataset cifar10, not for strokes"),
        ("shift/folder/nowhere", "nowhere does not exist (no --data-dir was given)"),
        ("shift/folder/", "write shift/folder/PATH"),
    ],
)
def test_images_that_are_not_there_or_not_for_these_classes_are_refused_before_anything_is_written(
    task: str, says: str, prune_cli: Callable, tasks_of: Callable, tmp_path: Path
):
    nominal = task.replace("shift/", "nominal/")
    more = [nominal] if "folder/" in task else []
    ran = prune_cli("sweep", "lenet5", *tasks_of("nominal", task, *more), "--storage", tmp_path / "store")
    assert ran.code == 2, ran.err
    assert says in ran.err.replace("\n", " ")
    assert not (tmp_path / "store").exists()


def test_pictures_that_differ_on_a_worker_are_a_failure_and_not_a_number(
    prune_cli: Callable,
    tasks_of: Callable,
    pictures: tuple[Path, np.ndarray],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    from raypruning.runtime.worker import Worker

    root = pictures[0]
    run = Worker.run

    def run_elsewhere(worker, job):
        (root / "3" / "one more.png").write_bytes((next((root / "7").iterdir())).read_bytes())
        return run(worker, job)

    monkeypatch.setattr(Worker, "run", run_elsewhere)
    names = ("nominal", f"shift/folder/{root}", f"nominal/folder/{root}")
    ran = prune_cli("sweep", "lenet5", *tasks_of(*names), *LARGE_DELTA, "--storage", tmp_path / "store", "--json")
    assert f"the task shift/folder/{root} is another one on this machine: 41 images" in ran.err
    assert all(one["status"] == "open" for one in ran.answer["potentials"] if one["task"] == names[1])


# --- Classes of pixels ------------------------------------------------------------------------------------------------

SEGMENTATION = """
name = "pixels"
model = "lraspp_mobilenet_v3_large"
dataset = "shapes"
data = { train_images = 48, test_images = 24, image_size = 32 }
methods = ["wt", "ft", "snip"]
tasks = ["nominal", "corruption/zoom_blur/3", "corruption_unmoved/zoom_blur/3", "noise/uniform/0.5"]
deltas = [0.05]
budgets = [1]
search = { strategy = "grid", ratios = [0.5, 0.8] }
recipe = { epochs = 2, batch_size = 8, learning_rate = 0.02, learning_rate_schedule = "poly" }
"""


def test_sweep_over_classes_of_pixels_measures_overlap(prune_cli: Callable, tmp_path: Path):
    (tmp_path / "pixels.toml").write_text(SEGMENTATION)
    storage, page = tmp_path / "store", tmp_path / "report.html"
    inline = ("--executor", "inline", "--tracking-uri", "none")
    ran = prune_cli("sweep", tmp_path / "pixels.toml", *inline, "--storage", storage, "--json")
    assert ran.code == 0, ran.err
    store = open_store(str(storage), read_only=True)
    assert {task["metric"] for task in ran.answer["tasks"]} == {"segmentation"}
    by_name = {task["name"]: task for task in ran.answer["tasks"]}
    for probe in ran.answer["probes"]:
        for name, task in by_name.items():
            counts = store.predictions(store.evaluation(probe["training"], task["fingerprint"]))
            both, union = counts["both"].sum(0), (counts["predicted"] + counts["true"] - counts["both"]).sum(0)
            overlap = np.mean([b / u for b, u in zip(both, union, strict=True) if u])
            # A mean of six ratios in double precision.
            assert probe["errors"][name] == pytest.approx(1 - overlap, abs=1e-12)
            assert probe["num_wrong"][name] is None
        # The same picture, and another mask.
        moved, unmoved = (
            store.predictions(store.evaluation(probe["training"], by_name[name]["fingerprint"]))
            for name in ("corruption/zoom_blur/3", "corruption_unmoved/zoom_blur/3")
        )
        assert np.array_equal(moved["predicted"].sum(1) > 0, unmoved["predicted"].sum(1) > 0)
        assert not np.array_equal(moved["true"], unmoved["true"])
    potentials = ran.answer["potentials"]
    assert len(potentials) == 3 * 4
    for one in potentials:
        assert one["num_lost_allowed"] is None
        assert one["interval"]["low"] <= one["ratio"] <= one["interval"]["high"]
    read = prune_cli("report", "pixels", "--storage", storage, "--html", page)
    assert read.code == 0, read.err
    assert "1 - mean intersection over union" in page.read_text()
    written = json.loads((storage / "sweeps" / "pixels" / "report.json").read_text())
    assert written["potentials"] == potentials


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ["--dataset", "strokes", "--task", "nominal"],
            "gives a class for each pixel, and strokes has a class for each image",
        ),
        (["--set", "recipe.augmentation='crop_flip'"], "must be one of default, none, scaled_crop_flip, got crop_flip"),
        (["--set", "recipe.train_corruptions=['fog']"], "recipe.train_corruptions are for labels of images"),
        (
            ["--set", "model.name='lenet5'"],
            "lenet5 gives a class for each image, and shapes has a class for each pixel",
        ),
        (["--task", "nominal", "--task", "shift/folder/x", "--task", "nominal/folder/x"], "x does not exist"),
    ],
)
def test_what_does_not_fit_classes_of_pixels_is_refused(
    words: list[str], says: str, prune_cli: Callable, tmp_path: Path
):
    (tmp_path / "pixels.toml").write_text(SEGMENTATION)
    inline = ("--executor", "inline", "--tracking-uri", "none")
    ran = prune_cli("sweep", tmp_path / "pixels.toml", *words, *inline, "--storage", tmp_path / "store")
    assert ran.code == 2, ran.err
    assert says in " ".join(ran.err.split())
    assert not (tmp_path / "store").exists()
