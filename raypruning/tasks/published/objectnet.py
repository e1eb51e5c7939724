"""ObjectNet: things seen from odd sides in odd places, of classes that are partly ImageNet's. `shift/objectnet`.

Of its 313 folders, 113 are of a thing that ImageNet has one or more classes for, and only their pictures are tested on.
Each of these classes is a right answer, and all logits count. The publishers' scorer divides by the pictures of all
folders, so its accuracies are lower by a constant factor.

`nominal/objectnet` is the dataset's own test images of all the classes that a folder stands for, judged by the same
rule: two classes that stand for one folder are right answers for each other. Otherwise a network that cannot tell, say,
two kinds of monitor, would err on the nominal images alone.

In `mappings/`, `folder_to_objectnet_label.json` gives the object's name for a folder, `objectnet_to_imagenet_1k.json`
ImageNet's names ("a; b") for an object's name, each of them a line of `imagenet_to_label_2012_v2`;
`pytorch_to_imagenet_2012_id.json` gives the line, from 0, for the position of a class among the sorted 1000.

Source: Barbu et al. 2019, "ObjectNet: a large-scale bias-controlled dataset"; Lost in Pruning, section 5.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from raypruning.datasets.base import Dataset
from raypruning.errors import DataError
from raypruning.tasks.examples import Examples
from raypruning.tasks.published.facts import OBJECTNET, ObjectNet
from raypruning.tasks.published.own_images import own_images_of_classes
from raypruning.tasks.published.pictures import check_counts, examples_of_pictures, list_pictures, pictures_of
from raypruning.tasks.published.places import find_set
from raypruning.tasks.task import TaskDefinition

# The red line around each picture, which marks a test set. Its publishers say 1 px; other evaluations cut off 2 or 3
# px, since it spreads when pictures are compressed again. The published PNGs are not.
BORDER_PIXELS = 1
NOMINAL_OBJECTNET = "nominal/objectnet"
_DATASETS = ("imagenet",)
_SOURCE = "Barbu et al. 2019, ObjectNet"
_FILES = (
    "folder_to_objectnet_label.json",
    "objectnet_to_imagenet_1k.json",
    "pytorch_to_imagenet_2012_id.json",
    "imagenet_to_label_2012_v2",
)


def objectnet(argument: str) -> TaskDefinition:
    """The pictures of the folders that ImageNet has classes for."""
    return TaskDefinition(
        examples=partial(open_objectnet, OBJECTNET), datasets=_DATASETS, nominal=NOMINAL_OBJECTNET, source=_SOURCE
    )


def nominal_objectnet(argument: str) -> TaskDefinition:
    """The dataset's own test images of the classes that a folder of ObjectNet stands for."""
    return TaskDefinition(
        examples=partial(open_nominal_of_objectnet, OBJECTNET),
        datasets=_DATASETS,
        nominal=NOMINAL_OBJECTNET,
        source=_SOURCE,
    )


def open_objectnet(published: ObjectNet, dataset: Dataset, data_dir: Path | None) -> Examples:
    """The pictures, the first class of a folder as their label, its further ones in `also_right`.

    Raises: DataError: missing, of another number, or a mapping that is missing or damaged.
    """
    found = _find(published, dataset, data_dir)
    images = found.root / "images"
    if not images.is_dir():
        raise DataError(f"shift/objectnet: {found.root} has no images/: unpack {published.archive} again")
    listing = list_pictures(images)
    check_counts(
        listing,
        images,
        num_images=published.num_images,
        num_folders=published.num_folders,
        origin=str(published.archive),
    )
    absent = sorted(set(found.classes_of) - set(listing))
    if absent:
        raise DataError(
            f"{images} lacks {len(absent)} folders that the mappings name ({', '.join(absent[:3])}): "
            f"unpack {published.archive} again"
        )
    pictures = pictures_of(listing, {folder: classes[0] for folder, classes in found.classes_of.items()})
    return examples_of_pictures(
        images, pictures, dataset, border=BORDER_PIXELS, also_right=equals(found.classes_of.values())
    )


def open_nominal_of_objectnet(published: ObjectNet, dataset: Dataset, data_dir: Path | None) -> Examples:
    """The dataset's own test images of those classes, with the same right answers.

    Raises: DataError: the mappings are missing or damaged, or no test image is of these classes.
    """
    groups = _find(published, dataset, data_dir).classes_of.values()
    classes = {label for group in groups for label in group}
    return own_images_of_classes(
        dataset, classes, task=NOMINAL_OBJECTNET, is_restricted=False, also_right=equals(groups)
    )


def equals(groups: Iterable[tuple[int, ...]]) -> dict[int, tuple[int, ...]]:
    """Class -> the other classes of all groups that it is in, ascending; no entry for a class that is alone."""
    together: dict[int, set[int]] = {}
    for group in groups:
        for label in group:
            together.setdefault(label, set()).update(other for other in group if other != label)
    return {label: tuple(sorted(others)) for label, others in sorted(together.items()) if others}


class _Found(NamedTuple):
    """The set's folder, and for each folder of its images that ImageNet knows the classes, in the published order."""

    root: Path
    classes_of: dict[str, tuple[int, ...]]


def _find(published: ObjectNet, dataset: Dataset, data_dir: Path | None) -> _Found:
    root = find_set(
        "shift/objectnet",
        data_dir,
        (published.folder,),
        expected=f"{published.folder}/ with images/ of {published.num_images} pictures, and mappings/",
        archive=published.archive,
    )
    mappings = root / "mappings"
    absent = [name for name in _FILES if not (mappings / name).is_file()]
    if absent:
        raise DataError(f"shift/objectnet: {mappings} lacks {', '.join(absent)}: unpack {published.archive} again")
    classes_of = _read_mappings(mappings, dataset)
    if len(classes_of) != published.num_mapped:
        raise DataError(
            f"shift/objectnet: {mappings} maps {len(classes_of)} folders to classes of {dataset.name}, expected "
            f"{published.num_mapped}: unpack {published.archive} again"
        )
    return _Found(root, classes_of)


def _read_mappings(folder: Path, dataset: Dataset) -> dict[str, tuple[int, ...]]:
    object_of_folder, names_of_object, line_of_class = (_read_json(folder / name) for name in _FILES[:3])
    lines = [line.strip() for line in (folder / _FILES[3]).read_text(encoding="utf-8", errors="replace").splitlines()]
    try:
        class_of_name = {lines[int(line)]: int(label) for label, line in line_of_class.items()}
        classes_of = {
            name: tuple(class_of_name[one.strip()] for one in names_of_object[thing].split(";"))
            for name, thing in object_of_folder.items()
            if thing in names_of_object
        }
    except (ValueError, TypeError, AttributeError, LookupError) as error:
        raise DataError(
            f"{folder}: the files do not fit together ({type(error).__name__}: {error}): unpack ObjectNet again"
        ) from error
    largest = max((label for classes in classes_of.values() for label in classes), default=0)
    if largest >= dataset.num_classes:
        raise DataError(f"{folder} names class {largest}, and {dataset.name} has {dataset.num_classes} classes")
    return classes_of


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise DataError(f"{path} is cut off or damaged ({error}): unpack ObjectNet again") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} has no table of names: unpack ObjectNet again")
    return content
