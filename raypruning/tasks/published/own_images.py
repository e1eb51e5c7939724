"""The dataset's own test images, all or those of some classes: what a shifted set is compared with.

Legend of shape suffixes: N images, K of them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from raypruning.core.identity import fingerprint
from raypruning.datasets.base import Dataset, ImageArrays, ImageFiles, take
from raypruning.datasets.masked_files import MaskedFiles
from raypruning.errors import DataError, SpecError
from raypruning.tasks.examples import Examples


def labelled_test_split(dataset: Dataset, *, task: str) -> ImageArrays | ImageFiles:
    """The test split. Raises SpecError where pixels, not images, have classes."""
    split = dataset.split("test")
    if isinstance(split, MaskedFiles):
        raise SpecError(f"the task {task} needs one label an image, and {dataset.name} has one a pixel")
    return split


def own_images_of_classes(
    dataset: Dataset,
    classes: Collection[int],
    *,
    task: str,
    is_restricted: bool,
    also_right: Mapping[int, tuple[int, ...]] | None = None,
) -> Examples:
    """The dataset's test images of some classes, in their order.

    Args:
        is_restricted: whether the logits of these classes alone count.
        also_right: see Examples.

    Raises: DataError: no test image is of these classes.
    """
    split = labelled_test_split(dataset, task=task)
    positions_K = np.flatnonzero(np.isin(split.labels_N, sorted(classes)))
    if not len(positions_K):
        raise DataError(f"{task}: no test image of {dataset.name} is of one of the {len(classes)} classes")
    counted = restriction(classes, dataset) if is_restricted else None
    also_right = also_right or {}
    return Examples(
        split=take(split, positions_K),
        fingerprint=fingerprint(
            {
                "data": dataset.fingerprint,
                "positions": [int(position) for position in positions_K],
                "classes": counted,
                "also_right": {str(label): others for label, others in also_right.items()},
            }
        ),
        classes=counted,
        also_right=also_right,
        positions_N=positions_K,
    )


def restriction(classes: Collection[int], dataset: Dataset) -> tuple[int, ...] | None:
    """The classes in order, as Examples has them; None where they are all of the dataset's."""
    return tuple(sorted(classes)) if len(classes) < dataset.num_classes else None
