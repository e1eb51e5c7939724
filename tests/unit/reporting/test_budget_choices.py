"""What reports say of a search over budgets, and what they leave out."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from raypruning.core.records import BudgetChoice, SweepResults
from raypruning.reporting.answer import searched_budgets, standings
from raypruning.reporting.budget_choices import TITLE, choice_notes, choice_rows
from raypruning.reporting.documents import to_json, to_markdown
from raypruning.reporting.html import render_html
from raypruning.reporting.tables import TerminalReport

CHOICES = (
    BudgetChoice(method="wt", seed=0, budget=2, distance=0.00449, tried=(2, 10), status="closed"),
    BudgetChoice(method="wt", seed=1, budget=10, distance=0.0, tried=(2, 10), status="open"),
    BudgetChoice(method="ft", seed=0, budget=None, distance=None, tried=(10,), status="open"),
)


@pytest.fixture
def searched(results) -> SweepResults:
    """Budgets 1, 2 and 10, of which 1 was not searched at all, and 2 not for `ft`."""

    def is_kept(method: str, budget: int) -> bool:
        return (method, budget) != ("ft", 2)

    search = results.spec.search.model_copy(update={"budget_search": True, "budget_distance": 0.005})
    return results.model_copy(
        update={
            "spec": results.spec.model_copy(update={"budgets": (1, *results.spec.budgets), "search": search}),
            "potentials": tuple(p for p in results.potentials if is_kept(p.curve.method, p.curve.budget)),
            "summaries": tuple(s for s in results.summaries if is_kept(s.method, s.budget)),
            "budget_choices": CHOICES,
        }
    )


def terminal(results: SweepResults) -> str:
    console = Console(file=StringIO(), width=120)
    console.print(TerminalReport(results))
    return console.file.getvalue()


def test_rows_say_the_budget_how_far_it_is_and_what_was_tried(searched):
    assert choice_rows(searched) == [
        ["wt", "0", "2 epochs", "0.4 points", "2, 10"],
        ["wt", "1", "? 10 epochs", "0 points", "2, 10"],
        ["ft", "0", "open", "", "10"],
    ]
    assert choice_notes(searched)[0].startswith("On every task and delta, its potential is at most 0.5 points below")


@pytest.mark.parametrize("render", [terminal, to_markdown, render_html])
def test_every_report_shows_the_choices_where_budgets_were_searched_and_only_there(searched, results, render):
    assert TITLE in render(searched) and "2, 10" in render(searched)
    assert TITLE not in render(results)


def test_json_holds_the_choices(searched):
    first = to_json(searched)["budget_choices"][0]
    assert first == {
        "method": "wt", "seed": 0, "budget": 2, "distance": 0.00449, "tried": [2, 10], "status": "closed"
    }  # fmt: skip


def test_budget_that_was_not_searched_is_left_out_and_not_called_open(searched):
    assert searched_budgets(searched) == [10, 2]
    row = standings(searched, delta=searched.spec.deltas[0], budget=2)["ft"]
    assert {(one.amount, one.status) for one in row.values()} == {("–", "unsearched")}
    assert "after 1 epoch of retraining" not in to_markdown(searched)


def test_without_a_search_over_budgets_a_budget_that_is_missing_is_open(searched):
    search = searched.spec.search.model_copy(update={"budget_search": False})
    unfinished = searched.model_copy(update={"spec": searched.spec.model_copy(update={"search": search})})
    assert searched_budgets(unfinished) == [10, 2, 1]
    row = standings(unfinished, delta=searched.spec.deltas[0], budget=2)["ft"]
    assert {one.amount for one in row.values()} == {"open"}
