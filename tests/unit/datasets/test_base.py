from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raypruning.datasets.base import Dataset, ImageArrays, ImageFiles, derive, hold_out_tenth
from raypruning.errors import DataError, SpecError


def image_files(root: Path, *, count: int = 6, size: tuple[int, int] = (40, 30), image_size: int = 16) -> ImageFiles:
    random = np.random.default_rng(0)
    for number in range(count):
        pixels = random.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"{number}.png")
    paths = tuple(str(root / f"{number}.png") for number in range(count))
    return ImageFiles(paths=paths, labels_N=np.arange(count) % 2, image_size=image_size)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((2, 1, 8, 8), np.float32), np.zeros(2, np.int64), "uint8"),
        (np.zeros((2, 1, 8, 7), np.uint8), np.zeros(2, np.int64), "side"),
        (np.zeros((2, 1, 8, 8), np.uint8), np.zeros(3, np.int64), "3 labels"),
        (np.zeros((2, 1, 8, 8), np.uint8), np.zeros(2, np.int32), "int64"),
        (np.zeros((2, 1, 8, 8), np.uint8), np.array([0, -1]), "-1"),
    ],
)
def test_image_arrays_of_a_wrong_kind_are_refused(images: np.ndarray, labels: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        ImageArrays(images_NCHW=images, labels_N=labels)


def test_split_with_a_label_beyond_the_classes_is_refused(make_dataset: Callable[..., Dataset]) -> None:
    split = ImageArrays(images_NCHW=np.zeros((1, 1, 8, 8), np.uint8), labels_N=np.array([3]))
    dataset = make_dataset()
    dataset.loaders["train"] = lambda: split
    with pytest.raises(DataError, match="label 3, of 3 classes"):
        dataset.split("train")


def test_split_of_an_unknown_name_is_refused_with_the_known_ones(make_dataset: Callable[..., Dataset]) -> None:
    with pytest.raises(SpecError, match="train, validation, test"):
        make_dataset().split("val")


def test_split_asked_for_twice_is_read_once(make_dataset: Callable[..., Dataset]) -> None:
    dataset = make_dataset()
    assert dataset.split("train") is dataset.split("train")


def test_image_files_random_crops_do_not_depend_on_batch_order_or_threads(tmp_path: Path) -> None:
    files = image_files(tmp_path)
    alone = np.concatenate([files.load([i], train=True, seed=5, num_threads=1) for i in range(6)])
    np.testing.assert_array_equal(files.load(range(6), train=True, seed=5, num_threads=4), alone)
    np.testing.assert_array_equal(files.load([4, 0, 4], train=True, seed=5), alone[[4, 0, 4]])


def test_image_files_random_crops_change_with_seed_and_index(tmp_path: Path) -> None:
    files = image_files(tmp_path)
    twice = ImageFiles(paths=(files.paths[0],) * 2, labels_N=np.zeros(2, np.int64), image_size=16)
    first, second = twice.load([0, 1], train=True, seed=5)
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, twice.load([0], train=True, seed=6)[0])


def test_image_files_for_testing_show_the_centre(tmp_path: Path) -> None:
    # A white disc would be cut anywhere else: 256 px high, so nothing is resized but the crop of 224 remains.
    pixels = np.zeros((256, 300, 3), np.uint8)
    pixels[16:240, 38:262] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    files = ImageFiles(paths=(str(tmp_path / "a.png"),), labels_N=np.zeros(1, np.int64), image_size=224)
    images = files.load([0], train=False, seed=0)
    assert images.shape == (1, 3, 224, 224)
    assert images.dtype == np.uint8
    assert (images == 255).all()


@pytest.mark.parametrize("size", [(1, 1), (300, 3), (3, 300), (16, 16)])
@pytest.mark.parametrize("train", [True, False])
def test_image_files_of_odd_shapes_come_out_square(tmp_path: Path, size: tuple[int, int], train: bool) -> None:
    files = image_files(tmp_path, count=1, size=size)
    assert files.load([0], train=train, seed=1).shape == (1, 3, 16, 16)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "LA", "CMYK"])
def test_image_files_of_any_mode_become_colour(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    Image.new("RGB", (20, 20), (200, 200, 200)).convert(mode).save(path)
    files = ImageFiles(paths=(str(path),), labels_N=np.zeros(1, np.int64), image_size=16)
    assert files.load([0], train=False, seed=0).shape == (1, 3, 16, 16)


def test_image_files_with_a_damaged_file_name_it(tmp_path: Path) -> None:
    files = image_files(tmp_path, count=3)
    damaged = Path(files.paths[1])
    damaged.write_bytes(damaged.read_bytes()[:60])
    with pytest.raises(DataError, match=r"1\.png cannot be read"):
        files.load([0, 1, 2], train=True, seed=0)


def test_image_files_without_indices_are_an_empty_batch(tmp_path: Path) -> None:
    assert image_files(tmp_path).load([], train=False, seed=0).shape == (0, 3, 16, 16)


def test_derive_without_a_change_is_the_same_dataset(make_dataset: Callable[..., Dataset]) -> None:
    dataset = make_dataset(num_images=30, side=8)
    assert derive(dataset) is dataset
    assert derive(dataset, train_images=30, test_images=30, image_size=8) is dataset


def test_derive_keeps_the_first_of_each_class(make_dataset: Callable[..., Dataset]) -> None:
    small = derive(make_dataset(), train_images=7, test_images=6)
    # Images are numbered and classes alternate: the first 7 have 3, 2 and 2 of the three classes.
    assert small.split("train").images_NCHW[:, 0, 0, 0].tolist() == list(range(7))
    assert np.bincount(small.split("test").labels_N).tolist() == [2, 2, 2]
    assert len(small.split("validation")) == 30


def test_derive_takes_more_of_others_when_a_class_runs_out() -> None:
    labels_N = np.array([0] * 8 + [1] * 2)
    split = ImageArrays(images_NCHW=np.zeros((10, 1, 4, 4), np.uint8), labels_N=labels_N)
    dataset = Dataset(
        name="uneven", num_classes=2, channels=1, image_size=4, mean=(0.5,), std=(0.5,), class_names=("a", "b"),
        fingerprint="ab", augmentation="none", source="made here", loaders={"train": lambda: split},
    )  # fmt: skip
    assert np.bincount(derive(dataset, train_images=6).split("train").labels_N).tolist() == [4, 2]


def test_derive_of_more_images_than_there_are_is_refused(make_dataset: Callable[..., Dataset]) -> None:
    with pytest.raises(SpecError, match="train_images must be from 1 to 30, all that numbers has; got 31"):
        derive(make_dataset(), train_images=31)
    with pytest.raises(SpecError, match="test_images"):
        derive(make_dataset(), test_images=0)


def test_derive_by_a_few_pixels_pads_with_zeros(make_dataset: Callable[..., Dataset]) -> None:
    dataset = make_dataset(side=8)
    padded = derive(dataset, image_size=12)
    images = padded.split("train").images_NCHW
    np.testing.assert_array_equal(images[:, :, 2:10, 2:10], dataset.split("train").images_NCHW)
    assert int(images.sum()) == int(dataset.split("train").images_NCHW.sum())
    assert padded.image_size == 12


@pytest.mark.parametrize("size", [5, 20])
def test_derive_by_many_pixels_resizes(make_dataset: Callable[..., Dataset], size: int) -> None:
    images = derive(make_dataset(side=8), image_size=size).split("test").images_NCHW
    # Images of one colour keep it whatever their size.
    np.testing.assert_array_equal(images, np.broadcast_to(np.arange(30)[:, None, None, None], (30, 1, size, size)))


def test_derive_of_files_cuts_paths_and_sets_their_size(tmp_path: Path, make_dataset: Callable[..., Dataset]) -> None:
    dataset = make_dataset()
    files = image_files(tmp_path)
    dataset.loaders["train"] = lambda: files
    split = derive(dataset, train_images=4, image_size=10).split("train")
    assert split.paths == files.paths[:4]
    assert split.load([0], train=True, seed=0).shape == (1, 3, 10, 10)


def test_derive_gives_each_choice_its_own_fingerprint(make_dataset: Callable[..., Dataset]) -> None:
    dataset = make_dataset()
    choices = [{}, {"train_images": 5}, {"test_images": 5}, {"image_size": 9}, {"train_images": 5, "image_size": 9}]
    fingerprints = {derive(dataset, **choice).fingerprint for choice in choices}
    assert len(fingerprints) == len(choices)
    assert derive(dataset, train_images=5).fingerprint in fingerprints


def test_hold_out_tenth_splits_without_overlap() -> None:
    train, validation = hold_out_tenth(1234)
    assert len(validation) == 123
    assert sorted([*train, *validation]) == list(range(1234))
