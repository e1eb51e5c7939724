from __future__ import annotations

import io
import os
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raypruning.datasets.cifar import open_cifar10, open_cifar100
from raypruning.errors import DataError

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FILES = (*(f"data_batch_{n}" for n in range(1, 6)), "test_batch")


def batches() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    random = np.random.default_rng(0)
    return {name: (random.integers(0, 256, (10, 3072), dtype=np.uint8), np.arange(10)) for name in FILES}


def write_binary(folder: Path) -> None:
    folder.mkdir(parents=True)
    for name, (pixels, labels) in batches().items():
        records = np.concatenate([labels[:, None].astype(np.uint8), pixels], axis=1)
        (folder / f"{name}.bin").write_bytes(records.tobytes())


def write_pickles(folder: Path, *, keys_are_bytes: bool = False) -> None:
    folder.mkdir(parents=True)
    for name, (pixels, labels) in batches().items():
        record = {"data": pixels, "labels": labels.tolist(), "batch_label": "x", "filenames": ["a.png"] * 10}
        if keys_are_bytes:
            record = {key.encode(): value for key, value in record.items()}
        (folder / name).write_bytes(pickle.dumps(record, protocol=2))


def pictures() -> dict[str, bytes]:
    random = np.random.default_rng(0)
    contents = {}
    for split, count in (("train", 4), ("test", 2)):
        for class_name in CLASSES:
            for number in range(count):
                file = io.BytesIO()
                Image.fromarray(random.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(file, "PNG")
                contents[f"{split}/{class_name}/{number:04d}.png"] = file.getvalue()
    return contents


def write_archive(path: Path, contents: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


@pytest.mark.parametrize("subfolder", ["", "cifar10", "CIFAR10"])
def test_cifar10_binary_files_are_read_in_order(tmp_path: Path, subfolder: str) -> None:
    write_binary(tmp_path / subfolder / "cifar-10-batches-bin")
    dataset = open_cifar10("", data_dir=tmp_path, download=False)
    pixels, labels = batches()["test_batch"]
    np.testing.assert_array_equal(dataset.split("test").images_NCHW, pixels.reshape(-1, 3, 32, 32))
    np.testing.assert_array_equal(dataset.split("test").labels_N, labels)
    assert (len(dataset.split("train")), len(dataset.split("validation"))) == (45, 5)
    assert dataset.class_names == CLASSES


@pytest.mark.parametrize("keys_are_bytes", [False, True])
def test_cifar10_python_files_give_the_same_data_as_the_binary_ones(tmp_path: Path, keys_are_bytes: bool) -> None:
    write_binary(tmp_path / "a" / "cifar-10-batches-bin")
    write_pickles(tmp_path / "b" / "cifar-10-batches-py", keys_are_bytes=keys_are_bytes)
    binary = open_cifar10("", data_dir=tmp_path / "a", download=False)
    assert open_cifar10("", data_dir=tmp_path / "b", download=False).fingerprint == binary.fingerprint


class Hostile:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_cifar10_hostile_pickle_is_refused_before_it_runs(tmp_path: Path) -> None:
    write_pickles(tmp_path / "cifar-10-batches-py")
    record = pickle.dumps({"data": Hostile(tmp_path / "made"), "labels": [0]})
    (tmp_path / "cifar-10-batches-py" / "data_batch_2").write_bytes(record)
    with pytest.raises(DataError, match=r"asks for posix\.mkdir, .*refused"):
        open_cifar10("", data_dir=tmp_path, download=False)
    assert not (tmp_path / "made").exists()


def test_cifar10_truncated_pickle_is_named(tmp_path: Path) -> None:
    write_pickles(tmp_path / "cifar-10-batches-py")
    path = tmp_path / "cifar-10-batches-py" / "data_batch_3"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match="data_batch_3 is not a CIFAR batch, or cut off"):
        open_cifar10("", data_dir=tmp_path, download=False)


def test_cifar10_truncated_binary_file_is_named(tmp_path: Path) -> None:
    write_binary(tmp_path / "cifar-10-batches-bin")
    path = tmp_path / "cifar-10-batches-bin" / "data_batch_3.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"data_batch_3\.bin is cut off"):
        open_cifar10("", data_dir=tmp_path, download=False)


def test_cifar10_without_one_of_its_files_says_which(tmp_path: Path) -> None:
    write_binary(tmp_path / "cifar-10-batches-bin")
    (tmp_path / "cifar-10-batches-bin" / "data_batch_4.bin").unlink()
    with pytest.raises(DataError, match=r"lacks data_batch_4\.bin"):
        open_cifar10("", data_dir=tmp_path, download=False)


def test_cifar10_label_beyond_the_classes_is_refused(tmp_path: Path) -> None:
    write_binary(tmp_path / "cifar-10-batches-bin")
    (tmp_path / "cifar-10-batches-bin" / "test_batch.bin").write_bytes(bytes([10]) + bytes(3072))
    with pytest.raises(DataError, match=r"test_batch\.bin has label 10"):
        open_cifar10("", data_dir=tmp_path, download=False)


def test_cifar100_takes_the_fine_labels(tmp_path: Path) -> None:
    folder = tmp_path / "CIFAR100" / "cifar-100-binary"
    folder.mkdir(parents=True)
    for name in ("train.bin", "test.bin"):
        (folder / name).write_bytes(b"".join(bytes([3, fine]) + bytes(3072) for fine in (99, 0, 51)))
    dataset = open_cifar100("", data_dir=tmp_path, download=False)
    assert dataset.split("test").labels_N.tolist() == [99, 0, 51]
    assert list(dataset.class_names) == sorted(dataset.class_names)
    assert len(dataset.class_names) == 100


def test_cifar10_archive_gives_the_same_data_as_its_folders_and_unpacks_nothing(tmp_path: Path) -> None:
    contents = pictures()
    # Members in another order and below a folder, and members that are no pictures of ours.
    shuffled = {f"./top/{name}": contents[name] for name in reversed(contents)}
    shuffled |= {"../outside.png": b"x", "train/bird/._0000.png": b"x", "readme": b"x", "train/other/0.png": b"x"}
    write_archive(tmp_path / "archive" / "cifar10-images.tar.gz", shuffled)
    for name, content in contents.items():
        path = tmp_path / "folders" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    archive = open_cifar10("", data_dir=tmp_path / "archive", download=False)
    folders = open_cifar10("", data_dir=tmp_path / "folders", download=False)
    assert archive.fingerprint == folders.fingerprint
    assert np.bincount(archive.split("test").labels_N).tolist() == [2] * 10
    with Image.open(io.BytesIO(contents["test/bird/0001.png"])) as image:
        np.testing.assert_array_equal(archive.split("test").images_NCHW[5], np.asarray(image).transpose(2, 0, 1))
    assert [path.name for path in (tmp_path / "archive").iterdir()] == ["cifar10-images.tar.gz"]


def test_cifar10_truncated_archive_is_named(tmp_path: Path) -> None:
    path = tmp_path / "cifar10-images.tar.gz"
    write_archive(path, pictures())
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(DataError, match=r"cifar10-images\.tar\.gz is cut off or damaged"):
        open_cifar10("", data_dir=tmp_path, download=False)


@pytest.mark.parametrize(("replacement", "message"), [(b"no picture", "cannot be read"), (None, "9 of 10 classes")])
def test_cifar10_archive_with_bad_content_says_what(tmp_path: Path, replacement: bytes | None, message: str) -> None:
    contents = {name: content for name, content in pictures().items() if "train/cat" not in name}
    if replacement is not None:
        contents["train/cat/0000.png"] = replacement
    write_archive(tmp_path / "cifar10-images.tar.gz", contents)
    with pytest.raises(DataError, match=message):
        open_cifar10("", data_dir=tmp_path, download=False)


def test_cifar10_folders_of_other_classes_are_not_taken_for_it(
    tmp_path: Path, write_pictures: Callable[..., None]
) -> None:
    write_pictures(tmp_path, ["train/apple", "test/apple"], size=(32, 32))
    with pytest.raises(DataError, match="no images found"):
        open_cifar10("", data_dir=tmp_path, download=False)


def test_cifar10_folders_with_a_class_missing_say_which(tmp_path: Path, write_pictures: Callable[..., None]) -> None:
    write_pictures(tmp_path, [f"{split}/{name}" for split in ("train", "test") for name in CLASSES[1:]], size=(32, 32))
    with pytest.raises(DataError, match="missing airplane"):
        open_cifar10("", data_dir=tmp_path, download=False)


def test_cifar10_pictures_of_another_size_are_refused(tmp_path: Path, write_pictures: Callable[..., None]) -> None:
    write_pictures(tmp_path, [f"{split}/{name}" for split in ("train", "test") for name in CLASSES], size=(32, 31))
    with pytest.raises(DataError, match="is 32 x 31 px, expected 32 x 32"):
        open_cifar10("", data_dir=tmp_path, download=False)
