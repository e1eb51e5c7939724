from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from raypruning.datasets.base import Dataset, ImageArrays, ImageFiles, derive
from raypruning.errors import DataError, UnknownNameError
from raypruning.tasks.published import class_folders
from raypruning.tasks.published.class_folders import open_nominal_of, open_published
from raypruning.tasks.published.facts import IMAGENET_A, IMAGENET_R, IMAGENET_SKETCH, IMAGENET_V2
from tests.unit.tasks.published.tiny_sets import WNIDS, centre, write_picture

TINY_A = replace(IMAGENET_A, num_images=6, num_classes=3)
TINY_V2 = replace(IMAGENET_V2["matched-frequency"], num_images=12, num_classes=12)
# Classes that stand neither at the beginning of the dataset's nor in a row.
CLASSES = (3, 7, 10)


@pytest.fixture
def dataset(make_imagenet: Callable[..., Dataset]) -> Dataset:
    return make_imagenet(image_size=16)


@pytest.fixture
def imagenet_a(data_dir: Path) -> Path:
    """Two pictures of each of three of twelve classes, and a README as in the archive."""
    root = data_dir / "imagenet-a"
    for number, label in enumerate(np.repeat(CLASSES, 2)):
        write_picture(root / WNIDS[label] / f"0.{number}_thing.jpg", seed=number)
    (root / "README.txt").write_text("ImageNet-A")
    return root


def test_labels_are_classes_of_the_dataset_not_positions_of_folders(
    imagenet_a: Path, dataset: Dataset, data_dir: Path
) -> None:
    examples = open_published(TINY_A, dataset, data_dir)
    np.testing.assert_array_equal(examples.split.labels_N, np.repeat(CLASSES, 2))
    assert [dataset.class_names[label] for label in examples.split.labels_N] == [
        Path(path).parent.name for path in examples.split.paths
    ]


def test_logits_of_the_sets_classes_alone_count(imagenet_a: Path, dataset: Dataset, data_dir: Path) -> None:
    examples = open_published(TINY_A, dataset, data_dir)
    assert examples.classes == CLASSES
    assert (dict(examples.also_right), examples.positions_N) == ({}, None)


def test_pictures_are_prepared_as_the_datasets_own(imagenet_a: Path, dataset: Dataset, data_dir: Path) -> None:
    split = open_published(TINY_A, dataset, data_dir).split
    assert isinstance(split, ImageFiles)
    found = split.load(range(6), train=False, seed=0, num_threads=1)
    np.testing.assert_array_equal(found, [centre(path, 16) for path in split.paths])


def test_nominal_is_the_datasets_own_images_of_the_same_classes(
    imagenet_a: Path, dataset: Dataset, data_dir: Path
) -> None:
    examples = open_nominal_of(TINY_A, dataset, data_dir)
    own = dataset.split("test")
    positions = [position for position, label in enumerate(own.labels_N) if label in CLASSES]
    np.testing.assert_array_equal(examples.positions_N, positions)
    assert examples.split.paths == tuple(own.paths[position] for position in positions)
    np.testing.assert_array_equal(examples.split.labels_N, own.labels_N[positions])
    assert examples.classes == open_published(TINY_A, dataset, data_dir).classes


def test_nominal_works_for_images_in_memory_and_a_part_of_them(
    imagenet_a: Path, data_dir: Path, make_dataset: Callable[..., Dataset]
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (24, 3, 8, 8), dtype=np.uint8)
    split = ImageArrays(images_NCHW=images, labels_N=np.arange(24)[::-1] % 12)
    part = derive(make_dataset(split, class_names=WNIDS), test_images=12)
    examples = open_nominal_of(TINY_A, part, data_dir)
    own = part.split("test")
    positions = [position for position, label in enumerate(own.labels_N) if label in CLASSES]
    np.testing.assert_array_equal(examples.positions_N, positions)
    np.testing.assert_array_equal(examples.split.images_NCHW, own.images_NCHW[positions])


def test_nominal_without_an_image_of_the_classes_says_so(imagenet_a: Path, dataset: Dataset, data_dir: Path) -> None:
    with pytest.raises(DataError, match="no test image of imagenet is of one of the 3 classes"):
        open_nominal_of(TINY_A, derive(dataset, test_images=2), data_dir)


def test_fingerprint_changes_when_a_picture_does(imagenet_a: Path, dataset: Dataset, data_dir: Path) -> None:
    before = open_published(TINY_A, dataset, data_dir).fingerprint
    path = imagenet_a / WNIDS[3] / "0.0_thing.jpg"
    path.unlink()
    write_picture(path, seed=0, size=(50, 50))
    assert open_published(TINY_A, dataset, data_dir).fingerprint != before


def test_fingerprint_changes_when_the_classes_have_other_places(
    imagenet_a: Path, dataset: Dataset, data_dir: Path, make_dataset: Callable[..., Dataset]
) -> None:
    turned = make_dataset(dataset.split("test"), class_names=WNIDS[::-1])
    fingerprints = {open_published(TINY_A, one, data_dir).fingerprint for one in (dataset, turned)}
    assert len(fingerprints) == 2


def test_a_folder_that_is_no_class_is_named(imagenet_a: Path, dataset: Dataset, data_dir: Path) -> None:
    write_picture(imagenet_a / "n99999999" / "a.jpg", seed=0)
    with pytest.raises(DataError, match=r"1 folders that are no name of a class of imagenet \(n99999999\)"):
        open_published(TINY_A, dataset, data_dir)


def test_a_set_that_is_half_there_says_how_much(imagenet_a: Path, dataset: Dataset, data_dir: Path) -> None:
    (imagenet_a / WNIDS[3] / "0.0_thing.jpg").unlink()
    with pytest.raises(DataError, match=r"has 5 pictures in 3 folders, expected 6 in 3: unpack imagenet-a\.tar, md5 c"):
        open_published(TINY_A, dataset, data_dir)
    with pytest.raises(DataError, match="has 5 pictures"):
        open_nominal_of(TINY_A, dataset, data_dir)


def test_an_empty_folder_is_named(imagenet_a: Path, dataset: Dataset, data_dir: Path) -> None:
    for path in (imagenet_a / WNIDS[7]).iterdir():
        path.unlink()
    with pytest.raises(DataError, match=rf"4 pictures in 2 folders \({WNIDS[7]} is empty\), expected 6 in 3"):
        open_published(TINY_A, dataset, data_dir)


def test_hidden_and_other_files_are_no_pictures(imagenet_a: Path, dataset: Dataset, data_dir: Path) -> None:
    (imagenet_a / WNIDS[3] / "._0.0_thing.jpg").write_bytes(b"x")
    (imagenet_a / WNIDS[3] / "notes.txt").write_text("x")
    (imagenet_a / ".cache").mkdir()
    assert len(open_published(TINY_A, dataset, data_dir)) == 6


def test_a_picture_that_is_cut_off_is_named_when_it_is_read(imagenet_a: Path, dataset: Dataset, data_dir: Path) -> None:
    split = open_published(TINY_A, dataset, data_dir).split
    assert isinstance(split, ImageFiles)
    path = Path(split.paths[1])
    path.write_bytes(path.read_bytes()[:400])
    with pytest.raises(DataError, match=r"0\.1_thing\.jpg cannot be read"):
        split.load([1], train=False, seed=0)


@pytest.mark.parametrize(
    ("published", "says"),
    [
        (IMAGENET_A, "imagenet-a/ with 7500 pictures in 200 folders .imagenet-a.tar, md5 c3e55429088dc681f3"),
        (IMAGENET_R, "imagenet-r/ with 30000 pictures in 200 folders .imagenet-r.tar, md5 a61312130a589d0c"),
        (IMAGENET_SKETCH, "sketch/ with 50889 pictures in 1000 folders"),
        (IMAGENET_V2["top-images"], "imagenetv2-top-images-format-val/ with 10000 pictures in 1000 folders"),
    ],
)  # fmt: skip
def test_a_missing_set_says_what_to_get(published, says: str, dataset: Dataset, data_dir: Path) -> None:
    with pytest.raises(DataError, match=says):
        open_published(published, dataset, data_dir)


def test_an_archive_that_is_not_unpacked_is_named_with_the_command(dataset: Dataset, data_dir: Path) -> None:
    (data_dir / "imagenet-a.tar").write_bytes(b"x")
    with pytest.raises(DataError, match=r"tar -xf \S*/imagenet-a\.tar -C \S*/data$"):
        open_published(IMAGENET_A, dataset, data_dir)


def test_folders_of_v2_are_numbers_and_not_text(dataset: Dataset, data_dir: Path) -> None:
    for label in range(12):
        write_picture(data_dir / "imagenetv2-matched-frequency-format-val" / str(label) / "a.jpeg", seed=label)
    examples = open_published(TINY_V2, dataset, data_dir)
    assert [int(Path(path).parent.name) for path in examples.split.paths] == examples.split.labels_N.tolist()
    np.testing.assert_array_equal(examples.split.labels_N, np.arange(12))
    assert examples.classes is None


def test_a_number_beyond_the_classes_is_refused(dataset: Dataset, data_dir: Path) -> None:
    for label in range(1, 13):
        write_picture(data_dir / "imagenetv2-matched-frequency-format-val" / str(label) / "a.jpeg", seed=label)
    with pytest.raises(DataError, match=r"no position of a class of imagenet \(12\)"):
        open_published(TINY_V2, dataset, data_dir)


def test_all_logits_count_where_all_classes_are_there(dataset: Dataset, data_dir: Path) -> None:
    for wnid in WNIDS:
        write_picture(data_dir / "sketch" / wnid / "sketch_0.JPEG", seed=0)
    tiny = replace(IMAGENET_SKETCH, num_images=12, num_classes=12)
    assert open_published(tiny, dataset, data_dir).classes is None


def test_sets_of_some_classes_are_compared_with_the_same_classes() -> None:
    assert class_folders.imagenet_a("").nominal == "nominal/imagenet_a" == class_folders.nominal_imagenet_a("").nominal
    assert class_folders.imagenet_r("").nominal == "nominal/imagenet_r" == class_folders.nominal_imagenet_r("").nominal
    assert class_folders.imagenet_sketch("").nominal == "nominal"
    assert class_folders.imagenet_v2("top-images").nominal == "nominal"


def test_every_variant_of_v2_is_listed_and_another_is_refused() -> None:
    listed = class_folders.imagenet_v2.members  # type: ignore[attr-defined]
    assert set(listed) == {"matched-frequency", "threshold-0.7", "top-images"}
    with pytest.raises(UnknownNameError, match=r"did you mean threshold-0\.7"):
        class_folders.imagenet_v2("threshold0.7")


def test_a_set_is_listed_again_only_where_it_changed(
    imagenet_a: Path, dataset: Dataset, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    opened: list[str] = []
    real = os.scandir

    def counted(path):
        opened.append(str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", counted)
    open_published(TINY_A, dataset, data_dir)
    open_nominal_of(TINY_A, dataset, data_dir)
    assert sorted(opened).count(str(imagenet_a / WNIDS[3])) == 1
