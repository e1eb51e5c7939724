"""Published pictures in one folder a class: ImageNet-A, -R, -Sketch and -V2.

ImageNet-A and -R have 200 classes each, and not the same ones. The logits of these alone count, and the nominal error
is that of the dataset's own test images of the same classes, by the same logits: the choice among 200 classes is easier
than among 1000, which would hide the shift.

Source: Hendrycks et al. 2021, "Natural adversarial examples" (A) and "The many faces of robustness" (R); Wang et al.
2019, "Learning robust global representations by penalizing local predictive power" (Sketch); Recht et al. 2019, "Do
ImageNet classifiers generalize to ImageNet?" (V2).
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import NamedTuple

from raypruning.datasets.base import Dataset
from raypruning.errors import DataError, UnknownNameError, unknown_name_message
from raypruning.tasks.examples import Examples
from raypruning.tasks.published.facts import IMAGENET_A, IMAGENET_R, IMAGENET_SKETCH, IMAGENET_V2, ClassFolders
from raypruning.tasks.published.own_images import own_images_of_classes
from raypruning.tasks.published.pictures import Picture, check_counts, examples_of_pictures, list_pictures, pictures_of
from raypruning.tasks.published.places import find_set
from raypruning.tasks.task import NOMINAL, TaskDefinition, members

_DATASETS = ("imagenet",)
_SOURCE_A = "Hendrycks et al. 2021, Natural adversarial examples"
_SOURCE_R = "Hendrycks et al. 2021, The many faces of robustness"
NOMINAL_A, NOMINAL_R = "nominal/imagenet_a", "nominal/imagenet_r"


def imagenet_a(argument: str) -> TaskDefinition:
    """ImageNet-A: photographs that a ResNet-50 gets wrong."""
    return _shifted(IMAGENET_A, nominal=NOMINAL_A, source=_SOURCE_A)


def imagenet_r(argument: str) -> TaskDefinition:
    """ImageNet-R: drawings, toys, tattoos and other renditions."""
    return _shifted(IMAGENET_R, nominal=NOMINAL_R, source=_SOURCE_R)


def nominal_imagenet_a(argument: str) -> TaskDefinition:
    """The dataset's own test images of the classes of ImageNet-A."""
    return _nominal(IMAGENET_A, name=NOMINAL_A, source=_SOURCE_A)


def nominal_imagenet_r(argument: str) -> TaskDefinition:
    """The dataset's own test images of the classes of ImageNet-R."""
    return _nominal(IMAGENET_R, name=NOMINAL_R, source=_SOURCE_R)


def imagenet_sketch(argument: str) -> TaskDefinition:
    """ImageNet-Sketch: black and white drawings."""
    return _shifted(IMAGENET_SKETCH, nominal=NOMINAL, source="Wang et al. 2019, ImageNet-Sketch")


@members(*IMAGENET_V2)
def imagenet_v2(argument: str) -> TaskDefinition:
    """ImageNet-V2: new photographs, chosen as those of ImageNet were, in one of three ways."""
    if argument not in IMAGENET_V2:
        raise UnknownNameError(unknown_name_message("variant of shift/imagenet_v2/", argument, IMAGENET_V2))
    source = "Recht et al. 2019, Do ImageNet classifiers generalize to ImageNet?"
    return _shifted(IMAGENET_V2[argument], nominal=NOMINAL, source=source)


def _shifted(published: ClassFolders, *, nominal: str, source: str) -> TaskDefinition:
    return TaskDefinition(
        examples=partial(open_published, published), datasets=_DATASETS, nominal=nominal, source=source
    )


def _nominal(published: ClassFolders, *, name: str, source: str) -> TaskDefinition:
    return TaskDefinition(examples=partial(open_nominal_of, published), datasets=_DATASETS, nominal=name, source=source)


def open_published(published: ClassFolders, dataset: Dataset, data_dir: Path | None) -> Examples:
    """The pictures; where they are of a part of the classes, the logits of these alone count.

    Raises: DataError: missing, of another number, or a folder that is no class of the dataset.
    """
    found = _find(published, dataset, data_dir)
    classes = {picture.label for picture in found.pictures}
    return examples_of_pictures(found.root, found.pictures, dataset, classes=classes)


def open_nominal_of(published: ClassFolders, dataset: Dataset, data_dir: Path | None) -> Examples:
    """The dataset's own test images of the classes that the published pictures are of, by the same logits.

    Raises: DataError: as `open_published` does, or no test image is of these classes.
    """
    classes = {picture.label for picture in _find(published, dataset, data_dir).pictures}
    return own_images_of_classes(dataset, classes, task=f"the nominal of {published.task}", is_restricted=True)


class _Found(NamedTuple):
    root: Path
    pictures: list[Picture]


def _find(published: ClassFolders, dataset: Dataset, data_dir: Path | None) -> _Found:
    root = find_set(
        published.task,
        data_dir,
        published.folders,
        expected=f"{published.folders[0]}/ with {published.num_images} pictures in {published.num_classes} folders",
        archive=published.archive,
    )
    listing = list_pictures(root)
    # A position is a number and no text: sorted as text, "10" comes before "2".
    is_position = published.named_by == "position"
    label_of = {str(label) if is_position else name: label for label, name in enumerate(dataset.class_names)}
    strange = [folder for folder in listing if folder not in label_of]
    if strange:
        raise DataError(
            f"{published.task}: {root} has {len(strange)} folders that are no {published.named_by} of a class of "
            f"{dataset.name} ({', '.join(strange[:3])}): remove them, or unpack {published.archive} again"
        )
    check_counts(
        listing,
        root,
        num_images=published.num_images,
        num_folders=published.num_classes,
        origin=str(published.archive),
    )
    return _Found(root, pictures_of(listing, {folder: label_of[folder] for folder in listing}))
