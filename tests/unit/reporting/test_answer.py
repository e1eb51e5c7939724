import pytest

from raypruning.reporting.answer import (
    answer_context,
    answer_sentence,
    controls,
    excesses,
    largest_budget,
    standing,
    standings,
    weakest,
)

from . import sample

DELTA = 0.005


def _with_potentials(ratios, *, status="closed", tasks=None):
    """One method, budget and seed; `ratios` by task."""
    names = tuple(ratios)
    base = sample.tiny()
    potentials = tuple(
        base.potentials[0].model_copy(
            update={"task": name, "ratio": ratio, "status": status if ratio is not None else "open"}
        )
        for name, ratio in ratios.items()
    )
    return base.model_copy(
        update={
            "tasks": sample.task_records(names),
            "potentials": potentials,
            "summaries": tuple(sample.summary([one]) for one in potentials),
        }
    )


def test_answer_names_the_smallest_potential_the_nominal_one_and_the_weakest_task():
    results = _with_potentials({"nominal": 0.934, "noise/uniform/0.2": 0.869})
    assert answer_sentence(results) == (
        "wt keeps within 0.5 points of the parent's accuracy on every task when 86.9 % of the parameters are removed; "
        "on nominal alone 93.4 %. The weakest task is noise/uniform/0.2."
    )


def test_answer_without_shifted_task_speaks_of_the_nominal_one_only():
    assert answer_sentence(_with_potentials({"nominal": 0.934})) == (
        "wt keeps within 0.5 points of the parent's accuracy on nominal when 93.4 % of the parameters are removed."
    )


def test_answer_about_pixels_speaks_of_their_overlap():
    results = _with_potentials({"nominal": 0.934})
    pixels = [task.model_copy(update={"metric": "segmentation"}) for task in results.tasks]
    assert answer_sentence(results.model_copy(update={"tasks": tuple(pixels)})) == (
        "wt keeps within 0.5 points of the parent's mean IoU on nominal when 93.4 % of the parameters are removed."
    )


def test_answer_at_the_top_is_a_lower_bound():
    assert answer_sentence(_with_potentials({"nominal": 0.99}, status="at_top")) == (
        "wt keeps within 0.5 points of the parent's accuracy on nominal when at least 99.0 % of the parameters are "
        "removed, the largest ratio tried."
    )


def test_answer_of_an_open_search_is_a_lower_bound_and_says_so():
    assert answer_sentence(_with_potentials({"nominal": 0.8}, status="open")) == (
        "wt keeps within 0.5 points of the parent's accuracy on nominal when at least 80.0 % of the parameters are "
        "removed. Some potentials are still open."
    )


def test_answer_when_only_the_parent_qualifies_says_that_nothing_passes():
    assert answer_sentence(_with_potentials({"nominal": 0.6, "noise/uniform/0.2": 0.0})) == (
        "No method stays within 0.5 points of the parent's accuracy on every task at any ratio that was tried, wt "
        "included; on nominal alone 60.0 %. The weakest task is noise/uniform/0.2."
    )


def test_answer_is_not_known_when_one_task_has_no_potential():
    results = _with_potentials({"nominal": 0.9, "noise/uniform/0.2": None})
    assert answer_sentence(results) == ("Not known on every task yet: nothing could be measured on noise/uniform/0.2.")


def test_answer_is_not_known_when_every_parent_failed():
    assert answer_sentence(sample.empty()) == (
        "Not known: no parent network could be trained, so every potential is open."
    )


def test_answer_compares_the_other_methods(results):
    assert "On every task, by comparison: ft at least " in answer_sentence(results)
    assert answer_sentence(results).startswith("wt keeps")


def test_context_names_model_dataset_budget_and_seeds(results):
    assert answer_context(results) == "lenet5 on strokes, 10 epochs of retraining, mean over 2 seeds"


def test_standing_of_a_finished_search_is_the_summary(results):
    summary = next(s for s in results.summaries if (s.method, s.task, s.budget) == ("wt", "noise/uniform/0.1", 10))
    found = standing(results, method="wt", task="noise/uniform/0.1", delta=DELTA, budget=10)
    assert (found.ratio, found.status) == (summary.mean, "known")
    assert (found.low, found.high) == (summary.estimate.low, summary.estimate.high)


def test_standing_with_an_open_seed_is_the_mean_of_lower_bounds(results):
    bounds = [
        p.ratio
        for p in results.potentials
        if (p.curve.method, p.task, p.curve.budget) == ("ft", "noise/uniform/0.2", 10)
    ]
    found = standing(results, method="ft", task="noise/uniform/0.2", delta=DELTA, budget=10)
    assert found.status == "open"
    assert found.ratio == pytest.approx(sum(bounds) / len(bounds), abs=1e-12)  # the same sum in another order
    assert found.amount.startswith("? ≥ ")
    assert found.spread == ""


def test_standing_without_any_measurement_is_open():
    found = standing(sample.empty(), method="wt", task="nominal", delta=DELTA, budget=10)
    assert (found.ratio, found.amount) == (None, "open")


def test_standing_at_the_top_is_marked(results):
    found = standing(results, method="wt", task="nominal", delta=DELTA, budget=largest_budget(results))
    assert found.amount == "≥ 96.0 %"


def test_weakest_is_none_while_one_task_is_unknown():
    rows = standings(_with_potentials({"nominal": 0.9, "noise/uniform/0.2": None}), delta=DELTA)
    assert weakest(rows["wt"].values()) is None


def test_excess_is_taken_at_each_seeds_nominal_potential(results):
    task = results.tasks[2]
    nominal = {
        p.curve: p.ratio
        for p in results.potentials
        if (p.curve.method, p.curve.budget, p.task) == ("random", 10, "nominal")
    }
    values = [e.value for e in results.excess_errors if e.task == task.name and nominal.get(e.curve) == e.ratio]
    assert len(values) == 2
    found = excesses(results, delta=DELTA)["random"][task.name]
    assert found.value == pytest.approx(sum(values) / 2, abs=1e-12)


def test_excess_is_open_without_a_nominal_potential():
    results = sample.empty()
    assert excesses(results, delta=DELTA)["wt"]["noise/uniform/0.05"].amount == "open"


def test_controls_compare_the_retrained_parent_with_the_parent(results):
    errors = {
        (p.probe.curve.budget, p.probe.curve.seed): p.evaluations["nominal"].error
        for p in results.probes
        if p.probe.curve.is_dense
    }
    found = next(c for c in controls(results) if (c.budget, c.task) == (10, "nominal"))
    assert found.parent_error == pytest.approx((errors[0, 0] + errors[0, 1]) / 2, abs=1e-12)
    assert found.error == pytest.approx((errors[10, 0] + errors[10, 1]) / 2, abs=1e-12)
