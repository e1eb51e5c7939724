"""Pictures and masks in the folders of PASCAL VOC, whatever they show.

`JPEGImages/<name>.jpg`, `SegmentationClass/<name>.png`, and lists of names in `ImageSets/Segmentation/`.

Legend of shape suffixes: N images.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from raypruning.datasets.base import SplitName, hold_out_tenth
from raypruning.datasets.cache import content_hash
from raypruning.errors import DataError

PICTURES, MASKS, LISTS = "JPEGImages", "SegmentationClass", "ImageSets/Segmentation"
LAYOUT = f"{PICTURES}/<name>.jpg (or .png), {MASKS}/<name>.png, and {LISTS}/train.txt and val.txt with the names"
# The first that exists is the picture.
_PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png")
_MASK_SUFFIXES = (".png",)
# A tenth of fewer is no picture at all.
_MIN_TO_HOLD_OUT = 10


class MaskedListing(NamedTuple):
    """Pictures and masks by split, in the order of the lists, and what identifies them.

    Attributes:
        paths: of pictures, relative to the root, with "/".
        mask_paths: of their masks.
        fingerprint: hash of relative names and sizes in bytes.
    """

    paths: Mapping[SplitName, tuple[str, ...]]
    mask_paths: Mapping[SplitName, tuple[str, ...]]
    fingerprint: str


class _Found(NamedTuple):
    path: str
    num_bytes: int


def read_lists(root: Path, *, name: str, lists: Mapping[SplitName, str], remedy: str) -> dict[SplitName, list[str]]:
    """The names that each list holds, one a line.

    Args:
        root: the folder with the layout.
        name: of the dataset; the message starts with it.
        lists: which file, without ".txt", lists which split.
        remedy: what the user can do about it; the message ends with it.

    Raises:
        DataError: a list is missing or empty, or a name stands there twice.
    """
    names: dict[SplitName, list[str]] = {}
    list_of: dict[str, str] = {}
    for split, list_name in lists.items():
        path = root / LISTS / f"{list_name}.txt"
        names[split] = _lines(path, name=name, remedy=remedy)
        if not names[split]:
            raise DataError(f"{name}: {path} is empty: it lists pictures, one name a line; {remedy}")
        for picture in names[split]:
            if picture in list_of:
                where = " and ".join(f"{one}.txt" for one in sorted({list_of[picture], list_name}))
                raise DataError(f"{name}: {picture} stands twice in {where} of {path.parent}: list it once; {remedy}")
            list_of[picture] = list_name
    return names


def list_files(root: Path, names: Mapping[SplitName, list[str]], *, name: str, remedy: str) -> MaskedListing:
    """Find picture and mask of each name. Without validation names, a tenth of the training names is held out.

    Args:
        root: the folder with the layout.
        names: from `read_lists`.
        name: of the dataset; the message starts with it.
        remedy: what the user can do about it; the message ends with it.

    Raises:
        DataError: files are missing, or there are too few to hold out a tenth. The message says how many are there.
    """
    every = [picture for split in names.values() for picture in split]
    pictures = _find(root, PICTURES, every, _PICTURE_SUFFIXES)
    masks = _find(root, MASKS, every, _MASK_SUFFIXES)
    missing = [f"{PICTURES}/{picture}.jpg" for picture in every if picture not in pictures]
    missing += [f"{MASKS}/{picture}.png" for picture in every if picture not in masks]
    if missing:
        raise DataError(
            f"{name}: {root} is not complete: {len(pictures)} of {len(every)} pictures are in {PICTURES}/ and "
            f"{len(masks)} of {len(every)} masks in {MASKS}/ (missing: {missing[0]}{', ...' if missing[1:] else ''}); "
            f"{remedy}"
        )
    splits = _with_validation(names, name=name)
    files = {split: [(pictures[one], masks[one]) for one in listed] for split, listed in splits.items()}
    return MaskedListing(
        paths={split: tuple(picture.path for picture, _ in pairs) for split, pairs in files.items()},
        mask_paths={split: tuple(mask.path for _, mask in pairs) for split, pairs in files.items()},
        fingerprint=content_hash(_record(files)),
    )


def read_class_names(root: Path, *, name: str) -> tuple[str, ...]:
    """The lines of classes.txt: the first is the background, class 0.

    Raises:
        DataError: the file is missing, lists a name twice, or lists fewer than 2 or more than 255 names.
    """
    path = root / "classes.txt"
    rule = "it lists 2 to 255 classes, one name a line, the first for the background"
    class_names = tuple(_lines(path, name=name, remedy=rule))
    if not 2 <= len(class_names) <= 255:  # 255 itself is VOID
        raise DataError(f"{name}: {path} lists {len(class_names)} classes: {rule}")
    if len(set(class_names)) < len(class_names):
        twice = next(one for one in class_names if class_names.count(one) > 1)
        raise DataError(f"{name}: {path} lists {twice!r} twice: {rule}, each once")
    return class_names


def _lines(path: Path, *, name: str, remedy: str) -> list[str]:
    """The lines of a text, without blank ones."""
    try:
        # Editors on Windows put a mark before the first name.
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise DataError(f"{name}: {path} is missing: {remedy}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{name}: {path} cannot be read ({error}): {remedy}") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def _find(root: Path, folder: str, names: list[str], suffixes: tuple[str, ...]) -> dict[str, _Found]:
    """The files that exist, by name."""
    found = {}
    for name in names:
        for suffix in suffixes:
            path = f"{folder}/{name}{suffix}"
            # One look at each of thousands of files, which counts on a network drive.
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                found[name] = _Found(path, os.stat(f"{root}/{path}").st_size)
                break
    return found


def _with_validation(names: Mapping[SplitName, list[str]], *, name: str) -> dict[SplitName, list[str]]:
    if "validation" in names:
        return dict(names)
    train = names["train"]
    if len(train) < _MIN_TO_HOLD_OUT:
        raise DataError(
            f"{name}: train.txt lists {len(train)} pictures: at least {_MIN_TO_HOLD_OUT} are needed, since a tenth is "
            "held out for validation; add some, or a test.txt, and val.txt is for validation"
        )
    kept, held_out = hold_out_tenth(len(train))
    return {
        "train": [train[index] for index in kept],
        "validation": [train[index] for index in held_out],
        "test": names["test"],
    }


def _record(files: Mapping[SplitName, list[tuple[_Found, _Found]]]) -> dict[str, np.ndarray]:
    """What is hashed: names as bytes and sizes int64 (N, 2), by split."""
    record = {}
    for split, pairs in files.items():
        text = "\0".join(found.path for pair in pairs for found in pair)
        record[f"{split}_names"] = np.frombuffer(text.encode("utf-8", "surrogateescape"), np.uint8)
        record[f"{split}_sizes"] = np.array([[found.num_bytes for found in pair] for pair in pairs], np.int64)
    return record
