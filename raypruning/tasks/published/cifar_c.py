"""CIFAR-10-C and CIFAR-100-C, as published: `shift/cifar10_c/NAME/SEVERITY` and `shift/cifar100_c/NAME/SEVERITY`.

`NAME.npy` holds the test images, not the training images, five times: first all of severity 1, then of 2, and so on, in
the order of the test set each time. So every image is compared with itself, unspoilt.

Source: Hendrycks and Dietterich 2019; Lost in Pruning, section 5.

Legend of shape suffixes: N images of the dataset's test split, H and W pixels, C channels.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from raypruning.core.identity import fingerprint
from raypruning.corruptions.parameters import NUM_SEVERITIES
from raypruning.datasets.base import Dataset, ImageArrays, resized
from raypruning.datasets.cache import content_hash
from raypruning.errors import DataError
from raypruning.tasks.corruption import MEMBERS
from raypruning.tasks.examples import Examples
from raypruning.tasks.published.arrays import hash_blocks, open_images, open_labels
from raypruning.tasks.published.facts import CIFAR10_C, CIFAR100_C, CifarC
from raypruning.tasks.published.places import find_set
from raypruning.tasks.published.severities import Corruption, parse_corruption
from raypruning.tasks.task import TaskDefinition, members


@members(*MEMBERS)
def cifar10_c(argument: str) -> TaskDefinition:
    """A corruption of CIFAR-10-C at a severity."""
    return _definition(CIFAR10_C, parse_corruption(argument, task="shift/cifar10_c/"), dataset="cifar10")


@members(*MEMBERS)
def cifar100_c(argument: str) -> TaskDefinition:
    """A corruption of CIFAR-100-C at a severity."""
    return _definition(CIFAR100_C, parse_corruption(argument, task="shift/cifar100_c/"), dataset="cifar100")


def _definition(published: CifarC, corruption: Corruption, *, dataset: str) -> TaskDefinition:
    return TaskDefinition(
        corruption=corruption.in_set(published.name),
        examples=partial(open_cifar_c, published, corruption),
        datasets=(dataset,),
        source="Hendrycks and Dietterich 2019",
    )


def open_cifar_c(published: CifarC, corruption: Corruption, dataset: Dataset, data_dir: Path | None) -> Examples:
    """The dataset's own test images, spoilt; of a part of the test set that part.

    Raises: DataError: missing, damaged, or not made from these test images in this order.
    """
    folder = find_set(
        published.name,
        data_dir,
        (published.folder,),
        expected=f"{published.folder}/ with {corruption.name}.npy and labels.npy",
        archive=published.archive,
    )
    split = dataset.split("test")
    if not isinstance(split, ImageArrays):
        raise DataError(f"{published.name}: the test images of {dataset.name} must lie in memory to be compared with")
    num_whole = _count_whole_test_set(published, folder / "labels.npy", dataset, split)
    path = folder / f"{corruption.name}.npy"
    rows_NHWC = open_images(path, NUM_SEVERITIES * num_whole, origin=str(published.archive))
    block = corruption.severity - 1
    images_NHWC = rows_NHWC[block * num_whole : (block + 1) * num_whole]
    if split.positions_N is not None:
        images_NHWC = images_NHWC[split.positions_N]
    images = ImageArrays(images_NCHW=images_NHWC.transpose(0, 3, 1, 2), labels_N=split.labels_N)
    return Examples(
        split=resized(images, dataset.image_size),
        fingerprint=fingerprint(
            {
                "images": hash_blocks(path, rows_NHWC, NUM_SEVERITIES)[block],
                "part": None if split.positions_N is None else content_hash({"positions": split.positions_N}),
                "labels": content_hash({"labels": split.labels_N}),
                "image_size": dataset.image_size,
            }
        ),
        positions_N=np.arange(len(split)),
    )


def _count_whole_test_set(published: CifarC, path: Path, dataset: Dataset, split: ImageArrays) -> int:
    """How many images a severity has. Raises DataError where the file has other labels than the dataset's test split.

    Labels are all that tells whether the images are those of the test set, in its order.
    """
    labels = open_labels(path, dataset.num_classes, origin=str(published.archive))
    num_whole, rest = divmod(len(labels), NUM_SEVERITIES)
    is_whole = split.positions_N is None
    positions_N = np.arange(len(split)) if split.positions_N is None else split.positions_N
    if rest or positions_N.max(initial=-1) >= num_whole or (is_whole and num_whole != len(split)):
        count = f"{NUM_SEVERITIES} x {len(split)}" if is_whole else f"{NUM_SEVERITIES} for each test image"
        raise DataError(
            f"{path} has {len(labels)} labels, expected {count} of {dataset.name}: "
            f"take it again from {published.archive}"
        )
    differ = labels.reshape(NUM_SEVERITIES, num_whole)[:, positions_N] != split.labels_N
    if differ.any():
        severity, image = (int(index) for index in np.argwhere(differ)[0])
        raise DataError(
            f"{path} is not made of the test labels of {dataset.name}, {NUM_SEVERITIES} times over: it first differs "
            f"at test image {positions_N[image]}, severity {severity + 1}; take it again from {published.archive}"
        )
    return num_whole
