"""The page "what was lost": what it says of stored sweeps, and that every sweep has it beside its report."""

# N images, K networks

from __future__ import annotations

import re
from collections.abc import Callable
from html import unescape
from pathlib import Path

import numpy as np
import pytest

from raypruning.app.lost import losses_of, lost, publish_files
from raypruning.app.read import read_sweep
from raypruning.core.records import Curve
from raypruning.runtime.store import open_store
from tests.integration.made_up_sweep import NAME, store_sweep
from tests.integration.test_report_page import CHROMIUM, browse

NUM, CLASSES = 1000, 10
LABEL_N = np.arange(NUM) % CLASSES
SEEDS = tuple(range(6))


def predict(curve: Curve, ratio: float, task: str):
    """Every network errs on images of its own; the pruned ones answer 2 with 1, whatever else they do."""
    own_N = np.random.default_rng([curve.seed, round(100 * ratio), len(task)]).permutation(NUM)
    predicted_N = np.where(own_N < 20 + 5 * curve.seed, (LABEL_N + 5) % CLASSES, LABEL_N)
    if ratio > 0.8:
        predicted_N = np.where(LABEL_N == 2, 1, predicted_N)
    return {
        "predicted": predicted_N.astype(np.uint16),
        "label": LABEL_N.astype(np.uint16),
        "log_probability": np.full(NUM, -0.1, np.float16),
    }


def stored(folder: Path, *, seeds: tuple[int, ...] = SEEDS) -> Path:
    store_sweep(folder, predict, ratios=(0.5, 0.9), num_images=NUM, seeds=seeds)
    return folder


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stored(tmp_path_factory.mktemp("lost") / "store")


def text_of(page: Path) -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", page.read_text().partition("<body>")[2])).split())


def test_page_says_what_each_part_of_it_concludes(storage: Path, prune_cli: Callable, tmp_path: Path):
    page = tmp_path / "lost.html"
    ran = prune_cli("report", NAME, "--storage", storage, "--lost", page)
    assert (ran.code, ran.err) == (0, f"wrote {page}\n")
    text = text_of(page)
    assert "class 2 is never found" in text
    assert "most pruned networks answer 10.0 % of images otherwise than most dense ones" in text
    # What was not looked at is not passed over.
    looked_at, _, missing = text.partition("Not looked at yet")
    assert f"prune-cli impact {NAME}" in looked_at
    assert f"prune-cli similarity {NAME}" in missing
    assert f"prune-cli features {NAME}" in missing


def test_one_seed_alone_has_its_classes_and_is_told_why_it_has_no_examples(prune_cli: Callable, tmp_path: Path):
    page = tmp_path / "lost.html"
    assert prune_cli("report", NAME, "--storage", stored(tmp_path / "store", seeds=(0,)), "--lost", page).code == 0
    looked_at, _, missing = text_of(page).partition("Not looked at yet")
    assert "2 is never found" in looked_at
    assert f"has one seed: prune-cli sweep {NAME} --population 10 makes ten" in missing


def test_numbers_are_those_of_the_stored_predictions(storage: Path):
    store = open_store(str(storage), read_only=True)
    results = read_sweep(store, NAME)
    found = losses_of(results, lost(store, results))
    by_name = {(one.name, one.ratio_reached): one.value for one in found.numbers}
    assert by_name["impact/nominal/classes_never_found", 0.9] == 1
    assert by_name["impact/nominal/classes_never_found", 0.5] == 0
    assert by_name["pie/nominal/num_pies", 0.9] == NUM / CLASSES
    assert set(found.files) == {"lost.html"} | {
        name for name in found.files if re.fullmatch(r"figures/[\w-]+\.svg", name)
    }
    assert len(found.files) > 3


@pytest.mark.parametrize(("file", "part"), [("similarity.json", "Answers"), ("features.json", "Pixels")])
def test_damaged_file_costs_its_part_and_not_the_rest(file: str, part: str, prune_cli: Callable, tmp_path: Path):
    page, store = tmp_path / "lost.html", stored(tmp_path / "store")
    (store / "sweeps" / NAME / file).write_text('{"populations": [')
    ran = prune_cli("report", NAME, "--storage", store, "--lost", page)
    assert (ran.code, ran.err) == (0, f"wrote {page}\n")
    looked_at, _, missing = text_of(page).partition("Not looked at yet")
    assert "class 2 is never found" in looked_at
    assert "is damaged" in missing.partition(part)[2] and "--fresh" in missing


def test_page_of_a_real_sweep_stands_beside_its_report_and_each_links_to_the_other(
    prune_cli: Callable, tiny: list[str], tmp_path: Path
):
    ran = prune_cli("sweep", "lenet5", *tiny, "--delta", "0.1", "--storage", tmp_path / "store")
    assert ran.code in (0, 3), ran.err
    folder = tmp_path / "store" / "sweeps" / "lenet5"
    assert f"lost     {folder / 'lost.html'}" in ran.err
    assert 'href="lost.html"' in (folder / "report.html").read_text()
    assert 'href="report.html"' in (folder / "lost.html").read_text()


def test_sweep_without_mlflow_publishes_nothing(storage: Path, tmp_path: Path):
    (tmp_path / "weights.gif").write_bytes(b"GIF89a")
    store = open_store(str(storage), read_only=True)
    assert publish_files(store, NAME, tmp_path, (), name="weights") == ()


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: `make browser` installs it on Debian")
@pytest.mark.parametrize("width", [390, 1280])
def test_page_fits_its_window(storage: Path, prune_cli: Callable, tmp_path: Path, width: int):
    page, outer = tmp_path / "lost.html", tmp_path / "outer.html"
    prune_cli("report", NAME, "--storage", storage, "--lost", page)
    outer.write_text(
        f'<body style="margin:0"><iframe id="page" src="{page.as_uri()}" style="border:0;width:{width}px;height:900px">'
        "</iframe><pre></pre><script>document.getElementById('page').onload = (loaded) => {"
        "const root = loaded.target.contentDocument.documentElement;"
        "document.querySelector('pre').textContent = `wide ${root.scrollWidth} of ${root.clientWidth}`}</script>"
    )
    dom = browse(outer, tmp_path / "profile", width=max(width, 500))
    found = re.search(r"wide (\d+) of (\d+)", dom)
    assert found, dom[-500:]
    assert int(found[1]) <= int(found[2])
