from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raypruning.datasets.base import Dataset, ImageArrays, ImageFiles, derive
from raypruning.datasets.masked_files import MaskedFiles
from raypruning.errors import DataError, SpecError
from raypruning.tasks.examples import Examples
from raypruning.tasks.published.own_folder import nominal_own_folder, own_folder
from tests.unit.tasks.published.tiny_sets import WNIDS, centre, whole, write_picture

MakeDataset = Callable[..., Dataset]


def open_shift(path: str, dataset: Dataset, data_dir: Path | None) -> Examples:
    opener = own_folder(path).examples
    assert opener is not None
    return opener(dataset, data_dir)


def open_nominal(path: str, dataset: Dataset, data_dir: Path | None) -> Examples:
    opener = nominal_own_folder(path).examples
    assert opener is not None
    return opener(dataset, data_dir)


def load(examples: Examples) -> np.ndarray:
    assert isinstance(examples.split, ImageFiles)
    return examples.split.load(range(len(examples)), train=False, seed=0, num_threads=1)


@pytest.fixture
def in_memory(make_cifar: MakeDataset) -> Dataset:
    """Ten classes c0 to c9 of 32 px."""
    return make_cifar()


@pytest.fixture
def rainy(data_dir: Path) -> Path:
    """Two pictures of 32 px of each of three classes of that dataset."""
    for number, name in enumerate(("c1", "c4", "c8")):
        for picture in range(2):
            write_picture(data_dir / "rainy" / name / f"{picture}.png", seed=2 * number + picture, size=(32, 32))
    return data_dir / "rainy"


def test_labels_are_the_datasets_and_logits_of_its_classes_alone_count(
    rainy: Path, in_memory: Dataset, data_dir: Path
) -> None:
    examples = open_shift("rainy", in_memory, data_dir)
    np.testing.assert_array_equal(examples.split.labels_N, [1, 1, 4, 4, 8, 8])
    assert (examples.classes, examples.positions_N) == ((1, 4, 8), None)


def test_the_path_may_be_absolute(rainy: Path, in_memory: Dataset, data_dir: Path) -> None:
    found = open_shift(str(rainy), in_memory, None)
    assert found.fingerprint == open_shift("rainy", in_memory, data_dir).fingerprint


def test_pictures_of_the_datasets_size_keep_their_pixels(rainy: Path, in_memory: Dataset, data_dir: Path) -> None:
    examples = open_shift("rainy", in_memory, data_dir)
    np.testing.assert_array_equal(load(examples), [whole(path) for path in examples.split.paths])


@pytest.mark.parametrize("size", [34, 35, 36, 48, 16])
def test_pictures_become_another_size_as_images_in_memory_do(
    rainy: Path, in_memory: Dataset, data_dir: Path, make_dataset: MakeDataset, size: int
) -> None:
    examples = open_shift("rainy", derive(in_memory, image_size=size), data_dir)
    same = np.stack([whole(path) for path in examples.split.paths])
    arrays = ImageArrays(images_NCHW=same, labels_N=np.zeros(len(same), np.int64))
    expected = derive(make_dataset(arrays, class_names=["a"]), image_size=size).split("test").images_NCHW
    np.testing.assert_array_equal(load(examples), expected)


def test_pictures_of_another_shape_are_shown_from_edge_to_edge(in_memory: Dataset, data_dir: Path) -> None:
    for name in ("c1", "c2"):
        write_picture(data_dir / "wide" / name / "0.png", seed=0, size=(96, 64))
    with Image.open(data_dir / "wide" / "c1" / "0.png") as image:
        small = np.asarray(image.resize((48, 32), Image.Resampling.BILINEAR))[:, 8:40].transpose(2, 0, 1)
    np.testing.assert_array_equal(load(open_shift("wide", in_memory, data_dir))[0], small)


def test_pictures_become_grey_where_the_dataset_is(data_dir: Path, make_dataset: MakeDataset) -> None:
    split = ImageArrays(images_NCHW=np.zeros((4, 1, 8, 8), np.uint8), labels_N=np.arange(4) % 2)
    grey = make_dataset(split, name="digits", class_names=["0", "1"], channels=1)
    for name in ("0", "1"):
        write_picture(data_dir / "own" / name / "a.png", seed=int(name), size=(8, 8))
    with Image.open(data_dir / "own" / "0" / "a.png") as image:
        expected = np.asarray(image.convert("L"))[None]
    np.testing.assert_array_equal(load(open_shift("own", grey, data_dir))[0], expected)


def test_pictures_for_a_dataset_on_disk_are_prepared_as_its_own(data_dir: Path, make_imagenet: MakeDataset) -> None:
    for number, wnid in enumerate(WNIDS[:2]):
        write_picture(data_dir / "own" / wnid / "a.png", seed=number, size=(16, 16))
    write_picture(data_dir / "own" / WNIDS[1] / "b.png", seed=9, size=(20, 30))
    examples = open_shift("own", make_imagenet(image_size=16), data_dir)
    np.testing.assert_array_equal(load(examples), [centre(path, 16) for path in examples.split.paths])


def test_pictures_that_all_have_the_size_of_the_input_are_taken_for_prepared(
    data_dir: Path, make_imagenet: MakeDataset
) -> None:
    for number, wnid in enumerate(WNIDS[:2]):
        write_picture(data_dir / "own" / wnid / "a.png", seed=number, size=(16, 16))
    examples = open_shift("own", make_imagenet(image_size=16), data_dir)
    np.testing.assert_array_equal(load(examples), [whole(path) for path in examples.split.paths])


def test_all_logits_count_where_all_classes_are_there(in_memory: Dataset, data_dir: Path) -> None:
    for name in in_memory.class_names:
        write_picture(data_dir / "all" / name / "0.png", seed=0, size=(32, 32))
    assert open_shift("all", in_memory, data_dir).classes is None
    np.testing.assert_array_equal(open_nominal("all", in_memory, data_dir).positions_N, np.arange(30))


def test_nominal_is_the_datasets_own_images_of_the_same_classes(
    rainy: Path, in_memory: Dataset, data_dir: Path
) -> None:
    examples = open_nominal("rainy", in_memory, data_dir)
    own = in_memory.split("test")
    positions = [position for position, label in enumerate(own.labels_N) if label in (1, 4, 8)]
    np.testing.assert_array_equal(examples.positions_N, positions)
    np.testing.assert_array_equal(examples.split.images_NCHW, own.images_NCHW[positions])
    assert examples.classes == (1, 4, 8)


def test_each_folder_has_a_nominal_of_its_own() -> None:
    assert own_folder("a/b").nominal == nominal_own_folder("a/b").nominal == "nominal/folder/a/b"
    assert own_folder("a").fits("anything")


def test_fingerprint_changes_with_a_picture_a_name_and_the_size(
    rainy: Path, in_memory: Dataset, data_dir: Path
) -> None:
    found = [open_shift("rainy", in_memory, data_dir).fingerprint]
    found.append(open_shift("rainy", derive(in_memory, image_size=16), data_dir).fingerprint)
    (rainy / "c1" / "0.png").rename(rainy / "c1" / "5.png")
    found.append(open_shift("rainy", in_memory, data_dir).fingerprint)
    write_picture(rainy / "c4" / "7.png", seed=3)
    found.append(open_shift("rainy", in_memory, data_dir).fingerprint)
    assert len(set(found)) == 4


def test_fingerprint_tells_whether_other_logits_count(
    in_memory: Dataset, data_dir: Path, make_dataset: MakeDataset
) -> None:
    for name in in_memory.class_names:
        write_picture(data_dir / "all" / name / "0.png", seed=0, size=(32, 32))
    larger = make_dataset(in_memory.split("test"), name="cifar10", class_names=[*in_memory.class_names, "more"])
    assert open_shift("all", in_memory, data_dir).fingerprint != open_shift("all", larger, data_dir).fingerprint


def test_a_folder_that_is_no_class_is_named_with_classes_that_are(
    rainy: Path, in_memory: Dataset, data_dir: Path
) -> None:
    write_picture(rainy / "C1" / "0.png", seed=0)
    with pytest.raises(
        DataError, match=r"no class of cifar10 \(C1\): name them as its classes are \(c0, c1, c2, \.\.\."
    ):
        open_shift("rainy", in_memory, data_dir)
    with pytest.raises(DataError, match="no class of cifar10"):
        open_nominal("rainy", in_memory, data_dir)


def test_an_empty_folder_is_named(rainy: Path, in_memory: Dataset, data_dir: Path) -> None:
    (rainy / "c2").mkdir()
    with pytest.raises(DataError, match="rainy/c2 has no pictures"):
        open_shift("rainy", in_memory, data_dir)


def test_pictures_of_one_class_are_refused_since_every_answer_would_be_right(
    in_memory: Dataset, data_dir: Path
) -> None:
    write_picture(data_dir / "one" / "c2" / "0.png", seed=0)
    with pytest.raises(DataError, match="pictures of 1 classes, expected two or more"):
        open_shift("one", in_memory, data_dir)


def test_a_missing_folder_is_named(in_memory: Dataset, data_dir: Path) -> None:
    with pytest.raises(DataError, match=r"shift/folder/snowy: .*data/snowy does not exist: give a folder"):
        open_shift("snowy", in_memory, data_dir)
    with pytest.raises(DataError, match=r"snowy does not exist \(no --data-dir was given\)"):
        open_shift("snowy", in_memory, None)


@pytest.mark.parametrize(
    ("task", "says"), [(own_folder, "shift/folder/PATH"), (nominal_own_folder, "nominal/folder/PATH")]
)
def test_a_name_without_a_path_is_refused(task: Callable[[str], object], says: str) -> None:
    with pytest.raises(SpecError, match=says):
        task("")


def test_a_picture_that_is_cut_off_is_named_when_it_is_read(rainy: Path, in_memory: Dataset, data_dir: Path) -> None:
    examples = open_shift("rainy", in_memory, data_dir)
    path = rainy / "c4" / "1.png"
    path.write_bytes(path.read_bytes()[:90])
    with pytest.raises(DataError, match=r"c4/1\.png cannot be read"):
        load(examples)


def test_a_dataset_whose_pixels_have_classes_is_refused(rainy: Path, data_dir: Path, make_dataset: MakeDataset) -> None:
    split = MaskedFiles(paths=(), mask_paths=(), image_size=32, num_classes=10)
    dataset = make_dataset(split, name="voc", class_names=[f"c{label}" for label in range(10)])
    for opener in (open_shift, open_nominal):
        with pytest.raises(SpecError, match="needs one label an image, and voc has one a pixel"):
            opener("rainy", dataset, data_dir)
