"""ImageNet-C, as published: `shift/imagenet_c/NAME/SEVERITY`.

Its pictures are the validation pictures of ILSVRC 2012, cut to 224 px and spoilt, under their own names. So they are
found by the names of the dataset's own test images, and every image is compared with itself. They are shown whole: to
resize and cut them once more, as one does with pictures of any size, would enlarge what they show.

Source: Hendrycks and Dietterich 2019; Lost in Pruning, section 5.

Legend of shape suffixes: N images of the dataset's test split.
"""

from __future__ import annotations

import functools
import os
from functools import partial
from pathlib import Path

import numpy as np

from raypruning.datasets.base import Dataset, ImageFiles
from raypruning.errors import DataError
from raypruning.tasks.corruption import MEMBERS
from raypruning.tasks.examples import Examples
from raypruning.tasks.published.facts import IMAGENET_C_ARCHIVES, IMAGENET_C_FAMILY, IMAGENET_C_FOLDERS
from raypruning.tasks.published.pictures import Picture, examples_of_pictures
from raypruning.tasks.published.places import find_set
from raypruning.tasks.published.severities import Corruption, parse_corruption
from raypruning.tasks.task import TaskDefinition, members

_SUFFIX = ".JPEG"


@members(*MEMBERS)
def imagenet_c(argument: str) -> TaskDefinition:
    """A corruption of ImageNet-C at a severity."""
    corruption = parse_corruption(argument, task="shift/imagenet_c/")
    return TaskDefinition(
        corruption=corruption.in_set("imagenet-c"),
        examples=partial(open_imagenet_c, corruption),
        datasets=("imagenet",),
        source="Hendrycks and Dietterich 2019",
    )


def open_imagenet_c(corruption: Corruption, dataset: Dataset, data_dir: Path | None) -> Examples:
    """The dataset's own test images, spoilt; of a part of the test set that part.

    Raises: DataError: missing, or without the picture of a test image.
    """
    family = IMAGENET_C_FAMILY[corruption.name]
    archive = IMAGENET_C_ARCHIVES[family]
    tail = f"{corruption.name}/{corruption.severity}"
    folder = find_set(
        f"imagenet-c {tail}",
        data_dir,
        [f"{top}/{between}{tail}" for top in IMAGENET_C_FOLDERS for between in ("", f"{family}/")],
        expected=f"{IMAGENET_C_FOLDERS[0]}/{tail}/<class>/ILSVRC2012_val_*{_SUFFIX}",
        archive=archive,
    )
    split = dataset.split("test")
    if not isinstance(split, ImageFiles):
        raise DataError(f"imagenet-c: the test images of {dataset.name} are no files, so none can be found by its name")
    names = _names(dataset, split)
    sizes_N = _sizes(folder, names)
    absent = np.flatnonzero(sizes_N < 0)
    if len(absent):
        raise DataError(
            f"{folder} has {len(names) - len(absent)} of the {len(names)} test images of {dataset.name}, the first "
            f"that is missing is {names[absent[0]]}: unpack {archive} again"
        )
    pictures = [Picture(*row) for row in zip(names, sizes_N.tolist(), split.labels_N.tolist(), strict=True)]
    return examples_of_pictures(folder, pictures, dataset, preparation="fit", positions_N=np.arange(len(split)))


@functools.cache
def _names(dataset: Dataset, split: ImageFiles) -> tuple[str, ...]:
    """Class folder and name of the picture of each test image. Kept, so that all tasks share the strings."""
    return tuple(
        f"{dataset.class_names[label]}/{Path(path).stem}{_SUFFIX}"
        for label, path in zip(split.labels_N, split.paths, strict=True)
    )


@functools.cache
def _sizes(folder: Path, names: tuple[str, ...]) -> np.ndarray:
    """Bytes of each file, int64; -1 where there is none. Looked up once in a process."""

    def size_of(name: str) -> int:
        try:
            return os.stat(f"{folder}/{name}").st_size
        except FileNotFoundError:
            return -1

    return np.array([size_of(name) for name in names], np.int64)
