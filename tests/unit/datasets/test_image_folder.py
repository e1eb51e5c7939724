from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raypruning.datasets.base import Dataset, ImageArrays, ImageFiles
from raypruning.datasets.image_folder import open_folder, open_imagenet, pixel_statistics
from raypruning.errors import DataError

FOUR = ["train/cat", "train/dog", "test/cat", "test/dog"]


def open_at(root: Path) -> Dataset:
    return open_folder(str(root), data_dir=None, download=False)


def test_folder_of_equal_small_images_becomes_arrays(tmp_path: Path, write_pictures: Callable[..., None]) -> None:
    write_pictures(tmp_path, FOUR, count=10)
    dataset = open_at(tmp_path)
    assert isinstance(dataset.split("train"), ImageArrays)
    assert (dataset.image_size, dataset.channels, dataset.augmentation) == (8, 3, "crop_flip")
    assert [np.bincount(dataset.split(s).labels_N).tolist() for s in ("train", "validation", "test")] == [
        [9, 9], [1, 1], [10, 10],
    ]  # fmt: skip
    with Image.open(tmp_path / "test/dog/0003.png") as image:
        np.testing.assert_array_equal(dataset.split("test").images_NCHW[13], np.asarray(image).transpose(2, 0, 1))
    assert dataset.class_names == ("cat", "dog")


def test_folder_splits_share_no_image(tmp_path: Path, write_pictures: Callable[..., None]) -> None:
    write_pictures(tmp_path, FOUR, count=10)
    dataset = open_at(tmp_path)
    images = [image.tobytes() for s in ("train", "validation", "test") for image in dataset.split(s).images_NCHW]
    assert len(set(images)) == len(images) == 40


def test_folder_of_unequal_images_stays_on_disk(tmp_path: Path, write_pictures: Callable[..., None]) -> None:
    write_pictures(tmp_path, FOUR, count=4, size=(50, 40))
    write_pictures(tmp_path, ["train/dog"], count=1, size=(30, 60))
    dataset = open_at(tmp_path)
    split = dataset.split("train")
    assert isinstance(split, ImageFiles)
    assert (dataset.image_size, dataset.augmentation) == (40, "resized_crop_flip")
    assert split.load(range(len(split)), train=True, seed=0).shape == (6, 3, 40, 40)


def test_folder_relative_to_the_data_folder_is_found(tmp_path: Path, write_pictures: Callable[..., None]) -> None:
    write_pictures(tmp_path / "sets" / "pets", FOUR)
    dataset = open_folder("sets/pets", data_dir=tmp_path, download=False)
    assert dataset.name == "folder/sets/pets"
    assert dataset.fingerprint == open_at(tmp_path / "sets" / "pets").fingerprint


def test_folder_with_val_in_place_of_test_uses_it_for_testing(
    tmp_path: Path, write_pictures: Callable[..., None]
) -> None:
    write_pictures(tmp_path, ["train/cat", "train/dog"], count=10)
    write_pictures(tmp_path, ["val/cat", "val/dog"], count=5)
    dataset = open_at(tmp_path)
    assert [len(dataset.split(s)) for s in ("train", "validation", "test")] == [18, 2, 10]


def test_folder_with_val_and_test_holds_out_nothing(tmp_path: Path, write_pictures: Callable[..., None]) -> None:
    write_pictures(tmp_path, FOUR, count=10)
    write_pictures(tmp_path, ["val/cat", "val/dog"], count=5)
    assert [len(open_at(tmp_path).split(s)) for s in ("train", "validation", "test")] == [20, 10, 20]


def test_folder_of_grey_images_stays_grey(tmp_path: Path, write_pictures: Callable[..., None]) -> None:
    write_pictures(tmp_path, FOUR, mode="L")
    dataset = open_at(tmp_path)
    assert (dataset.channels, len(dataset.mean)) == (1, 1)


@pytest.mark.parametrize("mode", ["L", "RGBA"])
def test_folder_with_some_images_in_another_mode_becomes_colour(
    tmp_path: Path, write_pictures: Callable[..., None], mode: str
) -> None:
    write_pictures(tmp_path, FOUR)
    write_pictures(tmp_path, ["test/dog"], mode=mode)
    assert open_at(tmp_path).split("test").images_NCHW.shape == (6, 3, 8, 8)


def test_folder_whose_image_changed_is_read_again(tmp_path: Path, write_pictures: Callable[..., None]) -> None:
    write_pictures(tmp_path, FOUR)
    before = open_at(tmp_path).fingerprint
    Image.new("RGB", (8, 8), (1, 2, 3)).save(tmp_path / "test/dog/0000.png")
    assert open_at(tmp_path).fingerprint != before


def test_folder_whose_classes_are_renamed_has_another_fingerprint(
    tmp_path: Path, write_pictures: Callable[..., None]
) -> None:
    write_pictures(tmp_path, FOUR)
    before = open_at(tmp_path).fingerprint
    for split in ("train", "test"):
        (tmp_path / split / "dog").rename(tmp_path / split / "fox")
    assert open_at(tmp_path).fingerprint != before


def test_folder_ignores_hidden_and_other_files(tmp_path: Path, write_pictures: Callable[..., None]) -> None:
    write_pictures(tmp_path, FOUR)
    (tmp_path / "train" / "cat" / "._0000.png").write_bytes(b"x")
    (tmp_path / "train" / "cat" / "notes.txt").write_text("x")
    (tmp_path / "train" / ".cache").mkdir()
    assert len(open_at(tmp_path).split("test")) == 6


def test_folder_with_a_class_in_training_only_names_it(tmp_path: Path, write_pictures: Callable[..., None]) -> None:
    write_pictures(tmp_path, [*FOUR, "train/fox"])
    with pytest.raises(DataError, match=r"test lacks 1 of the classes \(fox\)"):
        open_at(tmp_path)


def test_folder_with_a_class_in_testing_only_names_it(tmp_path: Path, write_pictures: Callable[..., None]) -> None:
    write_pictures(tmp_path, [*FOUR, "test/fox"])
    with pytest.raises(DataError, match=r"train lacks 1 of the classes \(fox\)"):
        open_at(tmp_path)


def test_folder_with_an_empty_class_names_it(tmp_path: Path, write_pictures: Callable[..., None]) -> None:
    write_pictures(tmp_path, FOUR)
    for split in ("train", "test"):
        (tmp_path / split / "fox").mkdir()
    with pytest.raises(DataError, match="train/fox has no images"):
        open_at(tmp_path)


@pytest.mark.parametrize("size", [(8, 8), (50, 40)])
def test_folder_with_an_unreadable_image_names_it(
    tmp_path: Path, write_pictures: Callable[..., None], size: tuple[int, int]
) -> None:
    write_pictures(tmp_path, FOUR, size=size)
    # All of them, since one could be held out for validation.
    for path in (tmp_path / "train" / "cat").iterdir():
        path.write_bytes(path.read_bytes()[:70])
    with pytest.raises(DataError, match=r"train/cat/000\d\.png cannot be read as an image"):
        split = open_at(tmp_path).split("train")
        split.load(range(len(split)), train=False, seed=0)


def test_folder_with_images_outside_of_classes_says_so(tmp_path: Path, write_pictures: Callable[..., None]) -> None:
    write_pictures(tmp_path, ["train/cat", "val"])
    with pytest.raises(DataError, match="val has 3 images but no folder per class"):
        open_at(tmp_path)


@pytest.mark.parametrize(
    ("folders", "message"), [(["test/cat"], "has no train/"), (["train/cat"], r"has no test/ \(or val/\)")]
)
def test_folder_without_a_part_says_which(
    tmp_path: Path, write_pictures: Callable[..., None], folders: list[str], message: str
) -> None:
    write_pictures(tmp_path, folders)
    with pytest.raises(DataError, match=message):
        open_at(tmp_path)


def test_pixel_statistics_are_mean_and_deviation_per_channel() -> None:
    images = np.random.default_rng(0).integers(0, 256, (7, 3, 5, 5), dtype=np.uint8)
    means, deviations = pixel_statistics(images)
    # Both are rounded to four places.
    np.testing.assert_allclose(means, (images / 255).mean((0, 2, 3)), atol=0.00005)
    np.testing.assert_allclose(deviations, (images / 255).std((0, 2, 3)), atol=0.00005)
    assert pixel_statistics(np.zeros((2, 1, 3, 3), np.uint8)) == ([0.0], [1.0])


@pytest.mark.parametrize("subfolder", ["", "imagenet", "ILSVRC2012"])
def test_imagenet_with_its_thousand_classes_opens(tmp_path: Path, subfolder: str) -> None:
    for part in ("train", "val"):
        for number in range(1000):
            folder = tmp_path / subfolder / part / f"n{number:08d}"
            folder.mkdir(parents=True)
            # Opening reads no image, so any file will do.
            (folder / "0.JPEG").write_bytes(b"x")
    dataset = open_imagenet("", data_dir=tmp_path, download=False)
    assert (dataset.num_classes, dataset.image_size, len(dataset.split("test"))) == (1000, 224, 1000)


def test_imagenet_with_fewer_classes_is_sent_to_folder(tmp_path: Path, write_pictures: Callable[..., None]) -> None:
    write_pictures(tmp_path, ["train/cat", "val/cat"])
    with pytest.raises(DataError, match=f"has 1 class folders, expected 1000; .*--dataset folder/{tmp_path}"):
        open_imagenet("", data_dir=tmp_path, download=False)
