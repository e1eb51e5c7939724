"""Records: values that cross processes as JSON, and refuse what is no measurement."""

from __future__ import annotations

import math

import pytest
from pydantic import ValidationError

from raypruning.core.records import Curve, Mask, MethodChoice, Probe, ProbeResult, Recipe, SearchSpec

from .worlds import done, failed, make_evaluation, make_plan

PLAN = make_plan()
(CURVE,) = PLAN.curves
PRUNED = PLAN.pruned(CURVE, 0.9)


def test_record_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        CURVE.seed = 3


def test_record_refuses_a_field_that_it_does_not_have():
    with pytest.raises(ValidationError, match="rate"):
        Curve(model="m", dataset="d", method="wt", budget=1, seed=0, rate=1)


@pytest.mark.parametrize("value", [math.nan, math.inf, -0.1, 1.1])
def test_error_is_a_finite_fraction(value):
    with pytest.raises(ValidationError, match="error"):
        make_evaluation(None, error=value)


@pytest.mark.parametrize("ratio", [1.0, -0.1, math.nan])
def test_ratio_leaves_something(ratio):
    with pytest.raises(ValidationError, match="ratio"):
        Mask(method=MethodChoice(name="wt"), ratio=ratio)


@pytest.mark.parametrize("field", ["low", "high", "resolution"])
def test_search_stays_below_one(field):
    with pytest.raises(ValidationError, match=field):
        SearchSpec(**{field: 1.0})


def test_learning_rate_is_positive():
    with pytest.raises(ValidationError, match="learning_rate"):
        Recipe(epochs=1, learning_rate=0)


@pytest.mark.parametrize("result", [done(PRUNED, {"nominal": 45}, ratio_reached=0.899), failed(PRUNED)])
def test_result_survives_json(result):
    assert ProbeResult.model_validate_json(result.model_dump_json()) == result


def test_result_has_the_reached_ratio_and_a_failed_one_that_it_was_asked_for():
    assert done(PRUNED, {"nominal": 45}, ratio_reached=0.899).ratio_reached == 0.899
    assert failed(PRUNED).ratio_reached == 0.9
    assert failed(PRUNED).checkpoint is None


def test_probe_is_its_training_whatever_its_curve_is_called():
    other = Curve(model="other name", dataset="d", method="wt", budget=1, seed=0)
    assert Probe(curve=other, ratio=0.9, training=PRUNED.training).id == PRUNED.id


@pytest.mark.parametrize(("budget", "label"), [(0, "wt, 0 epochs, seed 4"), (1, "wt, 1 epoch, seed 4")])
def test_curve_has_a_label_for_people(budget, label):
    assert Curve(model="m", dataset="d", method="wt", budget=budget, seed=4).label == label


def test_dense_curves_are_the_parent_and_its_controls():
    assert [curve.is_dense for curve in (PLAN.parent(0).curve, PLAN.controls(0)[0].curve, CURVE)] == [True, True, False]
