"""The file formats in which CIFAR comes. Nothing in a file can run code: see `read_pickle`.

Legend of shape suffixes: N images, C channels, H and W pixels.
"""

from __future__ import annotations

import os
import pickle
import tarfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from raypruning.datasets.decoding import decode, map_threads, to_array
from raypruning.errors import DataError

SIDE = 32
_PIXEL_BYTES = 3 * SIDE * SIDE
# A picture of 32 px takes 1 kB; a member of a megabyte is no such picture, or a decompression bomb.
_MAX_PICTURE_BYTES = 1 << 20
# A batch of 10 000 images has 31 MB, the largest file, of CIFAR-100, 155 MB.
_MAX_PICKLE_BYTES = 1 << 30
_INTEGERS = {f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)}


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

    Only arrays of integers and built-in containers are rebuilt, and those arrays by this module: numpy's own way of
    doing so believes what a file says of an array's memory. A pickle that asks for anything else is refused before it
    runs.

    Raises:
        DataError: refused, cut off, or not such a dict; the message names `path`.
    """
    try:
        if path.stat().st_size > _MAX_PICKLE_BYTES:
            raise ValueError(f"it has more than {_MAX_PICKLE_BYTES} bytes")
        with path.open("rb") as file:
            record = _ArrayUnpickler(file, encoding="latin1").load()
        record = {key.decode() if isinstance(key, bytes) else key: value for key, value in record.items()}
        pixels, labels = record["data"].as_numpy(), _labels(record[label_key])
        if pixels.dtype != np.uint8 or labels.dtype.kind not in "iu" or labels.shape != pixels.shape[:1]:
            raise ValueError(f"data is {pixels.dtype} {pixels.shape}, {label_key} {labels.dtype} {labels.shape}")
        return Labelled(pixels.reshape(-1, 3, SIDE, SIDE), labels.astype(np.int64))
    except DataError:
        raise
    # A damaged pickle can make the unpickler raise nearly anything; all of it means the same to the user.
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(
            f"{path} is not a CIFAR batch, or cut off ({type(error).__name__}: {reason}): copy or download it again"
        ) from error


def _labels(value: object) -> np.ndarray:
    if isinstance(value, _Array):
        return value.as_numpy()
    if not isinstance(value, list) or not all(type(label) is int for label in value):
        raise ValueError("labels are no list of integers")
    return np.array(value, np.int64)


# The one in Python: that in C sets memory aside for whatever a file says it will need.
class _ArrayUnpickler(pickle._Unpickler):  # type: ignore[name-defined, misc, unused-ignore]
    """Rebuilds containers and arrays. Everything that a pickle can call is made anew for it, by `find_class`."""

    def find_class(self, module: str, name: str) -> Any:
        asked = f"{module}.{name}".replace("numpy._core.", "numpy.core.")
        if asked == "numpy.core.multiarray._reconstruct":
            return _Callable(lambda *about: _Array())  # What it will be comes as its state.
        if asked == "numpy.dtype":
            return _Callable(lambda code, *about: _ArrayType(code))
        if asked == "_codecs.encode":  # How newer Pythons put bytes into an old pickle.
            return _Callable(lambda text, encoding: text.encode("latin1"))
        if asked == "numpy.ndarray":
            return None  # An argument of `_reconstruct`, and never called.
        raise DataError(
            f"the pickle asks for {module}.{name}, which no CIFAR batch needs: refused; "
            "download the file again from its publisher"
        )


class _Callable:
    """Can be called, and nothing else: a pickle may set attributes of what it gets."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., object]) -> None:
        self._call = call

    def __call__(self, *arguments: object) -> object:
        return self._call(*arguments)

    def __setstate__(self, state: object) -> None:
        raise ValueError("a function has no state")


class _ArrayType:
    """A kind of integer, such as u1."""

    __slots__ = ("code",)

    def __init__(self, code: object) -> None:
        if code not in _INTEGERS:
            raise ValueError(f"arrays of {code!r}")
        self.code = str(code)

    def __setstate__(self, state: Sequence[Any]) -> None:
        self.code = {"|": "", "<": "<", ">": ">"}[state[1]] + self.code[-2:]


class _Array:
    """An array as a pickle describes it: version, shape, type, whether columns lie together, bytes."""

    __slots__ = ("_state",)

    def __setstate__(self, state: object) -> None:
        self._state = state

    def as_numpy(self) -> np.ndarray:
        """The same for numpy. Raises ValueError or TypeError where it is not a description of one."""
        _, shape, kind, is_fortran, content = self._state  # type: ignore[misc]
        if not isinstance(kind, _ArrayType):
            raise TypeError("an array without a type")
        # Python 2 wrote bytes as text.
        raw = content.encode("latin1") if isinstance(content, str) else bytes(memoryview(content))
        return np.frombuffer(raw, kind.code).reshape(shape, order="F" if is_fortran else "C")


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
