"""What a dataset is to the rest of the program: three splits of labelled images, and the facts needed to train on them.

Legend of shape suffixes: N images, K of them, C channels, H and W pixels.

An opener is a function `open_x(argument: str, *, data_dir: Path | None, download: bool) -> Dataset`, found through the
registry. It is cheap where a cache exists: images are read when `split` is called.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar, get_args

import numpy as np

from raypruning.core.records import Kind
from raypruning.datasets.cache import Entry, cache_dir
from raypruning.datasets.decoding import (
    MAX_PADDING_PIXELS,
    Preparation,
    decode_for_test,
    decode_random_crop,
    map_threads,
)
from raypruning.datasets.masked_files import MaskedFiles
from raypruning.datasets.random_bits import permutation
from raypruning.errors import DataError, SpecError

__all__ = [
    "SPLITS",
    "Augmentation",
    "Dataset",
    "ImageArrays",
    "ImageFiles",
    "Split",
    "cache_dir",
    "derive",
    "of_pixels",
]

SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = get_args(SplitName)
Augmentation = Literal["none", "crop_flip", "resized_crop_flip", "scaled_crop_flip"]

# Any number would do; another one makes other validation splits, and so other results.
_HOLD_OUT_SEED = 1_000_003


_Opener = TypeVar("_Opener", bound=Callable[..., Any])


def of_pixels(opener: _Opener) -> _Opener:
    """Decorator: what it opens has a class for each pixel. Its name then tells, before anything is opened."""
    opener.kind = "segmentation"  # type: ignore[attr-defined]
    return opener


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageArrays:
    """A split that fits in memory.

    Attributes:
        images_NCHW: uint8, 0 to 255, square; may be memory-mapped and read-only.
        labels_N: int64, from 0.
        positions_N: int64, where each image stands in the split that this one is a part of; None where it is no part.
    """

    images_NCHW: np.ndarray
    labels_N: np.ndarray
    positions_N: np.ndarray | None = None

    def __post_init__(self) -> None:
        images, labels = self.images_NCHW, self.labels_N
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[2] != images.shape[3]:
            raise DataError(f"images must be uint8 of shape N, C, side, side; got {images.dtype} {images.shape}")
        _check_labels(labels, len(images))

    def __len__(self) -> int:
        return len(self.labels_N)


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageFiles:
    """A split that stays on disk, one file an image, decoded when a batch is asked for.

    Attributes:
        paths: one per image; absolute, or relative to the working folder. A mapping has those of some positions.
        labels_N: int64, from 0.
        image_size: side of the square that `load` returns, pixels.
        channels: 3, or 1 to load grey.
        preparation, border: what is done to an image for a test, see `decode_for_test`.
    """

    paths: tuple[str, ...] | Mapping[int, str]
    labels_N: np.ndarray
    image_size: int
    channels: int = 3
    preparation: Preparation = "resize"
    border: int = 0

    def __post_init__(self) -> None:
        _check_labels(self.labels_N, len(self.paths))

    def __len__(self) -> int:
        return len(self.labels_N)

    def only(self, indices: np.ndarray) -> ImageFiles:
        """What it takes to load some images, by the same indices: small enough to be sent to another process."""
        paths = {index: self.paths[index] for index in indices.tolist()}
        return replace(self, paths=paths, labels_N=self.labels_N[list(paths)])

    def load(self, indices: Sequence[int] | np.ndarray, *, train: bool, seed: int, num_threads: int = 4) -> np.ndarray:
        """Decode the images at `indices`, in that order, to uint8 of shape (len(indices), channels, size, size).

        Args:
            indices: positions in `paths`; may repeat.
            train: True gives a random crop (area .08 to 1, aspect ratio 3/4 to 4/3) and a random flip; False does what
                `preparation` and `border` say.
            seed: with the index it decides crop and flip, so the result depends neither on the batch nor on its order.
                Pass another seed each epoch.
            num_threads: decoders that run at once; no effect on the result.

        Raises:
            DataError: a file is missing or no image; the message names it.

        Source: Szegedy et al. 2015 for the random crop; the centre crop is that of torchvision's references.
        """

        def decode(index: int) -> np.ndarray:
            path = self.paths[index]
            if train:
                return decode_random_crop(path, self.image_size, self.channels, seed=seed, index=index)
            return decode_for_test(
                path, self.image_size, self.channels, preparation=self.preparation, border=self.border
            )

        images = map_threads(decode, [int(index) for index in indices], num_threads=num_threads)
        return np.stack(images) if images else np.zeros((0, self.channels, *[self.image_size] * 2), np.uint8)


Split = ImageArrays | ImageFiles | MaskedFiles


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """Labelled images in three disjoint splits.

    Attributes:
        name: what a user types.
        num_classes: labels are below it.
        channels: 1 or 3.
        image_size: side of the square images, pixels.
        mean, std: one per channel, of pixels scaled to [0, 1].
        class_names: one per class.
        fingerprint: hexadecimal hash of the images and labels of all splits (of relative names and sizes where images
            stay on disk). Equal fingerprints mean equal data.
        augmentation: what training does to images unless a recipe says otherwise.
        kind: whether images have labels, or pixels have: then splits are MaskedFiles.
        source: one line, where the images come from.
        loaders: how each split is read, by name.
    """

    name: str
    num_classes: int
    channels: int
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: tuple[str, ...]
    fingerprint: str
    augmentation: Augmentation
    source: str
    loaders: Mapping[str, Callable[[], Split]] = field(repr=False)
    kind: Kind = "classification"
    _loaded: dict[str, Split] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if len(self.class_names) != self.num_classes:
            raise DataError(f"{self.name}: {len(self.class_names)} class names for {self.num_classes} classes")
        if not len(self.mean) == len(self.std) == self.channels:
            raise DataError(f"{self.name}: {self.channels} channels need as many means and standard deviations")

    def split(self, name: SplitName) -> Split:
        """The images of "train", "validation" or "test", read on the first call and kept.

        Raises:
            SpecError: no split of that name.
            DataError: files are missing or damaged, or a label is out of range.
        """
        if name not in self.loaders:
            raise SpecError(f"no split is called {name!r}: there are {', '.join(self.loaders)}")
        if name not in self._loaded:
            split = self.loaders[name]()
            # The classes of pixels are checked when a mask is decoded.
            largest = -1 if isinstance(split, MaskedFiles) else int(split.labels_N.max(initial=-1))
            if largest >= self.num_classes:
                raise DataError(f"{self.name}: {name} has label {largest}, of {self.num_classes} classes")
            self._loaded[name] = split
        return self._loaded[name]


def loaders_of_entry(entry: Entry) -> dict[str, Callable[[], Split]]:
    """Loaders of the splits of a cache entry, which holds `<split>_images` and `<split>_labels`."""

    def loader_of(name: str) -> Callable[[], Split]:
        return lambda: ImageArrays(
            images_NCHW=entry.arrays[f"{name}_images"], labels_N=np.asarray(entry.arrays[f"{name}_labels"])
        )

    return {name: loader_of(name) for name in SPLITS}


def derive(
    dataset: Dataset,
    *,
    train_images: int | None = None,
    test_images: int | None = None,
    image_size: int | None = None,
) -> Dataset:
    """The same data with fewer images or of another size; `dataset` itself where nothing changes.

    A smaller split takes the first image of every class, then the second of every class, and so on until it has as
    many as asked, so classes are as even as the data allows and a smaller subset lies within a larger one. One whose
    pixels have classes takes images at random, a larger one those of a smaller. Validation
    keeps all its images. In-memory images up to 4 px smaller than asked are padded with zeros, others are resized
    (bilinear); images on disk are decoded to the new size.

    Args:
        dataset: where the images come from.
        train_images: size of the new training split, at most that of the old.
        test_images: the same for the test split.
        image_size: side of the new images, pixels.

    Raises:
        SpecError: a number is not positive, or more images are asked for than there are.
    """
    counts = {"train": train_images, "test": test_images}
    changes = {name: count for name, count in counts.items() if _is_smaller(dataset, name, count)}
    size = dataset.image_size if image_size is None else image_size
    if size < 1:
        raise SpecError(f"image_size must be at least 1, got {size}")
    if not changes and size == dataset.image_size:
        return dataset

    def loader_of(name: str) -> Callable[[], Split]:
        return lambda: resized(_first_of_each_class(dataset.split(name), changes.get(name)), size)

    record = json.dumps([dataset.fingerprint, changes.get("train"), changes.get("test"), size])
    return replace(
        dataset,
        image_size=size,
        fingerprint=hashlib.sha256(record.encode()).hexdigest(),
        loaders={name: loader_of(name) for name in dataset.loaders},
    )


def round_robin_order(labels_N: np.ndarray) -> np.ndarray:
    """Indices of the first image of each class, then of the second of each class, and so on; lower classes first."""
    rank_N = rank_within_class(labels_N)
    return np.lexsort((labels_N, rank_N))


def rank_within_class(labels_N: np.ndarray) -> np.ndarray:
    """How many images of the same class come before each image, int64."""
    by_class = np.argsort(labels_N, kind="stable")
    counts = np.bincount(labels_N)
    starts = np.cumsum(counts) - counts
    rank_N = np.empty(len(labels_N), np.int64)
    rank_N[by_class] = np.arange(len(labels_N)) - starts[labels_N[by_class]]
    return rank_N


def hold_out_tenth(num_images: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices to train on and indices to validate on: nine tenths and one tenth, at random, each in ascending order.

    The same for every dataset of that many images, on every platform.
    """
    order = permutation(num_images, seed=_HOLD_OUT_SEED)
    num_validation = num_images // 10
    return np.sort(order[num_validation:]), np.sort(order[:num_validation])


def _check_labels(labels_N: np.ndarray, num_images: int) -> None:
    if labels_N.dtype != np.int64 or labels_N.ndim != 1:
        raise DataError(f"labels must be int64 of shape N; got {labels_N.dtype} {labels_N.shape}")
    if len(labels_N) != num_images:
        raise DataError(f"{num_images} images have {len(labels_N)} labels")
    if len(labels_N) and int(labels_N.min()) < 0:
        raise DataError(f"labels start at 0; got {labels_N.min()}")


def _is_smaller(dataset: Dataset, name: SplitName, count: int | None) -> bool:
    if count is None:
        return False
    available = len(dataset.split(name))
    if not 1 <= count <= available:
        raise SpecError(f"{name}_images must be from 1 to {available}, all that {dataset.name} has; got {count}")
    return count < available


def _first_of_each_class(split: Split, count: int | None) -> Split:
    if count is None:
        return split
    if isinstance(split, MaskedFiles):
        # Most images have several classes. At random, since they may be listed by the year they were taken in.
        chosen = np.sort(permutation(len(split), seed=_HOLD_OUT_SEED)[:count])
        pairs = [(split.paths[index], split.mask_paths[index]) for index in chosen]
        paths, mask_paths = zip(*pairs, strict=True)
        return replace(split, paths=paths, mask_paths=mask_paths)
    return take(split, np.sort(round_robin_order(split.labels_N)[:count]))


def take(split: ImageArrays | ImageFiles, kept_K: np.ndarray) -> ImageArrays | ImageFiles:
    """The images at the positions `kept_K`, in that order."""
    labels_K = split.labels_N[kept_K]
    if isinstance(split, ImageFiles):
        return replace(split, paths=tuple(split.paths[index] for index in kept_K), labels_N=labels_K)
    positions_K = kept_K if split.positions_N is None else split.positions_N[kept_K]
    return ImageArrays(images_NCHW=split.images_NCHW[kept_K], labels_N=labels_K, positions_N=positions_K)


def resized(split: Split, size: int) -> Split:
    """The same images, `size` px a side; `split` itself where they are. What is done to them: see `derive`."""
    if isinstance(split, ImageFiles | MaskedFiles):
        return replace(split, image_size=size)
    num_images, channels, side, _ = split.images_NCHW.shape
    if side == size:
        return split
    images = np.zeros((num_images, channels, size, size), np.uint8)
    if side < size <= side + MAX_PADDING_PIXELS:
        before = (size - side) // 2
        images[:, :, before : before + side, before : before + side] = split.images_NCHW
    else:
        _resize_bilinear(split.images_NCHW, images)
    return replace(split, images_NCHW=images)


def _resize_bilinear(source_NCHW: np.ndarray, target_NCHW: np.ndarray) -> None:
    from PIL import Image

    size = target_NCHW.shape[-1]
    for source_CHW, target_CHW in zip(source_NCHW, target_NCHW, strict=True):
        for source_HW, target_HW in zip(source_CHW, target_CHW, strict=True):
            target_HW[:] = Image.fromarray(source_HW).resize((size, size), Image.Resampling.BILINEAR)
