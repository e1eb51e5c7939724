from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from raypruning.datasets.cached_folder import find_or_write
from raypruning.errors import DataError


def write(folder: Path) -> None:
    (folder / "pictures").mkdir()
    for number in range(3):
        (folder / "pictures" / f"{number}.txt").write_text("x" * number)


def must_not_write(folder: Path) -> None:
    raise AssertionError("the folder was made again")


def contents(folder: Path) -> list[str]:
    return [(folder / "pictures" / f"{number}.txt").read_text() for number in range(3)]


def test_a_folder_asked_for_twice_is_written_once() -> None:
    folder = find_or_write("things", "k", write)
    assert contents(folder) == ["", "x", "xx"]
    assert find_or_write("things", "k", must_not_write) == folder


def test_another_key_is_another_folder() -> None:
    assert find_or_write("things", "a", write) != find_or_write("things", "b", write)


def test_a_folder_of_a_killed_process_is_invisible(own_cache: Path) -> None:
    program = """
import os
from raypruning.datasets.cached_folder import find_or_write
find_or_write("things", "k", lambda folder: ((folder / "half").write_text("x"), os._exit(9)))
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 9
    assert list(own_cache.rglob("half"))
    folder = find_or_write("things", "k", write)
    assert contents(folder) == ["", "x", "xx"]
    assert not (folder / "half").exists()


@pytest.mark.parametrize("file_name", ["pictures/2.txt", "sizes.json"])
@pytest.mark.parametrize("damage", ["cut off", "missing"])
def test_a_damaged_folder_is_written_again(own_cache: Path, file_name: str, damage: str) -> None:
    path = find_or_write("things", "k", write) / file_name
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1])
    assert contents(find_or_write("things", "k", write)) == ["", "x", "xx"]
    find_or_write("things", "k", must_not_write)
    assert [entry.name for entry in (own_cache / "datasets").iterdir()] == ["things-k"]


def test_a_folder_written_by_many_at_once_is_whole_and_leaves_nothing_behind(own_cache: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        folders = set(pool.map(lambda _: find_or_write("things", "k", write), range(8)))
    assert contents(folders.pop()) == ["", "x", "xx"]
    assert [entry.name for entry in (own_cache / "datasets").iterdir()] == ["things-k"]


def test_a_cache_that_cannot_be_written_is_named(own_cache: Path) -> None:
    own_cache.mkdir()
    (own_cache / "datasets").write_text("a file where a folder should be")
    with pytest.raises(DataError, match=r"things cannot be written to .*datasets .*: set RAYPRUNING_CACHE_DIR"):
        find_or_write("things", "k", write)
