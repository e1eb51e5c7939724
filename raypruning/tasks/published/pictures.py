"""Pictures on disk, one folder a class: which there are, and the examples made of them.

Legend of shape suffixes: N images.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from raypruning.core.identity import fingerprint
from raypruning.datasets.base import Dataset, ImageFiles
from raypruning.datasets.cache import content_hash
from raypruning.datasets.decoding import Preparation
from raypruning.datasets.folder_listing import IMAGE_SUFFIXES
from raypruning.errors import DataError
from raypruning.tasks.examples import Examples
from raypruning.tasks.published.own_images import restriction

# Folder -> name of a file -> its size in bytes, all in order of name.
Listing = Mapping[str, Mapping[str, int]]


class Picture(NamedTuple):
    """A file below the folder of a set: its name with "/", its size in bytes, and its label."""

    name: str
    num_bytes: int
    label: int


def list_pictures(root: Path) -> Listing:
    """The pictures in the folders of `root`; a folder without one is empty. Hidden names and other files are left out.

    A folder is listed once in a process, unless a name in it changes.
    """
    with os.scandir(root) as scan:
        folders = sorted(entry.name for entry in scan if entry.is_dir() and not entry.name.startswith("."))
    return {folder: _list_folder(root / folder, (root / folder).stat().st_mtime_ns) for folder in folders}


@functools.cache
def _list_folder(folder: Path, modified: int) -> Mapping[str, int]:
    with os.scandir(folder) as scan:
        return {
            file.name: file.stat().st_size
            for file in sorted(scan, key=lambda file: file.name)
            # macOS leaves "._name.jpg" beside a picture, which is none.
            if not file.name.startswith(".") and file.name.lower().endswith(IMAGE_SUFFIXES) and file.is_file()
        }


def check_counts(listing: Listing, root: Path, *, num_images: int, num_folders: int, origin: str) -> None:
    """Raise DataError where there are more or fewer pictures, or folders with some, than were published."""
    empty = [folder for folder, files in listing.items() if not files]
    found = (sum(len(files) for files in listing.values()), len(listing) - len(empty))
    if found != (num_images, num_folders):
        emptiness = f" ({', '.join(empty[:3])} {'is' if len(empty) == 1 else 'are'} empty)" if empty else ""
        raise DataError(
            f"{root} has {found[0]} pictures in {found[1]} folders{emptiness}, expected {num_images} in {num_folders}: "
            f"unpack {origin} again"
        )


def pictures_of(listing: Listing, label_of: Mapping[str, int]) -> list[Picture]:
    """The pictures in the folders that have a label, in order of label, folder and name."""
    return [
        Picture(f"{folder}/{name}", num_bytes, label_of[folder])
        for folder in sorted(label_of, key=lambda folder: (label_of[folder], folder))
        for name, num_bytes in listing[folder].items()
    ]


def examples_of_pictures(
    root: Path,
    pictures: Sequence[Picture],
    dataset: Dataset,
    *,
    preparation: Preparation = "resize",
    border: int = 0,
    classes: Collection[int] | None = None,
    also_right: Mapping[int, tuple[int, ...]] | None = None,
    positions_N: np.ndarray | None = None,
) -> Examples:
    """Examples of the size and channels of the dataset, decoded when they are asked for.

    Args:
        preparation, border: see `decode_for_test`.
        classes: those whose logits count; None, or all, for all.
        also_right, positions_N: see Examples.
    """
    labels_N = np.array([picture.label for picture in pictures], np.int64)
    counted = None if classes is None else restriction(classes, dataset)
    also_right = also_right or {}
    listed = content_hash(
        {
            "names": np.frombuffer("\0".join(p.name for p in pictures).encode("utf-8", "surrogateescape"), np.uint8),
            "sizes": np.array([picture.num_bytes for picture in pictures], np.int64),
            "labels": labels_N,
        }
    )
    return Examples(
        split=ImageFiles(
            paths=tuple(f"{root}/{picture.name}" for picture in pictures),
            labels_N=labels_N,
            image_size=dataset.image_size,
            channels=dataset.channels,
            preparation=preparation,
            border=border,
        ),
        fingerprint=fingerprint(
            {
                "pictures": listed,
                "decoded": [preparation, border, dataset.image_size, dataset.channels],
                "classes": counted,
                "also_right": {str(label): others for label, others in also_right.items()},
            }
        ),
        classes=counted,
        also_right=also_right,
        positions_N=positions_N,
    )
