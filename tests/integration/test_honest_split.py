"""`report --honest-split` on stored sweeps in which both halves are known, because the test fills them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from raypruning.analysis.split import first_half
from raypruning.core.records import Curve
from tests.integration.made_up_sweep import NAME, store_sweep, wrong_on

NUM = 1000
RATIOS = (0.5, 0.7, 0.9)
# Images lost in the half to choose on, and in the other, by ratio. Half of .02 of 1000 images is about 10.
LOST = {0.5: (0, 1), 0.7: (5, 40), 0.9: (30, 0)}


def predict(curve: Curve, ratio: float, task: str):
    """The parent has all right."""
    is_first_N = first_half(NUM)
    wrong_N = np.zeros(NUM, bool)
    if not curve.is_dense:
        for part_N, num in zip((is_first_N, ~is_first_N), LOST[ratio], strict=True):
            wrong_N[np.flatnonzero(part_N)[:num]] = True
    return wrong_on(wrong_N)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, prune_cli: Callable):
    folder = tmp_path_factory.mktemp("split") / "store"
    store_sweep(folder, predict, ratios=RATIOS, num_images=NUM, tasks=("nominal", "noise/uniform/0.1"))
    return lambda *words: prune_cli("report", NAME, "--storage", folder, *words)


def test_network_is_chosen_on_one_half_and_its_loss_is_that_on_the_other(report):
    num_first = int(first_half(NUM).sum())
    found = report("--honest-split", "--delta", "0.02", "--json").answer["honest_split"]
    assert [one["task"] for one in found] == ["nominal", "noise/uniform/0.1"]
    for one in found:
        assert (one["ratio"], one["num_chosen_on"], one["num_reported_on"]) == (0.7, num_first, NUM - num_first)
        assert one["loss_chosen_on"] == pytest.approx(5 / num_first, abs=1e-12)
        assert one["loss"] == pytest.approx(40 / (NUM - num_first), abs=1e-12)
        assert not one["is_within"]
        assert one["interval"]["low"] < one["loss"] < one["interval"]["high"]


def test_dense_parent_is_chosen_where_nothing_is_within_and_loses_nothing(tmp_path: Path, prune_cli: Callable):
    def predict(curve: Curve, ratio: float, task: str):
        return wrong_on(np.full(NUM, not curve.is_dense))

    store_sweep(tmp_path, predict, ratios=RATIOS, num_images=NUM)
    (one,) = prune_cli("report", NAME, "--storage", tmp_path, "--honest-split", "--json").answer["honest_split"]
    assert (one["ratio"], one["training"], one["loss"], one["is_within"]) == (0.0, None, 0.0, True)


def test_table_stands_in_the_terminal_and_in_markdown_where_it_was_asked_for(report, tmp_path: Path):
    ran = report("--honest-split", "--delta", "0.02", "--markdown", tmp_path / "report.md")
    text, loss = " ".join(ran.out.split()), 100 * 40 / (NUM - int(first_half(NUM).sum()))
    for shown in (text, (tmp_path / "report.md").read_text()):
        assert "Honest split: potential within 2 points on one half of the images" in shown
        assert f"70.0 % (+{loss:.2f})" in shown
        assert "2 of 2 lost more than 2 points" in shown
    assert "Honest split" not in report("--delta", "0.02").out


def test_halves_of_a_segmentation_have_the_error_of_their_own_pixels(tmp_path: Path, prune_cli: Callable):
    is_first_N = first_half(NUM)

    def predict(curve: Curve, ratio: float, task: str):
        # One class on all 10 pixels: the error is the share of pixels that are missed.
        missed_N = np.zeros(NUM, np.int32) if curve.is_dense else np.where(is_first_N, 1, 3)
        right_N1 = (10 - missed_N)[:, None].astype(np.int32)
        true_N1 = np.full((NUM, 1), 10, np.int32)
        return {"both": right_N1, "predicted": right_N1, "true": true_N1, "loss": np.zeros(NUM, np.float32)}

    store_sweep(tmp_path, predict, ratios=RATIOS, num_images=NUM, deltas=(0.2,), metric="segmentation")
    (one,) = prune_cli("report", NAME, "--storage", tmp_path, "--honest-split", "--json").answer["honest_split"]
    assert one["ratio"] == 0.9
    assert (one["loss_chosen_on"], one["loss"]) == pytest.approx((0.1, 0.3), abs=1e-12)
    # All images alike: resamples differ by the rounding of single floats alone, 6e-8 of sums of 10 per image.
    assert (one["interval"]["low"], one["interval"]["high"]) == pytest.approx((0.3, 0.3), abs=1e-6)
