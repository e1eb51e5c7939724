from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from raypruning.datasets.idx import open_fashion_mnist, open_mnist, parse_idx
from raypruning.errors import DataError

SHARED_DATA = Path(__file__).parents[3].parent / "shared" / "data"
NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def idx_bytes(array: np.ndarray) -> bytes:
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes()


@pytest.fixture
def write_idx() -> Callable[..., dict[str, np.ndarray]]:
    def write(folder: Path, *, suffix: str = "", num_train: int = 40, num_test: int = 10) -> dict[str, np.ndarray]:
        folder.mkdir(parents=True, exist_ok=True)
        random = np.random.default_rng(0)
        arrays = {
            "train-images-idx3-ubyte": random.integers(0, 256, (num_train, 28, 28), dtype=np.uint8),
            "train-labels-idx1-ubyte": np.arange(num_train) % 10,
            "t10k-images-idx3-ubyte": random.integers(0, 256, (num_test, 28, 28), dtype=np.uint8),
            "t10k-labels-idx1-ubyte": np.arange(num_test) % 10,
        }
        for name, array in arrays.items():
            content = idx_bytes(array)
            (folder / f"{name}{suffix}").write_bytes(gzip.compress(content) if suffix else content)
        return arrays

    return write


def test_parse_idx_reads_bytes_made_by_hand() -> None:
    content = bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 3, 1, 2, 3, 4, 5, 255])
    assert parse_idx(content, Path("x"), 3).tolist() == [[[1, 2, 3]], [[4, 5, 255]]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not an idx file"),
        (bytes([0, 0, 9, 1, 0, 0, 0, 1, 7]), "not an idx file"),
        (bytes([0, 0, 8, 3, 0, 0, 0, 1, 7]), "not an idx file"),
        (bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 7]), "10 bytes where its header promises 11"),
        (bytes([0, 0, 8, 1, 0, 0, 0, 1, 7, 7]), "10 bytes where its header promises 9"),
    ],
)
def test_parse_idx_of_damaged_bytes_names_the_file(content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=f"labels.*{message}"):
        parse_idx(content, Path("labels"), 1)


@pytest.mark.parametrize("folder", ["MNIST/raw", "MNIST", "raw", "."])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_mnist_is_found_in_each_place_plain_or_compressed(
    tmp_path: Path, write_idx: Callable[..., dict[str, np.ndarray]], folder: str, suffix: str
) -> None:
    arrays = write_idx(tmp_path / "data" / folder, suffix=suffix)
    dataset = open_mnist("", data_dir=tmp_path / "data", download=False)
    np.testing.assert_array_equal(dataset.split("test").images_NCHW[:, 0], arrays["t10k-images-idx3-ubyte"])
    np.testing.assert_array_equal(dataset.split("test").labels_N, arrays["t10k-labels-idx1-ubyte"])


def test_mnist_validation_is_a_tenth_of_the_training_images(
    tmp_path: Path, write_idx: Callable[..., dict[str, np.ndarray]]
) -> None:
    arrays = write_idx(tmp_path / "data", num_train=40)
    dataset = open_mnist("", data_dir=tmp_path / "data", download=False)
    train, validation = dataset.split("train"), dataset.split("validation")
    assert (len(train), len(validation)) == (36, 4)
    label_of = dict(
        zip((i.tobytes() for i in arrays["train-images-idx3-ubyte"]), arrays["train-labels-idx1-ubyte"], strict=True)
    )
    for split in (train, validation):
        for image, label in zip(split.images_NCHW, split.labels_N, strict=True):
            assert label_of.pop(image.tobytes()) == label
    assert not label_of


def test_mnist_whose_files_changed_is_read_again(
    tmp_path: Path, write_idx: Callable[..., dict[str, np.ndarray]]
) -> None:
    write_idx(tmp_path / "data", num_test=10)
    first = open_mnist("", data_dir=tmp_path / "data", download=False)
    write_idx(tmp_path / "data", num_test=20)
    second = open_mnist("", data_dir=tmp_path / "data", download=False)
    assert len(second.split("test")) == 20
    assert first.fingerprint != second.fingerprint


@pytest.mark.parametrize("lacking", NAMES)
def test_mnist_with_a_file_missing_says_which(
    tmp_path: Path, write_idx: Callable[..., dict[str, np.ndarray]], lacking: str
) -> None:
    write_idx(tmp_path / "MNIST" / "raw")
    (tmp_path / "MNIST" / "raw" / lacking).unlink()
    with pytest.raises(DataError, match=f"lacks {lacking}.*--download"):
        open_mnist("", data_dir=tmp_path, download=False)


def test_mnist_with_a_truncated_file_says_which(
    tmp_path: Path, write_idx: Callable[..., dict[str, np.ndarray]]
) -> None:
    write_idx(tmp_path, suffix=".gz")
    path = tmp_path / "train-labels-idx1-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte\.gz cannot be read"):
        open_mnist("", data_dir=tmp_path, download=False)


def test_mnist_with_fewer_labels_than_images_is_refused(
    tmp_path: Path, write_idx: Callable[..., dict[str, np.ndarray]]
) -> None:
    write_idx(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx_bytes(np.zeros(9)))
    with pytest.raises(DataError, match="9 labels for 10 images"):
        open_mnist("", data_dir=tmp_path, download=False)


def shared(folder: str) -> Path:
    if not (SHARED_DATA / folder / "raw").is_dir():
        pytest.skip(f"the real files are not at {SHARED_DATA / folder}")
    return SHARED_DATA


def test_real_mnist_opens_with_its_published_statistics() -> None:
    data_dir = shared("MNIST")
    content = (data_dir / "MNIST" / "raw" / NAMES[0]).read_bytes()
    assert hashlib.md5(content, usedforsecurity=False).hexdigest() == "6bbc9ace898e44ae57da46a324031adb"
    dataset = open_mnist("", data_dir=data_dir, download=False)
    sizes = [len(dataset.split(split)) for split in ("train", "validation", "test")]
    assert sizes == [54_000, 6_000, 10_000]
    pixels = dataset.split("train").images_NCHW
    # The published mean is of all 60 000; leaving out a tenth moves it by .3081 / sqrt(28 * 28 * 6000), about .0001.
    assert abs(pixels.mean() / 255 - dataset.mean[0]) < 0.001


def test_real_mnist_given_as_fashion_mnist_is_recognised() -> None:
    data_dir = shared("MNIST")
    with pytest.raises(DataError, match="holds the labels of mnist: use --dataset mnist"):
        open_fashion_mnist("", data_dir=data_dir / "MNIST", download=False)


def test_real_fashion_mnist_opens() -> None:
    dataset = open_fashion_mnist("", data_dir=shared("FashionMNIST"), download=False)
    assert dataset.class_names[dataset.split("test").labels_N[0]] == "Ankle boot"
