"""What is said of weights: the sentence, the numbers, and what is left out."""

from __future__ import annotations

import io
from xml.etree import ElementTree

import pytest
from rich.console import Console

from raypruning.reporting.weights import WeightsReport, conclusion, layer_row, notes, numbers, panels

from . import sample
from .weight_sample import sweep_weights


def printed(found, width: int = 100) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(WeightsReport(found))
    return console.export_text()


def test_sentence_names_the_layers_that_are_cut_most_and_least():
    found = sweep_weights()
    said = conclusion(found)
    last = found.curves[0].networks[-1]
    assert f"wt cuts fc1 the most ({100 * last.layers[2].ratio:.1f} %) and conv1 the least" in said
    assert f"at {100 * last.ratio:.1f} % removed" in said


def test_sentence_names_layers_of_which_nothing_is_left_and_dead_units():
    said = conclusion(sweep_weights(removed="fc1"))
    assert "120 of 152 units without a weight (120 of 120 in fc1); nothing at all is left of fc1" in said


def test_sentence_says_where_all_layers_are_cut_alike():
    # Of 100 weights each, cut alike by half of the ratio.
    said = conclusion(sweep_weights(shapes={"a": (10, 10), "b": (10, 10)}))
    assert "every layer alike (48.0 %)" in said


def test_sentence_of_several_seeds_is_of_their_mean_and_of_several_budgets_names_them():
    seeds = conclusion(sweep_weights([("wt", 10, 0), ("wt", 10, 1)]))
    assert "mean of 2 seeds" in seeds and "epochs" not in seeds
    budgets = conclusion(sweep_weights([("wt", 2, 0), ("wt", 10, 0)]))
    assert "wt after 2 epochs of retraining" in budgets and "; wt after 10 epochs of retraining" in budgets


def test_numbers_are_means_over_seeds_by_layer_and_ratio():
    found = sweep_weights([("wt", 10, 0), ("wt", 10, 1)])
    by_name = {(one.name, round(one.ratio_reached, 3)): one for one in numbers(found)}
    networks = [one.networks[-1] for one in found.curves]
    at = round(sum(network.ratio for network in networks) / 2, 3)
    expected = sum(network.layers[2].ratio for network in networks) / 2
    assert by_name["weights/ratio_of/fc1", at].value == pytest.approx(expected)
    assert by_name["weights/dead_units", at].value == sum(network.num_dead for network in networks) / 2
    assert {(one.method, one.budget) for one in numbers(found)} == {("wt", 10)}
    # Two ratios are those of both seeds, and three of each are not; four layers, dead units, removed layers.
    assert len(numbers(found)) == (2 + 3 + 3) * (4 + 2)


def test_panels_are_two_for_each_method_and_budget_whatever_the_seeds():
    found = sweep_weights([("wt", 10, 0), ("wt", 10, 1), ("ft", 10, 0)])
    shown = panels(found)
    assert [one.title.partition(",")[0] for one in shown] == ["Ratio of each layer", "Surviving weights"] * 2
    assert ["wt" in shown[0].title, "ft" in shown[2].title] == [True, True]
    assert "seed 0" in shown[0].title
    for one in shown:
        ElementTree.fromstring(one.svg)


def test_row_of_a_removed_layer_has_no_norms_of_units():
    found = sweep_weights(removed="fc1")
    row = layer_row(found.curves[0].networks[-1].layers[2])
    assert (row["num_kept"], row["ratio"], row["num_dead_units"]) == (0, 1.0, 120)
    assert row["smallest_unit_norm"] is row["mean_unit_norm"] is row["largest_unit_norm"] is None


def test_table_has_each_layer_and_fits_80_columns():
    found = sweep_weights()
    lines = printed(found, width=80).splitlines()
    assert all(len(line) <= 80 for line in lines)
    for name in ("conv1", "conv2", "fc1", "fc2", "dead units", "error on nominal"):
        assert any(line.startswith(name) for line in lines)


def test_notes_say_what_is_not_drawn_missing_or_failed():
    many = sweep_weights(shapes={f"layer{index}": (4, 8) for index in range(30)})
    assert "12 of 30 layers" in notes(many)[0]
    probes = [one.probe for one in sample.realistic().probes if one.probe.curve == sample.curve("wt", 10, 0)]
    lost = sweep_weights()._replace(missing=tuple(probes[:1]), failed=tuple(probes[1:2]))
    said = "\n".join(notes(lost))
    assert "not in the store" in said and "wt, 10 epochs, seed 0 at 50 %" in said and "failed" in said
    assert "prune-cli sweep lenet5-strokes" in said
    assert notes(sweep_weights()) == []
