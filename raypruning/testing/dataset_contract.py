"""What every dataset must do. Subclass `DatasetContract` in a test module, and say how yours is opened.

class TestLeaves(DatasetContract):
    @pytest.fixture
    def opener(self):
        return lambda: open_dataset(DataChoice(name="leaves"), data_dir=None, download=False)
"""

# ruff: noqa: D102  (the name of a test is its description)

from __future__ import annotations

import string
from collections.abc import Callable

import numpy as np
import pytest

from raypruning.datasets.base import SPLITS, Dataset, ImageFiles, Split

# Enough to see what a file decodes to, without reading a whole ImageNet.
NUM_FILES_READ = 8


def first_images(split: Split) -> np.ndarray:
    """Images of a split as (N, C, H, W): all that are in memory, the first few of those on disk."""
    if isinstance(split, ImageFiles):
        return split.load(range(min(NUM_FILES_READ, len(split))), train=False, seed=0)
    return split.images_NCHW


class DatasetContract:
    """The tests. Give the fixture `opener`, of something that opens the dataset."""

    @pytest.fixture
    def opener(self) -> Callable[[], Dataset]:
        raise NotImplementedError("a subclass of DatasetContract needs a fixture `opener`")

    @pytest.fixture
    def dataset(self, opener: Callable[[], Dataset]) -> Dataset:
        return opener()

    def test_dataset_has_three_splits_with_images(self, dataset: Dataset) -> None:
        assert set(dataset.loaders) == set(SPLITS)
        assert all(len(dataset.split(name)) > 0 for name in SPLITS)

    def test_dataset_states_its_source(self, dataset: Dataset) -> None:
        assert dataset.source.strip()

    @pytest.mark.parametrize("name", SPLITS)
    def test_images_are_bytes_of_the_stated_shape(self, dataset: Dataset, name: str) -> None:
        split = dataset.split(name)  # type: ignore[arg-type]
        images_NCHW = first_images(split)
        assert images_NCHW.dtype == np.uint8
        assert images_NCHW.shape[1:] == (dataset.channels, dataset.image_size, dataset.image_size)
        assert images_NCHW.min() < images_NCHW.max()
        assert isinstance(split, ImageFiles) or len(images_NCHW) == len(split)

    @pytest.mark.parametrize("name", SPLITS)
    def test_labels_are_classes_and_no_class_is_missing(self, dataset: Dataset, name: str) -> None:
        labels_N = dataset.split(name).labels_N  # type: ignore[arg-type]
        assert labels_N.dtype == np.int64
        assert set(np.unique(labels_N).tolist()) == set(range(dataset.num_classes))

    def test_names_means_and_deviations_are_one_for_each_class_or_channel(self, dataset: Dataset) -> None:
        assert len(dataset.class_names) == dataset.num_classes == len(set(dataset.class_names))
        assert len(dataset.mean) == len(dataset.std) == dataset.channels
        assert all(0.0 <= mean <= 1.0 for mean in dataset.mean)
        assert all(0.0 < std <= 0.5 for std in dataset.std)  # of numbers between 0 and 1

    def test_splits_share_no_image(self, dataset: Dataset) -> None:
        splits = [dataset.split(name) for name in SPLITS]
        if any(isinstance(split, ImageFiles) for split in splits):
            paths = [path for split in splits if isinstance(split, ImageFiles) for path in split.paths]
            assert len(set(paths)) == len(paths)
            return
        distinct = [{image.tobytes() for image in first_images(split)} for split in splits]
        assert len(set.union(*distinct)) == sum(len(images) for images in distinct)

    def test_fingerprint_is_hexadecimal_and_the_same_when_opened_again(
        self, dataset: Dataset, opener: Callable[[], Dataset]
    ) -> None:
        assert len(dataset.fingerprint) >= 16
        assert set(dataset.fingerprint) <= set(string.hexdigits.lower())
        assert opener().fingerprint == dataset.fingerprint

    def test_dataset_opened_again_has_the_same_images_in_the_same_order(
        self, dataset: Dataset, opener: Callable[[], Dataset]
    ) -> None:
        again = opener()
        for name in SPLITS:
            np.testing.assert_array_equal(again.split(name).labels_N, dataset.split(name).labels_N)
            np.testing.assert_array_equal(first_images(again.split(name)), first_images(dataset.split(name)))
