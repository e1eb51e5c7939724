"""`prune-cli pie` on stored sweeps: one whose answers are written down, and one that was trained on strokes."""

from __future__ import annotations

import base64
import csv
import html
import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from raypruning.core.records import Curve, DataChoice
from raypruning.datasets.base import ImageArrays
from raypruning.datasets.resolve import open_dataset
from raypruning.reporting.exemplar_plots import panels
from raypruning.reporting.exemplars import conclusion, numbers
from raypruning.runtime.store import open_store
from raypruning.tasks.task import resolve_task
from tests.integration.made_up_sweep import NAME, Arrays, store_sweep
from tests.integration.test_report_page import CHROMIUM, OUTER, browse

NUM, SEEDS, RATIOS = 200, tuple(range(6)), (0.5, 0.9)
TASKS = ("nominal", "noise/uniform/0.1")
LABEL = np.arange(NUM) % 4


def predict(curve: Curve, ratio: float, task: str) -> Arrays:
    """All are right but on 40 images, of which each seed has two others wrong; pruned networks forget the last ones."""
    predicted = LABEL.copy()
    first = 2 * curve.seed
    predicted[first : first + 2] = (LABEL[first : first + 2] + 1) % 4
    if not curve.is_dense:
        num_forgotten = {0.5: 4, 0.9: 10}[ratio] * (2 if task != "nominal" else 1)
        # Five of six forget: one network stays as its parent.
        if curve.seed:
            predicted[-num_forgotten:] = (LABEL[-num_forgotten:] + 2) % 4
    return {
        "predicted": predicted.astype(np.uint16),
        "label": LABEL.astype(np.uint16),
        "log_probability": np.zeros(NUM, np.float16),
    }


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pie") / "store"
    store_sweep(folder, predict, ratios=RATIOS, num_images=NUM, tasks=TASKS, seeds=SEEDS)
    return folder


@pytest.fixture(scope="module")
def pie(storage: Path, prune_cli: Callable) -> Callable:
    return lambda command, *words: prune_cli("pie", command, NAME, "--storage", storage, *words)


# -- find and evaluate -------------------------------------------------------------------------------------------------


def test_find_counts_what_was_forgotten_beside_luck(pie: Callable):
    ran = pie("find", "--json")
    assert ran.code == 0
    found = {(one["task"], one["ratio"]): one for one in ran.answer["populations"]}
    assert {key: one["num_pies"] for key, one in found.items()} == {
        ("nominal", 0.5): 4,
        ("nominal", 0.9): 10,
        ("noise/uniform/0.1", 0.5): 8,
        ("noise/uniform/0.1", 0.9): 20,
    }
    one = found["nominal", 0.9]
    assert (one["rate"], one["num_tied"], one["pruned_correct_count"], one["dense_correct_count"]) == (0.05, 0, 0, 10)
    luck = one["without_shared_seeds"]
    # Two of six against two others: each image that one of the two has wrong is tied.
    assert (luck["num_networks"], luck["null_rate"], luck["null_interval"]["low"]) == (2, 0.0, 0.0)
    # Seed 0 forgets nothing: where it is in the pruned group, which is in a third of all draws, all ten are tied.
    assert luck["pruned_rate"] == pytest.approx(2 / 3 * 0.05)
    (overlap,) = [one for one in ran.answer["overlaps"] if one["task"] == "nominal"]
    assert overlap["jaccard"] == 4 / 10


def test_ties_are_undecided_unless_told_otherwise(prune_cli: Callable, tmp_path: Path):
    def predict(curve: Curve, ratio: float, task: str) -> Arrays:
        predicted = np.zeros(10, np.uint16)
        # Image 0: two of four pruned networks answer 1, image 1: all of them.
        predicted[0] = 0 if curve.is_dense else curve.seed % 2
        predicted[1] = 0 if curve.is_dense else 1
        return {"predicted": predicted, "label": np.zeros(10, np.uint16), "log_probability": np.zeros(10, np.float16)}

    store_sweep(tmp_path, predict, ratios=(0.5,), num_images=10, seeds=(0, 1, 2, 3))
    counts = {}
    for ties in ("undecided", "largest"):
        ran = prune_cli("pie", "find", NAME, "--storage", tmp_path, "--ties", ties, "--json")
        (one,) = ran.answer["populations"]
        counts[ties] = (one["num_pies"], one["num_tied_pruned"], one["num_tied_dense"])
    assert counts == {"undecided": (1, 1, 0), "largest": (2, 1, 0)}


def test_find_prints_the_numbers_within_the_width_of_a_page(pie: Callable):
    ran = pie("find")
    assert ran.code == 0
    text = " ".join(ran.out.split())
    assert "At 90.0 % removed (wt, 2 epochs, nominal), most pruned networks answer 5.0 % of images otherwise" in text
    assert "2 against 2" in text and "In brackets 95 % intervals" in text
    assert max(map(len, ran.out.splitlines())) <= 110


@pytest.mark.parametrize("all_images", [False, True])
def test_csv_has_a_row_for_each_exemplar_or_each_image(pie: Callable, tmp_path: Path, all_images: bool):
    path = tmp_path / "pies.csv"
    ran = pie("find", "--task", "nominal", "--csv", path, *(["--all-images"] if all_images else []))
    assert f"wrote {path}" in ran.err
    rows = list(csv.DictReader(io.StringIO(path.read_text())))
    pies = [row for row in rows if row["pie"] == "1"]
    assert len(rows) == (2 * NUM if all_images else 14)
    assert sorted(int(row["image"]) for row in pies if row["ratio"] == "0.9") == list(range(190, 200))
    (last,) = [row for row in pies if (row["image"], row["ratio"]) == ("199", "0.9")]
    assert (last["label"], last["dense_label"], last["pruned_label"]) == ("3", "3", "1")
    assert (last["dense_votes"], last["pruned_votes"]) == ("3:6", "1:5 3:1")
    assert float(last["distance"]) == pytest.approx(2 * 5 / 6, abs=1e-6)


def test_evaluate_gives_accuracy_on_exemplars_on_the_rest_and_on_random_images(pie: Callable):
    ran = pie("evaluate", "--ratio", "0.9", "--task", "nominal", "--json")
    (one,) = ran.answer["populations"]
    assert one["pies"] == {"num_images": 10, "dense": 1.0, "pruned": pytest.approx(1 / 6)}
    assert one["rest"]["num_images"] == 190
    # Twelve images wrong, each by one of six.
    assert one["rest"]["dense"] == one["rest"]["pruned"] == pytest.approx(1 - 12 / (6 * 190))
    assert one["random"]["num_samples"] == 200
    assert one["random"]["pruned_interval"]["low"] < one["all"]["pruned"] < one["random"]["pruned_interval"]["high"]
    assert "on random ones" in pie("evaluate").out


def test_what_is_reported_elsewhere_has_numbers_figures_and_a_sentence(storage: Path):
    from raypruning.app.exemplars import ExemplarsRequest, exemplars

    found = exemplars(open_store(str(storage), read_only=True), ExemplarsRequest(NAME))
    named = {(one.name, one.ratio_reached): one.value for one in numbers(found)}
    assert named["pie/nominal/rate", 0.9] == 0.05
    assert named["pie/noise/uniform/0.1/num_pies", 0.5] == 8
    assert named["pie/nominal/accuracy_on_pies", 0.9] == pytest.approx(1 / 6)
    assert conclusion(found).count(". ") == 0 and "have 16.7 % of these images right" in conclusion(found)
    drawn = panels(found)
    assert [one.svg.count("<svg") for one in drawn] == [1, 1, 1]
    assert "by luck" in drawn[0].svg and "pruned, PIEs" in drawn[-1].svg


# -- what cannot be ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["find", "evaluate", "gallery", "export"])
def test_one_seed_is_refused_in_one_line(command: str, prune_cli: Callable, tmp_path: Path):
    store_sweep(tmp_path / "store", predict, ratios=RATIOS, num_images=NUM, seeds=(0,))
    more = {"gallery": ["--html", tmp_path / "a.html"], "export": ["--output", tmp_path / "a.txt"]}.get(command, [])
    ran = prune_cli("pie", command, NAME, "--storage", tmp_path / "store", *more)
    assert ran.code == 2 and ran.err.count("\n") == 1 and ran.out == ""
    assert "has one seed: prune-cli sweep made-up --population 10 makes ten" in ran.err
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_population_with_one_network_left_is_left_out_and_named(prune_cli: Callable, tmp_path: Path):
    def some(curve: Curve, ratio: float, task: str) -> Arrays | None:
        return None if ratio == 0.9 and curve.seed > 0 else predict(curve, ratio, task)

    store_sweep(tmp_path, some, ratios=RATIOS, num_images=NUM, seeds=SEEDS)
    ran = prune_cli("pie", "find", NAME, "--storage", tmp_path, "--json")
    assert [one["ratio"] for one in ran.answer["populations"]] == [0.5]
    assert ran.answer["too_few_networks"] == [{"method": "wt", "budget": 2, "ratio": 0.9}]
    assert "Left out, fewer than two networks" in prune_cli("pie", "find", NAME, "--storage", tmp_path).out


def test_segmentation_is_refused_in_one_line(prune_cli: Callable, tmp_path: Path):
    def predict(curve: Curve, ratio: float, task: str) -> Arrays:
        pixels = np.full((10, 2), 50, np.int32)
        return {"both": pixels, "predicted": pixels, "true": pixels, "loss": np.zeros(10, np.float32)}

    store_sweep(tmp_path, predict, ratios=RATIOS, num_images=10, seeds=(0, 1), metric="segmentation")
    ran = prune_cli("pie", "find", NAME, "--storage", tmp_path)
    assert ran.code == 2 and ran.err.count("\n") == 1
    assert "pie is for classification, not segmentation" in ran.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["find", "--ties", "smallest"], "--ties must be undecided (no exemplar) or largest"),
        (["find", "--ratio", "0.7"], "has no ratio 0.7: it has 0.5, 0.9"),
        (["find", "--task", "nominall"], "did you mean nominal?"),
        (["find", "--all-images"], "add --csv FILE"),
        (["export", "--output", "x"], "an export is of one ratio: add --ratio 0.5 or 0.9"),
        (["export", "--output", "x", "--format", "npz"], "--format is indices, images, subset, got npz"),
        (["export", "--output", "/", "--ratio", "0.9"], "/ exists: name another with --output"),
        (["gallery", "--html", "x.html", "--task", "*"], "--task must name one task here"),
        (["gallery", "--html", "x.html"], "strokes on this machine has the fingerprint"),
    ],
)
def test_wrong_input_is_one_line_and_writes_nothing(
    pie: Callable, words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    ran = pie(*words)
    assert ran.code == 2 and ran.err.count("\n") == 1 and ran.out == ""
    assert message in ran.err
    assert list(tmp_path.iterdir()) == []


# -- pictures, of networks that were trained ---------------------------------------------------------------------------

SWEEP, TRAINED_TASKS = "lenet5", ("nominal", "corruption/contrast/3", "noise/uniform/0.5")


@pytest.fixture(scope="module")
def options(tiny: list[str]) -> list[str]:
    """Three seeds pruned to two ratios."""
    return [*tiny, "--seed", "1", "--seed", "2", "--set", "search.strategy=grid", "--set", "search.ratios=[0.5,0.95]"]


@pytest.fixture(scope="module")
def trained(prune_cli: Callable, options: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    storage = tmp_path_factory.mktemp("trained") / "store"
    tasks = [word for task in TRAINED_TASKS[1:] for word in ("--task", task)]
    ran = prune_cli("sweep", SWEEP, *options, *tasks, "--delta", "0.2", "--storage", storage, "--quiet")
    assert ran.code in (0, 3), ran.err
    return storage


def positions_of(storage: Path, prune_cli: Callable, folder: Path, *words: str) -> list[int]:
    path = folder / "indices.json"
    ran = prune_cli("pie", "export", SWEEP, "--storage", storage, "--output", path, *words)
    assert ran.code == 0, ran.err
    found = json.loads(path.read_text())
    path.unlink()
    return found["indices"]


def seen_bytes(task: str) -> tuple[np.ndarray, np.ndarray]:
    """All 300 test images as the task changes them, uint8 or nearest to it, and their labels."""
    found = open_dataset(DataChoice(name="strokes", train_images=200, test_images=300), data_dir=None, download=False)
    split = found.split("test")
    assert isinstance(split, ImageArrays)
    images_NCHW, ids_N = torch.from_numpy(np.array(split.images_NCHW)), torch.arange(300)
    definition = resolve_task(task)
    if definition.on_bytes is not None:
        images_NCHW = definition.on_bytes(images_NCHW, ids_N)
    if definition.on_normalised is not None:
        mean, std = found.mean[0], found.std[0]
        noisy_NCHW = definition.on_normalised((images_NCHW / 255.0 - mean) / std, ids_N) * std + mean
        images_NCHW = noisy_NCHW.clamp(0, 1).mul(255).round().to(torch.uint8)
    return images_NCHW.numpy(), split.labels_N


@pytest.mark.parametrize("task", TRAINED_TASKS)
def test_pictures_of_the_gallery_are_those_of_the_task(task: str, trained: Path, prune_cli: Callable, tmp_path: Path):
    page = tmp_path / "gallery.html"
    words = ("--storage", trained, "--html", page, "--task", task, "--max", "12")
    ran = prune_cli("pie", "gallery", SWEEP, *words)
    assert ran.code == 0, ran.err
    assert f"wrote {page}: 12 of " in ran.out and f"PIEs of {task}" in ran.out
    images_NCHW, label_N = seen_bytes(task)
    found = re.findall(r'base64,([^"]*)" alt="Image (\d+), true class (\d)"', page.read_text())
    assert len(found) == 12
    for data, position, label in found:
        with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
            difference = np.asarray(picture).astype(int) - images_NCHW[int(position), 0]
        # To the bit, but for noise: a half that float32 rounds to the other side.
        assert np.abs(difference).max() <= (1 if task.startswith("noise") else 0)
        assert int(label) == label_N[int(position)]


def test_indices_are_those_that_find_lists_and_what_is_no_exemplar_is_the_rest(
    trained: Path, prune_cli: Callable, tmp_path: Path
):
    path = tmp_path / "pies.csv"
    prune_cli("pie", "find", SWEEP, "--storage", trained, "--task", "nominal", "--ratio", "0.95", "--csv", path)
    listed = sorted(int(row["image"]) for row in csv.DictReader(io.StringIO(path.read_text())))
    pies = positions_of(trained, prune_cli, tmp_path, "--ratio", "0.95")
    rest = positions_of(trained, prune_cli, tmp_path, "--ratio", "0.95", "--non-pie")
    assert pies == listed and 0 < len(pies) < 300
    assert sorted([*pies, *rest]) == list(range(300))


def test_list_as_text_says_where_it_comes_from_and_is_never_overwritten(
    trained: Path, prune_cli: Callable, tmp_path: Path
):
    path = tmp_path / "pies.txt"
    words = ("pie", "export", SWEEP, "--storage", trained, "--ratio", "0.95", "--output", path)
    assert prune_cli(*words).code == 0
    text = path.read_text()
    pies = positions_of(trained, prune_cli, tmp_path, "--ratio", "0.95")
    assert np.loadtxt(io.StringIO(text), dtype=int).tolist() == pies
    assert '# sweep: "lenet5"' in text and "# ratio: 0.95" in text and '# ties: "undecided"' in text
    again = prune_cli(*words)
    assert again.code == 2 and "exists: name another" in again.err
    assert path.read_text() == text


def test_images_lie_in_folders_of_their_true_class_and_their_names_tell_the_votes(
    trained: Path, prune_cli: Callable, tmp_path: Path
):
    folder = tmp_path / "pies"
    words = ("--storage", trained, "--ratio", "0.95", "--task", "noise/uniform/0.5")
    assert prune_cli("pie", "export", SWEEP, *words, "--format", "images", "--output", folder).code == 0
    images_NCHW, label_N = seen_bytes("noise/uniform/0.5")
    pies = positions_of(trained, prune_cli, tmp_path, *words[2:])
    files = sorted(folder.glob("*/*.png"))
    found = [re.fullmatch(r"(\d{4})_(\d{6})_dense-(\d)_pruned-(\d)\.png", path.name) for path in files]
    assert sorted(int(one[1]) for one in found) == list(range(1, len(pies) + 1))
    assert sorted(int(one[2]) for one in found) == pies
    assert all(one[3] != one[4] for one in found)
    for path, one in zip(files, found, strict=True):
        assert int(path.parent.name) == label_N[int(one[2])]
        with Image.open(path) as picture:
            assert np.abs(np.asarray(picture).astype(int) - images_NCHW[int(one[2]), 0]).max() <= 1


def test_subset_is_usable_as_a_task_in_a_sweep_of_the_same_dataset(
    trained: Path, prune_cli: Callable, options: list[str], tmp_path: Path
):
    """Networks answer the pictures of the folder as they answered the same images in the test set."""
    folder, storage = tmp_path / "subset", tmp_path / "store"
    shutil.copytree(trained, storage)
    ran = prune_cli(
        *("pie", "export", SWEEP, "--storage", storage, "--ratio", "0.95", "--non-pie"),
        *("--format", "subset", "--output", folder),
    )
    assert ran.code == 0, ran.err
    tasks = [f"shift/folder/{folder}", f"nominal/folder/{folder}"]
    assert f"--task nominal --task {tasks[0]} --task {tasks[1]}" in ran.out
    positions = json.loads((folder / "provenance.json").read_text())["indices"]
    typed = [word for task in tasks for word in ("--task", task)]
    again = prune_cli("sweep", SWEEP, *options, *typed, "--delta", "0.2", "--storage", storage, "--json")
    assert again.code in (0, 3), again.err
    by_name = {task["name"]: task for task in again.answer["tasks"]}
    assert by_name[tasks[0]]["num_examples"] == len(positions)
    store = open_store(str(storage), read_only=True)
    for probe in again.answer["probes"]:
        whole, subset = (
            store.predictions(store.evaluation(probe["training"], by_name[name]["fingerprint"]))
            for name in ("nominal", tasks[0])
        )
        # The folder is listed by class and name, and names are positions.
        order = np.array(positions)[np.lexsort((positions, whole["label"][positions]))]
        assert np.array_equal(subset["label"], whole["label"][order])
        assert np.array_equal(subset["predicted"], whole["predicted"][order])


def test_subset_of_images_that_no_picture_can_hold_is_refused_and_leaves_nothing(
    trained: Path, prune_cli: Callable, tmp_path: Path
):
    words = ("--storage", trained, "--ratio", "0.95", "--task", "noise/uniform/0.5", "--format", "subset")
    ran = prune_cli("pie", "export", SWEEP, *words, "--output", tmp_path / "subset")
    assert ran.code == 2 and ran.err.count("\n") == 1
    assert "--format images writes them as near as can be" in ran.err
    assert list(tmp_path.iterdir()) == []


def test_gallery_is_of_the_largest_budget_unless_others_are_named(prune_cli: Callable, tmp_path: Path):
    def forgets(curve: Curve, ratio: float, task: str) -> Arrays:
        return predict(curve, 0.9, task)

    ratios = (0.5, 0.6, 0.7, 0.8, 0.9)
    store_sweep(tmp_path, forgets, ratios=ratios, num_images=NUM, seeds=SEEDS, budgets=(1, 2))
    words = ("pie", "gallery", NAME, "--storage", tmp_path, "--html", tmp_path / "page.html")
    of_both = prune_cli(*words, "--budget", 1, "--budget", 2)
    assert of_both.code == 2 and "has room for 8 methods, budgets and ratios, and this asks for 10" in of_both.err
    # Its images are of another machine: that is found out after what there is room for.
    assert "on this machine has the fingerprint" in prune_cli(*words).err


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: `make browser` installs it on Debian")
@pytest.mark.parametrize("width", [1280, 390])
def test_gallery_in_a_browser_shows_its_pictures_fits_and_asks_nobody(
    width: int, trained: Path, prune_cli: Callable, tmp_path: Path
):
    page, outer = tmp_path / "gallery.html", tmp_path / "outer.html"
    assert prune_cli("pie", "gallery", SWEEP, "--storage", trained, "--html", page, "--max", "20").code == 0
    outer.write_text(OUTER.format(source=page.as_uri(), width=width).replace("</script>", f"{LOOK}</script>"))
    dom = browse(outer, tmp_path / "profile", width=max(width, 500))
    seen, cards = (
        json.loads(html.unescape(re.search(rf'<pre id="{name}">(.*?)</pre>', dom, re.DOTALL)[1]))
        for name in ("found", "cards")
    )
    assert seen["width"] == width
    assert seen["scroll_width"] <= width, seen["outside"]
    assert [one for one in seen["fetched"] if not one.startswith("data:")] == []
    assert cards["drawn"] == cards["shown"] == 20
    # What is chosen decides what is shown, and in which order, without a script of the page's own.
    assert cards["filtered"] == cards["of_first"] < 20
    assert cards["by_class"] == sorted(cards["by_class"])


# Run in the outer page, once the gallery in the frame is loaded.
LOOK = """
frame.addEventListener("load", () => {
  const inner = frame.contentDocument;
  const cards = () => [...inner.querySelectorAll(".card")].filter((one) => one.getBoundingClientRect().width > 100);
  const found = {
    shown: cards().length,
    drawn: [...inner.images].filter((one) => one.complete && one.naturalWidth > 0).length,
    of_first: inner.querySelectorAll(".card.of-0").length,
  };
  inner.getElementById("by-class").checked = true;
  const place = (one) => [one.getBoundingClientRect().top, one.getBoundingClientRect().left];
  const before = (a, b) => place(a)[0] - place(b)[0] || place(a)[1] - place(b)[1];
  found.by_class = cards().sort(before).map((one) => Number(one.querySelector("h3").textContent));
  inner.getElementById("only-0").checked = true;
  found.filtered = cards().length;
  const text = document.createElement("pre");
  text.id = "cards";
  text.textContent = JSON.stringify(found);
  document.body.append(text);
});
"""
