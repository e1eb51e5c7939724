import re
from xml.etree import ElementTree

import pytest

from raypruning.reporting import plots
from raypruning.reporting.comparison import compared_rows
from raypruning.reporting.comparison_plots import comparison_panels

from . import sample

DELTA = 0.005


def _all_panels(results):
    return [
        *plots.error_panels(results, delta=DELTA),
        *plots.potential_panels(results, delta=DELTA),
        *plots.excess_panels(results, delta=DELTA),
        *plots.budget_panels(results, delta=DELTA),
        *comparison_panels(["a", "b"], compared_rows([results, results], delta=DELTA)),
    ]


def _texts(svg):
    return [element.text for element in ElementTree.fromstring(svg).iter() if element.tag.endswith("text")]


@pytest.fixture(scope="module")
def panels(results):
    return _all_panels(results)


def test_there_is_a_panel_for_each_task_method_and_shift(results):
    assert len(plots.error_panels(results, delta=DELTA)) == len(results.tasks)
    assert len(plots.potential_panels(results, delta=DELTA)) == 3
    assert len(plots.excess_panels(results, delta=DELTA)) == 1 + 3
    assert len(plots.budget_panels(results, delta=DELTA)) == len(results.tasks)


def test_panels_are_whole_xml_with_real_text_and_nothing_from_outside(panels):
    for panel in panels:
        assert _texts(panel.svg)
        assert not re.search(r"href=\"(?!#)", panel.svg)
        assert "font-family" not in panel.svg


def test_panels_are_the_same_each_time(results, panels):
    assert _all_panels(results) == panels


def test_ids_differ_between_panels(panels):
    shown = panels[: len(panels) - 3]  # the comparison is another page
    ids = [found for panel in shown for found in set(re.findall(r'id="([^"]*)"', panel.svg))]
    assert len(ids) == len(set(ids))


def test_every_colour_follows_the_page(panels):
    for panel in panels:
        assert not re.search(r"(fill|stroke): #", panel.svg)


def test_error_panel_labels_what_is_kept_the_threshold_and_the_parents_error(results):
    texts = _texts(plots.error_panels(results, delta=DELTA)[0].svg)
    parents = [p for p in results.probes if p.probe.curve.is_dense and p.probe.curve.budget == 0]
    dense = sum(p.evaluations["nominal"].error for p in parents) / len(parents)
    assert {"nominal", "100", "10", "−90", "0", "+0.5", f"{100 * dense:.1f} %"} <= set(texts)


def test_potential_panel_writes_the_amounts_of_the_table(results):
    texts = _texts(plots.potential_panels(results, delta=DELTA)[0].svg)
    assert "≥ 96.0 % (95.0 to 96.6)" in texts
    assert "noise/uniform/0.2 ▾" in texts


def test_sweeps_without_measurements_have_no_panels():
    assert _all_panels(sample.empty()) == []
    assert _all_panels(sample.nothing()) == []


def test_one_budget_has_no_budget_panels():
    assert plots.budget_panels(sample.tiny(), delta=DELTA) == []


def test_one_seed_and_one_task_are_drawn():
    assert len(plots.error_panels(sample.tiny(), delta=DELTA)) == 1
    assert plots.excess_panels(sample.tiny(), delta=DELTA) == []


def test_names_are_text_not_markup_nor_formulas(hostile):
    for panel in plots.potential_panels(hostile, delta=DELTA):
        assert "<script" not in panel.svg
    assert hostile.spec.name in _texts(plots.potential_panels(hostile, delta=DELTA)[-1].svg)


def test_letters_that_no_font_has_are_drawn_without_a_warning(results):
    renamed = results.model_copy(
        update={"tasks": (results.tasks[0].model_copy(update={"name": "雪", "nominal": "雪"}),)}
    )
    assert "雪" in _texts(
        plots.potential_panels(
            results.model_copy(
                update={
                    "tasks": renamed.tasks,
                    "summaries": tuple(
                        s.model_copy(update={"task": "雪"}) for s in results.summaries if s.task == "nominal"
                    ),
                }
            ),
            delta=DELTA,
        )[0].svg
    )
