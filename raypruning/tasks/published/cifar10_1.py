"""CIFAR-10.1, new images like those of CIFAR-10: `shift/cifar10.1` (v6, equal classes) and `shift/cifar10.1_v4`.

With 2000 images the standard error of an error of 10 % is 0.7 points.

Source: Recht et al. 2018, "Do CIFAR-10 classifiers generalize to CIFAR-10?"; v6 is what Lost in Pruning takes.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from raypruning.core.identity import fingerprint
from raypruning.datasets.base import Dataset, ImageArrays, resized
from raypruning.datasets.cache import content_hash
from raypruning.errors import DataError
from raypruning.tasks.examples import Examples
from raypruning.tasks.published.arrays import hash_blocks, open_images, open_labels
from raypruning.tasks.published.facts import CIFAR10_1_FOLDERS, CIFAR10_1_V4, CIFAR10_1_V6, LabelledArrays
from raypruning.tasks.published.places import find_set
from raypruning.tasks.task import TaskDefinition


def cifar10_1(argument: str) -> TaskDefinition:
    """CIFAR-10.1 v6."""
    return _definition(CIFAR10_1_V6)


def cifar10_1_v4(argument: str) -> TaskDefinition:
    """CIFAR-10.1 v4, the first that networks were tested on; ships are 8 % of it, other classes about 10 %."""
    return _definition(CIFAR10_1_V4)


def _definition(published: LabelledArrays) -> TaskDefinition:
    return TaskDefinition(
        examples=partial(open_cifar10_1, published),
        datasets=("cifar10",),
        source="Recht et al. 2018, Do CIFAR-10 classifiers generalize to CIFAR-10?",
    )


def open_cifar10_1(published: LabelledArrays, dataset: Dataset, data_dir: Path | None) -> Examples:
    """All its images, whatever part of its own test images the dataset has.

    Raises: DataError: missing, damaged, or of another number.
    """
    path = find_set(
        "cifar10.1",
        data_dir,
        tuple(f"{folder}/{published.data}".lstrip("/") for folder in CIFAR10_1_FOLDERS),
        expected=f"{_origin(published, published.data)} and {published.labels} of github.com/modestyachts/CIFAR-10.1",
    )
    labels_path = path.with_name(published.labels)
    images_NHWC = open_images(path, published.num_images, origin=_origin(published, published.data))
    labels_N = open_labels(labels_path, dataset.num_classes, origin=_origin(published, published.labels))
    if len(labels_N) != published.num_images:
        raise DataError(
            f"{labels_path} has {len(labels_N)} labels, expected {published.num_images}: "
            f"take it again from {_origin(published, published.labels)}"
        )
    return Examples(
        split=resized(
            ImageArrays(images_NCHW=images_NHWC.transpose(0, 3, 1, 2), labels_N=labels_N), dataset.image_size
        ),
        fingerprint=fingerprint(
            {
                "images": hash_blocks(path, images_NHWC, 1),
                "labels": content_hash({"labels": labels_N}),
                "image_size": dataset.image_size,
            }
        ),
    )


def _origin(published: LabelledArrays, name: str) -> str:
    md5 = published.md5.get(name)
    return f"{name} (md5 {md5})" if md5 else f"{name} ({published.num_images} images)"
