"""A segmentation dataset that needs no data: drawn shapes, written once in the layout of VOC and read like it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from raypruning.datasets.base import Dataset, SplitName, of_pixels
from raypruning.datasets.cache import content_hash, key_of
from raypruning.datasets.cached_folder import find_or_write
from raypruning.datasets.masked_files import VOID
from raypruning.datasets.shape_pictures import CLASS_NAMES, Drawn, class_colour, draw
from raypruning.datasets.voc import open_layout
from raypruning.datasets.voc_layout import LISTS, MASKS, PICTURES

# What the pixels should hash to. Not the files, which other versions of zlib make smaller or larger.
FINGERPRINT = "2ff7e963779721d2820f68e8b97aca79fdeb3d0cd08c7dd6c01f845e4db6f80a"
_NUM_PICTURES: dict[SplitName, int] = {"train": 600, "validation": 100, "test": 300}
_LISTS: dict[SplitName, str] = {"train": "train", "validation": "val", "test": "test"}
_FINGERPRINT_FILE = "fingerprint.txt"
_VOID_COLOUR = (224, 224, 192)  # as in the palette of VOC


@of_pixels
def open_shapes(argument: str, *, data_dir: Path | None, download: bool) -> Dataset:
    """Five shapes and the background at 64 px: 600 training, 100 validation, 300 test pictures. Needs no data.

    The first call takes a few seconds to draw and write them, later ones find them in the cache.

    Raises:
        DataError: the cache cannot be written.
    """
    root = find_or_write("shapes", key_of(FINGERPRINT), _write)
    source = "drawn by raypruning from a fixed seed (raypruning/datasets/shape_pictures.py)"
    fingerprint = (root / _FINGERPRINT_FILE).read_text()
    return replace(open_layout(root, name="shapes", source=source), fingerprint=fingerprint)


def _draw() -> dict[SplitName, Drawn]:
    return {name: draw(count, split=number) for number, (name, count) in enumerate(_NUM_PICTURES.items())}


def _fingerprint(splits: dict[SplitName, Drawn]) -> str:
    arrays = {f"{name}_images": drawn.images_NCHW for name, drawn in splits.items()}
    return content_hash(arrays | {f"{name}_masks": drawn.masks_NHW for name, drawn in splits.items()})


def _write(root: Path) -> None:
    from PIL import Image

    palette = _palette()
    for folder in (PICTURES, MASKS, LISTS):
        (root / folder).mkdir(parents=True)
    (root / "classes.txt").write_text("\n".join(CLASS_NAMES) + "\n")
    splits = _draw()
    (root / _FINGERPRINT_FILE).write_text(_fingerprint(splits))
    for split, drawn in splits.items():
        names = [f"{split}_{number:04d}" for number in range(len(drawn.masks_NHW))]
        (root / LISTS / f"{_LISTS[split]}.txt").write_text("\n".join(names) + "\n")
        for name, image_CHW, mask_HW in zip(names, *drawn, strict=True):
            image = Image.fromarray(np.ascontiguousarray(image_CHW.transpose(1, 2, 0)))
            image.save(root / PICTURES / f"{name}.png", compress_level=1)
            mask = Image.fromarray(mask_HW)
            mask.putpalette(palette)
            mask.save(root / MASKS / f"{name}.png", compress_level=1)


def _palette() -> list[int]:
    """Red, green and blue of the colours that viewers show the 256 values of a mask in."""
    colours = [class_colour(label) for label in range(len(CLASS_NAMES))]
    colours += [(0, 0, 0)] * (VOID - len(colours)) + [_VOID_COLOUR]
    return [level for colour in colours for level in colour]
