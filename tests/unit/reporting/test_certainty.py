"""What is said of certified ratios and of how many images they take."""

from __future__ import annotations

import pytest

from raypruning.reporting.certainty import certified, certified_line, certified_notes, resolution_note

from . import sample

DELTA = 0.005


@pytest.fixture(scope="module")
def results():
    return sample.realistic()


def test_certified_ratio_of_a_method_on_a_task_is_that_of_its_worst_seed(results):
    for method, row in certified(results, delta=DELTA).items():
        for task, found in row.items():
            seeds = [
                one.certified
                for one in results.potentials
                if (one.curve.method, one.task, one.delta) == (method, task, DELTA)
                and one.curve.budget == max(results.spec.budgets)
            ]
            assert found.ratio == min(seeds)
            assert found.amount == ("none" if min(seeds) == 0 else f"{100 * min(seeds):.1f} %")


def test_line_names_what_holds_on_every_task_at_once(results):
    rows = certified(results, delta=DELTA)
    line = certified_line(results, delta=DELTA)
    assert line.startswith("Certified at 95 % on every task: ")
    for method, row in rows.items():
        assert f"{method} {100 * min(one.ratio for one in row.values()):.1f} %" in line or f"{method} none" in line


def test_tasks_with_too_few_images_are_named_with_how_many_it_takes(results):
    cells = [one for row in certified(results, delta=DELTA).values() for one in row.values()]
    short = {one.task for one in cells if one.num_needed > one.num_examples}
    assert short and "nominal" not in short
    note = resolution_note(results, delta=DELTA)
    assert "takes up to 13\N{NO-BREAK SPACE}000 images" in note  # 12 345, to two digits
    assert all(one.spread == "needs 13\N{NO-BREAK SPACE}000 images" for one in cells if one.task in short)
    assert all(one.spread == "" for one in cells if one.task not in short)
    assert certified_notes(results, delta=DELTA)[-1] == note


def test_nothing_measured_is_nothing_certified():
    empty = sample.empty()
    assert certified_line(empty, delta=DELTA) == resolution_note(empty, delta=DELTA) == ""
