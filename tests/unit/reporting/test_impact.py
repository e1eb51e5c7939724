"""What is said and drawn of classes: in one sentence, in tables of any width, as numbers, and as figures."""

from __future__ import annotations

import csv
import io
import json
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from rich.console import Console

from raypruning.analysis.class_impact import Answers, Impact, PopulationImpact, population_impact
from raypruning.core.populations import Population
from raypruning.reporting import impact_plots
from raypruning.reporting.files import write_figures
from raypruning.reporting.impact import blocks, conclusion, headlines, numbers, short_name, what_was_tested
from raypruning.reporting.impact_documents import impact_csv, impact_json
from raypruning.reporting.impact_tables import ImpactReport, overview_table, recall_table
from raypruning.reporting.populations import class_name

IMAGES = 100
NAMES = ("T-shirt", "Trouser", "Pullover", "Dress")


class Reached:
    def __init__(self, ratio: float):
        self.ratio_reached = ratio


def networks(recall_KC: list[list[int]]) -> Answers:
    """That have so many of the first of a hundred images of each class right."""
    right_KN = np.array([np.concatenate([np.arange(IMAGES) < num for num in row]) for row in recall_KC])
    return Answers(tuple(range(len(recall_KC))), right_KN)


def compared(
    dense_KC: list[list[int]],
    pruned_KC: list[list[int]],
    *,
    task: str = "nominal",
    ratio: float = 0.9,
    method: str = "wt",
) -> PopulationImpact:
    return population_impact(
        task,
        Population(method, 2, ratio, (Reached(ratio),)),
        dense=networks(dense_KC),
        pruned=networks(pruned_KC),
        label_N=np.repeat(np.arange(len(dense_KC[0])), IMAGES),
    )


def impact_of(*populations: PopulationImpact, names: tuple[str, ...] = NAMES, **fields) -> Impact:
    return Impact("fashion", "/store", "lenet5", "fashion_mnist", names, "bh", 0.05, populations, **fields)


def spread(recall_C: list[int], *, num: int = 6) -> list[list[int]]:
    """Networks that differ a little, each class in its own way."""
    random = np.random.default_rng(len(recall_C))
    return (np.array(recall_C) + random.integers(-2, 3, (num, len(recall_C)))).clip(0, IMAGES).tolist()


DENSE = spread([90, 95, 85, 90])
HARMLESS = compared(DENSE, DENSE, ratio=0.5)
HARMFUL = compared(DENSE, spread([88, 94, 60, 89]), ratio=0.9)
GONE = compared(DENSE, [*spread([70, 90, 0, 80])[:-1], [70, 90, 0, 80]], ratio=0.95)
NEVER = compared([[90, 95, 85, 90]], [[88, 93, 0, 89]], ratio=0.95)


def shown(renderable: object, *, width: int) -> str:
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(renderable)
    return console.export_text()


# -- words -----------------------------------------------------------------------------------------------------------


def test_class_has_a_number_and_a_name_that_is_none_itself():
    assert class_name(impact_of(HARMLESS).class_names, 2) == "2 Pullover"
    assert class_name(impact_of(HARMLESS, names=()).class_names, 2) == "2"
    assert class_name(impact_of(HARMLESS, names=tuple("0123")).class_names, 2) == "2"
    assert short_name(impact_of(HARMLESS, names=("a" * 50,)), 0, letters=10) == "0 aaaaaaa…"


def test_conclusion_is_that_nothing_can_be_told_where_nothing_is_significant():
    assert conclusion(impact_of(HARMLESS)) == (
        "No class loses significantly more than accuracy does in the one comparison of 6 networks each, up to 50.0 % "
        "removed."
    )


def test_conclusion_names_the_class_that_pays_most_beside_accuracy():
    found = conclusion(impact_of(HARMLESS, HARMFUL))
    (lost,) = HARMFUL.lost
    recalls = f"{100 * lost.dense.mean:.1f} % to {100 * lost.pruned.mean:.1f} %"
    assert found.startswith(
        f"Class 2 Pullover pays most: at 90.0 % removed (wt, 2 epochs, nominal) its recall goes from {recalls}"
    )
    assert "in 1 of 2 comparisons some class loses significantly more than accuracy does." in found


def test_conclusion_is_the_headline_where_a_class_is_never_found():
    assert conclusion(impact_of(HARMFUL, NEVER)) == (
        "At 95.0 % removed (wt, 2 epochs, nominal), accuracy is still 67.5 % (dense 90.0 %), and class 2 Pullover is "
        "never found (dense recall 85.0 %)."
    )


def test_class_missed_by_one_network_is_told_with_its_seed_and_accuracy():
    one = compared(DENSE, [[88, 93, 60, 89], [88, 93, 0, 89], *DENSE[2:]])
    (headline,) = headlines(impact_of(one))
    assert headline.harm == "1 of 6 networks never finds class 2 Pullover (seed 1, accuracy 67.5 %)"


def test_headlines_begin_with_what_the_best_accuracy_hides_and_end_with_collapses():
    collapsed = compared(DENSE, spread([90, 95, 40, 90]), ratio=0.8)
    wreck = compared([[90, 95, 85, 90]], [[90, 0, 0, 0]], ratio=0.99)
    found = headlines(impact_of(HARMLESS, collapsed, wreck, NEVER))
    assert [one.population for one in found] == [NEVER, wreck, collapsed]
    assert found[1].accuracy == "accuracy is down to 22.5 % (dense 90.0 %)"
    assert "classes 1 Trouser, 3 Dress and 2 Pullover are never found (dense recall 85.0 % to 95.0 %)" in found[1].text
    assert "class 2 Pullover keeps less than half of its recall" in found[2].harm


def test_sweep_whose_accuracy_is_lost_as_well_is_not_concluded_from_a_lost_class():
    wreck = compared([[90, 95, 85, 90]], [[90, 0, 0, 0]], ratio=0.99)
    assert "pays most" in conclusion(impact_of(wreck))


def test_notes_say_which_tests_were_made_and_which_correction():
    both = " ".join(what_was_tested(impact_of(HARMFUL, NEVER, left_out=("voc",))))
    assert "Welch's t-test" in both and "McNemar" in both and "Benjamini-Hochberg" in both and "Left out" in both
    exact = " ".join(what_was_tested(impact_of(NEVER)._replace(correction="none")))
    assert "Welch" not in exact and "not adjusted" in exact


# -- documents -------------------------------------------------------------------------------------------------------


def test_json_is_strict_and_holds_every_class_worst_first():
    same = compared([[90, 80]] * 5, [[0, 80]] * 5)  # without spread: no t
    answer = json.loads(json.dumps(impact_json(impact_of(HARMFUL, NEVER, same)), allow_nan=False))
    first = answer["populations"][0]
    assert [one["label"] for one in first["classes"]] == [one.label for one in HARMFUL.worst_first]
    assert first["classes"][0]["name"] == "Pullover" and first["num_classes_lost"] == len(HARMFUL.lost) == 1
    assert answer["populations"][2]["classes"][0]["statistic"] is None
    assert answer["conclusion"] == conclusion(impact_of(HARMFUL, NEVER, same))


def test_csv_has_a_row_for_each_class_and_leaves_out_what_was_not_tested():
    rows = list(csv.DictReader(io.StringIO(impact_csv(impact_of(HARMFUL, NEVER)))))
    assert [row["class"] for row in rows] == list("0123") * 2
    assert {row["pvalue_recall_norm"] == "" for row in rows[:4]} == {False}
    assert {row["pvalue_recall_norm"] + row["statistic_recall_norm"] + row["effect_size"] for row in rows[4:]} == {""}
    assert rows[6]["variant_recall_num_zero"] == "1" and rows[6]["images_lost"] == "85"
    assert float(rows[2]["recall_lost"]) == HARMFUL.classes[2].lost


def test_numbers_have_the_name_of_their_task_and_are_those_of_the_population():
    found = numbers(impact_of(HARMFUL, NEVER))
    by_name = {(one.ratio_reached, one.name): one.value for one in found}
    assert len(by_name) == len(found)
    assert by_name[0.9, "impact/nominal/classes_lost"] == 1
    assert by_name[0.9, "impact/nominal/worst_class_loss"] == HARMFUL.lost[0].lost_beyond
    assert by_name[0.95, "impact/nominal/classes_never_found"] == 1
    assert by_name[0.95, "impact/nominal/worst_class_recall"] == 0


# -- tables ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [80, 110])
def test_report_fits_the_terminal_and_begins_with_the_headline(width: int):
    ratios = [compared(DENSE, spread([88, 94, 80 - num, 89]), ratio=0.5 + num / 30) for num in range(12)]
    text = shown(ImpactReport(impact_of(*ratios, GONE)), width=width)
    assert max(map(len, text.splitlines())) <= width
    first, second = text.splitlines()[:2]
    assert first.startswith("fashion") and second.startswith("! nominal, wt, 2 epochs, 95.0 % removed")
    # Every ratio has its column, whatever the width: in overview and table of classes, and where something was lost.
    for one in ratios:
        assert text.count(f"{100 * one.ratio:.1f} %") >= 2


def test_overview_counts_and_sizes_what_was_lost_and_gained():
    text = shown(overview_table(impact_of(HARMLESS, HARMFUL)), width=110)
    (lost,) = HARMFUL.lost
    gained = HARMFUL.gained
    mean = -100 * sum(one.tested for one in gained) / len(gained)
    assert f"1 by {100 * lost.tested:.1f}  {len(gained)} by {mean:.1f}  2 Pullover" in text
    assert f"nominal, wt, 2 epochs; dense accuracy {100 * HARMFUL.accuracy_dense.mean:.1f} %" in text
    assert f"All together: lost 1 by {100 * lost.tested:.1f}, gained {len(gained)} by {mean:.1f}." in text


def test_thousand_classes_are_the_worst_and_the_best_and_a_count_of_the_others():
    many = compared([[90] * 1000], [[(7 * label) % 90 for label in range(1000)]])
    found = impact_of(many, names=tuple(f"a class with a long name, {label}" for label in range(1000)))
    (block,) = blocks(found)
    text = shown(recall_table(found, block, width=80), width=80)
    assert "985 classes in between are left out" in text and len(text.splitlines()) < 24
    assert max(map(len, text.splitlines())) <= 80
    worst, best = many.worst_first[0], many.worst_first[-1]
    assert short_name(found, worst.label) in text and short_name(found, best.label) in text
    (panel,) = impact_plots.panels(found)
    assert "978 classes in between" in texts(panel.svg) and len(panel.svg) < 100_000


def test_many_comparisons_are_those_that_lost_most_and_a_count_of_the_others():
    few = [compared(DENSE, spread([90, 95, 84 - num, 90]), task=f"task/{num}") for num in range(30)]
    text = shown(overview_table(impact_of(*few)), width=110)
    assert "task/29," in text and "task/0," not in text and "6 more, with smaller losses, are left out" in text


def test_mark_of_networks_that_miss_a_class_is_explained():
    one = compared(DENSE, [[88, 93, 0, 89], [88, 93, 0, 89], *DENSE[2:]])
    text = shown(ImpactReport(impact_of(one)), width=80)
    assert "2×0" in text and "of three of the networks recall is 0" in text
    assert "×0" not in shown(ImpactReport(impact_of(HARMFUL)), width=80)


# -- figures ---------------------------------------------------------------------------------------------------------


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter() if element.tag.endswith("text")]


def test_page_shows_the_ratios_and_the_classes_at_the_largest_tolerable_one():
    wreck = compared(DENSE, spread([20, 10, 10, 20]), ratio=0.99)
    over, classes = impact_plots.panels(impact_of(HARMLESS, HARMFUL, wreck))
    assert {"accuracy", "2 Pullover"} <= set(texts(over.svg))
    assert "wt, 2 epochs, 90.0 % removed" in texts(classes.svg)
    assert f"● {len(HARMFUL.lost)} lost more than accuracy" in texts(classes.svg)


def test_class_that_is_never_found_is_marked_in_its_figure():
    (panel,) = impact_plots.panels(impact_of(NEVER))
    assert texts(panel.svg).count("never found") == 1
    assert "● 1 lost" in texts(panel.svg)  # tested over images: more than accuracy was not asked


def test_figures_are_the_same_each_time_follow_the_page_and_need_nothing_else():
    name = '<script>alert("1")</script>$\\frac$'
    found = impact_of(HARMLESS, HARMFUL, names=(name,) * 4)
    panels = impact_plots.panels(found)
    assert panels == impact_plots.panels(found)
    for panel in panels:
        assert "<script" not in panel.svg and not re.search(r"(fill|stroke): #", panel.svg)
        assert not re.search(r"href=\"(?!#)", panel.svg)


def test_files_have_names_of_their_own_a_font_and_a_ground(tmp_path):
    paths = write_figures(
        tmp_path,
        impact_plots.named_figures(impact_of(HARMLESS, HARMFUL, compared(DENSE, DENSE, task="noise/0.1"))),
    )
    assert [path.name for path in paths] == [
        "nominal_wt_2_0.5.svg",
        "nominal_wt_2_0.9.svg",
        "noise-0.1_wt_2_0.9.svg",
        "nominal_wt_2_ratios.svg",
    ]
    for path in paths:
        text = path.read_text()
        assert "font-family" in text and "background" in text and ElementTree.fromstring(text) is not None
