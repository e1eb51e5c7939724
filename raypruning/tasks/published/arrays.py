"""Images and labels in `.npy` files, as published: read as a map, checked, never unpickled.

Legend of shape suffixes: N images, H and W pixels, C channels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from raypruning.datasets.cache import Built, content_hash, key_of_files, load_or_build
from raypruning.datasets.cifar_files import SIDE
from raypruning.errors import DataError


def open_images(path: Path, num_images: int, *, origin: str) -> np.ndarray:
    """Images of 32 px, uint8 (N, H, W, C), memory-mapped.

    Args:
        num_images: how many there must be.
        origin: where to get them again; ends a message.

    Raises: DataError: missing, cut off, or of another type or shape.
    """
    images_NHWC = _open(path, origin=origin)
    expected = (num_images, SIDE, SIDE, 3)
    if images_NHWC.dtype != np.uint8 or images_NHWC.shape != expected:
        raise DataError(
            f"{path} is {images_NHWC.dtype} {images_NHWC.shape}, expected uint8 {expected}: take it again from {origin}"
        )
    return images_NHWC


def open_labels(path: Path, num_classes: int, *, origin: str) -> np.ndarray:
    """Labels, int64 (N,), whatever integers the file has.

    Raises: DataError: missing, cut off, of another type or shape, or a label that is no class.
    """
    labels_N = _open(path, origin=origin)
    if labels_N.dtype.kind not in "iu" or labels_N.ndim != 1:
        raise DataError(
            f"{path} is {labels_N.dtype} {labels_N.shape}, expected whole numbers in one row: "
            f"take it again from {origin}"
        )
    wrong = labels_N[(labels_N < 0) | (labels_N >= num_classes)]
    if len(wrong):
        raise DataError(f"{path} has label {wrong[0]}, expected 0 to {num_classes - 1}: take it again from {origin}")
    return labels_N.astype(np.int64)


def hash_blocks(path: Path, images_NHWC: np.ndarray, num_blocks: int) -> list[str]:
    """The content hash of each of so many equal parts of a file; remembered until the file is written again."""

    def build() -> Built:
        blocks = images_NHWC.reshape(num_blocks, -1, *images_NHWC.shape[1:])
        return Built({}, {"hashes": [content_hash({"images": block_NHWC}) for block_NHWC in blocks]})

    hashes: list[str] = load_or_build("hashes", key_of_files([path], num_blocks), build).facts["hashes"]
    return hashes


def _open(path: Path, *, origin: str) -> np.ndarray:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        there = sum(1 for file in path.parent.glob("*.npy"))
        raise DataError(f"{path} is missing, beside {there} other .npy files: take it from {origin}") from error
    # A damaged header can make numpy's parser raise nearly anything; all of it means the same to the user.
    except Exception as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path} is cut off or no array of numbers ({reason}): take it again from {origin}") from error
    if not isinstance(array, np.ndarray):
        raise DataError(f"{path} is an archive of arrays, expected one array: take it again from {origin}")
    return array
