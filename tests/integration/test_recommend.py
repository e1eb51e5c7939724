"""`prune-cli recommend` on stored sweeps in which the answer is known: who loses how many images is written down."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest

from raypruning.core.records import Curve
from tests.integration.made_up_sweep import NAME, store_sweep, wrong

NUM = 2000
RATIOS = (0.5, 0.7, 0.8, 0.9)
# Images that each network loses, by method, budget and task, in the order of the ratios. None is gained.
LOST = {
    ("wt", 2): {"nominal": (0, 2, 10, 60), "noise/uniform/0.1": (0, 4, 30, 60)},
    ("wt", 10): {"nominal": (0, 1, 5, 8), "noise/uniform/0.1": (0, 1, 4, 40)},
    ("ft", 2): {"nominal": (1, 30, 4, 90), "noise/uniform/0.1": (0, 4, 8, 90)},
    ("ft", 10): {"nominal": (0, 3, 90, 90), "noise/uniform/0.1": (0, 4, 90, 90)},
}
TASKS = ("nominal", "noise/uniform/0.1")


def upper(lost: int, level: float, num: int = NUM) -> float:
    """Where nothing is gained, the loss is a single proportion: Wilson's bound, of scipy."""
    return binomtest(lost, num).proportion_ci(2 * level - 1, method="wilson").high


def expected(delta: float, *, level: float, curves: dict = LOST, tasks: tuple[str, ...] = TASKS) -> dict:
    """The certified ratio of each curve: the largest up to which every network is within on every task."""
    found = {}
    for curve, lost in curves.items():
        within = [all(upper(lost[task][i], level) <= delta for task in tasks) for i in range(len(RATIOS))]
        found[curve] = max((ratio for i, ratio in enumerate(RATIOS) if all(within[: i + 1])), default=0.0)
    return found


def predict(curve: Curve, ratio: float, task: str):
    lost = 0 if curve.is_dense else LOST[curve.method, curve.budget][task][RATIOS.index(ratio)]
    return wrong(NUM, lost=lost)


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recommend") / "store"
    store_sweep(folder, predict, ratios=RATIOS, num_images=NUM, tasks=TASKS, methods=("wt", "ft"), budgets=(2, 10))
    return folder


@pytest.fixture(scope="module")
def recommend(storage: Path, prune_cli: Callable):
    """The command on that storage, which it does not change: what was asked once is remembered."""

    @functools.cache
    def run(*words: object):
        return prune_cli("recommend", NAME, "--storage", storage, *words)

    return run


def certified(ran) -> dict:
    return {(one["method"], one["budget"]): one["certified"] for one in ran.answer["curves"]}


@pytest.mark.parametrize("delta", [0.003, 0.008, 0.02, 0.05])
def test_certified_ratios_are_those_up_to_which_every_bound_is_within(recommend, delta: float):
    ran = recommend("--delta", delta, "--json")
    level = 1 - 0.05 / 4
    assert ran.answer["confidence_of_each_curve"] == pytest.approx(level)
    assert certified(ran) == expected(delta, level=level)


def test_network_at_the_largest_certified_ratio_is_recommended_with_what_to_type(recommend, storage: Path):
    ran = recommend("--delta", "0.008", "--json")
    assert ran.code == 0
    network = ran.answer["recommended"]
    # 4 and 5 images of 2000 bound the loss by .0069; 30 by .023, and 40 by .029.
    assert (network["method"], network["budget"], network["seed"], network["ratio"]) == ("wt", 10, 0, 0.8)
    assert network["export"] == f"prune-cli export {NAME} --probe {network['training']} --storage {storage}"
    assert (storage / network["checkpoint"]).exists()
    by_task = {one["task"]: one for one in network["losses"]}
    assert by_task["nominal"]["lost"] == 5 and by_task["nominal"]["gained"] == 0
    assert by_task["nominal"]["loss"] == 5 / NUM
    assert by_task["nominal"]["upper_bound"] == pytest.approx(upper(5, 1 - 0.05 / 4), abs=1e-11)
    # 5 of 5 coins on one side: 2 / 32; 4 of 4: 2 / 16. Holm doubles the smaller.
    assert by_task["nominal"]["p_value"] == pytest.approx(2 * 2 / 32)
    assert by_task["noise/uniform/0.1"]["p_value"] == pytest.approx(2 / 16)


def test_choices_around_it_and_the_task_that_limits_it_are_shown(recommend):
    answer = recommend("--delta", "0.008", "--json").answer
    assert answer["limited_by"] == "noise/uniform/0.1"
    assert answer["tighter"]["ratio"] == 0.7
    assert (answer["looser"]["ratio"], answer["looser"]["fails_on"]) == (0.9, ["noise/uniform/0.1", "nominal"])
    needed = answer["looser"]["delta_needed"]
    assert upper(40, 1 - 0.05 / 4) <= needed < upper(40, 1 - 0.05 / 4) + 1e-4
    assert (answer["cheaper"]["method"], answer["cheaper"]["budget"], answer["cheaper"]["ratio"]) == ("wt", 2, 0.7)


def test_with_the_delta_that_the_next_ratio_needs_the_next_ratio_is_recommended(recommend):
    needed = recommend("--delta", "0.008", "--json").answer["looser"]["delta_needed"]
    assert recommend("--delta", needed, "--json").answer["recommended"]["ratio"] == 0.9


def test_fewer_curves_to_choose_among_cost_less_of_the_level(recommend):
    ran = recommend("--delta", "0.003", "--method", "wt", "--budget", "2", "--json")
    assert ran.answer["confidence_of_each_curve"] == pytest.approx(0.95)
    assert certified(ran) == expected(0.003, level=0.95, curves={("wt", 2): LOST["wt", 2]})


def test_only_the_named_tasks_must_keep_delta(recommend):
    ran = recommend("--delta", "0.02", "--task", "nomi*", "--json")
    assert ran.answer["tasks"] == ["nominal"]
    assert certified(ran) == expected(0.02, level=1 - 0.05 / 4, tasks=("nominal",))


def test_a_ratio_that_passes_above_one_that_fails_is_not_certified(recommend):
    # ft after 2 epochs loses 30 images at 0.7, and 4 at 0.8: its potential is 0.8, without proof.
    ran = recommend("--delta", "0.01", "--method", "ft", "--budget", "2", "--task", "nominal", "--json")
    assert certified(ran) == {("ft", 2): 0.5}
    assert ran.answer["curves"][0]["measured"] == 0.8


def test_nothing_certified_ends_with_3_and_says_what_it_would_take(recommend):
    ran = recommend("--delta", "0.001", "--json")
    answer = ran.answer
    assert ran.code == 3
    assert answer["recommended"] is None
    # A network that loses nothing at all: z^2 / (n + z^2), and the number of images at which that is delta.
    level = 1 - 0.05 / 4
    assert (answer["nearest"]["ratio"], answer["nearest"]["budget"]) == (0.5, 2)
    assert answer["nearest"]["delta_needed"] == pytest.approx(upper(0, level), abs=1e-4)
    (first, second) = answer["unresolved"]
    assert {first["task"], second["task"]} == set(TASKS)
    assert upper(0, level, first["num_needed"]) <= 0.001 < upper(0, level, first["num_needed"] - 1)


@pytest.mark.parametrize("delta", ["0.001", "0.003", "0.008", "0.05"])
def test_text_fits_80_columns_but_for_what_is_to_be_copied(recommend, delta: str):
    lines = recommend("--delta", delta).out.splitlines()
    assert all(len(line) <= 80 for line in lines if not line.startswith(("checkpoint", "export")))


def test_text_says_what_to_ship_what_limits_it_and_that_the_level_is_shared(recommend):
    ran = recommend("--delta", "0.008")
    text = " ".join(ran.out.split())
    assert ran.code == 0
    assert "loses at most 0.8 points on each of 2 tasks, with 95 % confidence" in text
    assert "ship wt, 10 epochs, seed 0 at 80.0 % removed" in text
    assert "limited by noise/uniform/0.1" in text
    assert "shared out over 4 curves, each tested at 98.75 % (Bonferroni)" in text
    assert "cheaper wt, 2 epochs, seed 0 at 70.0 %: removes 10.00 points less" in text
    assert "looser 90.0 % removed fails on 2 of 2 tasks: noise/uniform/0.1 (lost +2.00, at most" in text
    assert "Holm-adjusted over 2 tasks" in text


def test_text_without_an_answer_says_why(recommend):
    text = " ".join(recommend("--delta", "0.001").out.split())
    assert "no pruned network is proven to lose at most 0.1 points" in text
    assert "2 test sets too small to tell a loss of 0.1 points from none" in text
    assert "certified from --delta" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--delta", "1"], "delta must be in (0, 1)"),
        (["--delta", "nan"], "delta must be in (0, 1)"),
        (["--confidence", "0.5"], "--confidence must be in (0.5, 1)"),
        (["--confidence", "95"], "--confidence must be in (0.5, 1)"),
        (["--task", "nominall"], "did you mean nominal?"),
        (["--task", "fog/*"], "no task of the sweep made-up matches 'fog/*': it has nominal, noise/uniform/0.1"),
        (["--method", "snip"], "has no method snip: it has wt, ft"),
        (["--budget", "3"], "has no budget 3: it has 2, 10"),
        (["--seed", "1"], "has no seed 1: it has 0"),
    ],
)
def test_wrong_input_is_one_line(recommend, words: list[str], message: str):
    ran = recommend(*words)
    assert ran.code == 2
    assert message in ran.err and ran.err.count("\n") == 1 and ran.out == ""


def test_unknown_sweep_is_one_line(prune_cli: Callable, storage: Path):
    ran = prune_cli("recommend", "made-upp", "--storage", storage)
    assert ran.code == 2 and "did you mean made-up?" in ran.err


def test_failed_probes_and_what_they_leave_open_are_named(prune_cli: Callable, tmp_path: Path):
    def predict(curve: Curve, ratio: float, task: str):
        is_failed = curve.is_dense if curve.seed == 1 else ratio == 0.9
        return None if is_failed else wrong(NUM)

    store_sweep(tmp_path, predict, ratios=RATIOS, num_images=NUM, seeds=(0, 1))
    ran = prune_cli("recommend", NAME, "--delta", "0.01", "--storage", tmp_path, "--json")
    assert ran.code == 0 and ran.answer["recommended"]["seed"] == 0
    failed = [(one["method"], one["seed"], one["ratio_asked"]) for one in ran.answer["failed"]]
    assert failed == [("dense", 1, 0.0), ("wt", 0, 0.9)]
    assert {one["seed"] for one in ran.answer["open"]} == {0, 1}
    # Also a curve of which nothing was measured is one of those that compete.
    assert ran.answer["confidence_of_each_curve"] == pytest.approx(0.975)


def test_sweep_in_which_nothing_was_measured_recommends_nothing(prune_cli: Callable, tmp_path: Path):
    store_sweep(tmp_path, lambda curve, ratio, task: None, ratios=RATIOS, num_images=NUM)
    ran = prune_cli("recommend", NAME, "--delta", "0.01", "--storage", tmp_path)
    assert ran.code == 3
    assert "no pruned network was measured" in ran.out and "parent of seed 0" in ran.out


def test_segmenter_is_certified_by_the_quantile_of_its_resampled_loss(prune_cli: Callable, tmp_path: Path):
    """Two classes, 100 pixels an image, half of each: a pixel of one taken for the other costs both."""
    num = 400
    both_N2 = np.full((num, 2), 50)

    def predict(curve: Curve, ratio: float, task: str):
        # On every image alike: no resample differs, and the bound is the loss.
        num_lost = 0 if curve.is_dense else {0.5: 0, 0.7: 1, 0.8: 5, 0.9: 20}[ratio]
        both = both_N2 - np.array([num_lost, 0])
        predicted = both_N2 + np.array([-num_lost, num_lost])
        arrays = {"both": both, "predicted": predicted, "true": both_N2}
        return {key: value.astype(np.int32) for key, value in arrays.items()} | {"loss": np.zeros(num, np.float32)}

    store_sweep(tmp_path, predict, ratios=RATIOS, num_images=num, metric="segmentation")
    ran = prune_cli("recommend", NAME, "--delta", "0.03", "--storage", tmp_path, "--json")
    network = ran.answer["recommended"]
    # One of 50 pixels lost: 1 - (49 / 50 + 50 / 51) / 2 = .0198; five: .0955.
    assert network["ratio"] == 0.7
    # Sums of a resample are single floats, of 24 bits: relative errors of 6e-8 of 20 000, in three of them.
    assert network["losses"][0]["upper_bound"] == pytest.approx(1 - (49 / 50 + 50 / 51) / 2, abs=1e-6)
    assert network["losses"][0]["p_value"] is None
    assert ran.answer["looser"]["ratio"] == 0.8
    text = prune_cli("recommend", NAME, "--delta", "0.03", "--storage", tmp_path).out
    assert "McNemar" not in text and "ship        wt" in text
