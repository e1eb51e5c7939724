"""Folders of files in the cache, for data that is read from files and not from arrays.

A folder is made under another name, the list of the sizes of its files last, and then renamed, so that a killed process
leaves nothing that looks finished, and two processes that make the same folder at once do each other no harm.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from raypruning.datasets.cache import folder_of, put_in_place
from raypruning.errors import DataError

_SIZES = "sizes.json"


def find_or_write(name: str, key: str, write: Callable[[Path], None]) -> Path:
    """The folder `<name>-<key>` of the cache: as it is where it is whole, else with what `write` puts into it.

    Args:
        name: what the folder holds.
        key: changes whenever `write` would write something else.
        write: puts files into the empty folder that it is given.

    Raises:
        DataError: the cache cannot be written.
    """
    folder = folder_of(name, key)
    if _is_whole(folder):
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=f".unfinished-{folder.name}-", dir=folder.parent))
        try:
            write(unfinished)
            files = [path for path in unfinished.rglob("*") if path.is_file()]
            sizes = {path.relative_to(unfinished).as_posix(): path.stat().st_size for path in files}
            (unfinished / _SIZES).write_text(json.dumps(sizes))
            put_in_place(unfinished, folder, is_whole=_is_whole)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    except OSError as error:
        raise DataError(
            f"{name} cannot be written to {folder.parent} ({error}): set RAYPRUNING_CACHE_DIR to a folder with space"
        ) from error
    return folder


def _is_whole(folder: Path) -> bool:
    try:
        sizes = json.loads((folder / _SIZES).read_text())
        return all(os.stat(f"{folder}/{path}").st_size == num_bytes for path, num_bytes in sizes.items())
    except (OSError, ValueError, AttributeError):
        return False
