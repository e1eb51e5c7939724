from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from raypruning.datasets.cache import Built, cache_dir, content_hash, find, load_or_build

ARRAYS = {"images": np.arange(1000, dtype=np.uint8).reshape(10, 100), "labels": np.arange(10)}


def build() -> Built:
    return Built(ARRAYS, {"mean": [0.5]})


def must_not_build() -> Built:
    raise AssertionError("the entry was made again")


def test_entry_asked_for_twice_is_built_once_and_mapped() -> None:
    first = load_or_build("numbers", "k", build)
    again = load_or_build("numbers", "k", must_not_build)
    assert isinstance(again.arrays["images"], np.memmap)
    np.testing.assert_array_equal(again.arrays["images"], ARRAYS["images"])
    assert again.facts == {"mean": [0.5]}
    assert first.fingerprint == again.fingerprint == content_hash(ARRAYS)


def test_entry_of_a_killed_process_is_invisible(own_cache: Path) -> None:
    # The process dies after the first of two arrays, as it would when killed.
    program = """
import os
import numpy as np
from raypruning.datasets.cache import Built, load_or_build
save = np.save
np.save = lambda path, array, **options: (save(path, array, **options), os._exit(9))
load_or_build("numbers", "k", lambda: Built({"images": np.zeros(9), "labels": np.zeros(9)}, {}))
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 9
    assert list(own_cache.rglob("*.npy"))
    assert find("numbers", "k") is None
    np.testing.assert_array_equal(load_or_build("numbers", "k", build).arrays["labels"], ARRAYS["labels"])


@pytest.mark.parametrize("file_name", ["images.npy", "labels.npy", "entry.json"])
def test_entry_with_a_truncated_file_is_rebuilt(own_cache: Path, file_name: str) -> None:
    load_or_build("numbers", "k", build)
    path = own_cache / "datasets" / "numbers-k" / file_name
    path.write_bytes(path.read_bytes()[:-7])
    assert find("numbers", "k") is None
    np.testing.assert_array_equal(load_or_build("numbers", "k", build).arrays["images"], ARRAYS["images"])
    assert load_or_build("numbers", "k", must_not_build).fingerprint == content_hash(ARRAYS)


def test_entry_with_a_missing_file_is_rebuilt(own_cache: Path) -> None:
    load_or_build("numbers", "k", build)
    (own_cache / "datasets" / "numbers-k" / "labels.npy").unlink()
    np.testing.assert_array_equal(load_or_build("numbers", "k", build).arrays["labels"], ARRAYS["labels"])


def test_entry_built_by_many_at_once_is_whole_and_leaves_nothing_behind(own_cache: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        entries = list(pool.map(lambda _: load_or_build("numbers", "k", build), range(8)))
    assert {entry.fingerprint for entry in entries} == {content_hash(ARRAYS)}
    assert [path.name for path in (own_cache / "datasets").iterdir()] == ["numbers-k"]


def test_entry_on_a_disk_that_cannot_be_written_stays_in_memory(own_cache: Path) -> None:
    own_cache.mkdir()
    (own_cache / "datasets").write_text("a file where a folder should be")
    np.testing.assert_array_equal(load_or_build("numbers", "k", build).arrays["images"], ARRAYS["images"])


def test_entry_with_an_empty_array_is_read_back() -> None:
    empty = {"images": np.zeros((0, 1, 8, 8), np.uint8)}
    load_or_build("numbers", "k", lambda: Built(empty, {}))
    assert load_or_build("numbers", "k", must_not_build).arrays["images"].shape == (0, 1, 8, 8)


def test_content_hash_differs_when_a_pixel_a_shape_or_a_name_does() -> None:
    images = np.zeros((2, 3), np.uint8)
    other = images.copy()
    other[1, 2] = 1
    variants = [{"a": images}, {"a": other}, {"a": images.reshape(3, 2)}, {"b": images}, {"a": images.astype(np.int64)}]
    assert len({content_hash(arrays) for arrays in variants}) == len(variants)


def test_content_hash_ignores_order_of_names_and_byte_order() -> None:
    a, b = np.arange(3), np.arange(4)
    assert content_hash({"a": a, "b": b}) == content_hash({"b": b, "a": a.astype(">i8")})


def test_cache_dir_without_a_home_that_can_be_written_is_a_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.delenv("RAYPRUNING_CACHE_DIR")
    # Below a file nothing can be made, whoever runs this; a read-only folder would not stop root.
    for variable in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / "file" / "home"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert cache_dir().parent == tmp_path
