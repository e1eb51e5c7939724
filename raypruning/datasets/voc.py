"""PASCAL VOC for segmentation, and any folder of pictures and masks in its layout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from raypruning.datasets.base import SPLITS, Dataset, Split, SplitName, of_pixels
from raypruning.datasets.decoding import decode
from raypruning.datasets.folder_listing import hash_with_names
from raypruning.datasets.image_folder import IMAGENET_MEAN, IMAGENET_STD
from raypruning.datasets.locations import candidates, missing_data, search_root
from raypruning.datasets.masked_files import MaskedFiles
from raypruning.datasets.voc_layout import (
    LAYOUT,
    LISTS,
    MASKS,
    PICTURES,
    MaskedListing,
    list_files,
    read_class_names,
    read_lists,
)
from raypruning.errors import DataError

# What DeepLab is trained and tested with, 1 above a multiple of its stride; Lost in Pruning does the same.
_IMAGE_SIZE = 513
_CLASS_NAMES = tuple(
    """background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person
    pottedplant sheep sofa train tvmonitor""".split()  # noqa: SIM905
)
_WITHOUT_TEST_LIST: dict[SplitName, str] = {"train": "train", "test": "val"}
_WITH_TEST_LIST: dict[SplitName, str] = {"train": "train", "validation": "val", "test": "test"}


class _Release(NamedTuple):
    year: int
    num_train: int
    num_val: int
    archive: str
    md5: str

    @property
    def folder(self) -> str:
        return f"VOC{self.year}"

    @property
    def unpack(self) -> str:
        return f"unpack {self.archive} (md5 {self.md5}) again"


_RELEASES = (
    _Release(2012, 1464, 1449, "VOCtrainval_11-May-2012.tar", "6cd6e144f989b92b3379bac3b3de84fd"),
    _Release(2011, 1112, 1111, "VOCtrainval_25-May-2011.tar", "6c3384ef61512963050cb5d687e5bf1e"),
)
# The archive of 2011 has one folder more than that of 2012.
_PLACES = ("", "VOCdevkit/", "TrainVal/VOCdevkit/")
_FOLDERS = ("", *(f"{place}{release.folder}" for release in _RELEASES for place in _PLACES))


@of_pixels
def open_voc(argument: str, *, data_dir: Path | None, download: bool) -> Dataset:
    """PASCAL VOC 2012, or 2011 where only that is there, at 513 px: 20 classes of objects and the background.

    The pictures of val.txt are the test split, a tenth of those of train.txt is held out for validation. They are the
    pictures with masks by the organisers, not the larger set of Hariharan et al., 2011 (SBD), that Lost in Pruning
    trains on; write its masks as PNG to use it as `voc_folder/PATH`. The fingerprint covers names and sizes of the
    files, not their content.

    Raises:
        DataError: not there, or not all of it.
    """
    for root in candidates(search_root(data_dir), _FOLDERS):
        if (root / LISTS).is_dir() or (root / MASKS).is_dir():
            return _open_release(root)
    newest = _RELEASES[0]
    layout = f"{newest.folder}/ with {PICTURES}/, {MASKS}/ and {LISTS}/ ({newest.archive}, md5 {newest.md5}, unpacked)"
    raise missing_data(
        "voc",
        data_dir,
        subfolders=_FOLDERS,
        layout=layout,
        can_download=False,
        no_data_needed="use --dataset shapes, which needs no data",
    )


@of_pixels
def open_voc_folder(argument: str, *, data_dir: Path | None, download: bool) -> Dataset:
    """Pictures and masks below the folder `argument`, absolute or relative to `data_dir` (or to the working folder).

    The layout is that of VOC, with the names of the classes in classes.txt. With ImageSets/Segmentation/test.txt,
    val.txt is for validation; without, val.txt is the test split and a tenth of train.txt is held out. Pictures are
    loaded at 513 px, or at the short side of the first if that is less.

    Raises:
        DataError: no such folder, another layout, or files that are listed and not there.
    """
    name = f"voc_folder/{argument}"
    expected = f"{LAYOUT}, and classes.txt"
    if not argument:
        raise DataError(f"voc_folder/ needs a path: write --dataset voc_folder/PATH, where PATH holds {expected}")
    root = (data_dir or Path()).expanduser() / Path(argument).expanduser()
    if not root.is_dir():
        what = "is not a folder" if root.exists() else "does not exist"
        base = "" if Path(argument).is_absolute() or data_dir is not None else " (no --data-dir was given)"
        raise DataError(f"{name}: {root} {what}{base}: expected {expected}")
    return open_layout(root, name=name, source=f"pictures and masks below {root}")


def open_layout(root: Path, *, name: str, source: str) -> Dataset:
    """The dataset in the folder `root`, which has the layout of `voc_folder/`. Raises DataError."""
    class_names = read_class_names(root, name=name)
    lists = _WITH_TEST_LIST if (root / LISTS / "test.txt").exists() else _WITHOUT_TEST_LIST
    names = read_lists(root, name=name, lists=lists, remedy=f"expected {LAYOUT}")
    remedy = f"add what is missing, or take its name out of {LISTS}/*.txt"
    listing = list_files(root, names, name=name, remedy=remedy)
    first = decode(root / listing.paths["train"][0], 3)
    size = min(_IMAGE_SIZE, *first.size)
    return _dataset(listing, root, name=name, class_names=class_names, image_size=size, source=source)


def _open_release(root: Path) -> Dataset:
    named = next((release for release in _RELEASES if release.folder == root.resolve().name), _RELEASES[0])
    names = read_lists(root, name="voc", lists=_WITHOUT_TEST_LIST, remedy=named.unpack)
    counts = len(names["train"]), len(names["test"])
    release = next((release for release in _RELEASES if (release.num_train, release.num_val) == counts), None)
    if release is None:
        known = " or ".join(f"{one.num_train} and {one.num_val} ({one.folder})" for one in _RELEASES)
        raise DataError(
            f"voc: train.txt and val.txt of {root / LISTS} list {counts[0]} and {counts[1]} pictures, "
            f"expected {known}: {named.unpack}; for other pictures in this layout use "
            f"--dataset voc_folder/{root.resolve()}"
        )
    listing = list_files(root, names, name="voc", remedy=release.unpack)
    source = f"Everingham et al., The PASCAL Visual Object Classes Challenge {release.year} ({release.folder})"
    return _dataset(listing, root, name="voc", class_names=_CLASS_NAMES, image_size=_IMAGE_SIZE, source=source)


def _dataset(
    listing: MaskedListing, root: Path, *, name: str, class_names: tuple[str, ...], image_size: int, source: str
) -> Dataset:
    def loader_of(split: SplitName) -> Callable[[], Split]:
        return lambda: MaskedFiles(
            paths=tuple(f"{root}/{path}" for path in listing.paths[split]),
            mask_paths=tuple(f"{root}/{path}" for path in listing.mask_paths[split]),
            image_size=image_size,
            num_classes=len(class_names),
        )

    return Dataset(
        name=name,
        num_classes=len(class_names),
        channels=3,
        image_size=image_size,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        class_names=class_names,
        fingerprint=hash_with_names(listing.fingerprint, class_names),
        augmentation="scaled_crop_flip",
        kind="segmentation",
        source=source,
        loaders={split: loader_of(split) for split in SPLITS},
    )
