"""The choice of a network: by definition on small made-up curves, and how often it is wrong when all lose too much."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypruning.analysis.paired import Discordance, upper_bound
from raypruning.analysis.recommendation import (
    Choice,
    Network,
    TaskLoss,
    best,
    cheaper,
    choice_of,
    differences,
    nearest,
    shared_confidence,
    unresolved,
)
from raypruning.core.records import Curve

DELTA = 0.01


def curve(method: str = "wt", *, budget: int = 2, seed: int = 0) -> Curve:
    return Curve(model="lenet5", dataset="strokes", method=method, budget=budget, seed=seed)


def network(ratio: float, *bounds: float, at: Curve | None = None) -> Network:
    """With these bounds on so many tasks."""
    losses = [TaskLoss(f"task {index}", 1000, bound - 0.005, bound) for index, bound in enumerate(bounds)]
    return Network(at or curve(), f"id {ratio}", ratio, "", losses)


networks = st.lists(
    st.tuples(st.floats(0.01, 0.99), st.lists(st.floats(0, 0.02), min_size=2, max_size=2)),
    max_size=6,
    unique_by=lambda one: one[0],
).map(lambda curve: [network(ratio, *bounds) for ratio, bounds in curve])


@given(networks)
def test_certified_is_the_largest_ratio_up_to_which_no_bound_on_any_task_is_above_delta(found: list[Network]):
    proven = [
        one
        for one in found
        if all(loss.bound <= DELTA for below in found if below.ratio <= one.ratio for loss in below.losses)
    ]
    choice = choice_of(curve(), found, delta=DELTA)
    ratios = sorted(one.ratio for one in found)
    assert choice.ratio == max((one.ratio for one in proven), default=0.0)
    below = [ratio for ratio in ratios if ratio < choice.ratio]
    above = [ratio for ratio in ratios if ratio > choice.ratio]
    assert (choice.tighter.ratio if choice.tighter else None) == max(below, default=None)
    assert (choice.looser.ratio if choice.looser else None) == min(above, default=None)


def test_next_larger_ratio_names_the_tasks_it_fails_on_the_worst_first():
    choice = choice_of(curve(), [network(0.5, 0.001, 0.002, 0.003), network(0.8, 0.02, 0.001, 0.03)], delta=DELTA)
    assert choice.looser is not None
    assert [one.task for one in choice.looser.failing(DELTA)] == ["task 2", "task 0"]
    assert choice.looser.worst.bound == 0.03


def test_largest_certified_ratio_is_shipped_and_of_equal_ones_the_cheapest_then_the_surest():
    offers = [
        Choice(curve(budget=10), certified=network(0.8, 0.001, at=curve(budget=10))),
        Choice(curve(budget=2, seed=0), certified=network(0.8, 0.004, at=curve())),
        Choice(curve(budget=2, seed=1), certified=network(0.8, 0.003, at=curve(seed=1))),
        Choice(curve(budget=1), certified=network(0.7, 0.001, at=curve(budget=1))),
        Choice(curve("ft")),
    ]
    chosen = best(offers)
    assert chosen == offers[2]
    assert cheaper(offers, chosen) == offers[3]
    assert cheaper(offers, offers[3]) is None
    assert best([offers[4]]) is None


def test_nearest_is_the_curve_that_the_smallest_delta_would_certify():
    found = [choice_of(curve(seed=seed), [network(0.5, bound)], delta=0.01) for seed, bound in enumerate((0.03, 0.02))]
    assert nearest(found) == found[1]
    assert nearest([Choice(curve())]) is None


def test_network_that_loses_nothing_on_a_small_test_set_is_unresolved_and_one_that_loses_more_is_not():
    losses = [
        TaskLoss("small", 100, 0.0, 0.04, Discordance(2, 2, 100)),
        TaskLoss("beyond", 100, 0.02, 0.06, Discordance(4, 2, 100)),
        TaskLoss("within", 10_000, 0.0, 0.003, Discordance(9, 9, 10_000)),
        TaskLoss("no counts", 100, 0.0, 0.04),
    ]
    (one,) = unresolved(Network(curve(), "id", 0.5, "", losses), delta=DELTA, confidence=0.95)
    # .04 (1.645 + .842)^2 / .01^2, by a table of the normal distribution.
    assert (one.task, one.num) == ("small", 100) and one.num_needed == pytest.approx(2473, abs=2)


def test_differences_are_adjusted_for_the_tasks_that_count():
    losses = [
        TaskLoss("a", 100, 0.08, 0.1, Discordance(8, 0, 100)),
        TaskLoss("b", 100, 0.0, 0.1, Discordance(3, 3, 100)),
        TaskLoss("no counts", 100, 0.0, 0.1),
    ]
    # 8 coins of 8 on one side: 2 / 256, twice.
    assert differences(Network(curve(), "id", 0.5, "", losses)) == {"a": pytest.approx(4 / 256), "b": 1.0}


def test_something_that_loses_too_much_is_shipped_no_more_often_than_is_stated():
    """Four curves of three ratios, each losing exactly delta on one task or more: whatever is certified is wrong."""
    num, rate, delta, worlds = 2000, 0.1, 0.03, 400
    level = shared_confidence(0.95, 4)
    chances = [(rate + delta) / 2, (rate - delta) / 2, 1 - rate]
    draws = np.random.default_rng(0).multinomial(num, chances, size=(worlds, 4, 3))
    num_wrong = 0
    for world in draws:
        choices = []
        for seed, row in enumerate(world):
            found = []
            for ratio, (lost, gained, _) in zip((0.3, 0.6, 0.9), row, strict=True):
                pair = Discordance(int(lost), int(gained), num)
                easy = TaskLoss("easy", num, 0.0, 0.0, Discordance(0, 0, num))
                hard = TaskLoss("hard", num, pair.loss, upper_bound(pair, confidence=level), pair)
                found.append(Network(curve(seed=seed), "id", ratio, "", [easy, hard]))
            choices.append(choice_of(curve(seed=seed), found, delta=delta))
        num_wrong += best(choices) is not None
    # Three spreads of a share of 400. Without the sharing out it would be 1 - .95^4 = 19 %.
    assert num_wrong / worlds <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / worlds)
