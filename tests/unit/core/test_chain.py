"""Chains: which links are asked for, where one ends, and what branches off; against a simulation by hand."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raypruning.core.plan import asked_probes, next_probes, results_of, walk
from raypruning.core.potential import Threshold, is_beyond_noise
from raypruning.core.records import MethodChoice, Schedule, SearchSpec
from raypruning.core.search.axis import position
from raypruning.core.search.chain import chain_links

from .worlds import (
    DENSE_WRONG,
    done,
    failed,
    knee_world,
    make_evaluation,
    make_plan,
    measure,
    num_allowed,
    potentials,
    run,
)

LINKS = (0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98)


def chain_plan(*, ratios=LINKS, prunes_per_link=1, rewind_epochs=None, **options):
    schedule = {
        "kind": "iterative",
        "ratios": ratios,
        "prunes_per_link": prunes_per_link,
        "rewind_epochs": rewind_epochs,
    }
    return make_plan(schedule=schedule, **{"resolution": 0.1, **options})


def probes_of(plan, results):
    (curve,) = plan.curves
    return walk(plan, curve, results).asked


# --- What is asked ------------------------------------------------------------------------------------------------


def num_links_by_simulation(losses_by_task, deltas):
    """Walk by hand: a threshold is settled when, since it last passed, it has failed twice running beyond noise."""

    def is_settled(walked, allowed):
        in_a_row, is_settled = 0, False
        for num_lost in walked:
            if num_lost <= allowed:
                in_a_row, is_settled = 0, False
            elif num_lost - allowed > 1.645 * math.sqrt(2 * DENSE_WRONG + num_lost):
                in_a_row += 1
                is_settled = is_settled or in_a_row == 2
            else:
                in_a_row = 0
        return is_settled

    for num in range(len(LINKS)):
        if all(is_settled(losses[:num], num_allowed(delta)) for losses in losses_by_task for delta in deltas):
            return num
    return len(LINKS)


@settings(max_examples=150)
@given(
    st.lists(st.lists(st.integers(-30, 90), min_size=len(LINKS), max_size=len(LINKS)), min_size=1, max_size=3),
    st.lists(st.sampled_from([0.005, 0.02]), min_size=1, max_size=2, unique=True),
    st.integers(1, 3),
)
def test_chain_walks_as_far_as_a_simulation_by_hand_and_refines_between_its_links(losses_by_task, deltas, per_round):
    plan = chain_plan(num_tasks=len(losses_by_task), deltas=deltas, probes_per_round=per_round)
    tasks = [task.name for task in plan.tasks]

    def world(curve, ratio, task):
        if curve.is_dense:
            return DENSE_WRONG
        losses = losses_by_task[tasks.index(task)]
        # Between two links, as the link above: a step function that no branch contradicts.
        return DENSE_WRONG + losses[next(i for i, link in enumerate(LINKS) if link >= ratio)]

    probes = probes_of(plan, run(plan, world).results)
    links = [probe.ratio for probe in probes if probe.place == "link"]
    branches = [probe for probe in probes if probe.place == "branch"]
    assert links == list(LINKS[: num_links_by_simulation(losses_by_task, deltas)])
    assert [probe.place for probe in probes] == ["link"] * len(links) + ["branch"] * len(branches)
    by_ratio = {probe.ratio: probe for probe in probes}
    parent = plan.parent(0)
    for probe in probes:
        below = [ratio for ratio in links if ratio < probe.ratio]
        assert probe.training.start == (by_ratio[max(below)] if below else parent).id
    assert not {probe.id for probe in branches} & {probe.training.start for probe in probes}
    # Every branch lies right above the last good link of some threshold, below a link that fails it.
    allowed = [(losses, num_allowed(delta)) for losses in losses_by_task for delta in deltas]
    gaps = []
    for losses, most in allowed:
        walked = losses[: len(links)]
        good = max((i for i, num_lost in enumerate(walked) if num_lost <= most), default=-1)
        if good + 1 < len(walked):
            gaps.append((links[good] if good >= 0 else 0.0, links[good + 1]))
    assert all(any(low < probe.ratio < high for low, high in gaps) for probe in branches)


def test_chain_of_one_knee_asks_for_links_one_after_another_and_then_halves_the_last_bracket():
    plan = chain_plan()
    finished = run(plan, knee_world(0.75))
    rounds = [[probe.ratio for probe in asked if not probe.curve.is_dense] for asked in finished.rounds]
    # .8 and .9 fail on every image but those that the parent has wrong: far beyond noise.
    assert rounds[1:6] == [[0.3], [0.5], [0.7], [0.8], [0.9]]
    assert all(0.7 < ratio < 0.8 for (ratio,) in rounds[6:])
    (found,) = potentials(plan, finished.results).values()
    assert found.status == "closed"
    assert found.ratio < 0.75 <= found.next_ratio
    assert (1 - found.ratio) * 0.9 <= (1 - found.next_ratio) + 1e-6


def test_chain_whose_first_link_fails_branches_off_the_parent():
    plan = chain_plan()
    results = run(plan, knee_world(0.2)).results
    branches = [probe for probe in probes_of(plan, results) if probe.place == "branch"]
    assert branches and all(probe.training.start == plan.parent(0).id for probe in branches)
    (found,) = potentials(plan, results).values()
    assert found.status == "closed" and found.ratio < 0.2 <= found.next_ratio


def test_chain_that_never_fails_walks_to_its_end_and_is_at_the_top():
    plan = chain_plan()
    finished = run(plan, knee_world(1.0))
    (found,) = potentials(plan, finished.results).values()
    assert finished.ratios == list(LINKS)
    assert (found.status, found.ratio, found.next_ratio) == ("at_top", 0.98, None)


def test_a_failure_within_noise_does_not_end_a_chain():
    # 15 images more than the parent's 40 are beyond 0.5 points, and within 1.645 * sqrt(40 + 55) = 16 of them.
    plan = chain_plan()
    finished = run(plan, lambda curve, ratio, task: DENSE_WRONG if curve.is_dense or ratio < 0.5 else DENSE_WRONG + 15)
    assert [ratio for ratio in finished.ratios if ratio in LINKS] == list(LINKS)


def test_two_failures_beyond_noise_with_one_within_it_between_them_do_not_end_a_chain():
    lost = dict(zip(LINKS, (0, 100, 10, 100, 0, 100, 100), strict=True))
    plan = chain_plan(resolution=0.9)
    finished = run(plan, lambda curve, ratio, task: DENSE_WRONG + (0 if curve.is_dense else lost[ratio]))
    assert finished.ratios == list(LINKS)
    (found,) = potentials(plan, finished.results).values()
    assert (found.status, found.ratio, found.ratio_first) == ("not_monotone", 0.9, 0.3)


# --- Crashes, limits, interruptions -------------------------------------------------------------------------------


def test_crashed_link_ends_the_chain_and_leaves_what_it_did_not_settle_open():
    plan = chain_plan(num_tasks=2)
    finished = run(plan, knee_world(0.4, 0.85), fails=lambda ratio: ratio == 0.9)
    assert [ratio for ratio in finished.ratios if ratio in LINKS] == [0.3, 0.5, 0.7, 0.8, 0.9]
    settled, unsettled = potentials(plan, finished.results).values()
    assert (settled.status, unsettled.status) == ("closed", "open")
    assert unsettled.ratio == 0.8
    assert all(0.3 < ratio < 0.5 for ratio in finished.ratios if ratio not in LINKS)


def test_crash_after_a_single_failure_leaves_it_open_however_narrow_its_bracket():
    plan = chain_plan(ratios=(0.5, 0.51, 0.52), resolution=0.1)
    results = run(plan, knee_world(0.505), fails=lambda ratio: ratio == 0.52).results
    (found,) = potentials(plan, results).values()
    assert (found.status, found.ratio, found.next_ratio) == ("open", 0.5, 0.51)


def test_crashed_branch_leaves_its_bracket_open_and_asks_for_no_other_link():
    plan = chain_plan()
    finished = run(plan, knee_world(0.75), fails=lambda ratio: ratio not in LINKS)
    (found,) = potentials(plan, finished.results).values()
    assert (found.status, found.ratio, found.next_ratio) == ("open", 0.7, 0.8)
    assert len(finished.ratios) == 5 + 1


@pytest.mark.parametrize("max_probes", [2, 5, 6])
def test_chain_stopped_by_its_limit_is_open(max_probes):
    plan = chain_plan(max_probes=max_probes)
    results = run(plan, knee_world(0.75)).results
    (curve,) = plan.curves
    assert len(results_of(plan, curve, results)) == max_probes
    (found,) = potentials(plan, results).values()
    assert found.status == "open" and walk(plan, curve, results).hit_limit


def test_chain_goes_on_after_the_last_link_that_is_known():
    plan = chain_plan()
    results = run(plan, knee_world(0.75)).results
    known = {key: result for key, result in results.items() if result.probe.ratio <= 0.5}
    (asked,) = next_probes(plan, known)
    assert (asked.ratio, asked.place) == (0.7, "link")


def test_a_lost_link_is_asked_for_again_before_anything_behind_it():
    plan = chain_plan()
    results = run(plan, knee_world(0.75)).results
    lost = next(key for key, result in results.items() if result.probe.ratio == 0.5)
    rest = {key: result for key, result in results.items() if key != lost}
    assert [probe.id for probe in next_probes(plan, rest)] == [lost]
    assert asked_probes(plan, {**rest, lost: results[lost]}) == asked_probes(plan, results)


def test_methods_and_seeds_have_chains_of_their_own_that_go_on_side_by_side():
    plan = chain_plan(methods=("wt", "ft"), seeds=(0, 1))
    parents = {plan.parent(seed).id: measure(plan, knee_world(0.75), plan.parent(seed)) for seed in (0, 1)}
    first = [probe for probe in next_probes(plan, parents) if not probe.curve.is_dense]
    assert [(probe.curve.method, probe.curve.seed, probe.ratio) for probe in first] == [
        (method, seed, 0.3) for method in ("wt", "ft") for seed in (0, 1)
    ]
    assert len({probe.id for probe in first}) == 4


# --- Identity -----------------------------------------------------------------------------------------------------


def ids_of_links(plan):
    (curve,) = plan.curves
    return [plan.pruned(curve, link.ratio).id for link in plan.links]


def test_id_of_a_link_hashes_all_links_before_it_and_none_behind_it():
    base = ids_of_links(chain_plan())
    assert len(set(base)) == len(LINKS)
    other_first = ids_of_links(chain_plan(ratios=(0.31, *LINKS[1:])))
    other_last = ids_of_links(chain_plan(ratios=(*LINKS[:-1], 0.99)))
    assert not set(base) & set(other_first)
    assert other_last[:-1] == base[:-1] and other_last[-1] != base[-1]
    assert ids_of_links(chain_plan(prunes_per_link=2))[0] != base[0]
    assert ids_of_links(chain_plan(rewind_epochs=1))[0] != base[0]
    assert ids_of_links(chain_plan(rewind_epochs=1)) != ids_of_links(chain_plan(rewind_epochs=0))


def test_a_branch_and_a_link_at_one_ratio_are_two_networks_unless_they_begin_from_the_same_link():
    chain, coarse = chain_plan(ratios=(0.3, 0.5, 0.7)), chain_plan(ratios=(0.3, 0.7))
    link, branch = chain.pruned(chain.curves[0], 0.5), coarse.pruned(coarse.curves[0], 0.5)
    assert (link.place, branch.place) == ("link", "branch")
    assert link.training.start == branch.training.start  # Both begin from .3, and are the same network.
    assert link.id == branch.id
    link, branch = chain.pruned(chain.curves[0], 0.7), chain_plan(ratios=(0.3, 0.9)).pruned(coarse.curves[0], 0.7)
    assert (link.place, branch.place) == ("link", "branch")
    assert link.training.start != branch.training.start
    assert link.id != branch.id


def test_a_chain_and_one_shot_share_the_parent_and_nothing_else_but_a_first_link():
    chain, one_shot = chain_plan(), make_plan()
    assert chain.parent(0).id == one_shot.parent(0).id
    at_once = [one_shot.pruned(one_shot.curves[0], ratio).id for ratio in LINKS]
    assert [one == other for one, other in zip(ids_of_links(chain), at_once, strict=True)] == [True] + [False] * 6


def test_method_of_a_curve_is_found_by_its_label():
    plan = chain_plan(methods=("wt",))
    methods = (MethodChoice(name="wt"), MethodChoice(name="wt", parameters={"rules": "paper"}))
    spec = plan.spec.model_copy(update={"methods": methods})
    plan = type(plan)(spec=spec, data_fingerprint=plan.data_fingerprint, tasks=plan.tasks)
    assert [curve.method for curve in plan.curves] == ["wt", "wt:rules=paper"]
    assert [plan.pruned(curve, 0.3).training.mask.method for curve in plan.curves] == list(methods)
    assert len({plan.pruned(curve, 0.3).id for curve in plan.curves}) == 2


# --- Steps between links ------------------------------------------------------------------------------------------


@given(st.integers(1, 4), st.floats(0.31, 0.979).filter(lambda ratio: round(ratio, 6) not in LINKS))
def test_prunes_of_a_link_are_evenly_spaced_and_a_branch_takes_those_below_it(num_prunes, ratio):
    plan = chain_plan(prunes_per_link=num_prunes)
    (curve,) = plan.curves
    for before, link in pairwise((0.0, *LINKS)):
        steps = (before, *plan.pruned(curve, link).training.mask.via, link)
        assert len(steps) == num_prunes + 1
        widths = [position(b) - position(a) for a, b in pairwise(steps)]
        # Rounded to a millionth of what is removed, relative to what is kept.
        assert widths == pytest.approx([sum(widths) / num_prunes] * num_prunes, abs=1e-6 / (1 - link))
    branch = plan.pruned(curve, round(ratio, 6))
    nearest = next(link for link in plan.links if link.ratio > branch.ratio)
    assert branch.place == "branch"
    assert branch.training.mask.via == tuple(step for step in nearest.via if step < branch.ratio)


@pytest.mark.parametrize(
    ("steps", "low", "high", "kept"),
    [
        (1, 0.5, 0.9, [0.1]),
        (1, 0.0, 0.75, [0.25]),
        (2, 0.0, 0.75, [0.5, 0.25]),
        (2, 0.5, 0.75, [0.5, 0.25]),
        (3, 0.5, 0.875, [0.5, 0.25, 0.125]),
        (4, 0.5, 0.9375, [0.5, 0.25, 0.125, 0.0625]),
    ],
)
def test_steps_are_even_in_what_is_kept_from_low_to_high(steps, low, high, kept):
    links = chain_links(Schedule(kind="iterative", steps=steps), SearchSpec(low=low, high=high))
    assert [1 - link.ratio for link in links] == pytest.approx(kept)


def test_search_of_a_chain_reaches_from_the_parent_to_its_last_link_whatever_the_range_says():
    plan = chain_plan(low=0.6, high=0.7)
    assert (plan.search.strategy, plan.search.low, plan.search.high) == ("chain", 0.0, 0.98)


def test_a_schedule_that_is_no_chain_has_no_links_and_searches_as_asked():
    plan = make_plan(low=0.6, high=0.7)
    assert plan.links == () and plan.search == plan.spec.search
    assert plan.pruned(plan.curves[0], 0.65).place is None


# --- Beyond noise -------------------------------------------------------------------------------------------------


@given(st.integers(0, 400), st.integers(0, 400), st.integers(0, 400), st.sampled_from([0.001, 0.005, 0.02]))
def test_beyond_noise_is_never_claimed_where_mcnemars_test_on_the_discordant_images_would_not(
    both, only_p, only_d, delta
):
    pruned, dense = make_evaluation(both + only_p), make_evaluation(both + only_d)
    if is_beyond_noise(pruned, dense, delta=delta):
        z = (only_p - only_d - num_allowed(delta)) / math.sqrt(only_p + only_d)
        assert z > 1.645


@pytest.mark.parametrize(("num_wrong", "expected"), [(40, False), (45, False), (60, False), (62, False), (63, True)])
def test_beyond_noise_counts_images(num_wrong, expected):
    # 5 are allowed; 62 - 45 = 17 is above 1.645 * sqrt(102) = 16.6 only from 62 - 40 - 5 = 17 on.
    assert is_beyond_noise(make_evaluation(num_wrong), make_evaluation(40), delta=0.005) is (num_wrong >= 62)


def test_beyond_noise_of_a_metric_that_does_not_count_is_any_failure():
    dense = make_evaluation(None, error=0.1)
    assert is_beyond_noise(make_evaluation(None, error=0.111), dense, delta=0.01)
    assert not is_beyond_noise(make_evaluation(None, error=0.11), dense, delta=0.01)


def test_failed_link_of_another_plan_changes_nothing():
    plan, other = chain_plan(), chain_plan(ratios=(0.35, 0.6))
    stray = failed(other.pruned(other.curves[0], 0.6))
    undisturbed = run(plan, knee_world(0.75)).results
    disturbed = run(plan, knee_world(0.75), known=[stray]).results
    assert asked_probes(plan, disturbed) == asked_probes(plan, undisturbed)


def test_reached_ratios_decide_the_potential_and_asked_ones_the_chain():
    plan = chain_plan(ratios=(0.3, 0.5, 0.7), resolution=0.9)
    (curve,) = plan.curves
    parent = plan.parent(0)
    wrong = {0.3: 40, 0.5: 300, 0.7: 300}
    results = {parent.id: done(parent, {"nominal": 40})}
    for ratio, num_wrong in wrong.items():
        probe = plan.pruned(curve, ratio)
        results[probe.id] = done(probe, {"nominal": num_wrong}, ratio_reached=ratio + 0.01)
    (found,) = potentials(plan, results).values()
    assert (found.ratio, found.next_ratio, found.status) == (0.31, 0.51, "closed")
    assert found.training == plan.pruned(curve, 0.3).id
    assert {threshold for _, threshold in potentials(plan, results)} == {Threshold("nominal", 0.005)}
