"""`prune-cli weights` on a sweep of seconds, against the masks and weights that the store holds."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raypruning.runtime.store import open_store
from tests.integration import made_up_sweep
from tests.integration.test_report_page import CHROMIUM, OUTER, browse

RATIOS = (0.5, 0.9)
LAYERS = ("conv1", "conv2", "fc1", "fc2")


@pytest.fixture(scope="module")
def storage(prune_cli: Callable, tiny: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights") / "store"
    ratios = [word for ratio in RATIOS for word in ("--ratio", str(ratio))]
    ran = prune_cli("sweep", "lenet5", *tiny, "--method", "ft", "--seed", "1", *ratios, "--storage", folder)
    assert ran.code in (0, 3), ran.err
    return folder


@pytest.fixture(scope="module")
def written(prune_cli: Callable, storage: Path, tmp_path_factory: pytest.TempPathFactory):
    """All methods of the first seed, in a folder, and what the command said."""
    folder = tmp_path_factory.mktemp("weights") / "out"
    ran = prune_cli("weights", "lenet5", "--storage", storage, "--output", folder, "--json")
    assert ran.code == 0, ran.err
    return folder, ran.answer


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_file_that_is_named_is_there_and_no_other(written):
    folder, answer = written
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert found == set(answer["files"])
    assert {"index.html", "layers.csv", "results.csv"} <= found
    for method in ("wt", "ft"):
        for kind in ("weights", "unit_norms"):
            for ratio in ("0.000000", "0.500000", "0.900000"):
                assert {f"{method}-1-epoch-seed-0/{kind}_{ratio}.{form}" for form in ("svg", "png")} <= found
    assert not list(folder.parent.glob(".*.part"))


def test_table_of_layers_is_that_of_the_stored_masks_and_weights(written, storage: Path):
    folder, _ = written
    store = open_store(str(storage), read_only=True)
    table = rows(folder / "layers.csv")
    assert len(table) == (1 + 2 * len(RATIOS)) * len(LAYERS)
    assert [row["layer"] for row in table[:4]] == list(LAYERS)
    for row in table:
        name = f"{row['layer']}.weight"
        weight = store.weights(row["training"])[name].astype(np.float64)
        mask = store.masks(row["training"]).get(name, np.ones(weight.shape, bool))
        kept = np.where(mask, weight, 0.0)
        assert (int(row["num_params"]), int(row["num_kept"])) == (weight.size, mask.sum())
        assert float(row["ratio"]) == pytest.approx(1 - mask.mean())
        norms = np.linalg.norm(kept.reshape(len(kept), -1), axis=1)
        alive = mask.reshape(len(mask), -1).any(axis=1)
        assert int(row["num_dead_units"]) == (~alive).sum()
        assert float(row["norm"]) == pytest.approx(np.linalg.norm(kept))
        assert float(row["mean_unit_norm"]) == pytest.approx(norms[alive].mean())


def test_layers_make_up_the_ratio_of_the_network(written):
    folder, _ = written
    results = {row["training"]: row for row in rows(folder / "results.csv")}
    for training, row in results.items():
        layers = [one for one in rows(folder / "layers.csv") if one["training"] == training]
        removed = sum(int(one["num_params"]) - int(one["num_kept"]) for one in layers)
        if row["method"] in ("dense", "wt"):  # ft takes biases along
            assert removed == int(row["num_params"]) - int(row["num_nonzero"])
        assert float(row["accuracy"]) == pytest.approx(1 - float(row["error"]))
    assert [row["method"] for row in results.values()] == ["dense", "wt", "wt", "ft", "ft"]
    assert [float(row["ratio_asked"]) for row in results.values()] == [0.0, *RATIOS, *RATIOS]


def test_answer_says_of_filters_what_filter_pruning_removed(written):
    _, answer = written
    by_method = {curve["method"]: curve for curve in answer["curves"]}
    most = by_method["ft"]["networks"][-1]
    assert most["num_dead_units"] > 0
    assert most["num_dead_units"] == sum(layer["num_dead_units"] for layer in most["layers"])
    assert "ft cuts" in answer["conclusion"] and "units without a weight" in answer["conclusion"]
    assert answer["missing"] == answer["failed"] == []


@pytest.mark.parametrize("kind", ["weights", "unit_norms"])
def test_animation_has_a_second_for_the_parent_and_each_ratio(kind: str, written):
    folder, _ = written
    data = (folder / "wt-1-epoch-seed-0" / f"{kind}.gif").read_bytes()
    film = Image.open(io.BytesIO(data))
    assert film.n_frames == 1 + len(RATIOS)
    durations = []
    for place in range(film.n_frames):
        film.seek(place)
        durations.append(film.info["duration"])
    assert durations == [1000] * 3
    assert base64.b64encode(data).decode() in (folder / "index.html").read_text()


def test_figures_alone_are_pictures_with_paper(written):
    folder, _ = written
    for path in folder.rglob("*.svg"):
        text = path.read_text()
        assert text.startswith("<svg") and "font-family" in text[:400] and "background: #ffffff" in text[:400]
    for path in folder.rglob("*.png"):
        with Image.open(path) as picture:
            assert picture.width == 760


def test_text_names_layers_errors_and_the_page(prune_cli: Callable, storage: Path, tmp_path: Path):
    words = ("--method", "wt", "--seed", "1", "--ratio", "0.9", "--output", tmp_path / "out")
    ran = prune_cli("weights", "lenet5", "--storage", storage, *words)
    assert ran.code == 0 and ran.err == ""
    assert all(len(line) <= 110 for line in ran.out.splitlines()[:-1])
    for part in ("wt cuts", "at 90.0 % removed", "wt, 1 epoch, seed 1", "error on nominal", *LAYERS):
        assert part in ran.out
    assert "ft" not in ran.out and "50.0 %" not in ran.out.split("weights  at")[1].splitlines()[0]
    assert f"begin with {tmp_path / 'out' / 'index.html'}" in ran.out
    assert [row["seed"] for row in rows(tmp_path / "out" / "results.csv")] == ["1", "1"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--method", "snip"], "has no method snip: it has wt, ft"),
        (["--budget", "7"], "has no budget 7: it has 1"),
        (["--seed", "9"], "has no seed 9: it has 0, 1"),
        (["--ratio", "0.7"], "has no ratio 0.7: it has 0.5, 0.9"),
    ],
)
def test_what_the_sweep_does_not_have_is_one_line_and_nothing_is_written(
    words: list[str], says: str, prune_cli: Callable, storage: Path, tmp_path: Path
):
    ran = prune_cli("weights", "lenet5", "--storage", storage, "--output", tmp_path / "out", *words)
    assert ran.code == 2 and says in ran.error_line and ran.out == ""
    assert list(tmp_path.iterdir()) == []


def test_unknown_sweep_is_one_line(prune_cli: Callable, storage: Path, tmp_path: Path):
    ran = prune_cli("weights", "lenet6", "--storage", storage, "--output", tmp_path / "out")
    assert ran.code == 2 and "did you mean lenet5?" in ran.error_line


def test_folder_that_is_not_empty_is_left_alone(prune_cli: Callable, storage: Path, tmp_path: Path):
    (tmp_path / "mine.txt").write_text("mine")
    ran = prune_cli("weights", "lenet5", "--storage", storage, "--output", tmp_path)
    assert ran.code == 2 and "is not an empty folder" in ran.error_line
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_networks_without_a_pruned_layer_are_one_line(prune_cli: Callable, tmp_path: Path):
    made_up_sweep.store_sweep(tmp_path, lambda *_: made_up_sweep.wrong(500), ratios=(0.5, 0.9), num_images=500)
    ran = prune_cli("weights", made_up_sweep.NAME, "--storage", tmp_path, "--output", tmp_path / "out")
    assert ran.code == 2 and "no layer of these networks lost a weight" in ran.error_line
    assert not (tmp_path / "out").exists()


@pytest.fixture
def damaged(storage: Path, tmp_path: Path) -> Path:
    """A copy to delete from."""
    return Path(shutil.copytree(storage, tmp_path / "store"))


def training_of(answer: dict, method: str, ratio: float) -> str:
    networks = next(curve for curve in answer["curves"] if curve["method"] == method)["networks"]
    return next(one["training"] for one in networks if one["ratio_asked"] == ratio)


def test_network_that_was_deleted_is_named_and_the_others_are_shown(
    prune_cli: Callable, damaged: Path, written, tmp_path: Path
):
    gone = training_of(written[1], "wt", 0.5)
    open_store(str(damaged)).delete_training(gone)
    where = ("--storage", damaged, "--output", tmp_path / "out")
    ran = prune_cli("weights", "lenet5", *where, "--ratio", "0.5", "--method", "wt")
    assert ran.code == 2
    assert f"wt, 1 epoch, seed 0 at 50 % ({gone}) is not in the store" in ran.error_line
    assert "`prune-cli sweep lenet5` trains it again" in ran.error_line
    ran = prune_cli("weights", "lenet5", *where, "--method", "wt", "--json")
    assert ran.code == 0
    assert [one["training"] for one in ran.answer["missing"]] == [gone]
    assert [one["ratio_asked"] for one in ran.answer["curves"][0]["networks"]] == [0.0, 0.9]
    page = (tmp_path / "out" / "index.html").read_text().replace("\N{NO-BREAK SPACE}", " ")
    assert "not in the store, so not shown: wt, 1 epoch, seed 0 at 50 %" in page


def test_parent_that_was_deleted_is_named(prune_cli: Callable, damaged: Path, written, tmp_path: Path):
    gone = written[1]["curves"][0]["parent"]
    open_store(str(damaged)).delete_training(gone)
    ran = prune_cli("weights", "lenet5", "--storage", damaged, "--output", tmp_path / "out")
    assert ran.code == 2 and f"the parent of seed 0 ({gone}) is not in the store" in ran.error_line


def test_cleaned_sweep_shows_what_is_left(prune_cli: Callable, damaged: Path, tmp_path: Path):
    assert prune_cli("clean", "--keep", "potential", "--storage", damaged).code == 0
    left = {path.parent.name for path in damaged.glob("trainings/*/training.json")}
    words = ("--method", "wt", "--output", tmp_path / "out", "--json")
    ran = prune_cli("weights", "lenet5", "--storage", damaged, *words)
    assert ran.code == 0, ran.err
    networks = ran.answer["curves"][0]["networks"]
    lost = {one["training"] for one in ran.answer["missing"]}
    assert {one["training"] for one in networks} <= left and not lost & left
    # The parent, and of the two ratios those that clean left: all are accounted for.
    assert len(networks) - 1 + len(lost) == len(RATIOS) and lost


def test_command_needs_no_torch_until_it_writes_and_its_help_none_of_the_heavy_ones():
    code = (
        "import sys; import raypruning.commands.weights, raypruning.reporting.weights, raypruning.analysis.weights;"
        "assert not {'torch', 'pandas', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: `make browser` installs it on Debian")
@pytest.mark.parametrize("width", [1280, 390])
def test_page_shows_all_in_a_browser_without_scrolling_sideways(width: int, written, tmp_path: Path):
    folder, _ = written
    outer = tmp_path / "outer.html"
    outer.write_text(OUTER.format(source=(folder / "index.html").as_uri(), width=width))
    dom = browse(outer, tmp_path / "profile", width=max(width, 500))
    found = re.search(r'<pre id="found">(.*?)</pre>', dom, re.DOTALL)
    assert found and found[1], dom[-2000:]
    seen = json.loads(found[1].replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">"))
    assert seen["width"] == width and seen["scroll_width"] <= width, seen["outside"]
    # Of each of two methods: two kinds at three ratios, ratios of layers, three histories.
    assert seen["num_drawn"] == seen["num_svgs"] == 2 * (2 * 3 + 1 + 3)
    assert [one for one in seen["fetched"] if not one.startswith("data:")] == []
    assert "wt, 1 epoch, seed 0" in seen["text"] and "What pruning takes from each layer" in seen["text"]
