"""Where a shifted test set is looked for, and what is said when it is not there."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from raypruning.datasets.locations import search_root
from raypruning.errors import DataError
from raypruning.tasks.published.facts import Archive


def find_set(
    task: str, data_dir: Path | None, places: Sequence[str], *, expected: str, archive: Archive | None = None
) -> Path:
    """The first of the places that exists.

    Args:
        task: what the user typed.
        places: files or folders below the data folder.
        expected: what should be there, such as "imagenet-a/ with 7500 pictures".
        archive: what it is published in; looked for where nothing else is.

    Raises: DataError: none exists. The message says what to get, or to unpack.
    """
    root = search_root(data_dir)
    for place in places:
        if root is not None and (root / place).exists():
            return root / place
    wanted = f"{expected} ({archive})" if archive else expected
    if root is None:
        raise DataError(f"{task}: no data folder was given: pass --data-dir DIR, where DIR holds {wanted}")
    if not root.is_dir():
        what = "is not a folder" if root.exists() else "does not exist"
        raise DataError(f"{task}: the data folder {root} {what}: give --data-dir a folder with {wanted}")
    if archive is not None:
        packed = _packed(root, archive)
        if packed is not None:
            raise DataError(f"{task}: {packed} is not unpacked yet: type {_unpack_command(root, packed, archive)}")
    looked = ", ".join(str(root / place) for place in places)
    raise DataError(f"{task}: nothing found, looked for {looked}: expected {wanted}")


def _packed(root: Path, archive: Archive) -> Path | None:
    for path in (root / archive.name, root / archive.into / archive.name):
        if path.is_file():
            return path
    return None


def _unpack_command(root: Path, packed: Path, archive: Archive) -> str:
    folder = shlex.quote(str(root / archive.into))
    command = archive.unpack.format(archive=shlex.quote(str(packed)), folder=folder)
    return f"mkdir -p {folder} && {command}" if archive.into else command
