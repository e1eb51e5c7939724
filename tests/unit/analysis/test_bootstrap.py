"""Bootstrap intervals against scipy's, against formulas, and against a loop."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from raypruning.analysis.bootstrap import Resampler, interval_of, mean_over_seeds, resampled_potentials
from raypruning.analysis.metrics import metric_of

NUM_IMAGES = 400
# Resamples used throughout, see NUM_RESAMPLES.
R = 1000


def weights_of(resampler: Resampler, num_images: int, *, images: str = "") -> np.ndarray:
    """How often each resample holds each image, shape (R, N), read off the sums of one image at a time."""
    return resampler.sums(np.eye(num_images), images=images).astype(int)


def means_of(resampler: Resampler, values_N: np.ndarray) -> np.ndarray:
    return resampler.sums(values_N[:, None])[:, 0] / len(values_N)


def predictions(wrong_N: np.ndarray) -> dict[str, np.ndarray]:
    """Of a network that is wrong on these images."""
    return {"predicted": wrong_N.astype(np.uint16), "label": np.zeros(len(wrong_N), np.uint16)}


def potentials_of(wrong_NP: np.ndarray, dense_N: np.ndarray, ratios: list[float], *, delta: float) -> np.ndarray:
    """Potentials from one matrix of who is wrong where."""
    metric, resampler = metric_of("classification"), Resampler()
    errors_R1P = resampler.errors(metric, [predictions(wrong_N) for wrong_N in (dense_N, *wrong_NP.T)])
    return resampled_potentials(
        errors_R1P[:, 1:], errors_R1P[:, 0], ratios, delta=delta, num_images=len(dense_N), counts=True
    )


def disagreements(*, num_lost: int, num_won: int, num_images: int = NUM_IMAGES, seed: int = 0):
    """(pruned wrong, dense wrong): so many images lost by pruning, so many won, 20 wrong in both."""
    dense = np.zeros(num_images, bool)
    pruned = np.zeros(num_images, bool)
    pruned[:num_lost] = True
    dense[num_lost : num_lost + num_won] = True
    dense[num_lost + num_won :][:20] = pruned[num_lost + num_won :][:20] = True
    order = np.random.default_rng(seed).permutation(num_images)
    return pruned[order], dense[order]


def test_resample_holds_as_many_images_as_the_test_set():
    weights_RN = weights_of(Resampler(), NUM_IMAGES)
    assert weights_RN.shape == (R, NUM_IMAGES)
    assert (weights_RN.sum(axis=1) == NUM_IMAGES).all()


def test_images_are_drawn_with_equal_chances():
    counts_N = weights_of(Resampler(), NUM_IMAGES).sum(axis=0)
    # Fixed draws: another generator fails this once in a thousand times.
    assert stats.chisquare(counts_N).pvalue > 0.001


def test_resamples_are_the_same_for_a_seed_and_shared_by_all_that_is_compared():
    values_NP = np.random.default_rng(0).normal(size=(50, 2))
    one = Resampler(seed=3)
    assert np.array_equal(one.sums(values_NP), Resampler(seed=3).sums(values_NP))
    assert np.array_equal(one.sums(values_NP), one.sums(values_NP))
    assert not np.array_equal(one.sums(values_NP), Resampler(seed=4).sums(values_NP))


def test_resamples_of_other_images_are_others_also_where_there_are_as_many():
    resampler = Resampler()
    own, other, third = (weights_of(resampler, 50, images=images) for images in ("", "a", "b"))
    assert not np.array_equal(own, other) and not np.array_equal(other, third)
    # Kept for some test sets only, and the same when they are drawn again.
    assert np.array_equal(weights_of(resampler, 50), own)
    # Independent: the correlation of 50 000 pairs of counts is within 4 / sqrt(50 000) of 0.
    assert abs(np.corrcoef(own.ravel(), other.ravel())[0, 1]) < 4 / math.sqrt(own.size)


@pytest.mark.parametrize(("num_lost", "num_won"), [(30, 10), (5, 5), (60, 0)])
def test_spread_of_a_paired_difference_is_that_of_the_formula(num_lost, num_won):
    pruned, dense = disagreements(num_lost=num_lost, num_won=num_won)
    means_R = means_of(Resampler(), pruned.astype(float) - dense)
    b, c, n = num_lost, num_won, NUM_IMAGES
    # McNemar's: b + c images differ, by +1 or -1.
    standard_error = math.sqrt((b + c) - (b - c) ** 2 / n) / n
    # The spread of R normal numbers is itself off by 1 / sqrt(2 R), 2.2 %, and their mean by 1 / sqrt(R) of the spread;
    # four of each. Counts of a few images are near enough to normal for that.
    assert means_R.std() == pytest.approx(standard_error, rel=4 / math.sqrt(2 * R))
    assert means_R.mean() == pytest.approx((b - c) / n, abs=4 * standard_error / math.sqrt(R))


def test_interval_of_a_mean_is_that_of_scipys_percentile_bootstrap():
    values_N = np.random.default_rng(1).exponential(size=NUM_IMAGES)
    ours = interval_of(means_of(Resampler(), values_N))
    reference = stats.bootstrap(
        (values_N,),
        np.mean,
        confidence_level=0.9,
        method="percentile",
        n_resamples=20_000,
        rng=np.random.default_rng(2),
    ).confidence_interval
    # A 5 % quantile of R draws from a normal is off by sqrt(.05 * .95 / R) / density(1.645) = .0069 / .103 = 6.7 %
    # of the spread; four of these.
    allowed = 4 * 0.067 * values_N.std() / math.sqrt(NUM_IMAGES)
    assert ours.low == pytest.approx(reference.low, abs=allowed)
    assert ours.high == pytest.approx(reference.high, abs=allowed)
    assert ours.confidence == 0.9


def test_interval_is_central():
    found = interval_of(np.arange(101.0))
    assert (found.low, found.high) == pytest.approx((5.0, 95.0))


# --- Potentials ---------------------------------------------------------------------------------------------------


@settings(max_examples=25)
@given(
    st.integers(5, 25),
    st.lists(st.floats(0.01, 0.99), min_size=1, max_size=4, unique=True),
    st.sampled_from([0.01, 0.07, 0.1, 0.29]),
    st.integers(0, 10_000),
)
def test_resampled_potentials_are_those_of_a_loop_over_resampled_test_sets(num_images, ratios, delta, seed):
    random = np.random.default_rng(seed)
    wrong_NP, dense_N = random.random((num_images, len(ratios))) < 0.5, random.random(num_images) < 0.4
    found = potentials_of(wrong_NP, dense_N, ratios, delta=delta)
    # Hundredths, so that the product is of integers.
    allowed = round(delta * 100) * num_images // 100
    expected = []
    for weights_N in weights_of(Resampler(), num_images)[:100]:
        images = np.repeat(np.arange(num_images), weights_N)
        num_lost_P = [int(wrong_NP[images, p].sum()) - int(dense_N[images].sum()) for p in range(len(ratios))]
        expected.append(max((r for r, lost in zip(ratios, num_lost_P, strict=True) if lost <= allowed), default=0.0))
    assert found[:100].tolist() == expected
    assert len(found) == R


def test_potential_that_no_resample_doubts_has_an_interval_of_one_point():
    dense_N = np.zeros(NUM_IMAGES, bool)
    wrong_NP = np.stack([dense_N, ~dense_N], axis=1)
    found = interval_of(potentials_of(wrong_NP, dense_N, [0.5, 0.9], delta=0.005))
    assert (found.low, found.high) == (0.5, 0.5)


def test_potential_at_the_edge_of_delta_is_passed_by_about_half_of_the_resamples():
    pruned, dense = disagreements(num_lost=24, num_won=20)  # 4 of 400 images more: exactly 1 %
    found_R = potentials_of(pruned[:, None], dense, [0.9], delta=0.01)
    b, c = 24, 20
    spread = math.sqrt((b + c) - (b - c) ** 2 / NUM_IMAGES)
    # Counts are whole, so that "at most 4" is "below 4.5" of a normal with mean 4; the binomial spread of R draws is
    # sqrt(.25 / R) = 1.6 %, four of these.
    expected = stats.norm.cdf(0.5 / spread)
    assert (found_R == 0.9).mean() == pytest.approx(expected, abs=4 * math.sqrt(0.25 / R))


def test_curve_without_probes_has_the_potential_of_its_parent_in_every_resample():
    found_R = potentials_of(np.zeros((10, 0), bool), np.zeros(10, bool), [], delta=0.01)
    assert found_R.tolist() == [0.0] * R


# --- Excess errors ------------------------------------------------------------------------------------------------


def lost(resampler: Resampler, pruned: np.ndarray, dense: np.ndarray, *, images: str = "") -> np.ndarray:
    errors_R2 = resampler.errors(metric_of("classification"), [predictions(pruned), predictions(dense)], images=images)
    return errors_R2[:, 0] - errors_R2[:, 1]


def test_excess_of_tasks_with_the_same_images_is_resampled_together():
    resampler, networks = Resampler(), disagreements(num_lost=30, num_won=10)
    # Whatever is lost is lost on both alike, image for image.
    found = interval_of(lost(resampler, *networks) - lost(resampler, *networks))
    assert (found.low, found.high) == (0.0, 0.0)


@pytest.mark.parametrize("num_nominal", [400, 500])
def test_excess_of_tasks_with_other_images_has_the_spreads_of_both(num_nominal):
    resampler = Resampler()
    shifted = disagreements(num_lost=30, num_won=10, num_images=400)
    nominal = disagreements(num_lost=20, num_won=10, num_images=num_nominal)
    found = interval_of(lost(resampler, *shifted, images="shift") - lost(resampler, *nominal))
    centre = 20 / 400 - 10 / num_nominal
    spread = math.hypot(math.sqrt(40 - 20**2 / 400) / 400, math.sqrt(30 - 10**2 / num_nominal) / num_nominal)
    # A normal's 5 % and 95 % quantiles; 6.7 % of the spread as with scipy's above, four of these.
    assert found.low == pytest.approx(centre - 1.645 * spread, abs=4 * 0.067 * spread)
    assert found.high == pytest.approx(centre + 1.645 * spread, abs=4 * 0.067 * spread)


def test_mean_over_seeds_of_one_seed_is_its_own_samples():
    samples_R = np.random.default_rng(0).uniform(0.2, 0.8, R)
    assert np.array_equal(mean_over_seeds([samples_R]), samples_R)


def test_mean_over_seeds_varies_as_the_standard_error_of_seeds_where_images_say_nothing():
    values = [0.5, 0.6, 0.9]
    found = mean_over_seeds([np.full(R, value) for value in values])
    # The spread of a thousand draws is known to 1 / sqrt(2 * 1000), 2.2 %; four of these.
    assert found.std() == pytest.approx(np.std(values, ddof=1) / math.sqrt(3), rel=0.09)
    # The mean of a thousand draws to its standard error; four of these.
    assert found.mean() == pytest.approx(np.mean(values), abs=4 * found.std() / math.sqrt(R))
