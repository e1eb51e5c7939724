"""The halves of a test set: fixed, even, and no different for a longer one."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raypruning.analysis.metrics import metric_of
from raypruning.analysis.split import HalfLoss, first_half, largest_within, loss_on


@settings(max_examples=30)
@given(st.integers(0, 300), st.integers(0, 300), st.sampled_from(["", "cifar10.1"]))
def test_half_of_an_image_does_not_depend_on_how_many_there_are(num: int, more: int, images: str):
    assert np.array_equal(first_half(num + more, images=images)[:num], first_half(num, images=images))


def test_halves_are_equal_up_to_chance_and_have_no_pattern():
    num = 100_000
    is_first_N = first_half(num)
    signs_N = np.where(is_first_N, 1.0, -1.0)
    # Sums of so many independent signs have a spread of sqrt(num); four of it.
    assert abs(signs_N.sum()) < 4 * math.sqrt(num)
    for lag in (1, 2, 10):
        assert abs((signs_N[lag:] * signs_N[:-lag]).sum()) < 4 * math.sqrt(num)


def test_other_images_are_split_otherwise():
    signs = [np.where(first_half(10_000, images=images), 1.0, -1.0) for images in ("", "a", "b")]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert abs((signs[one] * signs[other]).sum()) < 4 * math.sqrt(10_000)


@settings(max_examples=40)
@given(st.integers(1, 60).flatmap(lambda num: st.lists(st.tuples(*[st.booleans()] * 3), min_size=num, max_size=num)))
def test_losses_of_the_two_parts_add_up_to_that_of_all_images(rows: list[tuple[bool, bool, bool]]):
    wrong_N, parent_N, part_N = (np.array(column) for column in zip(*rows, strict=True))
    label = np.zeros(len(rows), int)
    ours, theirs = ({"predicted": one.astype(int), "label": label} for one in (wrong_N, parent_N))
    parts = [one for one in (part_N, ~part_N) if one.any()]
    found = [loss_on(metric_of("classification"), ours, theirs, part) for part in parts]
    assert sum(one.num for one in found) == len(rows)
    assert sum(one.num_lost for one in found) == int(wrong_N.sum()) - int(parent_N.sum())
    for one in found:
        assert one.loss == pytest.approx(one.num_lost / one.num, abs=1e-12)


def test_counts_are_compared_as_integers():
    # .29 of 100 images are 29 images, and not the 28.999... of binary fractions.
    assert HalfLoss(loss=0.29, num=100, num_lost=29).is_within(0.29)
    assert not HalfLoss(loss=0.30, num=100, num_lost=30).is_within(0.29)
    assert HalfLoss(loss=0.1, num=100, num_lost=None).is_within(0.1)


@given(st.lists(st.tuples(st.floats(0, 0.99), st.integers(-5, 5)), max_size=6, unique_by=lambda one: one[0]))
def test_largest_within_is_the_largest_ratio_of_those_that_are(curve: list[tuple[float, int]]):
    losses = [HalfLoss(lost / 100, 100, lost) for _, lost in curve]
    found = largest_within([ratio for ratio, _ in curve], losses, delta=0.02)
    assert (curve[found][0] if found is not None else None) == max((r for r, lost in curve if lost <= 2), default=None)
