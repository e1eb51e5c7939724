import io

import pytest
from rich.console import Console

from raypruning.reporting.documents import to_markdown
from raypruning.reporting.tables import ComparisonReport, TerminalReport

from . import sample


def _printed(report, *, width=80):
    text = io.StringIO()
    Console(file=text, width=width, color_system=None).print(report)
    return text.getvalue()


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_report_stays_within_the_width(any_results, width):
    lines = _printed(TerminalReport(any_results), width=width).splitlines()
    assert max(map(len, lines)) <= width
    assert "…" not in "".join(lines)  # nothing is cut off


def test_report_shows_status_marks_and_explains_them(results):
    text = _printed(TerminalReport(results), width=120)
    row = next(line for line in text.splitlines() if line.startswith("noise/uniform/0.2"))
    assert row.count("▾") == 3
    assert "≥ 96.0 %" in text
    assert "? ≥ 57.0 %" in text
    assert "* 61.6 %" in text
    for note in (
        "▾ weakest task",
        "≥ the largest ratio",
        "? or open",
        "* not monotone",
        "( ) where the limit lies with 90 % confidence",
    ):
        assert note in text


def test_the_mark_of_the_weakest_task_is_explained_where_it_stands(any_results):
    for text in (_printed(TerminalReport(any_results), width=120), to_markdown(any_results)):
        lines = [line for line in text.splitlines() if "▾" in line]
        explained = [line for line in lines if "▾ weakest task of the method." in line]
        assert len(explained) == (len(lines) > len(explained))


def test_no_task_is_the_weakest_where_all_stand_the_same():
    assert "▾" not in _printed(TerminalReport(sample.level()), width=120)


def test_report_names_the_budget_of_the_answer(results):
    text = _printed(TerminalReport(results), width=120)
    assert "within 0.5 points, after 10 epochs of retraining" in text


def test_report_has_a_table_for_each_delta():
    text = _printed(TerminalReport(sample.realistic(deltas=(0.005, 0.02))), width=120)
    assert "can be removed within 0.5 points" in text
    assert "can be removed within 2 points" in text


def test_report_of_chosen_deltas_leaves_the_others_out():
    text = _printed(TerminalReport(sample.realistic(deltas=(0.005, 0.02)), deltas=[0.02]), width=120)
    assert "0.5 points" not in text


def test_methods_that_do_not_fit_go_into_a_second_table(results):
    text = _printed(TerminalReport(results), width=50)
    heads = [line for line in text.splitlines() if line.startswith("task")]
    assert len([line for line in heads if "wt" in line or "ft" in line or "random" in line]) > 2


def test_names_with_brackets_are_shown_as_they_are(hostile):
    text = _printed(TerminalReport(hostile), width=300)
    assert hostile.spec.name in text


def test_comparison_shows_each_sweep_and_the_change(results):
    longer = results.model_copy(
        update={
            "spec": results.spec.model_copy(update={"name": "longer"}),
            "summaries": tuple(
                s.model_copy(update={"mean": s.mean + 0.01 if s.mean is not None else None}) for s in results.summaries
            ),
        }
    )
    text = _printed(ComparisonReport([results, longer]), width=140)
    row = next(line for line in text.splitlines() if "noise/uniform/0.1 " in line)
    assert "90.4 %" in row
    assert "91.4 %" in row
    assert row.endswith("+1.0")


def test_comparison_of_three_tells_what_differs_and_has_gaps(results):
    text = _printed(ComparisonReport([results, sample.tiny(), sample.empty()]), width=140)
    assert "–" in text
    assert "change" not in text
    row = next(line for line in text.splitlines() if line.startswith("budgets"))
    assert row.split() == ["budgets", "2,", "10", "2", "2,", "10"]


def test_comparison_of_a_sweep_with_itself_finds_no_difference(results):
    text = _printed(ComparisonReport([results, results]), width=140)
    assert "What differs" not in text
    assert "lenet5-strokes (2)" in text
