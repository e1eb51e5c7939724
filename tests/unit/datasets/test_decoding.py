from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raypruning.datasets.base import ImageFiles
from raypruning.datasets.decoding import decode_for_test, size_of
from raypruning.errors import DataError


def write(path: Path, *, size: tuple[int, int]) -> np.ndarray:
    """Random pixels in a PNG of (width, height) `size`, (C, H, W)."""
    pixels = np.random.default_rng(sum(size)).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels.transpose(2, 0, 1)


def test_a_picture_that_fits_is_left_alone(tmp_path: Path) -> None:
    pixels = write(tmp_path / "a.png", size=(16, 16))
    np.testing.assert_array_equal(decode_for_test(str(tmp_path / "a.png"), 16, 3, preparation="fit"), pixels)


@pytest.mark.parametrize("size", [17, 18, 19, 20])
def test_a_picture_that_is_a_little_smaller_gets_a_black_rim(tmp_path: Path, size: int) -> None:
    pixels = write(tmp_path / "a.png", size=(16, 16))
    before = (size - 16) // 2
    after = size - 16 - before
    expected = np.pad(pixels, ((0, 0), (before, after), (before, after)))
    np.testing.assert_array_equal(decode_for_test(str(tmp_path / "a.png"), size, 3, preparation="fit"), expected)


def test_a_border_is_cut_off_before_the_picture_is_resized(tmp_path: Path) -> None:
    pixels = write(tmp_path / "a.png", size=(40, 30))
    Image.fromarray(pixels[:, 2:-2, 2:-2].transpose(1, 2, 0)).save(tmp_path / "inner.png")
    for preparation in ("resize", "fit"):
        found = decode_for_test(str(tmp_path / "a.png"), 16, 3, preparation=preparation, border=2)
        inner = decode_for_test(str(tmp_path / "inner.png"), 16, 3, preparation=preparation)
        np.testing.assert_array_equal(found, inner)


@pytest.mark.parametrize("size", [(4, 9), (9, 3)])
def test_a_picture_of_nothing_but_border_is_named(tmp_path: Path, size: tuple[int, int]) -> None:
    write(tmp_path / "a.png", size=size)
    with pytest.raises(DataError, match=r"a\.png is . x . px: nothing is left without a border of 2 px"):
        decode_for_test(str(tmp_path / "a.png"), 16, 3, border=2)


def test_a_split_is_prepared_for_tests_as_it_says(tmp_path: Path) -> None:
    pixels = write(tmp_path / "a.png", size=(18, 18))
    split = ImageFiles(
        paths=(str(tmp_path / "a.png"),), labels_N=np.zeros(1, np.int64), image_size=16, preparation="fit", border=1
    )
    np.testing.assert_array_equal(split.load([0], train=False, seed=0), pixels[None, :, 1:-1, 1:-1])


def test_size_is_width_and_height_and_no_picture_is_named(tmp_path: Path) -> None:
    write(tmp_path / "a.png", size=(7, 5))
    assert size_of(tmp_path / "a.png") == (7, 5)
    (tmp_path / "b.png").write_bytes(b"x")
    with pytest.raises(DataError, match=r"b\.png cannot be read as an image"):
        size_of(tmp_path / "b.png")
