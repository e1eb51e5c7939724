"""Which image files a folder of classes holds.

The layout is `train/<class>/` and `test/<class>/`, or `val/` in place of `test/`; with all three, `val/` is validation.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from raypruning.datasets.base import rank_within_class
from raypruning.datasets.cache import Built, Entry, content_hash, find, key_of, load_or_build
from raypruning.datasets.random_bits import permutation
from raypruning.errors import DataError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff", ".gif")
LAYOUT = "train/<class>/ and test/<class>/ (or val/<class>/) with image files"

# To list a million files takes seconds, on a network drive minutes. Beyond this many a listing is kept, and trusted as
# long as no file was added, removed or renamed; a file overwritten in place under its old name goes unnoticed then.
_MANY_FILES = 200_000
_HOLD_OUT_SEED = 1_000_003


class FolderListing(NamedTuple):
    """Image files by split, sorted by class and name.

    Attributes:
        class_names: sorted; a label is a position in it.
        paths: relative to the root, with "/", by split.
        labels: int64, by split.
        fingerprint: hash of relative names, labels and sizes in bytes.
        key: changes whenever a file changes, its time of writing included.
    """

    class_names: tuple[str, ...]
    paths: Mapping[str, tuple[str, ...]]
    labels: Mapping[str, np.ndarray]
    fingerprint: str
    key: str


def list_folder(root: Path, *, name: str) -> FolderListing:
    """List the three splits of the images below `root`.

    Without a validation folder a tenth of the training images of each class is held out (one at least, of classes
    with two or more), the same on every platform.

    Raises:
        DataError: no train or test folder, a class that is empty or in one of them only, images outside of class
            folders. The message starts with `name`.
    """
    parts = _part_folders(root, name)
    class_folders = {part: _class_folders(folder, name) for part, folder in parts.items()}
    class_names = _common_classes(class_folders, parts, name)
    times = {part: [folders[c].stat().st_mtime_ns for c in class_names] for part, folders in class_folders.items()}
    folder_key = key_of("listing", str(root.resolve()), class_names, times)
    kept = find("folder", folder_key)
    if kept is not None:
        return _from_entry(kept, class_names, folder_key)

    arrays, stamps = {}, []
    for part, folders in class_folders.items():
        names, labels, sizes = _list_part(folders, class_names, root, stamps)
        # One block of bytes: a million Python strings do not fit an array file.
        arrays[f"{part}_names"] = np.frombuffer("\0".join(names).encode("utf-8", "surrogateescape"), np.uint8)
        arrays[f"{part}_labels"], arrays[f"{part}_sizes"] = np.array(labels, np.int64), np.array(sizes, np.int64)
    if len(stamps) > _MANY_FILES:
        return _from_entry(load_or_build("folder", folder_key, lambda: Built(arrays, {})), class_names, folder_key)
    key = key_of(folder_key, stamps)
    return _from_entry(Entry(arrays, {}, content_hash(arrays)), class_names, key)


def _part_folders(root: Path, name: str) -> dict[str, Path]:
    """The folders that exist: "train" and "test", and "validation" where it has its own."""
    there = {part: root / part for part in ("train", "test", "val", "validation") if (root / part).is_dir()}
    held_out = there.get("val", there.get("validation"))
    test = there.get("test", held_out)
    if "train" not in there or test is None:
        lacking = "train/" if "train" not in there else "test/ (or val/)"
        raise DataError(f"{name}: {root} has no {lacking}: expected {LAYOUT}")
    parts = {"train": there["train"], "test": test}
    if held_out is not None and held_out != test:
        parts["validation"] = held_out
    return parts


def _class_folders(folder: Path, name: str) -> dict[str, Path]:
    entries = sorted((entry for entry in folder.iterdir() if not entry.name.startswith(".")), key=lambda e: e.name)
    folders = {entry.name: entry for entry in entries if entry.is_dir()}
    if not folders:
        loose = sum(entry.suffix.lower() in IMAGE_SUFFIXES for entry in entries)
        has = f"{loose} images but no folder per class" if loose else "no folder per class"
        raise DataError(f"{name}: {folder} has {has}: expected {LAYOUT}")
    return folders


def _common_classes(class_folders: dict[str, dict[str, Path]], parts: dict[str, Path], name: str) -> tuple[str, ...]:
    train = class_folders["train"]
    for part, folders in class_folders.items():
        for here, there, other in ((train, folders, parts[part]), (folders, train, parts["train"])):
            lacking = sorted(set(here) - set(there))
            if lacking:
                some = ", ".join(lacking[:3]) + (", ..." if len(lacking) > 3 else "")
                raise DataError(
                    f"{name}: {other} lacks {len(lacking)} of the classes ({some}): train and {part} must have class "
                    "folders of the same names"
                )
    return tuple(sorted(train))


def _list_part(
    folders: dict[str, Path], class_names: tuple[str, ...], root: Path, stamps: list[int]
) -> tuple[list[str], list[int], list[int]]:
    names: list[str] = []
    labels: list[int] = []
    sizes: list[int] = []
    for label, class_name in enumerate(class_names):
        folder = folders[class_name]
        with os.scandir(folder) as scan:
            files = sorted((f for f in scan if _is_image(f)), key=lambda f: f.name)
        if not files:
            raise DataError(f"{folder} has no images ({', '.join(IMAGE_SUFFIXES)}): add some, or remove the class")
        prefix = folder.relative_to(root).as_posix()
        for file in files:
            stat = file.stat()
            names.append(f"{prefix}/{file.name}")
            labels.append(label)
            sizes.append(stat.st_size)
            stamps.append(stat.st_mtime_ns)
    return names, labels, sizes


def _is_image(file: os.DirEntry[str]) -> bool:
    # macOS leaves "._name.jpg" beside a picture, which is none.
    return not file.name.startswith(".") and file.name.lower().endswith(IMAGE_SUFFIXES) and file.is_file()


def _from_entry(entry: Entry, class_names: tuple[str, ...], key: str) -> FolderListing:
    paths, labels = {}, {}
    for part in ("train", "validation", "test"):
        if f"{part}_names" in entry.arrays:
            text = entry.arrays[f"{part}_names"].tobytes().decode("utf-8", "surrogateescape")
            paths[part], labels[part] = tuple(text.split("\0")), np.array(entry.arrays[f"{part}_labels"])
    if "validation" not in paths:
        is_held_out = _hold_out(labels["train"])
        for part, chosen in (("validation", np.flatnonzero(is_held_out)), ("train", np.flatnonzero(~is_held_out))):
            paths[part] = tuple(paths["train"][index] for index in chosen)
            labels[part] = labels["train"][chosen]
    fingerprint = hash_with_names(entry.fingerprint, class_names)
    return FolderListing(class_names, paths, labels, fingerprint, key)


def hash_with_names(content: str, class_names: tuple[str, ...]) -> str:
    """Hash of a content hash and the class names, since the same pictures under other names are another dataset."""
    return content_hash({content: np.frombuffer(json.dumps(class_names).encode(), np.uint8)})


def _hold_out(labels_N: np.ndarray) -> np.ndarray:
    """True for a random tenth of each class, rounded; one image at least where the class has two."""
    order = permutation(len(labels_N), seed=_HOLD_OUT_SEED)
    rank_N = np.empty(len(labels_N), np.int64)
    rank_N[order] = rank_within_class(labels_N[order])
    counts = np.bincount(labels_N)
    num_held_out = np.where(counts >= 2, np.maximum(1, (counts + 5) // 10), 0)
    return rank_N < num_held_out[labels_N]
