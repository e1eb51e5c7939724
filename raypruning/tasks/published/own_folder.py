"""A user's own shifted pictures, in one folder a class: `shift/folder/PATH`, compared with `nominal/folder/PATH`.

Of a dataset in memory, whose images are what its files hold, pictures are shown whole, and left alone where they have
the dataset's size. Of a dataset on disk they are prepared as its own test images are, unless all of them are squares of
the size that the network takes: these are taken for prepared.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from raypruning.datasets.base import Dataset, ImageArrays
from raypruning.datasets.decoding import Preparation, size_of
from raypruning.errors import DataError, SpecError
from raypruning.tasks.examples import Examples
from raypruning.tasks.published.own_images import labelled_test_split, own_images_of_classes
from raypruning.tasks.published.pictures import Listing, examples_of_pictures, list_pictures, pictures_of
from raypruning.tasks.task import TaskDefinition

_SHIFT, _NOMINAL = "shift/folder/", "nominal/folder/"
_SOURCE = "a folder of pictures of the user's own"


def own_folder(argument: str) -> TaskDefinition:
    """The pictures below a folder, absolute or relative to the data folder; its folders have names of classes.

    Where they are of a part of the classes, the logits of these alone count.
    """
    return _definition(argument, is_nominal=False)


def nominal_own_folder(argument: str) -> TaskDefinition:
    """The dataset's own test images of the classes below that folder, by the same logits."""
    return _definition(argument, is_nominal=True)


def _definition(argument: str, *, is_nominal: bool) -> TaskDefinition:
    if not argument:
        family = _NOMINAL if is_nominal else _SHIFT
        raise SpecError(f"the task {family} needs a path: write {family}PATH, where PATH holds one folder a class")
    return TaskDefinition(
        examples=partial(open_nominal_of_folder if is_nominal else open_folder, argument),
        nominal=f"{_NOMINAL}{argument}",
        source=_SOURCE,
    )


def folder_name(class_name: str) -> str:
    """The folder of a class: its name, but for a slash, which no folder can have in its name."""
    return class_name.replace("/", "_")


def open_folder(path: str, dataset: Dataset, data_dir: Path | None) -> Examples:
    """The pictures, decoded to the dataset's size and channels.

    Raises: DataError: missing, an empty folder, or one that is no class of the dataset.
    """
    root = _root(path, data_dir)
    listing = _list(root, dataset)
    classes = _classes(listing, dataset)
    return examples_of_pictures(
        root,
        pictures_of(listing, classes),
        dataset,
        preparation=_preparation(root, listing, dataset),
        classes=set(classes.values()),
    )


def open_nominal_of_folder(path: str, dataset: Dataset, data_dir: Path | None) -> Examples:
    """The dataset's own test images of those classes. Raises DataError as `open_folder` does."""
    classes = _classes(_list(_root(path, data_dir), dataset), dataset)
    return own_images_of_classes(dataset, set(classes.values()), task=f"{_NOMINAL}{path}", is_restricted=True)


def _root(path: str, data_dir: Path | None) -> Path:
    root = (data_dir or Path()).expanduser() / Path(path).expanduser()
    if not root.is_dir():
        what = "is not a folder" if root.exists() else "does not exist"
        base = "" if Path(path).is_absolute() or data_dir is not None else " (no --data-dir was given)"
        raise DataError(f"{_SHIFT}{path}: {root} {what}{base}: give a folder with one folder of pictures a class")
    return root


def _list(root: Path, dataset: Dataset) -> Listing:
    listing = list_pictures(root)
    names = [folder_name(name) for name in dataset.class_names]
    strange = sorted(set(listing) - set(names))
    if strange:
        some = ", ".join(names[:3]) + (", ..." if dataset.num_classes > 3 else "")
        raise DataError(
            f"{root} has {len(strange)} folders that are no class of {dataset.name} ({', '.join(strange[:3])}): "
            f"name them as its classes are ({some}), or remove them"
        )
    empty = [folder for folder, files in listing.items() if not files]
    if empty:
        raise DataError(f"{root / empty[0]} has no pictures: add some, or remove the folder")
    if len(listing) < 2:
        raise DataError(f"{root} has pictures of {len(listing)} classes, expected two or more, in one folder a class")
    return listing


def _classes(listing: Listing, dataset: Dataset) -> dict[str, int]:
    names = [folder_name(name) for name in dataset.class_names]
    return {name: label for label, name in enumerate(names) if name in listing}


def _preparation(root: Path, listing: Listing, dataset: Dataset) -> Preparation:
    if isinstance(labelled_test_split(dataset, task=_SHIFT), ImageArrays):
        return "fit"
    wanted = (dataset.image_size, dataset.image_size)
    # Stops at the first that differs, so that only a set of prepared pictures is looked through.
    is_prepared = all(size_of(root / folder / name) == wanted for folder, files in listing.items() for name in files)
    return "fit" if is_prepared else "resize"
