from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raypruning.datasets.base import SPLITS, Dataset
from raypruning.datasets.cache import content_hash
from raypruning.datasets.masked_files import VOID, MaskedBatch, MaskedFiles
from raypruning.datasets.shapes import FINGERPRINT, open_shapes


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dataset]:
    # Drawing takes seconds, so the tests of this file share one cache.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAYPRUNING_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield open_shapes("", data_dir=None, download=False)


@pytest.fixture(scope="module")
def batches(shapes: Dataset) -> dict[str, MaskedBatch]:
    """All pictures of each split, as they were drawn."""
    splits = {name: masked_files(shapes, name) for name in SPLITS}
    return {name: split.load(range(len(split)), train=False, seed=0) for name, split in splits.items()}


def masked_files(dataset: Dataset, name: str) -> MaskedFiles:
    split = dataset.split(name)  # type: ignore[arg-type]
    assert isinstance(split, MaskedFiles)
    return split


def test_shapes_are_the_recorded_pixels(shapes: Dataset, batches: dict[str, MaskedBatch]) -> None:
    arrays = {f"{name}_images": batch.images_BCHW for name, batch in batches.items()}
    arrays |= {f"{name}_masks": batch.masks_BHW for name, batch in batches.items()}
    assert content_hash(arrays) == shapes.fingerprint == FINGERPRINT


def test_shapes_come_in_the_promised_sizes(shapes: Dataset, batches: dict[str, MaskedBatch]) -> None:
    assert {name: batch.images_BCHW.shape for name, batch in batches.items()} == {
        "train": (600, 3, 64, 64), "validation": (100, 3, 64, 64), "test": (300, 3, 64, 64),
    }  # fmt: skip
    assert (shapes.kind, shapes.augmentation, shapes.image_size) == ("segmentation", "scaled_crop_flip", 64)
    assert shapes.class_names == ("background", "circle", "square", "triangle", "cross", "ring")


def test_shapes_splits_share_no_picture(batches: dict[str, MaskedBatch]) -> None:
    assert len({image.tobytes() for batch in batches.values() for image in batch.images_BCHW}) == 1000


@pytest.mark.parametrize("name", SPLITS)
def test_shapes_classes_are_even(batches: dict[str, MaskedBatch], name: str) -> None:
    masks = batches[name].masks_BHW
    for label in range(1, 6):
        # One or more of a picture's two shapes on average: a fifth of the first and 36 in a hundred of all.
        assert 0.25 < (masks == label).any((1, 2)).mean() < 0.45
        assert 0.025 < (masks == label).mean() < 0.055
    assert 0.7 < (masks == 0).mean() < 0.8
    assert (masks != 0).any((1, 2)).all()


def test_shapes_have_a_rim_that_does_not_count_along_all_outlines(batches: dict[str, MaskedBatch]) -> None:
    masks = batches["test"].masks_BHW
    for one, other in ((masks[:, 1:], masks[:, :-1]), (masks[:, :, 1:], masks[:, :, :-1])):
        assert ((one == other) | (one == VOID) | (other == VOID)).all()
    # One pixel wide: of two or three in a row, one has a neighbour that counts.
    is_void = masks == VOID
    across, down = (is_void[:, 1:-1, 2:] & is_void[:, 1:-1, :-2]), (is_void[:, 2:, 1:-1] & is_void[:, :-2, 1:-1])
    assert (is_void[:, 1:-1, 1:-1] & across & down).mean() < 0.002


def test_shapes_with_a_hole_are_rings(batches: dict[str, MaskedBatch]) -> None:
    num_seen = 0
    for mask in batches["train"].masks_BHW:
        labels = np.unique(mask[(mask != 0) & (mask != VOID)])
        edge = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
        rows, columns = np.nonzero(mask)
        # One shape, wholly inside and not two of a kind.
        if len(labels) != 1 or edge.any() or max(np.ptp(rows), np.ptp(columns)) > 36:
            continue
        centre = mask[round(rows.mean()), round(columns.mean())]
        assert centre == (0 if labels[0] == 5 else labels[0])
        num_seen += 1
    assert num_seen > 40


def test_colour_tells_a_class_in_about_three_of_five_cases(batches: dict[str, MaskedBatch]) -> None:
    images, masks = batches["train"]
    is_shape = (masks != 0) & (masks != VOID)
    hues = np.concatenate([np.asarray(Image.fromarray(i.transpose(1, 2, 0)).convert("HSV"))[..., 0][m]
                           for i, m in zip(images, is_shape, strict=True)])  # fmt: skip
    # Classes have hues at every fifth of the circle of 256, from red on.
    nearest = np.round(hues / 51.2).astype(int) % 5 + 1
    assert 0.5 < (nearest == masks[is_shape]).mean() < 0.68


def test_shapes_masks_have_a_palette_as_those_of_voc(shapes: Dataset) -> None:
    with Image.open(masked_files(shapes, "test").mask_paths[0]) as mask:
        assert mask.mode == "P"
        assert mask.convert("RGB").getpixel((0, 0)) == (0, 0, 0)


def test_shapes_opened_again_are_not_drawn_again(shapes: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    split = masked_files(shapes, "train")
    root = Path(split.paths[0]).parents[1]
    monkeypatch.setenv("RAYPRUNING_CACHE_DIR", str(root.parents[1]))
    before = Path(split.paths[0]).stat().st_mtime_ns
    assert masked_files(open_shapes("", data_dir=None, download=False), "train").paths == split.paths
    assert Path(split.paths[0]).stat().st_mtime_ns == before


def test_modules_of_masked_data_import_neither_torch_nor_pillow() -> None:
    program = "import sys, raypruning.datasets.shapes, raypruning.datasets.voc\n"
    program += "print(sorted({'torch', 'PIL', 'torchvision'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
