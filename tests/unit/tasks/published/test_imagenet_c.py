from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from raypruning.datasets.base import Dataset, ImageFiles, derive
from raypruning.errors import DataError
from raypruning.tasks.examples import Examples
from raypruning.tasks.published.imagenet_c import imagenet_c
from tests.unit.tasks.published.tiny_sets import WNIDS, whole, write_picture


@pytest.fixture
def dataset(make_imagenet: Callable[..., Dataset]) -> Dataset:
    return make_imagenet()


def write_set(root: Path, *, side: int = 224) -> None:
    """A picture for each of the 24 of the dataset."""
    for number in range(24):
        path = root / WNIDS[number // 2] / f"ILSVRC2012_val_{number:08d}.JPEG"
        write_picture(path, seed=100 + number, size=(side, side))


def open_fog(dataset: Dataset, data_dir: Path) -> Examples:
    opener = imagenet_c("fog/3").examples
    assert opener is not None
    return opener(dataset, data_dir)


def load(examples: Examples, indices: list[int]) -> np.ndarray:
    assert isinstance(examples.split, ImageFiles)
    return examples.split.load(indices, train=False, seed=0, num_threads=1)


@pytest.mark.parametrize("top", ["ImageNet-C", "imagenet-c"])
@pytest.mark.parametrize("between", ["", "weather"])
def test_the_set_is_found_with_and_without_the_folder_of_its_archive(
    dataset: Dataset, data_dir: Path, top: str, between: str
) -> None:
    root = data_dir / top / between / "fog" / "3"
    write_set(root)
    split = open_fog(dataset, data_dir).split
    assert isinstance(split, ImageFiles)
    assert split.paths[5] == str(root / WNIDS[2] / "ILSVRC2012_val_00000005.JPEG")


def test_pictures_of_224_px_are_neither_resized_nor_cut(dataset: Dataset, data_dir: Path) -> None:
    write_set(data_dir / "ImageNet-C" / "fog" / "3")
    examples = open_fog(dataset, data_dir)
    np.testing.assert_array_equal(load(examples, [7])[0], whole(examples.split.paths[7]))


def test_each_picture_is_paired_with_its_own(dataset: Dataset, data_dir: Path) -> None:
    write_set(data_dir / "ImageNet-C" / "fog" / "3")
    examples = open_fog(dataset, data_dir)
    own = dataset.split("test")
    assert [Path(path).parts[-2:] for path in examples.split.paths] == [Path(path).parts[-2:] for path in own.paths]
    np.testing.assert_array_equal(examples.split.labels_N, own.labels_N)
    np.testing.assert_array_equal(examples.positions_N, np.arange(24))


def test_a_part_of_the_test_set_gets_its_own_pictures_in_its_order(dataset: Dataset, data_dir: Path) -> None:
    root = data_dir / "ImageNet-C" / "fog" / "3"
    write_set(root)
    part = derive(dataset, test_images=12)
    for number in range(1, 24, 2):  # The part is the first of each class: the others need not be there.
        (root / WNIDS[number // 2] / f"ILSVRC2012_val_{number:08d}.JPEG").unlink()
    examples = open_fog(part, data_dir)
    assert [Path(path).name for path in examples.split.paths] == [Path(path).name for path in part.split("test").paths]
    assert len(examples) == 12


def test_a_dataset_of_another_ending_finds_the_same_pictures(
    dataset: Dataset, data_dir: Path, make_dataset: Callable[..., Dataset]
) -> None:
    write_set(data_dir / "ImageNet-C" / "fog" / "3")
    own = dataset.split("test")
    paths = tuple(path.replace(".JPEG", ".png") for path in own.paths)
    other = make_dataset(ImageFiles(paths=paths, labels_N=own.labels_N, image_size=224), class_names=WNIDS)
    assert open_fog(other, data_dir).split.paths == open_fog(dataset, data_dir).split.paths


def test_another_size_of_input_shows_the_whole_picture(dataset: Dataset, data_dir: Path) -> None:
    from PIL import Image

    write_set(data_dir / "ImageNet-C" / "fog" / "3")
    examples = open_fog(derive(dataset, image_size=112), data_dir)
    with Image.open(examples.split.paths[0]) as image:
        small = np.asarray(image.resize((112, 112), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    np.testing.assert_array_equal(load(examples, [0])[0], small)


def test_fingerprint_tells_severities_and_parts_apart(dataset: Dataset, data_dir: Path) -> None:
    write_set(data_dir / "ImageNet-C" / "fog" / "3")
    write_set(data_dir / "ImageNet-C" / "fog" / "4", side=223)
    four = imagenet_c("fog/4").examples
    assert four is not None
    part = derive(dataset, test_images=12)
    found = [open_fog(dataset, data_dir), open_fog(part, data_dir), four(dataset, data_dir)]
    assert len({examples.fingerprint for examples in found}) == 3


def test_fingerprint_does_not_depend_on_the_place(dataset: Dataset, data_dir: Path) -> None:
    write_set(data_dir / "ImageNet-C" / "fog" / "3")
    before = open_fog(dataset, data_dir).fingerprint
    moved = data_dir.rename(data_dir.with_name("elsewhere"))
    assert open_fog(dataset, moved).fingerprint == before


def test_missing_pictures_are_counted_and_the_first_is_named(dataset: Dataset, data_dir: Path) -> None:
    root = data_dir / "ImageNet-C" / "fog" / "3"
    write_set(root)
    for number in (8, 9):
        (root / WNIDS[4] / f"ILSVRC2012_val_{number:08d}.JPEG").unlink()
    with pytest.raises(DataError, match=rf"has 22 of the 24 .*{WNIDS[4]}/ILSVRC2012_val_00000008\.JPEG.*weather\.tar"):
        open_fog(dataset, data_dir)


def test_a_picture_that_is_cut_off_is_named_when_it_is_read(dataset: Dataset, data_dir: Path) -> None:
    write_set(data_dir / "ImageNet-C" / "fog" / "3")
    examples = open_fog(dataset, data_dir)
    path = Path(examples.split.paths[2])
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(DataError, match=r"ILSVRC2012_val_00000002\.JPEG cannot be read"):
        load(examples, [2])


def test_a_missing_corruption_names_its_archive(dataset: Dataset, data_dir: Path) -> None:
    write_set(data_dir / "ImageNet-C" / "snow" / "3")
    with pytest.raises(DataError, match=r"imagenet-c fog/3.*weather\.tar, md5 33ffea4db4d93fe4a428c40a6ce0c25d"):
        open_fog(dataset, data_dir)


@pytest.mark.parametrize("place", ["weather.tar", "ImageNet-C/weather.tar"])
def test_an_archive_is_to_be_unpacked_into_the_folder_of_the_set(dataset: Dataset, data_dir: Path, place: str) -> None:
    (data_dir / "ImageNet-C").mkdir()
    (data_dir / place).write_bytes(b"x")
    with pytest.raises(DataError, match=rf"mkdir -p \S*/ImageNet-C && tar -xf \S*/{place} -C \S*/ImageNet-C$"):
        open_fog(dataset, data_dir)


def test_record_names_kind_severity_and_set() -> None:
    definition = imagenet_c("fog/3")
    assert dict(definition.corruption) == {"kind": "fog", "severity": 3, "set": "imagenet-c"}
    assert definition.nominal == "nominal" and definition.fits("imagenet") and not definition.fits("cifar10")
