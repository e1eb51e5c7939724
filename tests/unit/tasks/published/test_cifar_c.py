from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from raypruning.datasets.base import Dataset, ImageArrays, derive
from raypruning.errors import DataError, SpecError, UnknownNameError
from raypruning.tasks.examples import Examples
from raypruning.tasks.published.cifar_c import cifar10_c, cifar100_c

MakeDataset = Callable[..., Dataset]


@pytest.fixture
def dataset(make_cifar: MakeDataset) -> Dataset:
    return make_cifar()


@pytest.fixture
def fog(data_dir: Path, dataset: Dataset) -> np.ndarray:
    """CIFAR-10-C with one corruption, labels as bytes as in the published file. The images, (5, N, H, W, C)."""
    labels_N = dataset.split("test").labels_N
    images = np.random.default_rng(1).integers(0, 256, (5, len(labels_N), 32, 32, 3), dtype=np.uint8)
    (data_dir / "CIFAR-10-C").mkdir()
    np.save(data_dir / "CIFAR-10-C" / "fog.npy", images.reshape(-1, 32, 32, 3))
    np.save(data_dir / "CIFAR-10-C" / "labels.npy", np.tile(labels_N, 5).astype(np.uint8))
    return images


def open_fog(severity: int, dataset: Dataset, data_dir: Path | None) -> Examples:
    opener = cifar10_c(f"fog/{severity}").examples
    assert opener is not None
    return opener(dataset, data_dir)


@pytest.mark.parametrize("severity", [1, 3, 5])
def test_a_severity_is_its_fifth_of_the_rows(fog: np.ndarray, dataset: Dataset, data_dir: Path, severity: int) -> None:
    split = open_fog(severity, dataset, data_dir).split
    assert isinstance(split, ImageArrays)
    np.testing.assert_array_equal(split.images_NCHW, fog[severity - 1].transpose(0, 3, 1, 2))


def test_labels_are_those_of_the_test_set_as_int64(fog: np.ndarray, dataset: Dataset, data_dir: Path) -> None:
    labels_N = open_fog(2, dataset, data_dir).split.labels_N
    assert labels_N.dtype == np.int64
    np.testing.assert_array_equal(labels_N, dataset.split("test").labels_N)


def test_each_image_is_paired_with_its_own(fog: np.ndarray, dataset: Dataset, data_dir: Path) -> None:
    np.testing.assert_array_equal(open_fog(2, dataset, data_dir).positions_N, np.arange(30))


def test_the_whole_file_is_not_read_into_memory(fog: np.ndarray, dataset: Dataset, data_dir: Path) -> None:
    array = open_fog(2, dataset, data_dir).split.images_NCHW
    while array.base is not None and not isinstance(array, np.memmap):
        array = array.base
    assert isinstance(array, np.memmap)


def test_a_part_of_the_test_set_gets_the_same_images(fog: np.ndarray, dataset: Dataset, data_dir: Path) -> None:
    part = derive(dataset, test_images=12)
    place_of = {image.tobytes(): place for place, image in enumerate(dataset.split("test").images_NCHW)}
    kept = [place_of[image.tobytes()] for image in part.split("test").images_NCHW]
    examples = open_fog(4, part, data_dir)
    np.testing.assert_array_equal(examples.split.images_NCHW, fog[3, kept].transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(examples.split.labels_N, part.split("test").labels_N)
    np.testing.assert_array_equal(examples.positions_N, np.arange(12))


def test_a_part_of_a_part_gets_the_same_images(fog: np.ndarray, dataset: Dataset, data_dir: Path) -> None:
    once = derive(dataset, test_images=6)
    twice = derive(derive(dataset, test_images=12), test_images=6)
    np.testing.assert_array_equal(
        open_fog(1, once, data_dir).split.images_NCHW, open_fog(1, twice, data_dir).split.images_NCHW
    )


def test_another_size_is_made_as_the_datasets_own_images_are(fog: np.ndarray, dataset: Dataset, data_dir: Path) -> None:
    split = open_fog(1, derive(dataset, image_size=36), data_dir).split
    np.testing.assert_array_equal(split.images_NCHW[:, :, 2:34, 2:34], fog[0].transpose(0, 3, 1, 2))
    assert split.images_NCHW.shape == (30, 3, 36, 36)


def test_fingerprints_differ_by_severity_part_and_content(fog: np.ndarray, dataset: Dataset, data_dir: Path) -> None:
    first = {open_fog(severity, dataset, data_dir).fingerprint for severity in range(1, 6)}
    part = open_fog(1, derive(dataset, test_images=12), data_dir).fingerprint
    changed = fog.copy()
    changed[0, 0, 0, 0, 0] ^= 1
    np.save(data_dir / "CIFAR-10-C" / "fog.npy", changed.reshape(-1, 32, 32, 3))
    assert len({*first, part, open_fog(1, dataset, data_dir).fingerprint}) == 7


def test_fingerprint_does_not_depend_on_the_place(fog: np.ndarray, dataset: Dataset, data_dir: Path) -> None:
    before = open_fog(1, dataset, data_dir).fingerprint
    moved = data_dir.rename(data_dir.with_name("elsewhere"))
    assert open_fog(1, dataset, moved).fingerprint == before


def test_record_names_kind_severity_and_set() -> None:
    assert dict(cifar10_c("fog/3").corruption) == {"kind": "fog", "severity": 3, "set": "cifar10-c"}
    assert dict(cifar100_c("snow/1").corruption) == {"kind": "snow", "severity": 1, "set": "cifar100-c"}


def test_each_set_is_for_its_dataset() -> None:
    assert cifar10_c("fog/3").fits("cifar10") and not cifar10_c("fog/3").fits("cifar100")
    assert cifar100_c("fog/3").fits("cifar100") and not cifar100_c("fog/3").fits("cifar10")


def test_every_corruption_has_five_severities_in_the_list() -> None:
    assert len(cifar10_c.members) == 95  # type: ignore[attr-defined]
    assert all(cifar10_c(argument).examples for argument in cifar10_c.members)  # type: ignore[attr-defined]


@pytest.mark.parametrize("argument", ["fog", "fog/0", "fog/6", "fog/three", "fog/3/3", "fog/03"])
def test_a_severity_that_there_is_not_is_refused(argument: str) -> None:
    with pytest.raises(SpecError, match=r"severity from 1 to 5, such as shift/cifar10_c/fog/3"):
        cifar10_c(argument)


def test_a_corruption_that_there_is_not_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="did you mean fog"):
        cifar10_c("fogg/3")


def test_the_training_images_are_noticed_by_their_labels(fog: np.ndarray, dataset: Dataset, data_dir: Path) -> None:
    labels = np.tile(dataset.split("test").labels_N, 5)
    labels[[31, 32]] = (labels[31] + 1) % 10, (labels[32] + 1) % 10
    np.save(data_dir / "CIFAR-10-C" / "labels.npy", labels)
    with pytest.raises(DataError, match="first differs at test image 1, severity 2"):
        open_fog(1, dataset, data_dir)


@pytest.mark.parametrize(("count", "says"), [(149, "has 149 labels"), (300, "has 300 labels, expected 5 x 30")])
def test_labels_of_another_number_are_refused(
    fog: np.ndarray, dataset: Dataset, data_dir: Path, count: int, says: str
) -> None:
    np.save(data_dir / "CIFAR-10-C" / "labels.npy", np.resize(np.tile(dataset.split("test").labels_N, 5), count))
    with pytest.raises(DataError, match=says):
        open_fog(1, dataset, data_dir)


def test_labels_of_a_smaller_test_set_do_not_serve_a_part_of_a_larger(
    fog: np.ndarray, dataset: Dataset, data_dir: Path, make_cifar: MakeDataset
) -> None:
    with pytest.raises(DataError, match="expected 5 for each test image of cifar10"):
        open_fog(1, derive(make_cifar(num_test=60), test_images=50), data_dir)


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.zeros((149, 32, 32, 3), np.uint8), r"uint8 \(149, 32, 32, 3\), expected uint8 \(150, 32, 32, 3\)"),
        (np.zeros((150, 32, 32, 3), np.float32), r"float32 \(150, 32, 32, 3\), expected uint8"),
        (np.zeros((150, 3, 32, 32), np.uint8), r"uint8 \(150, 3, 32, 32\), expected uint8"),
        (np.array([{}]), "cut off or no array of numbers"),
    ],
)
def test_an_array_of_another_kind_is_refused(
    fog: np.ndarray, dataset: Dataset, data_dir: Path, array: np.ndarray, says: str
) -> None:
    np.save(data_dir / "CIFAR-10-C" / "fog.npy", array)
    with pytest.raises(DataError, match=says) as caught:
        open_fog(1, dataset, data_dir)
    assert "\n" not in str(caught.value)


class Planted:
    """Unpickling one writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


def test_nothing_in_a_file_is_run(fog: np.ndarray, dataset: Dataset, data_dir: Path) -> None:
    (data_dir / "CIFAR-10-C" / "fog.npy").write_bytes(pickle.dumps(Planted(data_dir / "planted")))
    with pytest.raises(DataError, match=r"fog\.npy is cut off or no array"):
        open_fog(1, dataset, data_dir)
    assert not (data_dir / "planted").exists()


@pytest.mark.parametrize("num_bytes", [0, 60, 5000])
def test_a_file_that_is_cut_off_is_named(fog: np.ndarray, dataset: Dataset, data_dir: Path, num_bytes: int) -> None:
    path = data_dir / "CIFAR-10-C" / "fog.npy"
    path.write_bytes(path.read_bytes()[:num_bytes])
    with pytest.raises(DataError, match=r"fog\.npy is cut off or no array"):
        open_fog(1, dataset, data_dir)


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        (np.zeros(150), "float64"),
        (np.zeros((150, 1), np.int64), "expected whole numbers"),
        (np.full(150, 10), "has label 10, expected 0 to 9"),
        (np.full(150, -1), "has label -1, expected 0 to 9"),
    ],
)
def test_labels_of_another_kind_are_refused(
    fog: np.ndarray, dataset: Dataset, data_dir: Path, labels: np.ndarray, says: str
) -> None:
    np.save(data_dir / "CIFAR-10-C" / "labels.npy", labels)
    with pytest.raises(DataError, match=says):
        open_fog(1, dataset, data_dir)


@pytest.mark.parametrize("name", ["fog.npy", "labels.npy"])
def test_a_missing_file_is_named(fog: np.ndarray, dataset: Dataset, data_dir: Path, name: str) -> None:
    (data_dir / "CIFAR-10-C" / name).unlink()
    with pytest.raises(DataError, match=rf"{name} is missing, beside 1 other .*md5 56bf5dcef84df0e2308c6dcbcbbd8499"):
        open_fog(1, dataset, data_dir)


def test_a_missing_set_says_where_it_was_looked_for_and_what_to_get(dataset: Dataset, data_dir: Path) -> None:
    with pytest.raises(DataError, match=r"looked for .*data/CIFAR-10-C: expected .*CIFAR-10-C\.tar, md5 56bf"):
        open_fog(1, dataset, data_dir)


def test_a_missing_data_folder_is_told_from_none(dataset: Dataset, data_dir: Path) -> None:
    with pytest.raises(DataError, match="nowhere does not exist"):
        open_fog(1, dataset, data_dir / "nowhere")
    with pytest.raises(DataError, match="pass --data-dir DIR"):
        open_fog(1, dataset, None)


def test_an_archive_that_is_not_unpacked_is_named_with_the_command(dataset: Dataset, data_dir: Path) -> None:
    (data_dir / "CIFAR-10-C.tar").write_bytes(b"x")
    with pytest.raises(DataError, match=r"type tar -xf \S*/CIFAR-10-C\.tar -C \S*/data$"):
        open_fog(1, dataset, data_dir)
