"""CIFAR-10 and CIFAR-100: from the binary files, the Python files, a folder of pictures, or an archive of one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from raypruning.datasets.base import Dataset, hold_out_tenth, loaders_of_entry
from raypruning.datasets.cache import Built, Entry, key_of, key_of_files, load_or_build
from raypruning.datasets.cifar_files import SIDE, Labelled, read_archive, read_binary, read_pickle, read_pictures
from raypruning.datasets.download import download_published
from raypruning.datasets.folder_listing import list_folder
from raypruning.datasets.locations import candidates, download_root, missing_data, search_root
from raypruning.errors import DataError

_MEAN, _STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
_SOURCE = "Krizhevsky, 2009, Learning multiple layers of features from tiny images"
_CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
# One string, since among a hundred quoted names a missing comma would join two classes unseen.
_CIFAR100_CLASSES = tuple(
    """apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
    caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant
    flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree
    motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate
    poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider
    squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle
    wardrobe whale willow_tree wolf woman worm""".split()  # noqa: SIM905
)


class _Published(NamedTuple):
    name: str
    class_names: tuple[str, ...]
    subfolders: tuple[str, ...]
    binary_folder: str
    binary_files: dict[str, tuple[str, ...]]
    num_label_bytes: int
    pickle_folder: str
    pickle_files: dict[str, tuple[str, ...]]
    pickle_label_key: str
    archive: str


_CIFAR10 = _Published(
    name="cifar10",
    class_names=_CIFAR10_CLASSES,
    subfolders=("", "cifar10", "CIFAR10"),
    binary_folder="cifar-10-batches-bin",
    binary_files={"train": tuple(f"data_batch_{n}.bin" for n in range(1, 6)), "test": ("test_batch.bin",)},
    num_label_bytes=1,
    pickle_folder="cifar-10-batches-py",
    pickle_files={"train": tuple(f"data_batch_{n}" for n in range(1, 6)), "test": ("test_batch",)},
    pickle_label_key="labels",
    archive="cifar10-images.tar.gz",
)
_CIFAR100 = _Published(
    name="cifar100",
    class_names=_CIFAR100_CLASSES,
    subfolders=("", "cifar100", "CIFAR100"),
    binary_folder="cifar-100-binary",
    binary_files={"train": ("train.bin",), "test": ("test.bin",)},
    num_label_bytes=2,
    pickle_folder="cifar-100-python",
    pickle_files={"train": ("train",), "test": ("test",)},
    pickle_label_key="fine_labels",
    archive="cifar100-images.tar.gz",
)


def open_cifar10(argument: str, *, data_dir: Path | None, download: bool) -> Dataset:
    """CIFAR-10: 45 000 training, 5 000 validation and 10 000 test images of 32 px in ten classes.

    Looked for in `data_dir`, cifar10/ and CIFAR10/ in it, and there as cifar-10-batches-bin/, cifar-10-batches-py/,
    train/<class>/ and test/<class>/, or cifar10-images.tar.gz with such folders, in this order.
    """
    return _open(_CIFAR10, data_dir, download=download)


def open_cifar100(argument: str, *, data_dir: Path | None, download: bool) -> Dataset:
    """CIFAR-100 with its fine labels; sizes and places as for CIFAR-10, with 100 in place of 10 in the names."""
    return _open(_CIFAR100, data_dir, download=download)


def _open(published: _Published, data_dir: Path | None, *, download: bool) -> Dataset:
    entry = _find(published, search_root(data_dir), needs_all=not download)
    if entry is None and download:
        download_published(published.name, download_root(data_dir))
        entry = _find(published, search_root(data_dir), needs_all=True)
    if entry is None:
        layout = (
            f"{published.binary_folder}/, {published.pickle_folder}/, {published.archive}, or train/<class>/ and "
            "test/<class>/ with pictures"
        )
        raise missing_data(published.name, data_dir, subfolders=published.subfolders, layout=layout)
    return Dataset(
        name=published.name,
        num_classes=len(published.class_names),
        channels=3,
        image_size=SIDE,
        mean=_MEAN,
        std=_STD,
        class_names=published.class_names,
        fingerprint=entry.fingerprint,
        augmentation="crop_flip",
        source=_SOURCE,
        loaders=loaders_of_entry(entry),
    )


def _find(published: _Published, root: Path | None, *, needs_all: bool) -> Entry | None:
    """The images in the first place that holds them, decoded into the cache.

    Raises:
        DataError: a place holds some of the files and `needs_all`, or a file is damaged.
    """
    for folder in candidates(root, published.subfolders):
        paths = _all_files(published, folder / published.binary_folder, published.binary_files, needs_all=needs_all)
        if paths is not None:
            return _from_files(published, paths, lambda path: read_binary(path, published.num_label_bytes))
        paths = _all_files(published, folder / published.pickle_folder, published.pickle_files, needs_all=needs_all)
        if paths is not None:
            return _from_files(published, paths, lambda path: read_pickle(path, published.pickle_label_key))
        if _has_class_folders(published, folder):
            return _from_pictures(published, folder)
        archive = folder / published.archive
        if archive.is_file():
            key = key_of_files([archive], published.name)
            return _cached(published, key, partial(read_archive, archive, published.class_names))
    return None


def _all_files(
    published: _Published, folder: Path, files: Mapping[str, tuple[str, ...]], *, needs_all: bool
) -> dict[str, list[Path]] | None:
    if not folder.is_dir():
        return None
    paths = {split: [folder / name for name in names] for split, names in files.items()}
    lacking = [path.name for split in paths for path in paths[split] if not path.is_file()]
    if lacking and needs_all:
        raise DataError(
            f"{published.name}: {folder} lacks {', '.join(lacking)}: copy it there, remove the folder, "
            "or add --download to fetch what is missing"
        )
    return None if lacking else paths


def _from_files(published: _Published, paths: dict[str, list[Path]], read: Callable[[Path], Labelled]) -> Entry:
    def read_all() -> dict[str, Labelled]:
        splits = {}
        for split, split_paths in paths.items():
            parts = [read(path) for path in split_paths]
            for path, part in zip(split_paths, parts, strict=True):
                if len(part.labels_N) and int(part.labels_N.max()) >= len(published.class_names):
                    raise DataError(
                        f"{path} has label {part.labels_N.max()}, but {published.name} has "
                        f"{len(published.class_names)} classes: copy or download it again"
                    )
            images = np.concatenate([part.images_NCHW for part in parts])
            splits[split] = Labelled(images, np.concatenate([part.labels_N for part in parts]))
        return splits

    return _cached(published, key_of_files([*paths["train"], *paths["test"]], published.name), read_all)


def _has_class_folders(published: _Published, folder: Path) -> bool:
    if not (folder / "train").is_dir():
        return False
    names = {entry.name for entry in (folder / "train").iterdir() if not entry.name.startswith(".")}
    # Half of the classes or more: these are its pictures, and list_folder says what is missing.
    return len(names & set(published.class_names)) * 2 >= len(published.class_names)


def _from_pictures(published: _Published, folder: Path) -> Entry:
    listing = list_folder(folder, name=published.name)
    if listing.class_names != published.class_names:
        lacking = sorted(set(published.class_names) - set(listing.class_names))
        surplus = sorted(set(listing.class_names) - set(published.class_names))
        raise DataError(
            f"{published.name}: {folder / 'train'} must have the {len(published.class_names)} class folders of "
            f"{published.name}: missing {', '.join(lacking) or 'none'}; not a class {', '.join(surplus) or 'none'}"
        )

    def read_all() -> dict[str, Labelled]:
        # The listing holds out a tenth of its own; taken back, the same pictures give the same splits from an archive.
        parts = {"train": ("train", "validation"), "test": ("test",)}
        splits = {}
        for split, sources in parts.items():
            named = [
                (int(c), p) for part in sources for c, p in zip(listing.labels[part], listing.paths[part], strict=True)
            ]
            splits[split] = read_pictures([(label, folder / path) for label, path in sorted(named)])
        return splits

    return _cached(published, key_of(published.name, listing.key), read_all)


def _cached(published: _Published, key: str, read_all: Callable[[], dict[str, Labelled]]) -> Entry:
    def build() -> Built:
        splits = read_all()
        train, validation = hold_out_tenth(len(splits["train"].labels_N))
        chosen = {"train": ("train", train), "validation": ("train", validation), "test": ("test", slice(None))}
        arrays = {}
        for split, (part, indices) in chosen.items():
            arrays[f"{split}_images"] = splits[part].images_NCHW[indices]
            arrays[f"{split}_labels"] = splits[part].labels_N[indices]
        return Built(arrays, {})

    return load_or_build(published.name, key, build)
