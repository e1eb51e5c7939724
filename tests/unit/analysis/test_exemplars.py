"""PIEs, distances and null rates, against counting by hand."""

# N images, K networks, C classes

from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from raypruning.analysis.exemplars import (
    PopulationExemplars,
    accuracy_on_pies,
    evaluated,
    overlap,
    population_exemplars,
)
from raypruning.analysis.modes import MAX_DRAWS, Answers, Ballots, draws, modes_of
from raypruning.core.populations import Population


class Pruned(Population):
    """Without networks: what it reached is given."""

    @property
    def ratio_reached(self) -> float:
        return self.ratio


def exemplars(
    dense_KN: np.ndarray,
    pruned_KN: np.ndarray,
    *,
    ties: str = "undecided",
    label_N: np.ndarray | None = None,
    seeds_dense: tuple[int, ...] | None = None,
    seeds_pruned: tuple[int, ...] | None = None,
) -> PopulationExemplars:
    label_N = np.zeros(dense_KN.shape[1], np.uint16) if label_N is None else label_N
    return population_exemplars(
        "nominal",
        Pruned("wt", 2, 0.9, ()),
        dense=Answers(seeds_dense or tuple(range(len(dense_KN))), dense_KN.astype(np.uint16)),
        pruned=Answers(seeds_pruned or tuple(range(len(pruned_KN))), pruned_KN.astype(np.uint16)),
        label_N=label_N,
        ties=ties,  # type: ignore[arg-type]
    )


def mode_by_definition(answers: list[int]) -> tuple[int, bool]:
    """The largest of the most common answers, and whether there are several."""
    counts = Counter(answers)
    most = [one for one, num in counts.items() if num == max(counts.values())]
    return max(most), len(most) > 1


def is_pie_by_definition(dense: list[int], pruned: list[int], *, ties: str) -> bool:
    (first, first_tied), (second, second_tied) = mode_by_definition(dense), mode_by_definition(pruned)
    return first != second and not (ties == "undecided" and (first_tied or second_tied))


def distance_by_definition(dense: list[int], pruned: list[int]) -> float:
    return sum(abs(dense.count(label) / len(dense) - pruned.count(label) / len(pruned)) for label in {*dense, *pruned})


answers = st.tuples(st.integers(2, 6), st.integers(2, 6), st.integers(1, 12)).flatmap(
    lambda shape: st.tuples(
        arrays(np.uint16, (shape[0], shape[2]), elements=st.integers(0, 3)),
        arrays(np.uint16, (shape[1], shape[2]), elements=st.sampled_from([0, 1, 3, 999])),
    )
)


# -- modes and distances -----------------------------------------------------------------------------------------------


def test_largest_class_of_tied_modes_counts_as_in_the_study():
    ballots = Ballots.of(np.array([[3], [3], [7], [7], [1]]))
    mode = modes_of(ballots.votes_ML())
    assert ballots.classes_ML[0, mode.place_M[0]] == 7
    assert mode.is_tied_M[0]


@given(answers)
def test_modes_ties_and_distances_are_those_counted_by_hand(both: tuple[np.ndarray, np.ndarray]):
    dense_KN, pruned_KN = both
    for ties in ("undecided", "largest"):
        found = exemplars(dense_KN, pruned_KN, ties=ties)
        place_of = {int(image): place for place, image in enumerate(found.images_M)}
        for image in range(dense_KN.shape[1]):
            dense, pruned = dense_KN[:, image].tolist(), pruned_KN[:, image].tolist()
            if image not in place_of:
                assert len({*dense, *pruned}) == 1
                assert found.agreed_N[image] == dense[0]
                continue
            place = place_of[image]
            assert (found.dense_mode_M[place], found.dense.is_tied_M[place]) == mode_by_definition(dense)
            assert (found.pruned_mode_M[place], found.pruned.is_tied_M[place]) == mode_by_definition(pruned)
            assert found.is_pie_M[place] == is_pie_by_definition(dense, pruned, ties=ties)
            # Sums of at most eight fractions: each is off by 2^-53 at most, and so is each sum.
            assert found.distance_M[place] == pytest.approx(distance_by_definition(dense, pruned), abs=1e-14)


@given(answers, st.permutations(range(4)))
def test_undecided_does_not_depend_on_how_classes_are_numbered(both: tuple[np.ndarray, np.ndarray], order: list[int]):
    dense_KN, pruned_KN = (np.minimum(one, 3) for one in both)
    renamed = [np.array(order)[one] for one in (dense_KN, pruned_KN)]
    assert exemplars(dense_KN, pruned_KN).pies.tolist() == exemplars(*renamed).pies.tolist()


def test_largest_does_depend_on_how_classes_are_numbered():
    dense_KN, pruned_KN = np.array([[0], [1]]), np.array([[1], [1]])
    assert exemplars(dense_KN, pruned_KN, ties="largest").num_pies == 0
    assert exemplars(1 - dense_KN, 1 - pruned_KN, ties="largest").num_pies == 1


def test_ranked_has_the_largest_distance_first_and_equal_ones_by_position():
    dense_KN = np.array([[0, 0, 0, 0], [0, 0, 0, 0], [0, 1, 0, 0]])
    pruned_KN = np.array([[1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 1, 0]])
    found = exemplars(dense_KN, pruned_KN)
    assert found.images_M[found.ranked].tolist() == [0, 2, 1]


def test_counts_of_right_modes_and_of_ties():
    #                     PIE, pruned right; PIE, dense right; tied; unanimous
    dense_KN = np.array([[1, 0, 0, 0], [1, 0, 1, 0], [1, 0, 2, 0]])
    pruned_KN = np.array([[0, 2, 0, 0], [0, 2, 0, 0], [1, 0, 0, 0]])
    found = exemplars(dense_KN, pruned_KN)
    assert (found.num_pies, found.pruned_correct_count, found.dense_correct_count) == (2, 1, 1)
    assert (found.num_tied_dense, found.num_tied_pruned, found.num_tied) == (1, 0, 1)
    assert found.rate == 2 / 4


def test_planted_exemplars_are_found_exactly():
    generator = np.random.default_rng(0)
    dense_KN = np.zeros((7, 500), np.int64)
    # Up to two of seven answer something else: no mode moves.
    for image in generator.choice(500, 200, replace=False):
        dense_KN[generator.choice(7, generator.integers(1, 3), replace=False), image] = generator.integers(1, 5)
    pruned_KN = dense_KN[:, :].copy()
    planted = np.sort(generator.choice(500, 40, replace=False))
    pruned_KN[:, planted] = 5
    for ties in ("undecided", "largest"):
        found = exemplars(dense_KN, pruned_KN, ties=ties)
        assert found.pies.tolist() == planted.tolist()


# -- luck --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num", [2, 3, 4, 5, 7, 9, 30])
def test_draws_are_two_groups_without_a_common_seed_in_both_orders(num: int):
    found = draws(num)
    half = {2: 1, 3: 1, 4: 1, 5: 2, 7: 2, 9: 3, 30: 12}[num]
    assert found.shape[1:] == (2, half)
    assert num == 2 or 2 * half < num, "every draw leaves a seed out"
    assert all(len({*first, *second}) == 2 * half for first, second in found.tolist())
    pairs = Counter((tuple(sorted(first)), tuple(sorted(second))) for first, second in found.tolist())
    assert all(pairs[second, first] == times for (first, second), times in pairs.items())
    every = math.comb(num, half) * math.comb(num - half, half)
    assert len(found) == min(every, MAX_DRAWS)
    assert len(pairs) == len(found) or every > MAX_DRAWS
    assert np.array_equal(found, draws(num))


@given(answers)
def test_rates_of_groups_are_those_of_every_pair_counted_by_hand(both: tuple[np.ndarray, np.ndarray]):
    # The last dense networks are the parents of the first pruned ones; what more there is on either side has no pair.
    num = min(len(both[0]), len(both[1]))
    dense_KN, pruned_KN = both[0][-num:], both[1][:num]
    seeds_dense = tuple(range(len(both[0])))
    seeds_pruned = (*seeds_dense[-num:], *range(100, 100 + len(both[1]) - num))
    half, num_images = {2: 1, 3: 1, 4: 1, 5: 2, 6: 2}[num], dense_KN.shape[1]
    pairs = [
        (list(first), list(second))
        for first in itertools.combinations(range(num), half)
        for second in itertools.combinations(range(num), half)
        if not {*first} & {*second}
    ]
    for ties in ("undecided", "largest"):

        def rate(others_KN: np.ndarray, ties: str = ties) -> float:
            return sum(
                is_pie_by_definition(dense_KN[first, image].tolist(), others_KN[second, image].tolist(), ties=ties)
                for first, second in pairs
                for image in range(num_images)
            ) / (len(pairs) * num_images)

        groups = exemplars(*both, ties=ties, seeds_dense=seeds_dense, seeds_pruned=seeds_pruned).groups
        assert groups.num_draws == len(pairs)
        # Means of at most 90 fractions of at most 12 images.
        assert groups.null == pytest.approx(rate(dense_KN), abs=1e-13)
        assert groups.pruned == pytest.approx(rate(pruned_KN), abs=1e-13)


def population(generator: np.random.Generator, *, num: int, lean_N: np.ndarray) -> np.ndarray:
    """Networks that answer 1 instead of 0 with the odds exp(lean), each more or less often than others."""
    own_K1 = generator.normal(0.0, 0.5, (num, 1))
    return (generator.random((num, len(lean_N))) < 1.0 / (1.0 + np.exp(-lean_N - own_K1))).astype(np.int64)


def leans(generator: np.random.Generator, num: int) -> np.ndarray:
    return generator.normal(-4.0, 3.0, num)


@pytest.mark.parametrize("ties", ["undecided", "largest"])
@pytest.mark.parametrize("num", [3, 5, 20])
def test_two_groups_of_one_dense_population_differ_as_luck_has_it(num: int, ties: str):
    """Twenty times: one half plays the pruned networks. Fewer than 16 of 20 intervals of 95 % that hold: p = 3e-4."""
    within = told_apart = 0
    for run in range(20):
        generator = np.random.default_rng([run, num])
        dense_KN = population(generator, num=2 * num, lean_N=leans(generator, 2000))
        groups = exemplars(dense_KN[:num], dense_KN[num:], ties=ties).groups
        assert groups.null_interval is not None
        within += groups.null_interval.low <= groups.pruned <= groups.null_interval.high
        told_apart += groups.verdict != "same"
    assert within >= 16
    assert told_apart <= 4


def test_pruned_networks_that_start_from_dense_ones_are_not_taken_for_more_alike_than_luck_makes():
    """Half of the answers are those of the parent: whole populations differ less than groups, equal terms do not."""
    num, told_apart = 10, 0
    for run in range(10):
        generator = np.random.default_rng(run)
        lean_N = leans(generator, 2000)
        dense_KN, fresh_KN = (population(generator, num=num, lean_N=lean_N) for _ in range(2))
        pruned_KN = np.where(generator.random(fresh_KN.shape) < 0.5, dense_KN, fresh_KN)
        found = exemplars(dense_KN, pruned_KN)
        assert found.rate < found.groups.null
        told_apart += found.groups.verdict != "same"
    assert told_apart <= 3  # of 10 at 5 %: p = .001


def test_networks_that_lost_something_differ_more_than_luck_has_it():
    generator = np.random.default_rng(0)
    lean_N = leans(generator, 2000)
    dense_KN = population(generator, num=10, lean_N=lean_N)
    pruned_KN = population(generator, num=10, lean_N=lean_N + 1.5)
    groups = exemplars(dense_KN, pruned_KN).groups
    assert groups.verdict == "more"
    assert groups.excess == pytest.approx(groups.pruned - groups.null, abs=1e-15)
    assert groups.excess_interval is not None
    assert groups.excess_interval.low < groups.excess < groups.excess_interval.high


def test_two_seeds_give_a_rate_of_luck_and_no_interval():
    dense_KN = np.array([[0, 0, 0, 0], [0, 0, 0, 1]])
    pruned_KN = np.array([[1, 0, 0, 0], [1, 1, 0, 0]])
    groups = exemplars(dense_KN, pruned_KN).groups
    assert (groups.num_networks, groups.num_draws, groups.null) == (1, 2, 1 / 4)
    # Dense 0 and pruned 1 differ on two images, dense 1 and pruned 0 on two.
    assert groups.pruned == 2 / 4
    assert (groups.null_interval, groups.excess_interval, groups.verdict) == (None, None, "unknown")


def test_groups_are_of_seeds_that_both_sides_have():
    dense_KN = np.array([[0, 0], [0, 1], [0, 1]])
    pruned_KN = np.array([[1, 0], [1, 0]])
    found = exemplars(dense_KN, pruned_KN, seeds_dense=(0, 1, 2), seeds_pruned=(2, 1))
    # Seeds 1 and 2 alone, whose dense networks agree; the pruned ones differ from them on both images.
    assert (found.groups.null, found.groups.pruned) == (0.0, 1.0)
    assert found.num_pies == 2


def test_accuracy_where_luck_differs_is_that_of_those_images():
    #                     luck, right by one of two on both sides; no luck
    dense_KN = np.array([[0, 0, 0], [1, 0, 0]])
    pruned_KN = np.array([[2, 2, 0], [2, 0, 0]])
    groups = exemplars(dense_KN, pruned_KN).groups
    assert (groups.dense_accuracy, groups.pruned_accuracy) == (0.5, 0.0)
    assert exemplars(pruned_KN[:, 2:], pruned_KN[:, 2:]).groups.dense_accuracy is None


# -- overlap and accuracy ----------------------------------------------------------------------------------------------


def test_overlap_is_the_share_of_common_exemplars():
    dense_KN = np.zeros((3, 10), np.int64)
    first_KN, second_KN = dense_KN.copy(), dense_KN.copy()
    first_KN[:, 0:4] = 1
    second_KN[:, 2:8] = 1
    first, second, none = (exemplars(dense_KN, one) for one in (first_KN, second_KN, dense_KN))
    assert overlap(first, second) == 2 / 8
    assert overlap(first, first) == 1.0
    assert overlap(none, first) == 0.0
    assert overlap(none, none) is None


def test_accuracy_on_exemplars_and_on_the_rest_is_counted_by_hand():
    generator = np.random.default_rng(1)
    label_N = generator.integers(0, 3, 300)
    dense_KN = np.where(generator.random((4, 300)) < 0.8, label_N, generator.integers(0, 3, (4, 300)))
    pruned_KN = np.where(generator.random((5, 300)) < 0.5, label_N, generator.integers(0, 3, (5, 300)))
    found = exemplars(dense_KN, pruned_KN, label_N=label_N)
    pies, rest = accuracy_on_pies(found)
    assert pies is not None and rest is not None and 0 < found.num_pies < 300
    is_pie_N = np.isin(np.arange(300), found.pies)
    for accuracy, chosen_N in ((pies, is_pie_N), (rest, ~is_pie_N)):
        assert accuracy.num_images == chosen_N.sum()
        # The same sums of whole numbers, divided once or averaged.
        assert accuracy.dense == pytest.approx((dense_KN == label_N)[:, chosen_N].mean(), abs=1e-14)
        assert accuracy.pruned == pytest.approx((pruned_KN == label_N)[:, chosen_N].mean(), abs=1e-14)


def test_random_samples_are_as_large_as_the_exemplars_and_as_accurate_as_all_images():
    generator = np.random.default_rng(2)
    label_N = np.zeros(2000, np.int64)
    dense_KN = (generator.random((3, 2000)) < 0.1).astype(np.int64)
    pruned_KN = dense_KN.copy()
    pruned_KN[:, :100] = 2
    result = evaluated(exemplars(dense_KN, pruned_KN, label_N=label_N))
    assert result.pies is not None and result.random is not None
    assert result.pies.pruned == 0.0
    # Of 200 samples of 100 images: sd of a sample below .06, of the mean .06 / sqrt(200) = .0043; four of them.
    assert result.random.pruned == pytest.approx(result.all.pruned, abs=0.017)
    assert result.random.pruned_interval.low < result.random.pruned < result.random.pruned_interval.high
    assert result == evaluated(result.population)


def test_without_exemplars_there_is_no_accuracy_on_them():
    same_KN = np.array([[0, 1], [0, 1]])
    result = evaluated(exemplars(same_KN, same_KN))
    assert (result.pies, result.random) == (None, None)
    assert result.rest == result.all
