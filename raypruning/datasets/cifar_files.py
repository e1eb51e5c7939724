"""The file formats in which CIFAR comes. Nothing in a file can run code: see `read_pickle`.

Legend of shape suffixes: N images, C channels, H and W pixels.
"""

from __future__ import annotations

import os
import pickle
import tarfile
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from raypruning.datasets.decoding import decode, map_threads, to_array
from raypruning.errors import DataError

SIDE = 32
_PIXEL_BYTES = 3 * SIDE * SIDE
# A picture of 32 px takes 1 kB; a member of a megabyte is no such picture, or a decompression bomb.
_MAX_PICTURE_BYTES = 1 << 20
# All that an array is rebuilt from, under the old and the new name of numpy's core.
_ALLOWED_GLOBALS = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("_codecs", "encode"),
}


class Labelled(NamedTuple):
    """Images (uint8, N, 3, 32, 32) and their labels (int64, N)."""

    images_NCHW: np.ndarray
    labels_N: np.ndarray


def read_binary(path: Path, num_label_bytes: int) -> Labelled:
    """Read a binary batch: per image one label byte (CIFAR-100: coarse, then fine) and 3 x 32 x 32 pixels.

    Source: https://www.cs.toronto.edu/~kriz/cifar.html, "Binary version".
    """
    content = np.fromfile(path, np.uint8)
    record_bytes = num_label_bytes + _PIXEL_BYTES
    if not len(content) or len(content) % record_bytes:
        raise DataError(
            f"{path} is cut off or damaged: {len(content)} bytes are not a whole number of images of {record_bytes} "
            "bytes; copy or download it again"
        )
    records = content.reshape(-1, record_bytes)
    images = records[:, num_label_bytes:].reshape(-1, 3, SIDE, SIDE)
    return Labelled(images, records[:, num_label_bytes - 1].astype(np.int64))


def read_pickle(path: Path, label_key: str) -> Labelled:
    """Read a batch of the Python version: a pickled dict with "data" (N x 3072 uint8) and a list of labels.

    Only arrays and built-in containers are rebuilt. A pickle that asks for anything else is refused before it runs.

    Raises:
        DataError: refused, cut off, or not such a dict; the message names `path`.
    """
    try:
        with path.open("rb") as file:
            record = _ArrayUnpickler(file, encoding="latin1").load()
        record = {key.decode() if isinstance(key, bytes) else key: value for key, value in record.items()}
        pixels, labels = np.asarray(record["data"]), np.asarray(record[label_key])
        if pixels.dtype != np.uint8 or labels.dtype.kind not in "iu" or labels.shape != pixels.shape[:1]:
            raise ValueError(f"data is {pixels.dtype} {pixels.shape}, {label_key} {labels.dtype} {labels.shape}")
        return Labelled(pixels.reshape(-1, 3, SIDE, SIDE), labels.astype(np.int64))
    except DataError:
        raise
    # A damaged pickle can make the unpickler raise nearly anything; all of it means the same to the user.
    except Exception as error:
        raise DataError(
            f"{path} is not a CIFAR batch, or cut off ({type(error).__name__}: {error}): copy or download it again"
        ) from error


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED_GLOBALS:
            raise DataError(
                f"the pickle asks for {module}.{name}, which no CIFAR batch needs: refused; "
                "download the file again from its publisher"
            )
        # numpy 2 warns under the old name.
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def read_archive(path: Path, class_names: Sequence[str]) -> dict[str, Labelled]:
    """Read `train/<class>/*` and `test/<class>/*` from a tar archive, compressed or not, without unpacking it to disk.

    Other members are passed over. Pictures are sorted by class and name, whatever their order in the archive.

    Raises:
        DataError: damaged, without pictures, or with one that cannot be read; the message names it.
    """
    label_of = {name: label for label, name in enumerate(class_names)}
    found: dict[str, list[tuple[int, str, bytes]]] = {"train": [], "test": []}
    try:
        with tarfile.open(path, "r|*") as archive:
            for member in archive:
                split, class_name, file_name = ("", "", *PurePosixPath(member.name).parts)[-3:]
                file = archive.extractfile(member) if member.isfile() and member.size <= _MAX_PICTURE_BYTES else None
                if file is not None and split in found and class_name in label_of and file_name[0] != ".":
                    found[split].append((label_of[class_name], file_name, file.read()))
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} is cut off or damaged ({error}): copy or download it again") from error
    for split, pictures in found.items():
        classes = len({label for label, _, _ in pictures})
        if classes != len(class_names):
            raise DataError(
                f"{path} has pictures of {classes} of {len(class_names)} classes in {split}/<class>/: "
                "expected all of them; copy or download it again"
            )
    return {
        split: _decode_all([(label, content, f"{name} in {path}") for label, name, content in sorted(pictures)])
        for split, pictures in found.items()
    }


def read_pictures(labelled_paths: Sequence[tuple[int, Path]]) -> Labelled:
    """Read image files of 32 x 32 px, given with their labels."""
    return _decode_all([(label, path, str(path)) for label, path in labelled_paths])


def _decode_all(pictures: Sequence[tuple[int, bytes | Path, str]]) -> Labelled:
    images = np.empty((len(pictures), 3, SIDE, SIDE), np.uint8)

    def decode_into(position: int) -> None:
        _, source, name = pictures[position]
        image = decode(source, 3, name=name)
        if image.size != (SIDE, SIDE):
            raise DataError(f"{name} is {image.width} x {image.height} px, expected {SIDE} x {SIDE}")
        images[position] = to_array(image)

    map_threads(decode_into, range(len(pictures)), num_threads=min(8, os.cpu_count() or 1))
    return Labelled(images, np.array([label for label, _, _ in pictures], np.int64))
