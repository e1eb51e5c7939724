from __future__ import annotations

import numpy as np

from raypruning.datasets.digits import open_digits


def test_digits_have_even_test_classes_and_all_images_once() -> None:
    dataset = open_digits("", data_dir=None, download=False)
    splits = {name: dataset.split(name) for name in ("train", "validation", "test")}
    assert {name: len(split) for name, split in splits.items()} == {"train": 1137, "validation": 300, "test": 360}
    assert np.bincount(splits["test"].labels_N).tolist() == [36] * 10
    assert np.bincount(splits["validation"].labels_N).tolist() == [30] * 10
    # The original has no picture twice.
    assert len({image.tobytes() for split in splits.values() for image in split.images_NCHW}) == 1797


def test_digits_are_three_times_the_original_with_a_border() -> None:
    dataset = open_digits("", data_dir=None, download=False)
    images = dataset.split("train").images_NCHW
    assert images.shape == (1137, 1, 28, 28)
    assert images.max() == 255
    assert images[:, :, :2].max() == images[:, :, :, -2:].max() == 0
    np.testing.assert_array_equal(images[:, :, 2:26:3, 2:26:3], images[:, :, 4:26:3, 4:26:3])
    assert abs(images.mean() / 255 - dataset.mean[0]) <= 0.00005
    assert abs(images.std() / 255 - dataset.std[0]) <= 0.00005


def test_digits_have_the_recorded_bytes() -> None:
    assert open_digits("", data_dir=None, download=False).fingerprint.startswith("6f429e459769ec15")
