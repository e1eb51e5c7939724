from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from raypruning.datasets.base import Dataset
from raypruning.datasets.cifar import open_cifar10, open_cifar100
from raypruning.datasets.idx import open_fashion_mnist, open_mnist
from raypruning.datasets.image_folder import open_folder, open_imagenet
from raypruning.errors import DataError

OPENERS = [open_mnist, open_fashion_mnist, open_cifar10, open_cifar100, open_imagenet]
Opener = Callable[..., Dataset]


def message_of(opener: Opener, data_dir: Path | None, argument: str = "") -> str:
    with pytest.raises(DataError) as caught:
        opener(argument, data_dir=data_dir, download=False)
    message = str(caught.value)
    assert "\n" not in message
    assert "--dataset strokes" in message
    return message


@pytest.mark.parametrize("opener", OPENERS)
def test_data_without_a_data_folder_asks_for_one(opener: Opener) -> None:
    assert "no data folder was given: pass --data-dir" in message_of(opener, None)


@pytest.mark.parametrize("opener", OPENERS)
def test_data_in_a_folder_that_does_not_exist_says_so(tmp_path: Path, opener: Opener) -> None:
    assert f"{tmp_path / 'none'} does not exist" in message_of(opener, tmp_path / "none")


@pytest.mark.parametrize("opener", OPENERS)
def test_data_in_a_folder_that_is_a_file_says_so(tmp_path: Path, opener: Opener) -> None:
    (tmp_path / "file").write_text("")
    assert "is a file" in message_of(opener, tmp_path / "file")


@pytest.mark.parametrize("opener", OPENERS)
def test_data_in_a_folder_without_it_says_where_it_looked(tmp_path: Path, opener: Opener) -> None:
    message = message_of(opener, tmp_path)
    assert f"looked in {tmp_path}" in message
    assert "expected " in message


@pytest.mark.parametrize("opener", OPENERS[:4])
def test_data_that_can_be_downloaded_offers_it(tmp_path: Path, opener: Opener) -> None:
    assert "--download" in message_of(opener, tmp_path)


def test_imagenet_offers_no_download(tmp_path: Path) -> None:
    assert "--download" not in message_of(open_imagenet, tmp_path)


def test_data_downloaded_before_is_found_without_a_data_folder(own_cache: Path) -> None:
    folder = own_cache / "downloads" / "cifar-100-binary"
    folder.mkdir(parents=True)
    for name in ("train.bin", "test.bin"):
        (folder / name).write_bytes(bytes(2 + 3072))
    assert len(open_cifar100("", data_dir=None, download=False).split("test")) == 1


def test_folder_that_does_not_exist_says_so(tmp_path: Path) -> None:
    assert f"{tmp_path / 'none'} does not exist" in message_of(open_folder, tmp_path, "none")
    assert "no --data-dir was given" in message_of(open_folder, None, "none/such")


def test_folder_without_a_path_asks_for_one() -> None:
    with pytest.raises(DataError, match="folder/PATH"):
        open_folder("", data_dir=None, download=False)


@pytest.mark.parametrize("opener", OPENERS[:4])
def test_download_to_a_folder_that_cannot_be_made_says_so(tmp_path: Path, opener: Opener) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"could not be downloaded to .*file/none.*--dataset strokes"):
        opener("", data_dir=tmp_path / "file" / "none", download=True)
