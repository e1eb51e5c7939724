"""Tests of each class against scipy, published numbers, sums over all signs, and populations whose truth is known."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import binomtest, permutation_test, ttest_ind

from raypruning.analysis.class_impact import Answers, Impact, PopulationImpact, mean_loss, population_impact, recalls
from raypruning.analysis.class_tests import mean_interval, sign_flip, welch
from raypruning.core.populations import Population

# The PIE study's mean accuracies at ratios 0 and 0.9, which it has as constants.
ACCURACY, ACCURACY_PRUNED = 0.76675, 0.72569
RECALLS = np.array([0.80, 0.82, 0.81, 0.79, 0.83])


def study(pruned_K: np.ndarray):
    return welch((RECALLS - ACCURACY)[:, None], (pruned_K - ACCURACY_PRUNED)[:, None])


# -- over networks ---------------------------------------------------------------------------------------------------


def test_welch_has_the_golden_numbers_of_the_study():
    found = study(np.array([0.70, 0.74, 0.72, 0.69, 0.73]))
    assert found.statistic_C[0] == pytest.approx(4.539567548722205, rel=1e-12)
    assert found.p_C[0] == pytest.approx(0.0022582079189078542, rel=1e-12)
    assert found.df_C[0] == pytest.approx(7.476151980598212, rel=1e-12)


def test_class_that_falls_with_the_model_is_no_difference_and_one_that_rises_has_a_negative_statistic():
    along = study(RECALLS - ACCURACY + ACCURACY_PRUNED)
    # A difference of rounded numbers below 1, over a standard error of .01.
    assert along.statistic_C[0] == pytest.approx(0, abs=1e-13)
    assert along.p_C[0] == pytest.approx(1, abs=1e-13)
    # A difference of .01 + .04106 over .01.
    assert study(RECALLS + 0.01).statistic_C[0] == pytest.approx(-5.106, rel=1e-12)
    assert study(RECALLS + 0.01).p_C[0] == pytest.approx(0.000923, abs=5e-7)


values = st.integers(5, 9).flatmap(
    lambda num: arrays(float, (num, 3), elements=st.integers(0, 50).map(lambda k: k / 50))
)


@settings(max_examples=60)
@given(values, values)
def test_welch_is_that_of_scipy_wherever_there_is_spread(first_KC: np.ndarray, second_KC: np.ndarray):
    found = welch(first_KC, second_KC, confidence=0.9)
    for index in np.flatnonzero(np.ptp(first_KC, axis=0) + np.ptp(second_KC, axis=0)):
        # Rescaled and moved by what does not round, so that scipy does not see a side of equal numbers as rounding.
        first_K, second_K = 50 * first_KC[:, index], 50 * second_KC[:, index]
        expected = ttest_ind(first_K.round(), second_K.round(), equal_var=False)
        ends = expected.confidence_interval(0.9)
        # Sums of nine squares of size 1 round at 9 * 2.2e-16, of differences of 1/50 at the least.
        close = {"rel": 1e-9, "abs": 1e-12}
        assert found.statistic_C[index] == pytest.approx(expected.statistic, **close)
        assert found.p_C[index] == pytest.approx(expected.pvalue, **close)
        assert found.df_C[index] == pytest.approx(expected.df, **close)
        assert (50 * found.low_C[index], 50 * found.high_C[index]) == pytest.approx((ends.low, ends.high), **close)


@pytest.mark.parametrize(("n", "m"), [(5, 5), (5, 6), (6, 5)])
def test_without_any_spread_p_is_that_of_a_permutation_test_and_t_is_missing(n: int, m: int):
    found = welch(np.full((n, 1), 0.9), np.full((m, 1), 0.1))
    expected = permutation_test(
        (np.full(n, 0.9), np.full(m, 0.1)), lambda a, b: abs(a.mean() - b.mean()), alternative="greater"
    )
    assert found.p_C[0] == pytest.approx(expected.pvalue, rel=1e-12)
    assert math.isnan(found.statistic_C[0]) and math.isnan(found.effect_C[0])
    assert found.difference_C[0] == pytest.approx(0.8)


def test_equal_means_without_any_spread_are_no_difference():
    # .1 + .2 and .3 differ in the last bit: they are the same.
    found = welch(np.full((5, 2), [0.1 + 0.2, 1.0]), np.full((7, 2), [0.3, 1.0]))
    assert found.statistic_C.tolist() == [0, 0] and found.p_C.tolist() == [1, 1] and found.effect_C.tolist() == [0, 0]


def test_effect_size_is_right_on_average_over_small_samples():
    random = np.random.default_rng(0)
    num = 100_000
    found = welch(random.normal(1.0, 1.0, (5, num)), random.normal(0.0, 1.0, (5, num)))
    # Without correction it would be 1.11. The degrees of freedom are estimated, never above the 8 that they are: this
    # overcorrects by some two percent. Chance adds 0.7 / sqrt(100 000) = .002.
    assert found.effect_C.mean() == pytest.approx(1.0, abs=0.03)


# -- over images -----------------------------------------------------------------------------------------------------


def by_all_signs(net: list[int]) -> float:
    sums = [
        sum(s * n for s, n in zip(signs, net, strict=True)) for signs in itertools.product((-1, 1), repeat=len(net))
    ]
    return sum(abs(one) >= abs(sum(net)) for one in sums) / len(sums)


@settings(max_examples=80)
@given(st.lists(st.integers(-4, 4), min_size=1, max_size=9))
def test_sign_flip_is_the_share_of_all_choices_of_signs_that_are_as_far_out(net: list[int]):
    # Sums of at most 512 products of powers of two.
    assert sign_flip(np.array(net)) == pytest.approx(by_all_signs(net), rel=1e-12)


@given(st.integers(0, 300), st.integers(0, 300), st.integers(0, 5))
def test_sign_flip_of_one_pair_is_mcnemar(lost: int, gained: int, same: int):
    net_N = np.repeat([1, -1, 0], [lost, gained, same])
    expected = binomtest(lost, lost + gained).pvalue if lost + gained else 1.0
    assert sign_flip(net_N) == pytest.approx(expected, rel=1e-9)


def test_sign_flip_does_not_take_many_small_gains_for_more_than_few_large_losses():
    net_N = np.repeat([3, -1], [20, 60])
    assert sign_flip(net_N) == 1.0
    # What a sign test would say of the same recalls.
    assert binomtest(20, 80).pvalue < 1e-4


def correlated(random: np.random.Generator, *, num_images: int, lost: float, gained: float) -> np.ndarray:
    """Net losses of three pairs that nearly always agree."""
    first_N = random.choice([1, -1, 0], num_images, p=[lost, gained, 1 - lost - gained])
    others_2N = np.where(random.random((2, num_images)) < 0.9, first_N, 0)
    return first_N + others_2N.sum(axis=0)


def test_sign_flip_keeps_its_level_though_pairs_share_their_images():
    random = np.random.default_rng(1)
    num = 1500
    p_values = [sign_flip(correlated(random, num_images=60, lost=0.15, gained=0.15)) for _ in range(num)]
    # Three standard errors of a share of .05.
    assert np.mean(np.array(p_values) <= 0.05) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / num)


def test_interval_over_images_holds_the_true_loss_as_often_as_it_says():
    random = np.random.default_rng(2)
    num, true = 2000, (0.2 - 0.05) * (1 + 2 * 0.9) / 3
    ends = [
        mean_interval(correlated(random, num_images=80, lost=0.2, gained=0.05), num_pairs=3, confidence=0.95)
        for _ in range(num)
    ]
    share = np.mean([one.low <= true <= one.high for one in ends])
    # Three standard errors, and a point for the normal approximation.
    assert abs(share - 0.95) <= 0.01 + 3 * math.sqrt(0.95 * 0.05 / num)


def test_interval_over_images_has_a_width_where_all_images_agree():
    for net in (0, 3, -3):
        found = mean_interval(np.full(50, net), num_pairs=3, confidence=0.95)
        assert -1 <= found.low < found.high <= 1
        assert found.low < net / 3 or net == -3
        assert found.high > net / 3 or net == 3


# -- populations -----------------------------------------------------------------------------------------------------

NUM_CLASSES, IMAGES = 10, 50
LABEL_N = np.repeat(np.arange(NUM_CLASSES), IMAGES)


def answers(recall_C: np.ndarray | float, *, num: int, random: np.random.Generator, first_seed: int = 0) -> Answers:
    """Networks that have each image of a class right with the same probability, independently."""
    chance_C = np.broadcast_to(recall_C, (NUM_CLASSES,))
    right_KN = random.random((num, len(LABEL_N))) < chance_C[LABEL_N]
    return Answers(tuple(range(first_seed, first_seed + num)), right_KN)


def impact(dense: Answers, pruned: Answers, *, label_N: np.ndarray = LABEL_N, **options) -> PopulationImpact:
    population = Population("wt", 2, 0.9, ())._replace(networks=(_Reached(),))
    return population_impact("nominal", population, dense=dense, pruned=pruned, label_N=label_N, **options)


class _Reached:
    """All that is asked of a network here."""

    ratio_reached = 0.91


def exact(right_KC: list[list[int]], *, seeds: tuple[int, ...] | None = None, images: int = 20) -> Answers:
    """Networks that have so many of the first images of each class right, of 20."""
    right = np.array([np.concatenate([np.arange(images) < num for num in row]) for row in right_KC])
    return Answers(seeds or tuple(range(len(right_KC))), right)


def labels(num_classes: int, images: int = 20) -> np.ndarray:
    return np.repeat(np.arange(num_classes), images)


def test_two_halves_of_one_dense_population_differ_in_no_class():
    random = np.random.default_rng(3)
    recall_C = np.linspace(0.5, 0.99, NUM_CLASSES)
    num = 150
    significant = 0
    for _ in range(num):
        whole = answers(recall_C, num=20, random=random)
        halves = (Answers(whole.seeds[part], whole.right_KN[part]) for part in (slice(10), slice(10, 20)))
        found = impact(*halves)
        significant += any(one.verdict != "none" for one in found.classes)
    # Where nothing is true, the false discovery rate is the chance of any claim.
    assert significant / num <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / num)


def test_study_numbers_are_of_recall_minus_the_mean_accuracy_of_the_population():
    random = np.random.default_rng(8)
    dense, pruned = answers(0.8, num=6, random=random), answers(0.6, num=9, random=random)
    for index, one in enumerate(impact(dense, pruned).classes):
        sides = [side.right_KN[:, index == LABEL_N].mean(axis=1) - side.right_KN.mean() for side in (dense, pruned)]
        expected = ttest_ind(*sides, equal_var=False)
        # Means of at most 500 numbers up to 1, over standard errors of .02.
        assert one.study_statistic == pytest.approx(expected.statistic, abs=1e-10)
        assert one.study_p_value == pytest.approx(expected.pvalue, abs=1e-10)


def test_networks_whose_accuracy_varies_are_compared_without_what_it_varies_by():
    # Every class of a network is as good as its accuracy: no class differs from another, however accuracy falls.
    random = np.random.default_rng(9)
    dense, pruned = ([[num] * 4 for num in random.integers(low, high, 8)] for low, high in ((900, 1000), (300, 1000)))
    found = impact(exact(dense, images=1000), exact(pruned, images=1000), label_N=labels(4, images=1000))
    assert found.accuracy_lost > 0.05
    assert [(one.test, one.p_value, one.verdict) for one in found.classes] == [("permutation", 1.0, "none")] * 4


def test_uncorrected_tests_of_two_halves_do_find_classes():
    random = np.random.default_rng(3)
    wholes = [answers(0.8, num=20, random=random) for _ in range(60)]
    halves = [[Answers(one.seeds[part], one.right_KN[part]) for part in (slice(10), slice(10, 20))] for one in wholes]
    found = [sum(one.verdict != "none" for one in impact(*pair, correction="none").classes) for pair in halves]
    # One in twenty of ten classes, a little less since accuracy moves along.
    assert 0.2 <= np.mean(found) <= 0.7


@pytest.mark.parametrize("correction", ["bh", "holm"])
def test_planted_class_is_found_lost_and_no_other(correction: str):
    random = np.random.default_rng(4)
    pruned_C = np.where(np.arange(NUM_CLASSES) == 3, 0.5, 0.8)
    found = impact(
        answers(0.8, num=10, random=random), answers(pruned_C, num=10, random=random), correction=correction, level=0.01
    )
    assert [one.label for one in found.lost] == [3]
    (lost,) = found.lost
    # 30 points less 3 of accuracy; the mean of ten recalls of 50 images has a standard error of 2 points.
    assert lost.lost_beyond == pytest.approx(0.27, abs=0.09)
    assert lost.interval is not None and lost.interval.low < 0.27 < lost.interval.high
    assert lost.test == "welch" and lost.statistic > 0 and lost.effect_size > 1


def test_classes_that_fall_less_than_accuracy_gain_though_their_recall_fell():
    random = np.random.default_rng(5)
    pruned_C = np.where(np.arange(NUM_CLASSES) < 2, 0.85, 0.5)
    found = impact(answers(0.9, num=10, random=random), answers(pruned_C, num=10, random=random))
    assert {one.label for one in found.gained} >= {0, 1}
    assert all(one.statistic < 0 and one.tested < 0 for one in found.gained)
    assert mean_loss(found.gained) < 0 < mean_loss(found.lost)


@settings(max_examples=20)
@given(st.integers(0, 2**32), st.sampled_from([1, 3, 6]))
def test_what_is_lost_one_way_is_gained_the_other(seed: int, num: int):
    random = np.random.default_rng(seed)
    first, second = (answers(random.random(NUM_CLASSES), num=num, random=random) for _ in range(2))
    there, back = impact(first, second), impact(second, first)
    mirror = {"lost": "gained", "gained": "lost", "none": "none"}
    for one, other in zip(there.classes, back.classes, strict=True):
        assert mirror[one.verdict] == other.verdict
        assert one.tested == pytest.approx(-other.tested, abs=1e-12)
        assert one.p_value == pytest.approx(other.p_value, rel=1e-9)
        assert one.interval.low == pytest.approx(-other.interval.high, abs=1e-9)


def test_adding_images_of_other_classes_to_the_test_set_changes_no_exact_test():
    random = np.random.default_rng(6)
    dense, pruned = (answers(0.7, num=2, random=random) for _ in range(2))
    whole = impact(dense, pruned, correction="none")
    part_N = LABEL_N >= 5
    part = impact(*(Answers(one.seeds, one.right_KN[:, part_N]) for one in (dense, pruned)), label_N=LABEL_N[part_N])
    assert [one.label for one in part.classes] == [5, 6, 7, 8, 9]
    assert [one.p_value for one in part.classes] == [one.p_value for one in whole.classes[5:]]


def test_fewer_than_five_networks_are_compared_with_their_own_parents():
    dense = exact([[20, 18], [15, 10], [5, 5], [1, 1], [2, 2]], seeds=(0, 1, 2, 3, 4))
    pruned = exact([[4, 5], [12, 18]], seeds=(2, 0))
    found = impact(dense, pruned, label_N=labels(2))
    assert found.test == "sign_flip" and found.seeds_dense == found.seeds_pruned == (2, 0)
    first, second = found.classes
    # Parents of seed 2 and 0 have 5 + 20 images of the first class right, and lose one and eight of them.
    assert (first.num_lost, first.num_gained) == (9, 0) and (second.num_lost, second.num_gained) == (0, 0)
    assert first.lost == pytest.approx(9 / 40) and second.p_value == 1
    # An image that one pair loses, and eight others that the other one does: nine signs.
    assert first.p_value == pytest.approx(2 / 2**9)


@pytest.mark.parametrize(
    ("num_dense", "num_pruned", "test"), [(1, 1, "mcnemar"), (5, 1, "mcnemar"), (4, 4, "sign_flip"), (5, 5, "welch")]
)
def test_number_of_networks_chooses_the_test(num_dense: int, num_pruned: int, test: str):
    random = np.random.default_rng(7)
    found = impact(*(answers(0.7, num=num, random=random) for num in (num_dense, num_pruned)))
    assert found.test == test and {one.test for one in found.classes} == {test}
    assert {one.statistic is None for one in found.classes} == {test != "welch"}


def test_classes_of_networks_that_do_not_differ_within_a_side_are_tested_by_permutation():
    first, second = impact(exact([[20, 15]] * 5), exact([[0, 15]] * 5), label_N=labels(2)).classes
    for one, beyond in ((first, 0.5), (second, -0.5)):
        assert one.test == "permutation" and one.statistic is None and one.interval is None
        assert one.p_value == pytest.approx(2 / math.comb(10, 5)) and one.tested == pytest.approx(beyond)


def test_class_without_an_image_is_left_out():
    found = impact(exact([[20, 10]]), exact([[20, 10]]), label_N=labels(2) * 7)
    assert [one.label for one in found.classes] == [0, 7]


def test_recalls_are_the_share_of_a_class_that_is_right():
    right_KN = np.array([[1, 0, 1, 1], [0, 0, 0, 1]], bool)
    assert recalls(right_KN, np.array([4, 4, 1, 1], np.uint16)).tolist() == [[1.0, 0.5], [0.5, 0.0]]


# -- classes that are not found --------------------------------------------------------------------------------------


def test_class_that_no_pruned_network_finds_is_never_found_and_no_class_of_its_kind_collapses():
    found = impact(exact([[20, 18, 19]] * 2), exact([[19, 0, 19], [18, 0, 17]]), label_N=labels(3))
    assert [one.label for one in found.never_found] == [1]
    assert found.missed_by_some == () and found.collapsed == ()
    assert found.never_found[0].seeds_without == (0, 1)
    assert found.never_found[0].accuracy_without == pytest.approx(38 / 60)


def test_class_that_one_of_several_networks_misses_is_told_with_the_accuracy_of_that_one():
    found = impact(exact([[20, 18, 19]] * 2), exact([[19, 15, 19], [18, 0, 17]]), label_N=labels(3))
    (missed,) = found.missed_by_some
    assert found.never_found == () and missed.label == 1 and missed.seeds_without == (1,)
    assert missed.accuracy_without == pytest.approx(35 / 60)


@pytest.mark.parametrize("num", [0, 6])
def test_class_of_which_a_guess_finds_as_much_as_dense_networks_do_is_no_headline(num: int):
    found = impact(exact([[20, 18, num]] * 2), exact([[20, 18, 0]] * 2), label_N=labels(3))
    assert found.never_found == () and found.missed_by_some == ()


def test_class_that_one_dense_network_misses_too_is_a_headline_only_if_all_pruned_ones_do():
    dense = exact([[20, 18], [20, 18], [20, 0]])
    assert impact(dense, exact([[20, 18], [20, 0], [20, 18]]), label_N=labels(2)).missed_by_some == ()
    assert len(impact(dense, exact([[20, 0]] * 3), label_N=labels(2)).never_found) == 1


def test_class_collapses_when_it_loses_more_than_half_and_far_more_than_accuracy_does():
    dense = exact([[20, 20, 20, 20]])
    (collapsed,) = impact(dense, exact([[20, 20, 20, 9]]), label_N=labels(4)).collapsed
    assert collapsed.label == 3
    assert impact(dense, exact([[20, 20, 20, 10]]), label_N=labels(4)).collapsed == ()  # exactly half
    assert impact(dense, exact([[12, 12, 12, 9]]), label_N=labels(4)).collapsed == ()  # accuracy lost 44 %


def test_records_hold_what_they_are_asked_for():
    found = impact(exact([[20, 10]]), exact([[10, 15]]), label_N=labels(2))
    assert isinstance(Impact("s", "", "m", "d", (), "bh", 0.05, (found,)), Impact)
    assert (found.method, found.budget, found.ratio, found.ratio_reached) == ("wt", 2, 0.9, 0.91)
    assert found.accuracy_lost == pytest.approx(5 / 40)
    assert [one.label for one in found.worst_first] == [0, 1]
