"""Any folder of images with one folder per class, and ImageNet, which is one.

Legend of shape suffixes: N images, C channels, H and W pixels.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from raypruning.datasets.base import SPLITS, Dataset, ImageFiles, Split, loaders_of_entry
from raypruning.datasets.cache import Built, Entry, find, key_of, load_or_build
from raypruning.datasets.decoding import decode, map_threads, to_array
from raypruning.datasets.folder_listing import LAYOUT, FolderListing, hash_with_names, list_folder
from raypruning.datasets.locations import NO_DATA_NEEDED, candidates, missing_data, search_root
from raypruning.errors import DataError

# Decoded sets up to this size are kept as arrays; larger ones would crowd the memory of a laptop.
_MAX_ARRAY_BYTES = 1 << 30
# Up to this side (Tiny ImageNet has 64 px) networks are trained on shifted whole images, above it on random parts.
_MAX_SMALL_SIDE = 96
_FILES_SIDE = 224
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_IMAGENET_FOLDERS = ("", "imagenet", "ILSVRC2012")
_IMAGENET_CLASSES = 1000
_IMAGENET_LAYOUT = "train/<class>/ and val/<class>/ with the 1000 class folders of ILSVRC 2012"


def open_folder(argument: str, *, data_dir: Path | None, download: bool) -> Dataset:
    """The images below the folder `argument`, absolute or relative to `data_dir` (to the working folder without one).

    Square images that all have one size, and together fit 1 GiB, are decoded once and kept as arrays, in their own
    size; others are read from their files, 224 px (or the short side of the first image, if less). Grey images stay
    grey where all are and arrays are used. A tenth of the training images is held out for validation, unless there are
    both val/ and test/.

    Raises:
        DataError: no such folder, another layout, or an image that cannot be read.
    """
    name = f"folder/{argument}"
    if not argument:
        raise DataError(f"folder/ needs a path: write --dataset folder/PATH, where PATH holds {LAYOUT}")
    root = (data_dir or Path()).expanduser() / Path(argument).expanduser()
    if not root.is_dir():
        what = "is not a folder" if root.exists() else "does not exist"
        base = "" if Path(argument).is_absolute() or data_dir is not None else " (no --data-dir was given)"
        raise DataError(f"{name}: {root} {what}{base}: expected {LAYOUT}; or {NO_DATA_NEEDED}")
    listing = list_folder(root, name=name)
    return dataset_of_listing(listing, root, name=name, source=f"images below {root}")


def open_imagenet(argument: str, *, data_dir: Path | None, download: bool) -> Dataset:
    """ILSVRC 2012 at 224 px, from `data_dir`, or imagenet/ or ILSVRC2012/ in it. The 50 000 of val/ are the test split.

    The fingerprint covers names and sizes of the files, not their content.
    """
    for root in candidates(search_root(data_dir), _IMAGENET_FOLDERS):
        if (root / "train").is_dir() or (root / "val").is_dir():
            listing = list_folder(root, name="imagenet")
            if len(listing.class_names) != _IMAGENET_CLASSES:
                raise DataError(
                    f"imagenet: {root / 'train'} has {len(listing.class_names)} class folders, expected "
                    f"{_IMAGENET_CLASSES}; for another set of classes use --dataset folder/{root.resolve()}"
                )
            return _files_dataset(
                listing,
                root,
                name="imagenet",
                source="Russakovsky et al., 2015, ImageNet Large Scale Visual Recognition Challenge (ILSVRC 2012)",
                image_size=_FILES_SIDE,
            )
    raise missing_data("imagenet", data_dir, subfolders=_IMAGENET_FOLDERS, layout=_IMAGENET_LAYOUT, can_download=False)


def dataset_of_listing(listing: FolderListing, root: Path, *, name: str, source: str) -> Dataset:
    """A dataset of the listed files: arrays where they are small, square and of one size, files otherwise."""
    entry = find("images", _arrays_key(listing))
    if entry is None:
        side, channels = _common_side_and_channels(listing, root)
        if side is None:
            first = decode(root / listing.paths["train"][0], 3)
            return _files_dataset(listing, root, name=name, source=source, image_size=min(_FILES_SIDE, *first.size))
        entry = decode_listing(listing, root, side=side, channels=channels)
    side = int(entry.arrays["train_images"].shape[-1])
    return Dataset(
        name=name,
        num_classes=len(listing.class_names),
        channels=int(entry.arrays["train_images"].shape[1]),
        image_size=side,
        mean=tuple(entry.facts["mean"]),
        std=tuple(entry.facts["std"]),
        class_names=listing.class_names,
        fingerprint=hash_with_names(entry.fingerprint, listing.class_names),
        augmentation="crop_flip" if side <= _MAX_SMALL_SIDE else "resized_crop_flip",
        source=source,
        loaders=loaders_of_entry(entry),
    )


def decode_listing(listing: FolderListing, root: Path, *, side: int, channels: int) -> Entry:
    """Decode all listed images once, into the cache.

    Raises:
        DataError: a file is no image, or not of `side` x `side` pixels; the message names it.
    """

    def build() -> Built:
        arrays = {}
        for split in SPLITS:
            paths = [root / path for path in listing.paths[split]]
            arrays[f"{split}_images"] = _decode_all(paths, side=side, channels=channels)
            arrays[f"{split}_labels"] = listing.labels[split]
        mean, std = pixel_statistics(arrays["train_images"])
        return Built(arrays, {"mean": mean, "std": std})

    return load_or_build("images", _arrays_key(listing), build)


def pixel_statistics(images_NCHW: np.ndarray) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel, of pixels in [0, 1], rounded to four places.

    A channel that is constant gets the deviation 1, since one divides by it.
    """
    means, deviations = [], []
    for channel in range(images_NCHW.shape[1]):
        counts = np.zeros(256, np.int64)
        for first in range(0, len(images_NCHW), 1024):
            counts += np.bincount(images_NCHW[first : first + 1024, channel].ravel(), minlength=256)
        levels = np.arange(256) / 255
        mean = (counts * levels).sum() / counts.sum()
        deviation = np.sqrt((counts * (levels - mean) ** 2).sum() / counts.sum())
        means.append(round(float(mean), 4))
        deviations.append(round(float(deviation), 4) or 1.0)
    return means, deviations


def _arrays_key(listing: FolderListing) -> str:
    return key_of("arrays", listing.key)


def _decode_all(paths: list[Path], *, side: int, channels: int) -> np.ndarray:
    images_NCHW = np.empty((len(paths), channels, side, side), np.uint8)

    def decode_into(position: int) -> None:
        image = decode(paths[position], channels)
        if image.size != (side, side):
            raise DataError(f"{paths[position]} is {image.width} x {image.height} px, expected {side} x {side}")
        images_NCHW[position] = to_array(image)

    map_threads(decode_into, range(len(paths)), num_threads=min(8, os.cpu_count() or 1))
    return images_NCHW


def _common_side_and_channels(listing: FolderListing, root: Path) -> tuple[int | None, int]:
    """The side that all images share if they are square and fit into arrays, and 1 channel if all are grey.

    Reads the headers of the files only, and stops at the first that differs.
    """
    from PIL import Image

    num_images = sum(len(paths) for paths in listing.paths.values())
    side, channels = None, 1
    for split in SPLITS:
        for path in listing.paths[split]:
            try:
                with Image.open(root / path) as image:
                    size, mode = image.size, image.mode
            except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
                raise DataError(f"{root / path} cannot be read as an image: {error}") from error
            channels = channels if mode in ("1", "L", "LA") else 3
            side = size[0] if side is None else side
            if size != (side, side) or num_images * channels * side * side > _MAX_ARRAY_BYTES:
                return None, 3
    return side, channels


def _files_dataset(listing: FolderListing, root: Path, *, name: str, source: str, image_size: int) -> Dataset:
    def loader_of(split: str) -> Callable[[], Split]:
        return lambda: ImageFiles(
            paths=tuple(f"{root}/{path}" for path in listing.paths[split]),
            labels_N=listing.labels[split],
            image_size=image_size,
        )

    return Dataset(
        name=name,
        num_classes=len(listing.class_names),
        channels=3,
        image_size=image_size,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        class_names=listing.class_names,
        fingerprint=listing.fingerprint,
        augmentation="resized_crop_flip",
        source=source,
        loaders={split: loader_of(split) for split in SPLITS},
    )
