"""A dataset of noise, for tests of what only needs to know that there is one."""

# N images, C channels

from __future__ import annotations

import numpy as np

from raypruning.core.records import Kind
from raypruning.datasets.base import Dataset, ImageArrays


def made_up_dataset(
    *,
    name: str = "made up",
    fingerprint: str = "d" * 20,
    num_test: int = 6,
    num_classes: int = 10,
    channels: int = 1,
    image_size: int = 1,
    kind: Kind = "classification",
) -> Dataset:
    """Splits of random images, `num_test` each, whose labels go round all classes. `kind` is what it says it has."""
    random = np.random.default_rng(0)
    split = ImageArrays(
        images_NCHW=random.integers(0, 256, (num_test, channels, image_size, image_size), dtype=np.uint8),
        labels_N=np.arange(num_test) % num_classes,
    )
    return Dataset(
        name=name,
        kind=kind,
        num_classes=num_classes,
        channels=channels,
        image_size=image_size,
        mean=(0.5,) * channels,
        std=(0.25,) * channels,
        class_names=tuple(f"class {label}" for label in range(num_classes)),
        fingerprint=fingerprint,
        augmentation="none",
        source="random numbers",
        loaders=dict.fromkeys(("train", "validation", "test"), lambda: split),
    )
