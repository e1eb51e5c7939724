"""Errors from stored predictions against the definition, scikit-learn, and a loop over images."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import jaccard_score

from raypruning.analysis.bootstrap import NUM_RESAMPLES, Resampler
from raypruning.analysis.metrics import metric_of, standard_error

OVERLAP = metric_of("segmentation")


def counted(true_NP: np.ndarray, predicted_NP: np.ndarray, *, num_classes: int) -> dict[str, np.ndarray]:
    """What is stored of images whose pixels have these classes."""

    def count(classes_NP: np.ndarray, which_NP: np.ndarray) -> np.ndarray:
        rows = [np.bincount(row[which], minlength=num_classes) for row, which in zip(classes_NP, which_NP, strict=True)]
        return np.array(rows, np.uint32)

    everywhere = np.ones(true_NP.shape, bool)
    return {
        "both": count(true_NP, true_NP == predicted_NP),
        "predicted": count(predicted_NP, everywhere),
        "true": count(true_NP, everywhere),
        "loss": np.zeros(len(true_NP), np.float32),
    }


def random_images(seed: int, *, num_images: int = 7, num_classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    true_NP = random.integers(0, num_classes, (num_images, 30))
    predicted_NP = np.where(
        random.random((num_images, 30)) < 0.6, true_NP, random.integers(0, num_classes, (num_images, 30))
    )
    return true_NP, predicted_NP


def by_definition(true_P: np.ndarray, predicted_P: np.ndarray, *, num_classes: int) -> float:
    """1 - mean over the classes that are anywhere of |both| / |either|."""
    ratios = []
    for label in range(num_classes):
        either = (true_P == label) | (predicted_P == label)
        if either.any():
            ratios.append(((true_P == label) & (predicted_P == label)).sum() / either.sum())
    return 1.0 - float(np.mean(ratios))


@given(st.integers(0, 10_000))
def test_overlap_of_a_test_set_is_that_of_all_its_pixels_together(seed):
    true_NP, predicted_NP = random_images(seed)
    found = OVERLAP.error_of(counted(true_NP, predicted_NP, num_classes=4))
    # Sums and ratios of a few whole numbers in double precision.
    assert found == pytest.approx(by_definition(true_NP.ravel(), predicted_NP.ravel(), num_classes=4), abs=1e-12)
    assert found == pytest.approx(
        1.0 - jaccard_score(true_NP.ravel(), predicted_NP.ravel(), average="macro"), abs=1e-12
    )


def test_overlap_is_not_the_mean_over_images():
    # One image all right on a small class, one all wrong on it: together a half, where the mean of images says else.
    true_NP = np.array([[1, 0, 0, 0], [1, 1, 1, 0]])
    predicted_NP = np.array([[1, 0, 0, 0], [0, 0, 0, 0]])
    found = OVERLAP.error_of(counted(true_NP, predicted_NP, num_classes=2))
    assert found == pytest.approx(1 - (1 / 4 + 4 / 7) / 2)
    each = [by_definition(t, p, num_classes=2) for t, p in zip(true_NP, predicted_NP, strict=True)]
    assert found != pytest.approx(np.mean(each), abs=0.01)


def test_class_that_is_nowhere_counts_for_nothing_and_one_that_is_only_predicted_for_zero():
    true_NP, predicted_NP = np.array([[0, 0, 1]]), np.array([[0, 0, 2]])
    # 0 is right, 1 and 2 are not; of ten classes no other is anywhere.
    assert OVERLAP.error_of(counted(true_NP, predicted_NP, num_classes=10)) == pytest.approx(1 - 1 / 3)


def test_resampled_overlap_is_that_of_resampled_images():
    true_NP, predicted_NP = random_images(3)
    resampler = Resampler()
    networks = [counted(true_NP, one_NP, num_classes=4) for one_NP in (predicted_NP, true_NP)]
    found_RP = resampler.errors(OVERLAP, networks)
    assert found_RP.shape == (NUM_RESAMPLES, 2)
    weights_RN = resampler.sums(np.eye(len(true_NP))).astype(int)
    for errors_P, weights_N in zip(found_RP[:50], weights_RN[:50], strict=True):
        images = np.repeat(np.arange(len(true_NP)), weights_N)
        expected = by_definition(true_NP[images].ravel(), predicted_NP[images].ravel(), num_classes=4)
        assert errors_P == pytest.approx([expected, 0.0], abs=1e-12)


def test_only_images_of_one_label_are_counted_as_wrong():
    predictions = {"predicted": np.array([1, 2, 3], np.uint16), "label": np.array([1, 2, 0], np.uint16)}
    metric = metric_of("classification")
    assert (metric.num_wrong(predictions), metric.error_of(predictions)) == (1, 1 / 3)
    true_NP, predicted_NP = random_images(0)
    assert OVERLAP.num_wrong(counted(true_NP, predicted_NP, num_classes=4)) is None


def test_standard_error_of_counts_is_mcnemars():
    rng = np.random.default_rng(0)
    labels = np.zeros(300, np.uint16)
    one, other = (rng.integers(0, 2, 300).astype(np.uint16) for _ in range(2))
    lost, gained = int(((one > 0) & (other == 0)).sum()), int(((one == 0) & (other > 0)).sum())
    influence = metric_of("classification").influence
    found = standard_error(
        influence({"predicted": one, "label": labels}), influence({"predicted": other, "label": labels})
    )
    assert found == pytest.approx(math.sqrt(lost + gained - (lost - gained) ** 2 / 300) / 300, rel=1e-12)


def test_standard_error_of_an_overlap_is_what_a_bootstrap_shows():
    rng = np.random.default_rng(1)
    true = rng.integers(20, 60, (400, 3)).astype(np.int64)
    networks = []
    for quality in (0.9, 0.7):
        both = rng.binomial(true, quality)
        networks.append({"both": both, "predicted": both + rng.integers(0, 12, (400, 3)), "true": true})
    metric = metric_of("segmentation")
    errors_RP = Resampler().errors(metric, networks)
    bootstrap = float((errors_RP[:, 1] - errors_RP[:, 0]).std())
    # A thousand resamples know a standard deviation to 2.2 %, four of these; the first order is exact to 1 / n.
    influences = [metric.influence(one) for one in networks]
    assert standard_error(*influences) == pytest.approx(bootstrap, rel=0.09)
