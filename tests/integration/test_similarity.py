"""`prune-cli similarity` on small sweeps that were run for it: real weights, real images, real predictions."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest

from raypruning.app.read import read_sweep
from raypruning.app.similarity import read_similarity
from raypruning.errors import StoreError
from raypruning.reporting.drawing import standalone
from raypruning.reporting.similarity import conclusion, numbers
from raypruning.reporting.similarity_plots import panels
from raypruning.runtime.store import ObjectStore, open_store
from tests.conftest import TINY
from tests.integration.commands import run_sweep
from tests.integration.made_up_sweep import NAME, store_sweep, wrong

SEEDS = (0, 1, 2)
NUM = 300  # test images of the tiny sweep
NOISE = "noise/uniform/0.5"


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A population of three seeds at two ratios, and a sweep of the first seed alone."""
    folder = tmp_path_factory.mktemp("similarity") / "store"
    common = [*TINY, "--ratio", "0.5", "--ratio", "0.95", "--task", NOISE, "--set", "recipe.epochs=3"]
    three = [word for seed in SEEDS[1:] for word in ("--seed", str(seed))]
    assert run_sweep("lenet5", *common, *three, "--name", "three", storage=folder).exit_code in (0, 3)
    assert run_sweep("lenet5", *common, "--name", "one", storage=folder).exit_code in (0, 3)
    return folder


@pytest.fixture(scope="module")
def store(storage: Path) -> ObjectStore:
    return open_store(str(storage), read_only=True)


@pytest.fixture(scope="module")
def similarity(storage: Path, prune_cli: Callable):
    def run(sweep: str = "three", *words: object, at: Path = storage):
        return prune_cli("similarity", sweep, "--storage", at, *words)

    return run


@pytest.fixture(scope="module")
def answer(similarity):
    ran = similarity("three", "--noise", "0.25", "--noise", "0.5", "--json")
    assert ran.code == 0, ran.err
    return ran.answer


def predicted(store: ObjectStore, sweep: str, task: str) -> dict[tuple[int, float], np.ndarray]:
    """By seed and ratio, 0 for parents."""
    found = {}
    for one in read_sweep(store, sweep).probes:
        if one.probe.curve.is_parent or not one.probe.curve.is_dense:
            found[one.probe.curve.seed, one.probe.ratio] = store.predictions(one.evaluations[task])["predicted"]
    return found


def test_churn_is_that_of_the_stored_predictions(answer, store: ObjectStore):
    for index, task in enumerate(("nominal", NOISE)):
        found = predicted(store, "three", task)
        for population in answer["populations"]:
            ratio = population["ratio"]
            expected = np.mean([np.mean(found[seed, ratio] != found[seed, 0.0]) for seed in SEEDS])
            assert population["churn"][index]["rate"]["value"] == pytest.approx(expected)
        pairs = [np.mean(found[a, 0.0] != found[b, 0.0]) for a, b in ((0, 1), (0, 2), (1, 2))]
        assert answer["control"]["churn"][index]["rate"]["value"] == pytest.approx(np.mean(pairs))
        assert answer["control"]["churn"][index]["rate"]["sd"] == pytest.approx(np.std(pairs, ddof=1))


@pytest.mark.parametrize(("amplitude", "task"), [(0.0, 0), (0.5, 1)])
def test_forward_passes_match_where_stored_predictions_of_the_same_inputs_do(answer, amplitude: float, task: int):
    for one in [*answer["populations"], answer["control"]]:
        (level,) = (level for level in one["levels"] if level["amplitude"] == amplitude)
        assert level["matching"]["value"] == pytest.approx(1 - one["churn"][task]["rate"]["value"], abs=1e-12)


def test_lead_is_that_over_the_control_averaged_over_levels(answer):
    mean = {
        one["ratio"]: np.mean([level["matching"]["value"] for level in one["levels"]])
        for one in [*answer["populations"], answer["control"]]
    }
    for one in answer["populations"]:
        assert one["lead"]["matching"]["value"] == pytest.approx(mean[one["ratio"]] - mean[0.0])


def test_answer_names_what_it_was_made_of(answer, store: ObjectStore):
    parents = {
        one.probe.curve.seed: one.probe.id for one in read_sweep(store, "three").probes if one.probe.curve.is_parent
    }
    assert answer["amplitudes"] == [0.0, 0.25, 0.5]
    assert answer["parents"] == answer["control"]["networks"] == [parents[seed] for seed in SEEDS]
    assert (answer["images"], answer["num_test_images"], answer["draws"]) == (NUM, NUM, 1)
    assert (answer["features"], answer["num_features"]) == ("fc2", 50)
    # Nine networks, three levels, one draw.
    assert answer["num_forwards"] == 9 * 3 * NUM


def test_same_request_again_is_read_and_fresh_measures_anew(similarity, storage: Path):
    path = storage / "sweeps" / "three" / "similarity.json"
    words = ("--noise", "0.1", "--images", "40", "--draws", "2", "--json")
    first = similarity("three", *words).answer
    written = path.stat().st_mtime_ns
    assert similarity("three", *words).answer == first
    assert path.stat().st_mtime_ns == written
    again = similarity("three", *words, "--fresh").answer
    assert path.stat().st_mtime_ns > written
    unequal = {key for key in first if again[key] != first[key]}
    assert unequal <= {"seconds"}
    other = similarity("three", "--noise", "0.1", "--images", "40", "--draws", "3", "--json").answer
    assert other["fingerprint"] != first["fingerprint"]
    # Two levels, one of them nominal, which has nothing to draw.
    assert (first["num_forwards"], other["num_forwards"]) == (9 * 40 * (1 + 2), 9 * 40 * (1 + 3))


def test_stored_answer_is_read_back_and_a_damaged_one_is_one_line(similarity, answer, storage: Path, tmp_path: Path):
    copy = tmp_path / "store"
    shutil.copytree(storage, copy)
    here = open_store(str(copy))
    ran = similarity("three", "--noise", "0.25", "--noise", "0.5", "--json", at=copy)
    found = read_similarity(here, "three")
    assert found is not None and found.model_dump(mode="json")["populations"] == ran.answer["populations"]
    assert read_similarity(here, "one") is None
    path = copy / "sweeps" / "three" / "similarity.json"
    path.write_text(path.read_text()[:-100])
    with pytest.raises(StoreError, match=r"similarity\.json of the sweep three"):
        read_similarity(here, "three")
    ran = similarity("three", at=copy)
    assert ran.code == 1 and "prune-cli similarity three --fresh" in ran.error_line and ran.out == ""
    assert similarity("three", "--fresh", "--images", "20", "--noise", "0.1", at=copy).code == 0


def test_flags_narrow_what_is_compared(similarity):
    ran = similarity("three", "--ratio", "0.95", "--method", "wt", "--budget", "1", "--noise", "0", "--json")
    (population,) = ran.answer["populations"]
    assert population["ratio"] == 0.95 and population["seeds"] == list(SEEDS)
    assert ran.answer["amplitudes"] == [0.0]


def test_text_says_up_to_which_ratio_networks_stay_closer(similarity, answer):
    text = " ".join(similarity("three", "--noise", "0.25", "--noise", "0.5").out.split())
    assert answer["conclusion"] in text
    assert re.search(r"Over noise from 0 to 0\.5, a separately trained network agrees with the parent on \d", text)
    assert "Matching predictions" in text and "separate" in text and "CKA" in text
    assert "no control" not in text


def test_one_seed_has_no_control_and_says_how_to_get_one(similarity, storage: Path):
    ran = similarity("one", "--noise", "0.5", "--images", "50")
    assert ran.code == 0
    (line,) = (line for line in ran.out.splitlines() if line.startswith("no control: "))
    assert f"prune-cli sweep one --population 2 --storage {storage}" in line
    found = similarity("one", "--noise", "0.5", "--images", "50", "--json").answer
    assert found["control"] is None and all(one["lead"] is None for one in found["populations"])
    assert found["hint"].startswith("no control")
    (churn,) = (one["churn"][0] for one in found["populations"] if one["ratio"] == 0.95)
    interval = binomtest(round(churn["rate"]["value"] * NUM), NUM).proportion_ci(0.9, method="wilson")
    assert (churn["interval"]["low"], churn["interval"]["high"]) == pytest.approx((interval.low, interval.high))


def test_csv_plots_and_numbers_hold_what_the_answer_does(similarity, answer, tmp_path: Path, store: ObjectStore):
    table, folder = tmp_path / "similarity.csv", tmp_path / "plots"
    ran = similarity("three", "--noise", "0.25", "--noise", "0.5", "--csv", table, "--plots", folder)
    assert ran.code == 0 and f"wrote {table}" in ran.err
    rows = list(csv.DictReader(table.read_text().splitlines()))
    (row,) = (
        row
        for row in rows
        if (row["method"], row["ratio_asked"], row["quantity"], row["at"]) == ("wt", "0.95", "churn", NOISE)
    )
    churn = answer["populations"][1]["churn"][1]
    assert float(row["value"]) == churn["rate"]["value"] and float(row["high"]) == churn["interval"]["high"]
    assert {row["pairs"] for row in rows if row["method"] == "separate"} == {"3"}
    found = read_similarity(store, "three")
    assert found is not None
    assert [path.read_text() for path in sorted(folder.iterdir())] == [standalone(one) for one in panels(found)]
    assert len(panels(found)) == 4
    named = {(one.method, round(one.ratio_reached, 2), one.name): one.value for one in numbers(found)}
    assert named["wt", 0.95, f"churn/{NOISE}"] == churn["rate"]["value"]
    assert named["wt", 0.95, "similarity/matching_eps0.5"] == answer["populations"][1]["levels"][2]["matching"]["value"]
    assert named["dense", 0.0, "separate/similarity/cka"] == answer["control"]["cka"]["value"]
    assert conclusion(found) == answer["conclusion"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--noise", "-0.1"], "--noise must be at least 0"),
        (["--noise", "nan"], "--noise must be at least 0"),
        (["--draws", "0"], "--draws must be from 1 to 256"),
        (["--images", "1"], "--images must be at least 2"),
        (["--images", "301"], "--images must be at most 300"),
        (["--ratio", "0.7"], "has no ratio 0.7: it has 0.5, 0.95"),
        (["--method", "ft"], "has no method ft: it has wt"),
        (["--budget", "7"], "has no budget 7"),
    ],
)
def test_wrong_input_is_one_line_and_leaves_the_answer_alone(
    similarity, answer, storage: Path, words: list[str], message: str
):
    path = storage / "sweeps" / "three" / "similarity.json"
    before = path.read_bytes()
    ran = similarity("three", *words)
    assert ran.code == 2 and message in ran.error_line and ran.out == ""
    assert path.read_bytes() == before


def test_unknown_sweep_is_one_line_and_makes_no_storage(similarity, storage: Path, tmp_path: Path):
    assert "did you mean three?" in similarity("thre").error_line
    ran = similarity("three", at=tmp_path / "elsewhere")
    assert ran.code == 2 and not (tmp_path / "elsewhere").exists()


def test_segmentation_sweep_is_refused(prune_cli: Callable, tmp_path: Path):
    def predict(curve, ratio, task):
        pixels = np.full((4, 2), 50, np.int32)
        return {"both": pixels, "predicted": pixels, "true": pixels, "loss": np.zeros(4, np.float32)}

    store_sweep(tmp_path, predict, ratios=(0.5,), num_images=4, metric="segmentation")
    ran = prune_cli("similarity", NAME, "--storage", tmp_path)
    assert ran.code == 2 and "compares classes of images" in ran.error_line


def test_sweep_whose_parents_failed_is_one_line(prune_cli: Callable, tmp_path: Path):
    store_sweep(tmp_path, lambda curve, ratio, task: None, ratios=(0.5,), num_images=4)
    ran = prune_cli("similarity", NAME, "--storage", tmp_path)
    assert ran.code == 2 and "run it" in ran.error_line


def test_other_images_than_the_sweep_had_are_refused(prune_cli: Callable, tmp_path: Path):
    store_sweep(tmp_path, lambda curve, ratio, task: wrong(200), ratios=(0.5,), num_images=200)
    ran = prune_cli("similarity", NAME, "--storage", tmp_path)
    assert ran.code == 2 and "fingerprint" in ran.error_line
    assert not (tmp_path / "sweeps" / NAME / "similarity.json").exists()


def test_json_of_the_command_is_that_of_the_file_and_a_conclusion(similarity, storage: Path):
    found = similarity("three", "--noise", "0.25", "--noise", "0.5", "--json").answer
    stored = json.loads((storage / "sweeps" / "three" / "similarity.json").read_text())
    assert {**stored, "conclusion": found["conclusion"], "hint": None} == found
