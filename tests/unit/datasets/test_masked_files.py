from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raypruning.datasets.masked_files import VOID, MaskedFiles
from raypruning.errors import DataError

# Far apart, and none is the black of the padding.
COLOURS = np.array([[255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)


@pytest.fixture
def split_of(tmp_path: Path) -> Callable[..., MaskedFiles]:
    """A split of given pictures (H, W, 3) and masks (H, W), written losslessly."""

    def make(pairs: list[tuple[np.ndarray, np.ndarray]], *, size: int, num_classes: int = 4) -> MaskedFiles:
        for number, (image_HWC, mask_HW) in enumerate(pairs):
            Image.fromarray(image_HWC).save(tmp_path / f"picture{number}.png")
            Image.fromarray(mask_HW).save(tmp_path / f"mask{number}.png")
        return MaskedFiles(
            paths=tuple(str(tmp_path / f"picture{number}.png") for number in range(len(pairs))),
            mask_paths=tuple(str(tmp_path / f"mask{number}.png") for number in range(len(pairs))),
            image_size=size,
            num_classes=num_classes,
        )

    return make


def random_pair(height: int, width: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    masks = random.choice(np.array([0, 1, 2, 3, VOID], np.uint8), (height, width))
    return random.integers(0, 256, (height, width, 3), dtype=np.uint8), masks


def blocks(*, block: int, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A mask of large squares, and a picture that has the colour of its class at each pixel."""
    mask = np.random.default_rng(seed).integers(0, 4, (count, count + 1), dtype=np.uint8)
    mask_HW = np.kron(mask, np.ones((block, block), np.uint8))
    return COLOURS[mask_HW], mask_HW


def far_from_outlines(mask_HW: np.ndarray, *, reach: int) -> np.ndarray:
    """Where all pixels within `reach` are known and have the same value."""
    height, width = mask_HW.shape
    padded = np.pad(mask_HW, reach, constant_values=254)  # what lies beyond is not known
    shifts = range(2 * reach + 1)
    return np.logical_and.reduce([padded[y : y + height, x : x + width] == mask_HW for y in shifts for x in shifts])


def test_pictures_of_the_right_size_are_returned_as_they_are(split_of: Callable[..., MaskedFiles]) -> None:
    pairs = [random_pair(20, 20, seed=seed) for seed in range(3)]
    images, masks = split_of(pairs, size=20).load([2, 0], train=False, seed=0)
    assert images.dtype == masks.dtype == np.uint8
    np.testing.assert_array_equal(images, np.stack([pairs[2][0], pairs[0][0]]).transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(masks, np.stack([pairs[2][1], pairs[0][1]]))


@pytest.mark.parametrize(
    ("height", "width", "resized", "corner"), [(30, 50, (33, 20), (6, 0)), (9, 5, (20, 36), (0, 8))]
)
def test_a_test_picture_is_the_centre_of_the_picture_whose_short_side_fits(
    split_of: Callable[..., MaskedFiles],
    height: int,
    width: int,
    resized: tuple[int, int],
    corner: tuple[int, int],
) -> None:
    image, mask = random_pair(height, width)
    loaded = split_of([(image, mask)], size=20).load([0], train=False, seed=0)
    box = (*corner, corner[0] + 20, corner[1] + 20)
    smooth = Image.fromarray(image).resize(resized, Image.Resampling.BILINEAR).crop(box)
    nearest = Image.fromarray(mask).resize(resized, Image.Resampling.NEAREST).crop(box)
    np.testing.assert_array_equal(loaded.images_BCHW[0], np.asarray(smooth).transpose(2, 0, 1))
    np.testing.assert_array_equal(loaded.masks_BHW[0], np.asarray(nearest))


def test_a_mask_undergoes_what_its_picture_does(split_of: Callable[..., MaskedFiles]) -> None:
    split = split_of([blocks(block=24, count=3)], size=48)
    num_sure = 0
    for seed in range(60):
        images, masks = split.load([0], train=True, seed=seed)
        # A bilinear pixel mixes what is within two pixels of the result, at most twice enlarged.
        is_sure_HW = far_from_outlines(masks[0], reach=3)
        seen_HWC = images[0].transpose(1, 2, 0)[is_sure_HW]
        classes = masks[0][is_sure_HW]
        expected = np.where((classes == VOID)[:, None], 0, COLOURS[np.where(classes == VOID, 0, classes)])
        np.testing.assert_array_equal(seen_HWC, expected)
        num_sure += (classes != VOID).sum()
    assert num_sure > 20_000


def test_training_scales_flips_and_pads_as_the_recipe_does(split_of: Callable[..., MaskedFiles]) -> None:
    # The red level is the column, so its slope tells scale and direction.
    ramp = np.broadcast_to(np.arange(256, dtype=np.uint8)[None, :, None], (256, 256, 3))
    split = split_of([(ramp, np.zeros((256, 256), np.uint8))], size=64)
    shorts, flips, lefts = [], 0, set()
    for seed in range(400):
        images, masks = split.load([0], train=True, seed=seed)
        num_rows, num_columns = (int((masks[0] == 0).any(axis).sum()) for axis in (1, 0))
        row = images[0, 0, 0, 2 : num_columns - 2].astype(np.float64)
        slope = (row[-1] - row[0]) / (len(row) - 1)
        # A padded picture tells its size, another one its slope: levels per pixel.
        short = num_columns if num_columns < 64 else 256 / abs(slope)
        assert num_rows == num_columns
        assert ((masks[0] == VOID) == (np.add.outer(np.arange(64) >= num_rows, np.arange(64) >= num_columns))).all()
        assert (images[0][:, masks[0] == VOID] == 0).all()
        shorts.append(short)
        flips += slope < 0
        lefts.add(int(row[0]))
    # 256 and 1024 of 513 px are 31.9 and 127.8 of 64.
    assert min(shorts) == 32
    assert 124 < max(shorts) < 130
    # Of uniform sides from 32 to 128, a third are below 64; four standard deviations of 400 draws are 38 and 40.
    assert abs(sum(short < 64 for short in shorts) - 400 * 32 / 97) < 38
    assert abs(flips - 200) < 40
    assert len(lefts) > 50


def test_seed_and_index_alone_decide_what_is_random(split_of: Callable[..., MaskedFiles]) -> None:
    split = split_of([random_pair(30, 40, seed=seed) for seed in range(4)], size=24)
    together = split.load(np.array([3, 1, 1]), train=True, seed=5, num_threads=4)
    for position, index in enumerate((3, 1, 1)):
        alone = split.load([index], train=True, seed=5, num_threads=1)
        np.testing.assert_array_equal(together.images_BCHW[position], alone.images_BCHW[0])
        np.testing.assert_array_equal(together.masks_BHW[position], alone.masks_BHW[0])
    other = split.load([3], train=True, seed=6)
    assert (other.images_BCHW[0] != together.images_BCHW[0]).any()


def test_equal_pictures_at_different_indices_are_cut_differently(split_of: Callable[..., MaskedFiles]) -> None:
    images, _ = split_of([random_pair(30, 40)] * 2, size=24).load([0, 1], train=True, seed=0)
    assert (images[0] != images[1]).any()


def test_indices_of_a_palette_are_the_classes_whatever_its_colours(
    split_of: Callable[..., MaskedFiles], tmp_path: Path
) -> None:
    image, mask = random_pair(16, 16)
    split = split_of([(image, mask)], size=16)
    indexed = Image.fromarray(mask)
    # Two classes look alike, and grey levels of colours are other numbers.
    indexed.putpalette([0, 0, 0, 128, 0, 0, 128, 0, 0, 200, 50, 9] + [0, 0, 0] * 251 + [224, 224, 192])
    indexed.save(tmp_path / "mask0.png")
    with Image.open(tmp_path / "mask0.png") as written:
        assert written.mode == "P"
    np.testing.assert_array_equal(split.load([0], train=False, seed=0).masks_BHW[0], mask)


def test_no_indices_give_an_empty_batch(split_of: Callable[..., MaskedFiles]) -> None:
    images, masks = split_of([random_pair(9, 9)], size=7).load([], train=True, seed=0)
    assert (images.shape, masks.shape) == ((0, 3, 7, 7), (0, 7, 7))


def test_one_channel_loads_grey(split_of: Callable[..., MaskedFiles], tmp_path: Path) -> None:
    split = split_of([random_pair(9, 9)], size=9)
    grey = MaskedFiles(paths=split.paths, mask_paths=split.mask_paths, image_size=9, num_classes=4, channels=1)
    with Image.open(split.paths[0]) as image:
        np.testing.assert_array_equal(grey.load([0], train=False, seed=0).images_BCHW[0, 0], image.convert("L"))


def test_pictures_without_masks_are_refused() -> None:
    with pytest.raises(DataError, match="2 pictures have 1 masks"):
        MaskedFiles(paths=("a", "b"), mask_paths=("a",), image_size=8, num_classes=2)


def test_a_value_that_is_no_class_is_named(split_of: Callable[..., MaskedFiles]) -> None:
    image, mask = random_pair(8, 8)
    mask[3, 4] = 7
    with pytest.raises(DataError, match=r"mask0\.png has the value 7: a mask of 4 classes holds 0 to 3, and 255"):
        split_of([(image, mask)], size=8).load([0], train=False, seed=0)


def test_a_mask_of_another_size_than_its_picture_is_named(split_of: Callable[..., MaskedFiles]) -> None:
    pair = random_pair(8, 8)[0], random_pair(8, 9)[1]
    with pytest.raises(DataError, match=r"mask0\.png is 9 x 8 px, but .*picture0\.png is 8 x 8 px"):
        split_of([pair], size=8).load([0], train=False, seed=0)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "I;16"])
def test_a_mask_in_colours_is_named(split_of: Callable[..., MaskedFiles], tmp_path: Path, mode: str) -> None:
    split = split_of([random_pair(8, 8)], size=8)
    Image.new(mode, (8, 8)).save(tmp_path / "mask0.png")
    with pytest.raises(DataError, match=rf"mask0\.png is a picture of mode {mode}: a mask is a PNG"):
        split.load([0], train=False, seed=0)


@pytest.mark.parametrize("damage", ["cut off", "missing", "no PNG"])
@pytest.mark.parametrize("file_name", ["mask0.png", "picture0.png"])
def test_a_damaged_or_missing_file_is_named(
    split_of: Callable[..., MaskedFiles], tmp_path: Path, file_name: str, damage: str
) -> None:
    split = split_of([random_pair(40, 40)], size=8)
    path = tmp_path / file_name
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:500] if damage == "cut off" else b"text")
    with pytest.raises(DataError, match=rf"{file_name} cannot be read as"):
        split.load([0], train=False, seed=0)
