"""What is concluded and drawn of similarities that are written down."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from raypruning.analysis.similarity import Churn, Estimate, Lead, Likeness, NoiseLevel, Similarity
from raypruning.core.records import Interval
from raypruning.reporting.similarity import (
    SimilarityReport,
    conclusion,
    control_hint,
    numbers,
    similarity_rows,
)
from raypruning.reporting.similarity_plots import churn_tasks, panels, spread_places

AMPLITUDES = tuple(step / 20 for step in range(15))


def estimate(value: float, error: float = 0.01) -> Estimate:
    return Estimate(value=value, standard_error=error, degrees=1000.0, sd=0.02)


def likeness(
    matching: float,
    *,
    ratio: float = 0.0,
    method: str = "wt",
    budget: int = 2,
    lead: float | None = None,
    tasks: Sequence[str] = ("nominal",),
    amplitudes: Sequence[float] = AMPLITUDES,
) -> Likeness:
    """Of a network that matches on so much at every level."""
    return Likeness(
        method=method,
        budget=budget,
        ratio=ratio,
        ratio_reached=ratio,
        seeds=(0, 1, 2),
        networks=("a", "b", "c"),
        levels=tuple(
            NoiseLevel(amplitude=one, matching=estimate(matching), distance=estimate(1 - matching))
            for one in amplitudes
        ),
        churn=tuple(
            Churn(
                task=task,
                num_examples=100,
                rate=estimate(0.01 * index + 0.1),
                interval=Interval(low=0.05, high=0.01 * index + 0.2),
            )
            for index, task in enumerate(tasks)
        ),
        cka=estimate(matching),
        lead=None if lead is None else Lead(matching=estimate(lead), distance=estimate(lead)),
    )


def similarity(*populations: Likeness, control: float | None = 0.8) -> Similarity:
    first = populations[0]
    tasks = [one.task for one in first.churn]
    amplitudes = [one.amplitude for one in first.levels]
    separate = likeness(control or 0.0, method="dense", budget=0, tasks=tasks, amplitudes=amplitudes)
    return Similarity(
        fingerprint="f",
        sweep="demo",
        model="lenet5",
        dataset="strokes",
        data_fingerprint="d",
        images=100,
        num_test_images=100,
        draws=1,
        amplitudes=tuple(amplitudes),
        seeds=(0, 1, 2) if control else (0,),
        parents=("p",),
        populations=populations,
        control=separate if control else None,
        features="fc2",
        num_features=50,
        num_forwards=1,
        seconds=1.0,
        device="cpu",
    )


def population(ratio: float, lead: float, **options) -> Likeness:
    return likeness(0.8 + lead, ratio=ratio, lead=lead, **options)


def text_of(found: Similarity, width: int = 110) -> str:
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(SimilarityReport(found))
    return capture.get()


@pytest.mark.parametrize(
    ("leads", "said"),
    [
        ((0.1, 0.05), "stay closer than that at every measured ratio (still 85.0 % at 80.0 %)"),
        ((0.1, -0.1), "stay closer than that up to 50.0 % removed (90.0 %; 70.0 % at 80.0 %)"),
        ((0.1, 0.01), "stay closer than that up to 50.0 % removed (90.0 %; 81.0 % at 80.0 %, too near to tell)"),
        ((-0.1, 0.1), "stay closer than that at no measured ratio (70.0 % at 50.0 %)"),
        ((0.0, 0.1), "stay closer than that at no measured ratio (80.0 % at 50.0 %, too near to tell)"),
    ],
)
def test_conclusion_goes_up_to_the_first_ratio_that_is_not_surely_closer(leads: tuple[float, float], said: str):
    found = conclusion(similarity(population(0.5, leads[0]), population(0.8, leads[1])))
    assert found.startswith("Over noise from 0 to 0.7, a separately trained network agrees with the parent on 80.0 %")
    assert said in found and found.endswith(".")


def test_conclusion_names_methods_and_budgets_only_where_there_are_several():
    both = similarity(population(0.5, 0.1), population(0.5, -0.1, method="ft"))
    assert "at every measured ratio with wt (still 90.0 % at 50.0 %) and at no measured ratio with ft" in conclusion(
        both
    )
    budgets = similarity(population(0.5, 0.1), population(0.5, 0.1, budget=1))
    assert "with 2 epochs (still" in conclusion(budgets) and "with 1 epoch (still" in conclusion(budgets)
    assert "with" not in conclusion(similarity(population(0.5, 0.1))).replace("with the parent", "")


def test_conclusion_without_control_says_that_it_is_not_known():
    found = similarity(likeness(0.9, ratio=0.5), control=None)
    assert "agree with their parent on 90.0 % at 50.0 % removed" in conclusion(found)
    assert "not known" in conclusion(found)
    hint = control_hint(found, storage_flag=" --storage here")
    assert hint.endswith("prune-cli sweep demo --population 2 --storage here") and "\n" not in hint
    assert control_hint(similarity(population(0.5, 0.1))) == ""


@pytest.mark.parametrize(("width", "num_more"), [(110, 2), (80, 4)])
def test_report_fits_its_width_with_many_levels_tasks_and_methods(width: int, num_more: int):
    tasks = ("nominal", *(f"corruption/{name}/3" for name in ("fog", "frost", "snow", "contrast", "brightness")))
    found = similarity(
        *(population(ratio, 0.1, method=method, tasks=tasks) for method in ("wt", "unit_l2") for ratio in (0.5, 0.98))
    )
    text = text_of(found, width)
    assert max(map(len, text.splitlines())) <= width and "…" not in text
    # The nominal task, and those with the largest churn.
    assert "nominal" in text and "brightness/3" in text and "fog/3" not in text
    assert f"{num_more} more tasks, with less churn, in --csv and --json" in text


def test_table_marks_a_lead_that_is_sure():
    lines = text_of(similarity(population(0.5, 0.1), population(0.8, 0.01), population(0.9, -0.1))).splitlines()
    leads = [line.split()[-3:] for line in lines if line.lstrip().startswith(("50.0 %", "80.0 %", "90.0 %"))][:3]
    assert leads == [["+10.0", "±", "1.0*"], ["+1.0", "±", "1.0"], ["−10.0", "±", "1.0*"]]


@given(st.integers(1, 40), st.integers(0, 12))
def test_what_has_room_is_the_first_the_last_and_some_evenly_between(num: int, limit: int):
    places = spread_places(num, limit=limit)
    assert len(places) == min(num, max(2, limit)) and places == sorted(set(places))
    assert (places[0], places[-1]) == (0, num - 1)
    gaps = [after - before for before, after in pairwise(places)]
    assert max(gaps, default=0) - min(gaps, default=0) <= 1


def test_figures_of_many_ratios_show_six_of_them():
    found = similarity(*(population(ratio / 100, 0.1) for ratio in range(50, 90, 2)))
    matching = panels(found)[0].svg
    assert matching.count(" %</text>") == 6 and "50.0 %" in matching and "88.0 %" in matching


def test_tasks_that_are_drawn_are_the_first_and_those_with_the_largest_churn():
    row = [likeness(0.9, tasks=[f"task{index}" for index in range(12)])]
    assert churn_tasks(row, limit=3) == [0, 10, 11]
    assert churn_tasks(row, limit=12) == list(range(12))


@pytest.mark.parametrize("control", [0.8, None])
def test_panels_are_well_formed_and_named_apart(control: float | None):
    found = similarity(population(0.5, 0.1), population(0.8, -0.1), population(0.5, 0.1, method="ft"), control=control)
    drawn = panels(found)
    assert len(drawn) == 7 == len({one.title for one in drawn})  # three for each method, and one of features
    for one in drawn:
        ET.fromstring(one.svg)
        assert (">separate<" in one.svg or "| separate" in one.svg) == bool(control)


def test_without_noise_there_is_no_curve_over_levels():
    found = similarity(population(0.5, 0.1, amplitudes=(0.0,)))
    assert [one.title for one in panels(found)] == ["Churn of wt", "Features before the last layer"]
    assert conclusion(found).startswith("Without noise, a separately")


def test_rows_and_numbers_have_every_quantity_of_pruned_and_separate_networks():
    found = similarity(population(0.5, 0.1, amplitudes=(0.0, 0.5)))
    rows = [(one.method, one.quantity, one.at) for one in similarity_rows(found)]
    common = [("matching", "0"), ("distance", "0"), ("matching", "0.5"), ("distance", "0.5")]
    tail = [("churn", "nominal"), ("cka", "")]
    leads = [("lead_matching", ""), ("lead_distance", "")]
    assert rows == [
        *(("wt", *one) for one in [*common, *leads, *tail]),
        *(("separate", *one) for one in [*common, *tail]),
    ]
    named = [(one.method, one.name) for one in numbers(found)]
    assert len(set(named)) == len(named) == 13
    assert all(name.startswith("separate/") == (method == "dense") for method, name in named)
