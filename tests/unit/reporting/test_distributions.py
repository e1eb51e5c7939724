"""Average and smallest potential over what training saw and over what it did not."""

from __future__ import annotations

from statistics import fmean

import pytest

from raypruning.core.records import SweepResults, Task
from raypruning.reporting.answer import standings
from raypruning.reporting.distributions import distributions, over, rows_of


def with_tasks(results: SweepResults, *, trained: tuple[str, ...] = ()) -> SweepResults:
    """The sample, its shifted tasks taken for corruptions of different kinds."""
    tasks = [
        task if task.nominal == task.name else task.model_copy(update={"corruption": {"kind": f"kind{index}"}})
        for index, task in enumerate(results.tasks)
    ]
    recipe = results.spec.recipe.model_copy(update={"train_corruptions": trained})
    return results.model_copy(
        update={"tasks": tuple(tasks), "spec": results.spec.model_copy(update={"recipe": recipe})}
    )


def names(tasks: tuple[Task, ...]) -> list[str]:
    return [task.name for task in tasks]


def test_what_was_trained_on_and_what_was_not_are_apart(results: SweepResults, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("raypruning.reporting.distributions.MIN_TASKS", 2)
    shifted = [task.name for task in results.tasks if task.nominal != task.name]
    nominal = [task.name for task in results.tasks if task.nominal == task.name]
    seen, unseen = distributions(with_tasks(results))
    assert (names(seen.tasks), names(unseen.tasks)) == (nominal, shifted)
    kind = with_tasks(results).tasks[-1].corruption["kind"]
    seen, _ = distributions(with_tasks(results, trained=(str(kind),)))
    assert names(seen.tasks) == [*nominal, results.tasks[-1].name]


def test_average_and_smallest_are_those_of_the_potentials(results: SweepResults, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("raypruning.reporting.distributions.MIN_TASKS", 2)
    results = with_tasks(results)
    delta = results.spec.deltas[0]
    rows = standings(results, delta=delta)
    for method, row in over(results, delta=delta).items():
        for part in distributions(results):
            ratios = [rows[method][task.name].ratio for task in part.tasks]
            one = row[part.name]
            if None in ratios:
                assert one.average is None and one.text(one.average) == "open"
            else:
                assert one.average == pytest.approx(fmean(ratios)) and one.smallest == min(ratios)
    assert len({len(texts) for _, _, texts in rows_of(results, delta=delta)}) == 1


def test_few_tasks_need_no_summary(results: SweepResults):
    few = results.model_copy(update={"tasks": results.tasks[:2]})
    assert distributions(few) == [] and rows_of(few, delta=few.spec.deltas[0]) == []
