"""Means over seeds and images against simulation, scipy and sums written out."""

# X quantities, S seeds, N images, P pairs, L noise levels, R repetitions

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from raypruning.analysis.similarity import (
    CrossedMeans,
    Estimate,
    Lead,
    NoiseTally,
    Pairing,
    churn_of,
    over_seeds,
    seed_parts,
)

tables = st.tuples(st.integers(1, 5), st.integers(2, 30)).flatmap(
    lambda shape: arrays(np.float64, (2, *shape), elements=st.floats(-1.5, 1.5).map(lambda x: round(x, 3)))
)


def estimates(values_XSN: np.ndarray) -> list[Estimate]:
    means = CrossedMeans()
    means.add(values_XSN)
    return means.estimates()


@given(tables)
def test_mean_and_its_error_are_those_of_the_mean_squares_written_out(values_XSN: np.ndarray):
    _, num_seeds, num = values_XSN.shape
    for found, values_SN in zip(estimates(values_XSN), values_XSN, strict=True):
        mean, by_image_N, by_seed_S = values_SN.mean(), values_SN.mean(0), values_SN.mean(1)
        rest_SN = values_SN - by_image_N - by_seed_S[:, None] + mean
        images = num_seeds * by_image_N.var(ddof=1)
        seeds = num * by_seed_S.var(ddof=1) if num_seeds > 1 else 0.0
        rest = (rest_SN**2).sum() / max((num_seeds - 1) * (num - 1), 1)
        # Sums of 150 squares of up to 1.5^2 round at 340 * 2.2e-16 = 8e-14, and so do their differences.
        expected = (images + max(seeds - rest, 0.0)) / (num_seeds * num)
        assert found.value == pytest.approx(mean, abs=1e-13)
        assert found.standard_error**2 == pytest.approx(expected, abs=1e-12)
        assert found.sd == (pytest.approx(by_seed_S.std(ddof=1), abs=1e-12) if num_seeds > 1 else None)


@given(tables, st.lists(st.integers(0, 30), max_size=4))
def test_mean_does_not_depend_on_how_images_are_split_into_batches(values_XSN: np.ndarray, cuts: list[int]):
    num = values_XSN.shape[2]
    means = CrossedMeans()
    for part in np.split(values_XSN, sorted(cut for cut in cuts if cut < num), axis=2):
        means.add(part)
    # See above; the root of it for errors.
    for one, other in zip(means.estimates(), estimates(values_XSN), strict=True):
        assert one.value == pytest.approx(other.value, abs=1e-13)
        assert one.standard_error == pytest.approx(other.standard_error, abs=1e-6)


def test_error_of_one_seed_is_that_of_a_mean_over_images():
    values_N = np.random.default_rng(0).normal(size=400)
    (found,) = estimates(values_N[None, None])
    assert found.standard_error == pytest.approx(stats.sem(values_N), rel=1e-12)
    assert found.degrees == pytest.approx(399) and found.sd is None
    assert found.margin(confidence=0.95) == pytest.approx(stats.t(399).ppf(0.95) * stats.sem(values_N), rel=1e-9)


@pytest.mark.parametrize(("num_seeds", "seed_sd", "both_sd"), [(10, 0.05, 1.0), (4, 0.2, 0.3), (10, 0.0, 1.0)])
def test_error_over_seeds_and_images_is_the_spread_of_the_mean_in_repeated_studies(
    num_seeds: int, seed_sd: float, both_sd: float
):
    num, num_studies = 100, 3000
    draw = np.random.default_rng(1)
    # Each quantity is a study of its own, with other seeds and other images.
    seed_RS1 = draw.normal(0, seed_sd, (num_studies, num_seeds, 1))
    image_R1N = draw.normal(0, 0.5, (num_studies, 1, num))
    found = estimates(seed_RS1 + image_R1N + draw.normal(0, both_sd, (num_studies, num_seeds, num)))
    truth = seed_sd**2 / num_seeds + 0.5**2 / num + both_sd**2 / (num_seeds * num)
    mean_square = np.mean([one.standard_error**2 for one in found])
    # The mean of 3000 estimates that spread by sqrt(2 / 3) of themselves at most (chi squared, three degrees): 1.5 %;
    # four of these. Taking no part below 0 adds E max(0, z) = .4 standard deviations of the part for seeds where these
    # do not differ: .4 * sqrt(2 / 9) / (10 * 100) of .0035, 5.4 %.
    assert 0.94 * truth < mean_square < (1.06 + 0.054) * truth
    covered = np.mean([abs(one.value) <= one.margin(confidence=0.95) for one in found])
    # Of 90 %: three standard errors of a fraction of 3000 are 1.6 %; that degrees of freedom are estimated as well may
    # cost as much again with four seeds.
    assert 0.868 < covered < 0.916


def mean_over_pairs(values_P: np.ndarray, seeds: set[int], num_seeds: int) -> float:
    pairs = list(combinations(range(num_seeds), 2))
    return float(np.mean([value for value, pair in zip(values_P, pairs, strict=True) if set(pair) <= seeds]))


@given(st.integers(3, 7), st.data())
def test_parts_of_seeds_are_the_pseudo_values_of_leaving_one_seed_out(num_seeds: int, data: st.DataObject):
    num_pairs = num_seeds * (num_seeds - 1) // 2
    values_P = np.array(data.draw(st.lists(st.floats(0, 1), min_size=num_pairs, max_size=num_pairs)))
    seeds = sorted(data.draw(st.sets(st.integers(0, num_seeds - 1), min_size=3)))
    whole = mean_over_pairs(values_P, set(seeds), num_seeds)
    parts_S = seed_parts(values_P[None, :, None], seeds, num_seeds=num_seeds)[0, :, 0]
    for seed, part in zip(seeds, parts_S, strict=True):
        without = mean_over_pairs(values_P, set(seeds) - {seed}, num_seeds)
        assert part == pytest.approx(len(seeds) * whole - (len(seeds) - 1) * without, abs=1e-12)
    assert parts_S.mean() == pytest.approx(whole, abs=1e-12)


def test_parts_of_two_seeds_are_their_pair_and_of_one_the_mean_of_its_pairs():
    values_P = np.array([1.0, 2.0, 4.0])  # of seeds 0 and 1, 0 and 2, 1 and 2
    assert seed_parts(values_P[None, :, None], (0, 2), num_seeds=3).ravel().tolist() == [2.0, 2.0]
    assert seed_parts(values_P[None, :, None], (1,), num_seeds=3).ravel().tolist() == [2.5]


def test_error_of_separate_networks_counts_that_a_network_is_in_many_pairs():
    """Pairs of eight networks, each with an effect of its own: 28 values are no 28 independent ones."""
    num_seeds, num, num_studies = 8, 60, 2000
    draw = np.random.default_rng(2)
    own_RSN = draw.normal(0, 0.2, (num_studies, num_seeds, 1)) + draw.normal(0, 0.5, (num_studies, num_seeds, num))
    image_RN = draw.normal(0, 0.3, (num_studies, num))
    pairs = list(combinations(range(num_seeds), 2))
    values_RPN = np.stack([own_RSN[:, a] + own_RSN[:, b] + image_RN for a, b in pairs], axis=1)
    found = estimates(seed_parts(values_RPN, range(num_seeds), num_seeds=num_seeds))
    spread = np.var([one.value for one in found], ddof=1)
    # A sample variance of 2000: sqrt(2 / 2000) = 3.2 %; estimates with 7 degrees: sqrt(2 / 7 / 2000) = 1.2 %. Three of
    # both together: 10 %.
    assert np.mean([one.standard_error**2 for one in found]) == pytest.approx(spread, rel=0.1)
    # As if pairs were independent, it would be half of that or less.
    naive = np.mean(values_RPN.mean(2).var(axis=1, ddof=1) / len(pairs))
    assert naive < 0.5 * spread


@given(st.integers(0, 50))
def test_churn_of_one_pair_has_the_interval_of_a_proportion(num_differ: int):
    found = churn_of("nominal", (np.arange(50) < num_differ)[None])
    expected = stats.binomtest(num_differ, 50).proportion_ci(0.9, method="wilson")
    assert found.rate.value == num_differ / 50 and found.num_examples == 50
    assert (found.interval.low, found.interval.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_churn_of_seeds_that_are_copies_is_as_unsure_as_that_of_one():
    differs_1N = np.arange(200)[None] < 30
    one, three = churn_of("nominal", differs_1N), churn_of("nominal", np.repeat(differs_1N, 3, axis=0))
    assert three.rate.value == one.rate.value
    # N - 1 for N in the standard error, and Student's t with 199 degrees for the normal: 1 % of the width.
    width = one.interval.high - one.interval.low
    assert (three.interval.low, three.interval.high) == pytest.approx(
        (one.interval.low, one.interval.high), abs=0.01 * width
    )


def test_churn_of_seeds_that_never_differ_still_has_an_upper_end():
    found = churn_of("nominal", np.zeros((4, 100), bool))
    assert (found.rate.value, found.interval.low) == (0.0, 0.0)
    assert found.interval.high == pytest.approx(stats.binomtest(0, 100).proportion_ci(0.9, method="wilson").high)


@settings(max_examples=30)
@given(st.integers(2, 6), st.integers(0, 1000))
def test_churn_of_every_two_parents_is_the_mean_over_pairs(num_parents: int, seed: int):
    predicted_SN = np.random.default_rng(seed).integers(0, 3, (num_parents, 40))
    pairing = Pairing([], num_parents=num_parents)
    differs = [predicted_SN[a] != predicted_SN[b] for a, b in pairing.pairs]
    found = churn_of("nominal", np.stack(differs), pairing.parts)
    assert found.rate.value == pytest.approx(np.mean(differs), abs=1e-12)
    assert 0.0 <= found.interval.low <= found.rate.value <= found.interval.high <= 1.0


def test_number_that_is_no_mean_over_images_has_its_error_over_seeds():
    values_P = np.array([0.5, 0.7, 0.9])
    assert over_seeds(values_P).standard_error == pytest.approx(stats.sem(values_P))
    assert over_seeds(values_P[:1]) == Estimate(value=0.5, standard_error=None)
    separate = over_seeds(values_P, num_separate=3)
    # Without each of the three seeds one pair is left: 3 * .7 - 2 * (.9, .7, .5).
    assert separate.standard_error == pytest.approx(stats.sem([0.3, 0.7, 1.1]))
    assert separate.value == pytest.approx(0.7)


@pytest.mark.parametrize(
    ("value", "degrees", "verdict"),
    # 1.65 and 6.31 are what Student's t exceeds in one of twenty cases, with many degrees and with one.
    [
        (1.7, 1e6, "closer"),
        (1.6, 1e6, "undecided"),
        (-1.7, 1e6, "farther"),
        (6.2, 1.0, "undecided"),
        (6.4, 1.0, "closer"),
    ],
)
def test_lead_is_told_from_none_by_its_error_and_by_how_well_that_is_known(value: float, degrees: float, verdict: str):
    none = Estimate(value=0.0, standard_error=1.0, degrees=degrees)
    lead = Lead(matching=Estimate(value=value, standard_error=1.0, degrees=degrees), distance=none)
    assert lead.verdict == verdict


def test_pairing_compares_each_network_with_its_parent_and_every_two_parents():
    pairing = Pairing([(0, 1, 2), (0, 2)], num_parents=3)
    assert pairing.num_networks == 8
    assert pairing.pairs == [(0, 3), (1, 4), (2, 5), (0, 6), (2, 7), (0, 1), (0, 2), (1, 2)]
    assert pairing.pairs[pairing.of_population[1]] == [(0, 6), (2, 7)]
    assert pairing.pairs[pairing.of_control] == [(0, 1), (0, 2), (1, 2)]
    assert not Pairing([(0,)], num_parents=1).has_control


@pytest.mark.parametrize("populations", [[(0, 1, 2, 3), (1, 3), (2,)], [(0, 1, 2)]])
def test_tally_gives_means_over_pairs_images_and_levels_with_the_control_of_the_same_seeds(populations: list):
    num_parents = 4
    pairing = Pairing(populations, num_parents=num_parents)
    draw = np.random.default_rng(3)
    matching_LPN, distance_LPN = draw.random((2, 3, len(pairing.pairs), 50))
    tally = NoiseTally(pairing, (0.0, 0.1, 0.5))
    for part in (slice(0, 20), slice(20, 50)):
        tally.add(matching_LPN[..., part], distance_LPN[..., part])
    control_P = matching_LPN[:, pairing.of_control].mean(axis=(0, 2))
    for index, seeds in enumerate(populations):
        levels, lead = tally.population(index)
        own = pairing.of_population[index]
        assert [one.amplitude for one in levels] == [0.0, 0.1, 0.5]
        assert [one.matching.value for one in levels] == pytest.approx(matching_LPN[:, own].mean(axis=(1, 2)))
        assert [one.distance.value for one in levels] == pytest.approx(distance_LPN[:, own].mean(axis=(1, 2)))
        # A single seed has its pairs with all others, more seeds those among themselves.
        pairs = list(combinations(range(num_parents), 2))
        counts = [set(pair) <= set(seeds) or (len(seeds) == 1 and seeds[0] in pair) for pair in pairs]
        separate = control_P[np.array(counts)].mean()
        assert lead is not None
        assert lead.matching.value == pytest.approx(matching_LPN[:, own].mean() - separate)
    separate = tally.control()
    assert separate is not None and separate.lead is None
    of_pairs_LP = distance_LPN[:, pairing.of_control].mean(axis=2)
    for level, one in enumerate(separate.levels):
        assert one.distance.value == pytest.approx(of_pairs_LP[level].mean())
        assert one.distance.sd == pytest.approx(of_pairs_LP[level].std(ddof=1))


def test_tally_of_one_parent_has_no_control_and_no_lead():
    tally = NoiseTally(Pairing([(0,)], num_parents=1), (0.0,))
    tally.add(np.ones((1, 1, 5)), np.zeros((1, 1, 5)))
    levels, lead = tally.population(0)
    assert (levels[0].matching.value, levels[0].distance.value, lead, tally.control()) == (1.0, 0.0, None, None)


def test_tally_of_two_parents_has_one_pair_as_control():
    pairing = Pairing([(0, 1)], num_parents=2)
    values_LPN = np.random.default_rng(4).random((1, 3, 80))
    tally = NoiseTally(pairing, (0.0,))
    tally.add(values_LPN, values_LPN)
    separate, (_, lead) = tally.control(), tally.population(0)
    assert separate is not None and lead is not None
    (level,) = separate.levels
    assert level.matching.standard_error == pytest.approx(stats.sem(values_LPN[0, 2])) and level.matching.sd is None
    assert lead.distance.value == pytest.approx(values_LPN[0, 2].mean() - values_LPN[0, :2].mean())
