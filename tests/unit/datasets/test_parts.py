"""A part of a split knows where its images stand in the whole."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from raypruning.datasets.base import Dataset, ImageArrays, derive


def images_of(dataset: Dataset) -> ImageArrays:
    split = dataset.split("test")
    assert isinstance(split, ImageArrays)
    return split


def test_a_whole_split_is_no_part(make_dataset: Callable[..., Dataset]) -> None:
    assert images_of(make_dataset()).positions_N is None
    assert images_of(derive(make_dataset(num_images=30), test_images=30, image_size=10)).positions_N is None


@pytest.mark.parametrize("image_size", [8, 10, 30])
def test_positions_find_the_images_of_a_part_in_the_whole(
    make_dataset: Callable[..., Dataset], image_size: int
) -> None:
    whole = make_dataset(num_images=30)
    part = images_of(derive(whole, test_images=7, image_size=image_size))
    # Every image is its own number, also in its centre once it is padded or resized.
    assert part.positions_N is not None and part.positions_N.dtype == np.int64
    np.testing.assert_array_equal(part.images_NCHW[:, 0, image_size // 2, image_size // 2], part.positions_N)


def test_positions_of_a_part_of_a_part_are_those_in_the_whole(make_dataset: Callable[..., Dataset]) -> None:
    twice = images_of(derive(derive(make_dataset(), test_images=20), test_images=5))
    np.testing.assert_array_equal(twice.images_NCHW[:, 0, 0, 0], twice.positions_N)
