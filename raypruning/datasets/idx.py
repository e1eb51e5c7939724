"""MNIST and Fashion-MNIST, from the four idx files in which they are published."""

from __future__ import annotations

import gzip
import hashlib
import math
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from raypruning.datasets.base import Dataset, hold_out_tenth, loaders_of_entry
from raypruning.datasets.cache import Built, key_of_files, load_or_build
from raypruning.datasets.download import download_published
from raypruning.datasets.locations import candidates, download_root, missing_data, search_root
from raypruning.errors import DataError

_FILES = {
    "train_images": "train-images-idx3-ubyte",
    "train_labels": "train-labels-idx1-ubyte",
    "test_images": "t10k-images-idx3-ubyte",
    "test_labels": "t10k-labels-idx1-ubyte",
}
_NUM_CLASSES = 10


class _Published(NamedTuple):
    name: str
    folder: str
    mean: float
    std: float
    class_names: tuple[str, ...]
    source: str
    # The two sets have files of the same names and sizes, so a folder is recognised by its training labels.
    train_labels_sha256: str


_MNIST = _Published(
    name="mnist",
    folder="MNIST",
    mean=0.1307,
    std=0.3081,
    class_names=tuple("0123456789"),
    source="LeCun, Bottou, Bengio, Haffner, 1998, Gradient-based learning applied to document recognition",
    train_labels_sha256="65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
)
_FASHION_MNIST = _Published(
    name="fashion_mnist",
    folder="FashionMNIST",
    mean=0.2860,
    std=0.3530,
    class_names=(
        "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
    ),
    source="Xiao, Rasul, Vollgraf, 2017, Fashion-MNIST: a novel image dataset for benchmarking",
    train_labels_sha256="bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
)  # fmt: skip
_ALL = (_MNIST, _FASHION_MNIST)


def open_mnist(argument: str, *, data_dir: Path | None, download: bool) -> Dataset:
    """MNIST: 54 000 training, 6 000 validation and 10 000 test images of 28 px, from `data_dir`/MNIST/raw."""
    return _open(_MNIST, data_dir, download=download)


def open_fashion_mnist(argument: str, *, data_dir: Path | None, download: bool) -> Dataset:
    """Fashion-MNIST: sizes of MNIST, ten kinds of clothes, from `data_dir`/FashionMNIST/raw."""
    return _open(_FASHION_MNIST, data_dir, download=download)


def _open(published: _Published, data_dir: Path | None, *, download: bool) -> Dataset:
    paths = _find(published, data_dir, needs_all=not download)
    if paths is None and download:
        download_published(published.name, download_root(data_dir))
        paths = _find(published, data_dir, needs_all=True)
    if paths is None:
        layout = f"{published.folder}/raw/ with {', '.join(_FILES.values())} (or the same ending in .gz)"
        raise missing_data(published.name, data_dir, subfolders=_subfolders(published), layout=layout)
    found = paths
    entry = load_or_build(
        published.name, key_of_files(list(found.values()), published.name), lambda: _build(published, found)
    )
    return Dataset(
        name=published.name,
        num_classes=_NUM_CLASSES,
        channels=1,
        image_size=int(entry.arrays["train_images"].shape[-1]),
        mean=(published.mean,),
        std=(published.std,),
        class_names=published.class_names,
        fingerprint=entry.fingerprint,
        augmentation="none",
        source=published.source,
        loaders=loaders_of_entry(entry),
    )


def _subfolders(published: _Published) -> tuple[str, ...]:
    return f"{published.folder}/raw", published.folder, "raw", ""


def _find(published: _Published, data_dir: Path | None, *, needs_all: bool) -> dict[str, Path] | None:
    """The four files in the first folder that holds any of them.

    Raises:
        DataError: some of the four are missing, and `needs_all`.
    """
    for folder in candidates(search_root(data_dir), _subfolders(published)):
        paths = {}
        for part, file_name in _FILES.items():
            for path in (folder / file_name, folder / f"{file_name}.gz"):
                if path.is_file():
                    paths.setdefault(part, path)
        if len(paths) == len(_FILES):
            return paths
        if paths and needs_all:
            lacking = ", ".join(name for part, name in _FILES.items() if part not in paths)
            raise DataError(
                f"{published.name}: {folder} lacks {lacking} (or the same ending in .gz): copy it there, "
                "or add --download to fetch what is missing"
            )
    return None


def _build(published: _Published, paths: dict[str, Path]) -> Built:
    contents = {part: _read_bytes(path) for part, path in paths.items()}
    label_hash = hashlib.sha256(contents["train_labels"]).hexdigest()
    for other in _ALL:
        if other is not published and label_hash == other.train_labels_sha256:
            raise DataError(
                f"{published.name}: {paths['train_labels']} holds the labels of {other.name}: use --dataset "
                f"{other.name}, or give --data-dir the folder above {published.folder}"
            )
    images = {split: parse_idx(contents[f"{split}_images"], paths[f"{split}_images"], 3) for split in ("train", "test")}
    labels = {split: parse_idx(contents[f"{split}_labels"], paths[f"{split}_labels"], 1) for split in ("train", "test")}
    for split in ("train", "test"):
        if len(images[split]) != len(labels[split]):
            raise DataError(
                f"{paths[f'{split}_labels']} has {len(labels[split])} labels for {len(images[split])} images: "
                "the files do not belong together; copy or download them again"
            )
    train, validation = hold_out_tenth(len(labels["train"]))
    chosen = {"train": ("train", train), "validation": ("train", validation), "test": ("test", slice(None))}
    arrays = {}
    for split, (part, indices) in chosen.items():
        arrays[f"{split}_images"] = images[part][indices][:, None]
        arrays[f"{split}_labels"] = labels[part][indices].astype(np.int64)
    return Built(arrays, {})


def _read_bytes(path: Path) -> bytes:
    try:
        return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}): copy or download it again") from error


def parse_idx(content: bytes, path: Path, num_dimensions: int) -> np.ndarray:
    """The uint8 array of an idx file: 00 00 08 and the number of dimensions, sizes as big-endian uint32, the values.

    Raises:
        DataError: not such a file, or not as long as its sizes say; the message names `path`.

    Source: http://yann.lecun.com/exdb/mnist, "The IDX file format".
    """
    header_bytes = 4 + 4 * num_dimensions
    if len(content) < header_bytes or content[:4] != bytes([0, 0, 8, num_dimensions]):
        raise DataError(
            f"{path} is not an idx file of bytes in {num_dimensions} dimensions, which starts with "
            f"00 00 08 0{num_dimensions}: copy or download it again"
        )
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", num_dimensions, 4))
    if len(content) != header_bytes + math.prod(shape):
        raise DataError(
            f"{path} is cut off or damaged: {len(content)} bytes where its header promises "
            f"{header_bytes + math.prod(shape)}; copy or download it again"
        )
    return np.frombuffer(content, np.uint8, offset=header_bytes).reshape(shape)
