from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raypruning.datasets.base import SPLITS, Dataset
from raypruning.datasets.masked_files import MaskedFiles
from raypruning.datasets.voc import open_voc, open_voc_folder
from raypruning.errors import DataError

COUNTS = {2012: (1464, 1449), 2011: (1112, 1111)}


@pytest.fixture
def write_layout(tmp_path: Path) -> Callable[..., None]:
    """Pictures and masks below root that the lists name; all the same, and linked, for there may be thousands."""

    def write(root: Path, lists: dict[str, Sequence[str]], *, classes: str | None = None, suffix: str = ".jpg") -> None:
        source = tmp_path / "originals"
        for folder in (source, root / "JPEGImages", root / "SegmentationClass", root / "ImageSets/Segmentation"):
            folder.mkdir(parents=True, exist_ok=True)
        if not (source / "mask.png").exists():
            Image.new("RGB", (40, 30), (200, 10, 10)).save(source / f"picture{suffix}")
            Image.new("L", (40, 30), 1).save(source / "mask.png")
        for list_name, names in lists.items():
            (root / "ImageSets/Segmentation" / f"{list_name}.txt").write_text("".join(f"{name}\n" for name in names))
            for name in names:
                os.link(source / f"picture{suffix}", root / "JPEGImages" / f"{name}{suffix}")
                os.link(source / "mask.png", root / "SegmentationClass" / f"{name}.png")
        if classes is not None:
            (root / "classes.txt").write_text(classes)

    return write


@pytest.fixture
def write_voc(write_layout: Callable[..., None]) -> Callable[..., None]:
    """As many pictures as a release has."""

    def write(root: Path, *, year: int = 2012) -> None:
        num_train, num_val = COUNTS[year]
        lists = {"train": [f"{year}_t{n:05d}" for n in range(num_train)]}
        write_layout(root, lists | {"val": [f"{year}_v{n:05d}" for n in range(num_val)]})

    return write


@pytest.fixture
def folder(tmp_path: Path, write_layout: Callable[..., None]) -> Path:
    """A user's own: 20 pictures to train on, 5 to test on, three classes."""
    root = tmp_path / "leaves"
    lists = {"train": [f"t{n}" for n in range(20)], "val": [f"v{n}" for n in range(5)]}
    write_layout(root, lists, classes="background\nleaf\nstem\n")
    return root


def open_at(root: Path) -> Dataset:
    return open_voc_folder(str(root), data_dir=None, download=False)


def names_of(dataset: Dataset, name: str) -> list[str]:
    split = dataset.split(name)  # type: ignore[arg-type]
    assert isinstance(split, MaskedFiles)
    stems = [Path(path).stem for path in split.paths]
    assert stems == [Path(path).stem for path in split.mask_paths]
    return stems


def message_of(call: Callable[[], object]) -> str:
    with pytest.raises(DataError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("place", "year"),
    [("", 2012), ("VOC2012", 2012), ("VOCdevkit/VOC2012", 2012), ("", 2011), ("TrainVal/VOCdevkit/VOC2011", 2011)],
)
def test_voc_is_found_where_its_archive_puts_it(
    tmp_path: Path, write_voc: Callable[..., None], place: str, year: int
) -> None:
    write_voc(tmp_path / "data" / place, year=year)
    dataset = open_voc("", data_dir=tmp_path / "data", download=False)
    num_train, num_val = COUNTS[year]
    sizes = [len(dataset.split(name)) for name in SPLITS]
    assert sizes == [num_train - num_train // 10, num_train // 10, num_val]
    assert f"VOC{year}" in dataset.source


def test_voc_has_the_classes_and_the_size_of_the_paper(tmp_path: Path, write_voc: Callable[..., None]) -> None:
    write_voc(tmp_path / "data")
    dataset = open_voc("", data_dir=tmp_path / "data", download=False)
    assert (dataset.name, dataset.kind, dataset.num_classes, dataset.image_size) == ("voc", "segmentation", 21, 513)
    assert (dataset.class_names[0], dataset.class_names[15], dataset.class_names[20]) == (
        "background", "person", "tvmonitor",
    )  # fmt: skip
    images, masks = dataset.split("test").load([0], train=False, seed=0)  # type: ignore[union-attr,misc]
    assert (images.shape, masks.shape) == ((1, 3, 513, 513), (1, 513, 513))


def test_voc_tests_on_val_and_holds_out_a_tenth_of_train(tmp_path: Path, write_voc: Callable[..., None]) -> None:
    write_voc(tmp_path / "data")
    dataset = open_voc("", data_dir=tmp_path / "data", download=False)
    train, validation, test = (names_of(dataset, name) for name in SPLITS)
    assert sorted(train + validation) == [f"2012_t{n:05d}" for n in range(1464)]
    assert test == [f"2012_v{n:05d}" for n in range(1449)]


def test_voc_prefers_the_newer_release(tmp_path: Path, write_voc: Callable[..., None]) -> None:
    write_voc(tmp_path / "data/VOC2011", year=2011)
    write_voc(tmp_path / "data/VOCdevkit/VOC2012", year=2012)
    assert "VOC2012" in open_voc("", data_dir=tmp_path / "data", download=False).source


def test_voc_that_is_half_unpacked_says_how_much_is_there(tmp_path: Path, write_voc: Callable[..., None]) -> None:
    root = tmp_path / "data/VOC2012"
    write_voc(root)
    for name in ("2012_t00007", "2012_v00000", "2012_v00001"):
        (root / "JPEGImages" / f"{name}.jpg").unlink()
    (root / "SegmentationClass" / "2012_t00003.png").unlink()
    message = message_of(lambda: open_voc("", data_dir=tmp_path / "data", download=False))
    assert f"{root} is not complete: 2910 of 2913 pictures are in JPEGImages/ and 2912 of 2913 masks" in message
    assert "missing: JPEGImages/2012_t00007.jpg, ..." in message
    assert "VOCtrainval_11-May-2012.tar (md5 6cd6e144f989b92b3379bac3b3de84fd)" in message


@pytest.mark.parametrize(
    ("year", "archive"), [(2012, "VOCtrainval_11-May-2012.tar"), (2011, "VOCtrainval_25-May-2011.tar")]
)
def test_voc_without_its_lists_names_them(
    tmp_path: Path, write_voc: Callable[..., None], year: int, archive: str
) -> None:
    write_voc(tmp_path / f"data/VOC{year}", year=year)
    (tmp_path / f"data/VOC{year}/ImageSets/Segmentation/val.txt").unlink()
    message = message_of(lambda: open_voc("", data_dir=tmp_path / "data", download=False))
    assert f"VOC{year}/ImageSets/Segmentation/val.txt is missing: unpack {archive}" in message


def test_voc_with_shorter_lists_says_how_long_they_are(tmp_path: Path, write_layout: Callable[..., None]) -> None:
    write_layout(tmp_path / "data/VOC2012", {"train": ["a", "b"], "val": ["c"]})
    message = message_of(lambda: open_voc("", data_dir=tmp_path / "data", download=False))
    assert "list 2 and 1 pictures, expected 1464 and 1449 (VOC2012) or 1112 and 1111 (VOC2011)" in message
    assert f"--dataset voc_folder/{(tmp_path / 'data/VOC2012').resolve()}" in message


@pytest.mark.parametrize("data_dir", [None, "missing", "empty"])
def test_voc_that_is_not_there_says_what_to_get(tmp_path: Path, data_dir: str | None) -> None:
    (tmp_path / "empty").mkdir()
    folder = None if data_dir is None else tmp_path / data_dir
    message = message_of(lambda: open_voc("", data_dir=folder, download=False))
    assert "JPEGImages/" in message
    assert "VOCtrainval_11-May-2012.tar, md5 6cd6e144f989b92b3379bac3b3de84fd" in message
    assert ("VOCdevkit/VOC2012" in message) == (data_dir == "empty")


def test_voc_folder_loads_pictures_and_masks_of_its_own(folder: Path) -> None:
    random = np.random.default_rng(0)
    image, mask = random.integers(0, 256, (30, 40, 3), np.uint8), random.integers(0, 3, (30, 40), np.uint8)
    (folder / "JPEGImages/v3.jpg").unlink()
    Image.fromarray(image).save(folder / "JPEGImages/v3.png")
    (folder / "SegmentationClass/v3.png").unlink()
    Image.fromarray(mask).save(folder / "SegmentationClass/v3.png")
    dataset = open_at(folder)
    assert (dataset.name, dataset.class_names) == (f"voc_folder/{folder}", ("background", "leaf", "stem"))
    assert [len(dataset.split(name)) for name in SPLITS] == [18, 2, 5]
    assert dataset.image_size == 30
    images, masks = dataset.split("test").load([3], train=False, seed=0)  # type: ignore[union-attr,misc]
    np.testing.assert_array_equal(images[0], image[:, 5:35].transpose(2, 0, 1))
    np.testing.assert_array_equal(masks[0], mask[:, 5:35])


def test_voc_folder_with_a_test_list_holds_out_nothing(folder: Path, write_layout: Callable[..., None]) -> None:
    write_layout(folder, {"test": ["x0", "x1"]})
    dataset = open_at(folder)
    assert names_of(dataset, "train") == [f"t{n}" for n in range(20)]
    assert names_of(dataset, "validation") == [f"v{n}" for n in range(5)]
    assert names_of(dataset, "test") == ["x0", "x1"]


def test_voc_folder_is_relative_to_the_data_folder(folder: Path) -> None:
    dataset = open_voc_folder(folder.name, data_dir=folder.parent, download=False)
    assert dataset.name == "voc_folder/leaves"
    assert dataset.fingerprint == open_at(folder).fingerprint


def test_voc_folder_reads_lists_written_on_windows(folder: Path) -> None:
    before = open_at(folder).fingerprint
    for path in (folder / "ImageSets/Segmentation/train.txt", folder / "classes.txt"):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n") + b"\r\n")
    assert open_at(folder).fingerprint == before


def shorten_picture(root: Path) -> None:
    path = root / "JPEGImages/t0.jpg"
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content + b"\0")


def shorten_mask(root: Path) -> None:
    (root / "SegmentationClass/v4.png").unlink()
    Image.new("L", (40, 30), 2).save(root / "SegmentationClass/v4.png", compress_level=0)


def rename_class(root: Path) -> None:
    (root / "classes.txt").write_text("background\nleaf\nroot\n")


def swap_lists(root: Path) -> None:
    lists = root / "ImageSets/Segmentation"
    (lists / "train.txt").write_text("".join(f"t{n}\n" for n in range(19)) + "v4\n")
    (lists / "val.txt").write_text("".join(f"v{n}\n" for n in range(4)) + "t19\n")


@pytest.mark.parametrize("change", [shorten_picture, shorten_mask, rename_class, swap_lists])
def test_voc_folder_that_changed_has_another_fingerprint(folder: Path, change: Callable[[Path], None]) -> None:
    before = open_at(folder).fingerprint
    change(folder)
    assert open_at(folder).fingerprint != before


def test_voc_folder_without_a_mask_names_it(folder: Path) -> None:
    (folder / "SegmentationClass/v2.png").unlink()
    message = message_of(lambda: open_at(folder))
    assert "25 of 25 pictures are in JPEGImages/ and 24 of 25 masks in SegmentationClass/" in message
    assert "(missing: SegmentationClass/v2.png)" in message


@pytest.mark.parametrize(
    ("path", "content", "expected"),
    [
        ("classes.txt", None, "classes.txt is missing: it lists 2 to 255 classes, one name a line"),
        ("classes.txt", "background\n", "lists 1 classes: it lists 2 to 255"),
        ("classes.txt", "background\nleaf\nleaf\n", "lists 'leaf' twice"),
        ("classes.txt", "".join(f"c{n}\n" for n in range(256)), "lists 256 classes"),
        ("ImageSets/Segmentation/train.txt", None, "train.txt is missing: expected JPEGImages/"),
        ("ImageSets/Segmentation/train.txt", "\n\n", "train.txt is empty"),
        ("ImageSets/Segmentation/train.txt", "t1\nt2\nt1\n", "t1 stands twice in train.txt of"),
        ("ImageSets/Segmentation/val.txt", "t1\nv1\n", "t1 stands twice in train.txt and val.txt of"),
        ("ImageSets/Segmentation/train.txt", "t1\nt2\n", "train.txt lists 2 pictures: at least 10 are needed"),
    ],
)
def test_voc_folder_with_a_wrong_list_says_what_is_wrong(
    folder: Path, path: str, content: str | None, expected: str
) -> None:
    (folder / path).unlink()
    if content is not None:
        (folder / path).write_text(content)
    assert expected in message_of(lambda: open_at(folder))


def test_voc_folder_with_a_list_that_is_no_text_names_it(folder: Path) -> None:
    (folder / "classes.txt").write_bytes(b"\xff\xfe\x00")
    assert "classes.txt cannot be read" in message_of(lambda: open_at(folder))


def test_voc_folder_needs_a_path_to_a_folder(tmp_path: Path, folder: Path) -> None:
    empty = message_of(lambda: open_voc_folder("", data_dir=None, download=False))
    assert empty.startswith("voc_folder/ needs a path: write --dataset voc_folder/PATH")
    assert "leaf does not exist (no --data-dir was given)" in message_of(lambda: open_at(Path("leaf")))
    assert "classes.txt is not a folder" in message_of(lambda: open_at(folder / "classes.txt"))
