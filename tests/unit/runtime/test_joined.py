"""What a search that weighs losses is told of how sure they are."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import pytest

from raypruning.core.records import Evaluation, SearchSpec
from raypruning.errors import StoreError
from raypruning.runtime.joined import weighed
from tests.unit.core.worlds import done, failed, make_plan

LABELS = np.zeros(100, np.uint16)
PARENT_WRONG, PRUNED_WRONG = range(10), range(5, 25)  # 15 lost, 5 gained


def wrong(images) -> dict[str, np.ndarray]:
    predicted = np.zeros(100, np.uint16)
    predicted[list(images)] = 1
    return {"predicted": predicted, "label": LABELS}


@dataclass(eq=False)  # as a store, each is only itself
class Predictions:
    of: dict[str, dict[str, np.ndarray]]
    damaged: set[str] = field(default_factory=set)

    def predictions(self, evaluation: Evaluation) -> dict[str, np.ndarray]:
        if evaluation.training in self.damaged:
            raise StoreError("damaged")
        return self.of[evaluation.training]


@pytest.fixture
def world():
    plan = make_plan(strategy="model")
    parent = done(plan.parent(0), {"nominal": 10})
    pruned = done(plan.pruned(plan.curves[0], 0.5), {"nominal": 20})
    bare = pruned.model_copy(update={"standard_errors": {}})
    store = Predictions({parent.probe.id: wrong(PARENT_WRONG), bare.probe.id: wrong(PRUNED_WRONG)})
    return plan, parent, bare, store


def test_a_result_is_given_the_standard_error_of_its_loss_on_the_same_images(world):
    plan, parent, pruned, store = world
    found = weighed(pruned, {parent.probe.id: parent}, plan=plan, store=store)
    assert found.standard_errors == {"nominal": pytest.approx(math.sqrt(20 - 10**2 / 100) / 100)}


def test_other_searches_dense_networks_and_failures_are_left_as_they_are(world):
    plan, parent, pruned, store = world
    known = {parent.probe.id: parent}
    assert weighed(parent, known, plan=plan, store=store) is parent
    assert weighed(None, known, plan=plan, store=store) is None
    crashed = failed(pruned.probe)
    assert weighed(crashed, known, plan=plan, store=store) is crashed
    search = SearchSpec(strategy="bisect")
    bisecting = make_plan(**search.model_dump())
    assert weighed(pruned, known, plan=bisecting, store=store) is pruned


def test_damaged_predictions_of_a_network_make_its_result_absent_and_those_of_the_parent_an_error(world):
    plan, parent, pruned, store = world
    store.damaged = {pruned.probe.id}
    assert weighed(pruned, {parent.probe.id: parent}, plan=plan, store=store) is None
    store = Predictions(store.of, damaged={parent.probe.id})
    with pytest.raises(StoreError):
        weighed(pruned, {parent.probe.id: parent}, plan=plan, store=store)
