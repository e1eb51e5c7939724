"""Laws of the search, on made-up curves whose answer is known."""

from __future__ import annotations

import math
import random
from itertools import pairwise

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from raypruning.core.bounds import max_pruned_probes
from raypruning.core.plan import asked_probes, results_of
from raypruning.core.potential import Threshold
from raypruning.core.records import SearchSpec
from raypruning.core.search.axis import position, ratio_at, width
from raypruning.core.search.brackets import Bracket, bracket, is_monotone, is_narrow
from raypruning.core.search.grid import grid_ratios
from raypruning.core.search.strategy import STRATEGY_NAMES, strategy
from raypruning.errors import UnknownNameError

from .worlds import (
    Steps,
    is_sorted,
    knee_world,
    make_plan,
    measure,
    monotone_world,
    num_allowed,
    potential_by_definition,
    potentials,
    run,
    scan,
)

# Asked ratios are rounded to a millionth, so each of two ends is off by half of one.
ROUNDING = 1e-6

ratios_inside = st.floats(0.01, 0.999)
ranges = st.tuples(st.sampled_from([0.0, 0.1, 0.5]) | st.floats(0.0, 0.8), st.floats(0.05, 0.99)).map(
    lambda pair: (pair[0], pair[0] + (0.999 - pair[0]) * pair[1])
)


links = st.lists(st.floats(0.01, 0.98).map(lambda ratio: round(ratio, 3)), min_size=1, max_size=7, unique=True)
schedules = st.fixed_dictionaries(
    {"kind": st.just("iterative"), "prunes_per_link": st.integers(1, 3)},
    optional={"rewind_epochs": st.integers(0, 2)},
).flatmap(
    lambda schedule: st.one_of(
        st.integers(1, 8).map(lambda steps: {**schedule, "steps": steps}),
        links.map(lambda ratios: {**schedule, "ratios": sorted(ratios)}),
    )
)


@st.composite
def plans(draw, *, strategies=("bisect",), max_tasks=3, low_and_high=ranges):
    low, high = draw(low_and_high)
    strategy = draw(st.sampled_from(strategies))
    return make_plan(
        num_tasks=draw(st.integers(1, max_tasks)),
        deltas=draw(st.lists(st.sampled_from([0.001, 0.005, 0.02, 0.1]), min_size=1, max_size=2, unique=True)),
        strategy=strategy,
        schedule=draw(schedules) if strategy == "chain" else None,
        low=low,
        high=high,
        resolution=draw(st.floats(0.04, 0.6)),
        probes_per_round=draw(st.integers(1, 4)),
    )


@st.composite
def sweeps(draw, **options):
    """A plan, and a world in which error never falls as the ratio grows."""
    plan = draw(plans(**options))
    steps = st.lists(st.tuples(ratios_inside, st.integers(1, 60)), max_size=5).map(Steps)
    return plan, monotone_world({task.name: draw(steps) for task in plan.tasks})


@st.composite
def wild_sweeps(draw, **options):
    """A plan, and a world in which error goes up and down as it likes, with the ratio's third digit."""
    plan = draw(plans(**options))
    losses = draw(st.lists(st.integers(-10, 120), min_size=1, max_size=12))
    shift = {task.name: draw(st.integers(0, 50)) for task in plan.tasks}

    def world(curve, ratio, task):
        return 40 if curve.is_dense else 40 + losses[(round(ratio * 1000) + shift[task]) % len(losses)]

    return plan, world


# --- The answer ---------------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(sweeps())
def test_bisect_on_monotone_curves_finds_what_an_exhaustive_scan_finds_to_the_resolution(sweep):
    plan, world = sweep
    search = plan.spec.search
    num_points = 2000
    step = 1 - ((1 - search.high) / (1 - search.low)) ** (1 / (num_points - 1))
    for (curve, threshold), found in potentials(plan, run(plan, world).results).items():
        exhaustive = scan(plan, world, curve, threshold, num_points=num_points)
        # The scan may end one of its own steps short of the knee, the search one resolution.
        assert 1 - exhaustive <= (1 - found.ratio) / (1 - step) + ROUNDING
        assert 1 - exhaustive >= (1 - max(found.ratio, search.low)) * (1 - search.resolution) - 2 * ROUNDING
        assert (found.ratio == 0.0) == (exhaustive == 0.0) or search.low == 0.0


@settings(max_examples=60)
@given(sweeps(strategies=STRATEGY_NAMES))
def test_potential_is_the_largest_measured_ratio_within_delta_by_definition(sweep):
    plan, world = sweep
    results = run(plan, world).results
    for (curve, threshold), found in potentials(plan, results).items():
        known, dense = results_of(plan, curve, results), results[plan.parent(curve.seed).id]
        assert found.ratio == potential_by_definition(known, dense, threshold.task, threshold.delta)
        assert found.status in ("closed", "at_top")
        assert found.ratio_first == found.ratio


@settings(max_examples=60)
@given(wild_sweeps(strategies=STRATEGY_NAMES))
def test_a_curve_that_is_not_monotone_is_reported_with_its_maximum_and_its_first_crossing(sweep):
    plan, world = sweep
    results = run(plan, world).results
    for (curve, threshold), found in potentials(plan, results).items():
        known, dense = results_of(plan, curve, results), results[plan.parent(curve.seed).id]
        assert found.ratio == potential_by_definition(known, dense, threshold.task, threshold.delta)
        allowed = dense.evaluations[threshold.task].num_wrong + num_allowed(threshold.delta)
        passing = {r.probe.ratio: r.evaluations[threshold.task].num_wrong <= allowed for r in known}
        first = [r for r in passing if all(passing[other] for other in passing if other <= r)]
        assert found.ratio_first == max(first, default=0.0)
        assert (found.status == "not_monotone") == (found.ratio_first < found.ratio)


def test_bisect_says_not_monotone_when_only_a_middle_stretch_fails():
    # The first probe, at .93, fails on the nominal task, which alone would look below it from then on; the other task
    # brings the search above it, and what is seen there counts.
    plan = make_plan(low=0.5, high=0.99, resolution=0.1, num_tasks=2)

    def world(curve, ratio, task):
        return 900 if task == "nominal" and 0.8 < ratio < 0.95 else 40

    nominal, other = potentials(plan, run(plan, world).results).values()
    assert (nominal.status, nominal.ratio) == ("not_monotone", 0.99)
    assert 0.5 <= nominal.ratio_first <= 0.8
    assert (other.status, other.ratio, other.ratio_first) == ("at_top", 0.99, 0.99)


@settings(max_examples=40)
@given(wild_sweeps(strategies=STRATEGY_NAMES))
def test_potential_never_falls_as_delta_grows(sweep):
    plan, world = sweep
    found = potentials(plan, run(plan, world).results)
    for task in plan.tasks:
        by_delta = [found[plan.curves[0], Threshold(task.name, delta)].ratio for delta in sorted(plan.spec.deltas)]
        assert is_sorted(by_delta)


# --- What is asked ------------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(wild_sweeps(strategies=STRATEGY_NAMES))
def test_no_ratio_is_asked_twice_and_none_outside_the_range(sweep):
    plan, world = sweep
    ratios = run(plan, world).ratios
    assert len(set(ratios)) == len(ratios)
    assert all(plan.search.low - ROUNDING <= ratio <= plan.search.high + ROUNDING for ratio in ratios)


@settings(max_examples=60)
@given(sweeps(strategies=STRATEGY_NAMES))
def test_search_asks_no_more_than_the_bound_given_beforehand(sweep):
    plan, world = sweep
    assert len(run(plan, world).ratios) <= max_pruned_probes(plan)


@settings(max_examples=60)
@given(sweeps())
def test_each_round_of_a_curve_holds_at_most_probes_per_round(sweep):
    plan, world = sweep
    for asked in run(plan, world).rounds:
        assert sum(not probe.curve.is_dense for probe in asked) <= plan.spec.search.probes_per_round


def classic_bisection(knee: float, search: SearchSpec) -> list[float]:
    """The ratios that halving the interval between log(1 - low) and log(1 - high) by hand asks for, then the end."""
    low, high, asked = search.low, search.high, []
    is_low_tried = is_high_tried = False
    while 1 - high + 2 * ROUNDING < (1 - low) * (1 - search.resolution):
        middle = round(1 - math.sqrt((1 - low) * (1 - high)), 6)
        asked.append(middle)
        if middle < knee:
            low, is_low_tried = middle, True
        else:
            high, is_high_tried = middle, True
    return asked + ([] if is_high_tried else [search.high]) + ([] if is_low_tried or search.low == 0 else [search.low])


def one_threshold(low_and_high, resolution):
    low, high = low_and_high
    assume(position(high) - position(low) > width(resolution) * 1.001)
    return make_plan(low=low, high=high, resolution=resolution)


@settings(max_examples=80)
@given(ranges, st.floats(0.01, 0.7), st.floats(0.001, 0.9999))
def test_bisect_with_one_threshold_and_one_probe_a_round_is_classic_bisection(low_and_high, resolution, knee):
    plan = one_threshold(low_and_high, resolution)
    asked = run(plan, knee_world(knee)).ratios
    assert asked == classic_bisection(knee, plan.spec.search)


@settings(max_examples=80)
@given(ranges, st.floats(0.01, 0.7), st.floats(0.001, 0.9999))
def test_bisect_with_one_threshold_costs_the_logarithm_of_range_over_resolution_plus_one(
    low_and_high, resolution, knee
):
    plan = one_threshold(low_and_high, resolution)
    low, high = low_and_high
    num_widths = math.log((1 - low) / (1 - high)) / -math.log(1 - resolution)
    assert len(run(plan, knee_world(knee)).ratios) <= math.ceil(math.log2(num_widths)) + 1


@pytest.mark.parametrize(("probes_per_round", "num_cuts"), [(1, 6), (2, 4), (3, 3), (8, 2)])
def test_k_probes_a_round_divide_the_bracket_by_k_plus_one(probes_per_round, num_cuts):
    # From 1/2 to 1/128 kept there are 60 resolutions of 1 - 2**-0.1, and 2^6, 3^4, 4^3 and 9^2 are above 60.
    plan = make_plan(low=0.5, high=1 - 1 / 128, resolution=1 - 2**-0.1, probes_per_round=probes_per_round)
    rounds = run(plan, knee_world(1.0)).rounds
    # Before the cuts comes the parent, and after them the end of the range, where the potential turned out to lie.
    assert len(rounds) == 1 + num_cuts + 1


@settings(max_examples=40)
@given(sweeps(max_tasks=1))
def test_ends_of_the_range_are_asked_only_where_the_potential_lies_there(sweep):
    plan, _ = sweep
    low, high = plan.spec.search.low, plan.spec.search.high
    assume(position(high) - position(low) > 2.1 * width(plan.spec.search.resolution))
    middle = ratio_at((position(low) + position(high)) / 2)
    ratios = run(plan, knee_world(middle)).ratios
    assert high not in ratios
    assert low not in ratios


@given(ranges)
def test_grid_asks_for_every_ratio_at_once_whatever_comes_out(low_and_high):
    low, high = low_and_high
    plan = make_plan(strategy="grid", low=low, high=high)
    rounds = run(plan, knee_world(low)).rounds
    asked = [probe.ratio for probe in rounds[1] if not probe.curve.is_dense]
    assert len(rounds) == 2
    assert asked == sorted(asked)
    asked = asked if ratio_at(position(low)) > 0 else [0.0, *asked]  # The parent is never asked for again.
    kept = [low, *asked[1:-1], high]
    assert asked[0] == pytest.approx(low, abs=ROUNDING) and asked[-1] == pytest.approx(high, abs=ROUNDING)
    factors = [(1 - b) / (1 - a) for a, b in pairwise(kept)]
    # Both ends of a step are rounded, relative to what is kept at its upper end.
    assert factors == pytest.approx([((1 - high) / (1 - low)) ** (1 / 11)] * 11, abs=2 * ROUNDING / (1 - high))


def test_grid_with_ratios_asks_for_exactly_these():
    plan = make_plan(strategy="grid", ratios=(0.9, 0.3, 0.98, 0.3))
    assert run(plan, knee_world(0.5)).ratios == [0.3, 0.9, 0.98]
    assert grid_ratios(plan.spec.search) == (0.3, 0.9, 0.98)


@given(ranges, st.floats(0.001, 0.9999))
def test_grid_closes_every_potential_between_two_of_its_points(low_and_high, knee):
    low, high = low_and_high
    plan = make_plan(strategy="grid", low=low, high=high)
    (found,) = potentials(plan, run(plan, knee_world(knee)).results).values()
    points = grid_ratios(plan.spec.search)
    assert found.ratio == max((ratio for ratio in points if ratio < knee), default=0.0)
    assert found.next_ratio == min((ratio for ratio in points if ratio >= knee), default=None)
    assert found.status == ("closed" if found.next_ratio else "at_top")


def test_strategy_of_an_unknown_name_is_refused_with_a_near_one():
    with pytest.raises(UnknownNameError, match="no search strategy is called 'bisekt': did you mean bisect"):
        strategy("bisekt")


# --- Order, interruption, failure ---------------------------------------------------------------------------------


@settings(max_examples=25)
@given(wild_sweeps(strategies=STRATEGY_NAMES), st.randoms(use_true_random=False))
def test_order_in_which_probes_finish_never_matters(sweep, rng):
    plan, world = sweep
    together = run(plan, world)
    one_by_one = run(plan, world, take=lambda asked: [rng.choice(asked)])
    shuffled = list(together.results.items())
    rng.shuffle(shuffled)
    assert one_by_one.results == together.results
    expected = potentials(plan, together.results)
    assert potentials(plan, one_by_one.results) == expected
    assert potentials(plan, dict(shuffled)) == expected


@settings(max_examples=25)
@given(
    wild_sweeps(strategies=STRATEGY_NAMES),
    st.randoms(use_true_random=False),
    st.floats(0, 1),
    st.lists(ratios_inside, max_size=5),
)
def test_search_resumed_from_any_stored_subset_asks_the_same_and_ends_the_same(sweep, rng, share, other_ratios):
    plan, world = sweep
    undisturbed = run(plan, world).results
    kept = [result for result in undisturbed.values() if rng.random() < share]
    others = [measure(plan, world, plan.pruned(plan.curves[0], ratio)) for ratio in other_ratios]
    resumed = run(plan, world, known=[*others, *kept]).results
    assert asked_probes(plan, resumed) == asked_probes(plan, undisturbed)
    assert potentials(plan, resumed) == potentials(plan, undisturbed)


def test_next_probes_with_all_results_but_one_asks_for_that_one_alone():
    plan = make_plan(low=0.1, high=0.98, resolution=0.1)
    world = knee_world(0.7)
    results = run(plan, world).results
    last = list(results)[-1]
    again = run(plan, world, known=[result for id_, result in results.items() if id_ != last])
    assert [[probe.id for probe in asked] for asked in again.rounds] == [[last]]


@settings(max_examples=40)
@given(sweeps(strategies=STRATEGY_NAMES), st.randoms(use_true_random=False), st.floats(0, 1))
def test_failed_probe_moves_no_bracket_and_what_it_leaves_undecided_is_open(sweep, rng, share):
    plan, world = sweep
    chance = random.Random(rng.random())
    fate: dict[float, bool] = {}
    results = run(plan, world, fails=lambda ratio: fate.setdefault(ratio, chance.random() < share)).results
    for (curve, threshold), found in potentials(plan, results).items():
        known, dense = results_of(plan, curve, results), results[plan.parent(curve.seed).id]
        assert found.ratio == potential_by_definition(known, dense, *threshold)
        measured = [result.ratio_reached for result in known if result.is_done]
        assert found.next_ratio == min((ratio for ratio in measured if ratio > found.ratio), default=None)
        if plan.search.strategy != "grid" and found.status == "closed":
            around = Bracket(max(found.ratio, plan.search.low), found.next_ratio, True)
            assert is_narrow(around, resolution=plan.search.resolution)
        if not any(fate.values()):
            assert found.status in ("closed", "at_top")
        if found.next_ratio is None and found.status != "at_top":
            assert found.status == "open"


def test_potential_stays_open_when_the_deciding_probe_crashed():
    plan = make_plan(low=0.5, high=0.99, resolution=0.1)
    world = knee_world(0.9)
    undisturbed = run(plan, world)
    (closed,) = potentials(plan, undisturbed.results).values()
    deciding = closed.next_ratio
    crashed = run(plan, world, fails=lambda ratio: ratio == deciding)
    (found,) = potentials(plan, crashed.results).values()
    assert closed.status == "closed"
    assert found.status == "open"
    assert found.ratio <= closed.ratio
    assert found.next_ratio > deciding


def test_thresholds_that_a_crash_does_not_concern_are_closed_all_the_same():
    # Whatever would narrow the first task's bracket crashes. It stays the wider one, so a round's probes go there.
    plan = make_plan(num_tasks=2, low=0.5, high=0.99, resolution=0.1, probes_per_round=2)
    results = run(plan, knee_world(0.55, 0.97), fails=lambda ratio: 0.5 < ratio < 0.86).results
    nominal, shifted = potentials(plan, results).values()
    assert nominal.status == "open"
    assert shifted.status == "closed"


def test_search_in_which_every_pruned_probe_fails_ends_and_leaves_all_open():
    plan = make_plan(num_tasks=2, deltas=(0.005, 0.02), low=0.1, high=0.99, probes_per_round=3)
    finished = run(plan, knee_world(0.5, 0.9), fails=lambda _ratio: True)
    assert {found.status for found in potentials(plan, finished.results).values()} == {"open"}
    assert {found.ratio for found in potentials(plan, finished.results).values()} == {0.0}


# --- Brackets and the axis ----------------------------------------------------------------------------------------


def test_bracket_lies_above_the_largest_passing_ratio_even_if_a_smaller_one_fails():
    outcomes = {0.9: True, 0.5: True, 0.7: False, 0.95: False, 0.97: False}
    assert bracket(outcomes, top=0.99) == Bracket(0.9, 0.95, True)
    assert not is_monotone(outcomes)


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        ({}, Bracket(0.0, 0.99, False)),
        ({0.5: True}, Bracket(0.5, 0.99, False)),
        ({0.5: False}, Bracket(0.0, 0.5, True)),
        ({0.99: True}, Bracket(0.99, 0.99, False)),
    ],
)
def test_bracket_without_an_upper_or_lower_measurement_ends_at_the_top_or_at_dense(outcomes, expected):
    assert bracket(outcomes, top=0.99) == expected
    assert is_monotone(outcomes)


def test_bracket_is_narrow_when_what_its_ends_keep_differs_by_the_resolution():
    assert is_narrow(Bracket(0.9, 0.905, True), resolution=0.05)  # .1 and .095 kept
    assert not is_narrow(Bracket(0.9, 0.9051, True), resolution=0.05)


@given(st.floats(0, 0.9999))
def test_axis_there_and_back_is_the_ratio_to_a_millionth(ratio):
    assert ratio_at(position(ratio)) == round(ratio, 6)


def test_axis_puts_every_halving_of_what_is_kept_equally_far():
    assert [position(ratio) / math.log(2) for ratio in (0, 0.5, 0.75, 0.875)] == pytest.approx([0, 1, 2, 3])
