"""The 1 797 handwritten digits that come with scikit-learn: real images without a download."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from raypruning.datasets.base import Dataset, loaders_of_entry, round_robin_order
from raypruning.datasets.cache import Built, key_of, load_or_build
from raypruning.datasets.random_bits import permutation

_NUM_VALIDATION, _NUM_TEST = 300, 360
_SPLIT_SEED = 7
# Each of 8 x 8 pixels becomes 3 x 3, and a border of 2 px makes 28 px, the size that lenet5 takes.
_ZOOM, _BORDER = 3, 2
# Of all pixels of the training split, rounded.
_MEAN, _STD = 0.2240, 0.3495


def open_digits(argument: str, *, data_dir: Path | None, download: bool) -> Dataset:
    """Scikit-learn's digits at 28 px: 1 137 training, 300 validation, 360 test images. Needs no data folder.

    Validation and test have equally many images of every class, training the rest.
    """
    entry = load_or_build("digits", key_of(_SPLIT_SEED, _NUM_VALIDATION, _NUM_TEST, _ZOOM, _BORDER), _build)
    return Dataset(
        name="digits",
        num_classes=10,
        channels=1,
        image_size=8 * _ZOOM + 2 * _BORDER,
        mean=(_MEAN,),
        std=(_STD,),
        class_names=tuple("0123456789"),
        fingerprint=entry.fingerprint,
        augmentation="none",
        source="Alpaydin and Kaynak, 1998, Optical Recognition of Handwritten Digits (UCI), test part",
        loaders=loaders_of_entry(entry),
    )


def _build() -> Built:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    grey_NHW = (bunch.images.astype(np.int64) * 255 // 16).astype(np.uint8)
    large_NHW = grey_NHW.repeat(_ZOOM, axis=1).repeat(_ZOOM, axis=2)
    images_NCHW = np.pad(large_NHW, ((0, 0), (_BORDER, _BORDER), (_BORDER, _BORDER)))[:, None]
    labels_N = bunch.target.astype(np.int64)

    shuffled = permutation(len(labels_N), seed=_SPLIT_SEED)
    even = shuffled[round_robin_order(labels_N[shuffled])]
    ends = {"test": (0, _NUM_TEST), "validation": (_NUM_TEST, _NUM_TEST + _NUM_VALIDATION)}
    ends["train"] = (_NUM_TEST + _NUM_VALIDATION, len(labels_N))
    arrays = {}
    for split, (start, end) in ends.items():
        chosen = np.sort(even[start:end])
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = images_NCHW[chosen], labels_N[chosen]
    return Built(arrays, {})
