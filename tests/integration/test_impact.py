"""`prune-cli impact` on stored sweeps in which the answer is known: which images are right is written down."""

# N images

from __future__ import annotations

import csv
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from scipy.stats import binomtest, ttest_ind

from raypruning.core.records import Curve
from tests.integration.made_up_sweep import NAME, store_sweep

RATIOS = (0.5, 0.9)
IMAGES = 200  # of each class
CLASSES = 10
LABEL_N = np.repeat(np.arange(CLASSES), IMAGES)
NUM = len(LABEL_N)
TASKS = ("nominal", "noise/uniform/0.1")
SEEDS = tuple(range(6))


def answers(right_N: np.ndarray) -> Mapping[str, np.ndarray]:
    """Predictions of a classifier that has these images right."""
    return {
        "predicted": np.where(right_N, LABEL_N, (LABEL_N + 1) % CLASSES).astype(np.uint16),
        "label": LABEL_N.astype(np.uint16),
        "log_probability": np.where(right_N, -0.1, -2.0).astype(np.float16),
    }


def by_recall(num_C: np.ndarray) -> np.ndarray:
    """The first so many images of each class are right."""
    return np.concatenate([np.arange(IMAGES) < num for num in num_C])


# -- one pair: the network of the LeNet study ------------------------------------------------------------------------

# Recalls of its network with 97 % removed, in images of 200; an image or two more or less, for an accuracy of 75.65 %.
STUDY = np.array([196, 199, 0, 185, 172, 155, 175, 178, 83, 170])
STUDY_DENSE = 197


def predict_study(curve: Curve, ratio: float, task: str):
    return answers(by_recall(np.full(CLASSES, STUDY_DENSE) if ratio < 0.9 else STUDY))


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study") / "store"
    store_sweep(folder, predict_study, ratios=RATIOS, num_images=NUM)
    return folder


def test_class_that_is_never_found_is_the_headline_beside_the_accuracy_that_hides_it(study: Path, prune_cli: Callable):
    lines = " ".join(prune_cli("impact", NAME, "--storage", study).out.split())
    headline = "accuracy is still 75.6 % (dense 98.5 %), and class 2 is never found (dense recall 98.5 %)"
    assert f"! nominal, wt, 2 epochs, 90.0 % removed: {headline}" in lines
    assert lines.index(headline) < lines.index("Classes lost and gained")


def test_class_that_is_never_found_is_in_the_json_and_the_conclusion(study: Path, prune_cli: Callable):
    answer = prune_cli("impact", NAME, "--storage", study, "--json").answer
    assert [one["ratio"] for one in answer["headlines"]] == [0.9]
    assert "accuracy is still 75.6 %" in answer["conclusion"] and "class 2 is never found" in answer["conclusion"]
    before, after = answer["populations"]
    assert before["never_found"] == [] and after["never_found"] == [2]
    assert after["accuracy_pruned"]["mean"] == 0.7565
    worst = after["classes"][0]
    assert (worst["label"], worst["pruned"]["mean"], worst["num_lost"]) == (2, 0.0, STUDY_DENSE)


def test_one_seed_is_tested_over_images_which_the_output_says(study: Path, prune_cli: Callable):
    ran = prune_cli("impact", NAME, "--storage", study, "--ratio", "0.9", "--correction", "none", "--json")
    (population,) = ran.answer["populations"]
    assert population["test"] == "mcnemar"
    for one in population["classes"]:
        lost = STUDY_DENSE - int(STUDY[one["label"]])
        assert one["num_lost"] == max(lost, 0) and one["num_gained"] == max(-lost, 0)
        assert one["p_value"] == pytest.approx(binomtest(max(lost, 0), abs(lost)).pvalue, rel=1e-9)
        assert one["statistic"] is None and one["study_p_value"] is None
    text = " ".join(prune_cli("impact", NAME, "--storage", study).out.split())
    assert "Fewer than 5 networks on a side" in text and "McNemar's exact test over the images of a class" in text


# -- six seeds ---------------------------------------------------------------------------------------------------------


@functools.cache
def right(seed: int, ratio: float, task: str) -> np.ndarray:
    """Independent images: class 7 has lost 30 points at 0.9, and all have lost 10 under noise, pruned or not."""
    random = np.random.default_rng([seed, round(100 * ratio), len(task)])
    recall_C = np.full(CLASSES, 0.9 if task == "nominal" else 0.8)
    if ratio == 0.9:
        recall_C[7] -= 0.3
    return random.random(NUM) < recall_C[LABEL_N]


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("impact") / "store"
    store_sweep(
        folder,
        lambda curve, ratio, task: answers(right(curve.seed, ratio, task)),
        ratios=RATIOS,
        num_images=NUM,
        tasks=TASKS,
        seeds=SEEDS,
    )
    return folder


@pytest.fixture(scope="module")
def impact(storage: Path, prune_cli: Callable):
    """The command on that storage, which it does not change."""

    @functools.cache
    def run(*words: object):
        return prune_cli("impact", NAME, "--storage", storage, *words)

    return run


def test_planted_class_alone_is_lost_on_every_task(impact):
    populations = impact("--json").answer["populations"]
    assert [(one["task"], one["ratio"]) for one in populations] == [(task, ratio) for task in TASKS for ratio in RATIOS]
    for one in populations:
        lost = [each["label"] for each in one["classes"] if each["verdict"] == "lost"]
        assert lost == ([7] if one["ratio"] == 0.9 else []) and one["test"] == "welch"
        assert one["seeds_dense"] == one["seeds_pruned"] == list(SEEDS)


def test_text_names_the_worst_class_and_the_test(impact):
    text = " ".join(impact().out.split())
    assert "Test over networks, Welch's t-test of each class" in text and "Benjamini-Hochberg" in text
    assert "nominal: classes that lost significantly, worst first" in text
    assert all(len(line) <= 110 for line in impact().out.splitlines())


def test_csv_has_the_columns_and_the_numbers_of_the_study(impact, tmp_path: Path):
    path = tmp_path / "impact.csv"
    ran = impact("--csv", path)
    assert ran.code == 0 and f"wrote {path}" in ran.err
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[:6] == [
        "class",
        "pruning_fraction",
        "baseline_mean_recall",
        "variant_mean_recall",
        "pvalue_recall_norm",
        "statistic_recall_norm",
    ]
    assert len(rows) == len(TASKS) * len(RATIOS) * CLASSES
    for row in rows:
        sides = []
        for ratio in (0.0, float(row["pruning_fraction"])):
            right_KN = np.stack([right(seed, ratio, row["task"]) for seed in SEEDS])
            sides.append(right_KN[:, int(row["class"]) == LABEL_N].mean(axis=1) - right_KN.mean())
        expected = ttest_ind(*sides, equal_var=False)
        # Means of at most 12 000 numbers up to 1, over standard errors of .01.
        assert float(row["statistic_recall_norm"]) == pytest.approx(expected.statistic, abs=1e-9)
        assert float(row["pvalue_recall_norm"]) == pytest.approx(expected.pvalue, abs=1e-9)
        assert float(row["interval_low"]) < float(row["recall_lost_beyond_accuracy"]) < float(row["interval_high"])


def test_plots_are_an_svg_file_for_each_ratio_and_one_over_them(impact, tmp_path: Path):
    folder = tmp_path / "new" / "figures"
    ran = impact("--plots", folder, "--task", "nominal")
    assert "wrote 3 figures" in ran.err
    names = {path.name for path in folder.iterdir()}
    assert names == {"nominal_wt_2_0.5.svg", "nominal_wt_2_0.9.svg", "nominal_wt_2_ratios.svg"}
    for path in folder.iterdir():
        texts = [element.text for element in ElementTree.parse(path).iter() if element.tag.endswith("text")]
        assert "nominal" in texts


def test_stricter_correction_and_level_claim_no_more(impact):
    def num_claims(*words: object) -> int:
        return sum(
            one["num_classes_lost"] + one["num_classes_gained"]
            for one in impact(*words, "--json").answer["populations"]
        )

    none, bh, holm = (num_claims("--correction", name) for name in ("none", "bh", "holm"))
    assert none >= bh >= holm >= 2
    assert num_claims("--level", "1e-12") <= holm


def test_flags_narrow_down_what_is_compared(impact):
    (one,) = impact("--task", "noise/*", "--ratio", "0.9", "--method", "wt", "--budget", "2", "--json").answer[
        "populations"
    ]
    assert (one["task"], one["ratio"]) == ("noise/uniform/0.1", 0.9)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--correction", "bonferroni"], "--correction must be bh (Benjamini-Hochberg), holm or none, got bonferroni"),
        (["--level", "0"], "--level must be in (0, 1), got 0"),
        (["--level", "nan"], "--level must be in (0, 1), got nan"),
        (["--task", "nominall"], "did you mean nominal?"),
        (["--ratio", "0.7"], "has no ratio 0.7: it has 0.5, 0.9"),
        (["--method", "ft"], "has no method ft: it has wt"),
        (["--csv", "/nowhere/x.csv"], "/nowhere/x.csv: cannot be written"),
        (["--plots", "/dev/null/x"], "/dev/null/x: cannot be written"),
    ],
)
def test_wrong_input_is_one_line(impact, words: list[str], message: str):
    ran = impact(*words)
    assert ran.code == 2
    assert message in ran.err and ran.err.count("\n") == 1 and ran.out == ""


# -- others ------------------------------------------------------------------------------------------------------------


def test_two_seeds_are_tested_over_images_with_their_losses_added_up(prune_cli: Callable, tmp_path: Path):
    def predict(curve: Curve, ratio: float, task: str):
        lost = 0 if ratio == 0 else 2 + 4 * curve.seed
        return answers(by_recall(np.where(np.arange(CLASSES) == 1, 150 - lost, 150)))

    store_sweep(tmp_path, predict, ratios=(0.5,), num_images=NUM, seeds=(0, 1))
    (one,) = prune_cli("impact", NAME, "--storage", tmp_path, "--correction", "none", "--json").answer["populations"]
    assert one["test"] == "sign_flip"
    worst = one["classes"][0]
    # Both lose two images, the second four more: six signs.
    assert (worst["label"], worst["num_lost"], worst["p_value"]) == (1, 8, 2 / 2**6)
    assert worst["interval"]["low"] < 4 / IMAGES < worst["interval"]["high"]


def test_segmentation_is_refused_in_one_line(prune_cli: Callable, tmp_path: Path):
    counts_N1 = np.full((NUM, 1), 10, np.int32)
    arrays = {"both": counts_N1, "predicted": counts_N1, "true": counts_N1, "loss": np.zeros(NUM, np.float32)}
    store_sweep(tmp_path, lambda *_: arrays, ratios=(0.5,), num_images=NUM, metric="segmentation")
    ran = prune_cli("impact", NAME, "--storage", tmp_path)
    assert ran.code == 2 and ran.out == ""
    assert "impact is for classification, not segmentation" in ran.err and ran.err.count("\n") == 1


def test_sweep_without_a_network_that_was_measured_is_one_line(prune_cli: Callable, tmp_path: Path):
    store_sweep(tmp_path, lambda *_: None, ratios=(0.5,), num_images=NUM)
    ran = prune_cli("impact", NAME, "--storage", tmp_path)
    assert ran.code == 2 and "was measured in the sweep made-up" in ran.err and ran.err.count("\n") == 1
