"""Decoded arrays on disk, so that a second process opens in milliseconds what the first took seconds to decode.

One entry is one folder: an `.npy` file per array and `entry.json`, which is written last and lists the size of each
file. An entry is made under another name and renamed, so that a killed process leaves nothing that looks finished, and
two processes that make the same entry at once do each other no harm: both wrote the same bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

logger = logging.getLogger(__name__)

# Entries written by other versions of this file are not found, rather than misread.
_FORMAT = 1
_ENTRY = "entry.json"


class Built(NamedTuple):
    """What a cache entry is made of: arrays by name, and facts that JSON can hold."""

    arrays: Mapping[str, np.ndarray]
    facts: Mapping[str, Any]


class Entry(NamedTuple):
    """A cache entry: read-only arrays (memory-mapped where the disk holds them), facts, content hash of the arrays."""

    arrays: Mapping[str, np.ndarray]
    facts: Mapping[str, Any]
    fingerprint: str


def cache_dir() -> Path:
    """A folder that can be written: `RAYPRUNING_CACHE_DIR`, else the user's cache, else a temporary folder.

    Raises:
        OSError: `RAYPRUNING_CACHE_DIR` is set and cannot be written; the two others are tried in silence.
    """
    asked = os.environ.get("RAYPRUNING_CACHE_DIR")
    if asked:
        folder = Path(asked).expanduser()
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    import platformdirs

    # In a pod HOME is often read-only or missing, and one user's temporary folder must not be another's.
    owner = os.getuid() if hasattr(os, "getuid") else "user"
    temporary = Path(tempfile.gettempdir()) / f"raypruning-cache-{owner}"
    for folder in (Path(platformdirs.user_cache_dir("raypruning")), temporary):
        if _can_write(folder):
            return folder
    return Path(tempfile.mkdtemp(prefix="raypruning-cache-"))


def _can_write(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError:
        return False
    if hasattr(os, "getuid") and folder.stat().st_uid != os.getuid():
        return False  # Someone else's folder in a shared /tmp could feed us other data.
    return os.access(folder, os.W_OK | os.X_OK)


def key_of(*parts: object) -> str:
    """Twenty hexadecimal digits that stand for `parts`, which JSON must be able to hold."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:20]


def key_of_files(paths: list[Path], *parts: object) -> str:
    """A key that changes when one of the files moves, is written again, or changes its size."""
    stats = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    return key_of(*parts, stats)


def content_hash(arrays: Mapping[str, np.ndarray]) -> str:
    """The sha256 of names, shapes, types and bytes of the arrays, in order of name; the same on every platform."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        digest.update(json.dumps([name, little.dtype.str, list(little.shape)]).encode())
        digest.update(memoryview(little.reshape(-1)).cast("B") if little.size else b"")
    return digest.hexdigest()


def load_or_build(name: str, key: str, build: Callable[[], Built], *, shelf: str = "datasets") -> Entry:
    """The entry `<name>-<key>`: read where it is whole, made by `build` (and kept) where it is missing or damaged.

    A disk that is full or cannot be written costs the cache and nothing else: the arrays then stay in memory.

    Args:
        shelf: folder of the cache that holds the entry.
    """
    folder = folder_of(name, key, shelf=shelf)
    entry = _read(folder)
    if entry is not None:
        return entry
    built = build()
    arrays = {array_name: np.ascontiguousarray(array) for array_name, array in built.arrays.items()}
    fingerprint = content_hash(arrays)
    try:
        _write(folder, arrays, built.facts, fingerprint)
    except OSError as error:
        logger.warning("%s cannot be cached in %s (%s); it is kept in memory", name, folder.parent, error)
        return Entry(arrays, dict(built.facts), fingerprint)
    return _read(folder) or Entry(arrays, dict(built.facts), fingerprint)


def find(name: str, key: str, *, shelf: str = "datasets") -> Entry | None:
    """The entry `<name>-<key>` if it is there and whole."""
    return _read(folder_of(name, key, shelf=shelf))


def folder_of(name: str, key: str, *, shelf: str = "datasets") -> Path:
    """Where the entry `<name>-<key>` is, or would be."""
    return cache_dir() / shelf / f"{name}-{key}"


def _read(folder: Path) -> Entry | None:
    try:
        record = json.loads((folder / _ENTRY).read_text())
        if record["format"] != _FORMAT:
            return None
        arrays = {}
        for name, num_bytes in record["bytes"].items():
            path = folder / f"{name}.npy"
            if path.stat().st_size != num_bytes:
                return None
            # numpy cannot map a file without elements.
            has_elements = record["elements"][name] > 0
            arrays[name] = np.load(path, mmap_mode="r" if has_elements else None, allow_pickle=False)
        return Entry(arrays, record["facts"], record["fingerprint"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # Missing or damaged in any way: the caller makes it again.


def _write(folder: Path, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any], fingerprint: str) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".unfinished-{folder.name}-", dir=folder.parent))
    try:
        for name, array in arrays.items():
            np.save(unfinished / f"{name}.npy", array, allow_pickle=False)
        record = {
            "format": _FORMAT,
            "fingerprint": fingerprint,
            "facts": dict(facts),
            "bytes": {name: (unfinished / f"{name}.npy").stat().st_size for name in arrays},
            "elements": {name: int(array.size) for name, array in arrays.items()},
        }
        (unfinished / _ENTRY).write_text(json.dumps(record))
        put_in_place(unfinished, folder, is_whole=lambda folder: _read(folder) is not None)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def put_in_place(unfinished: Path, folder: Path, *, is_whole: Callable[[Path], bool]) -> None:
    """Rename, unless another process was first with a whole folder; a damaged one is moved out of the way."""
    try:
        unfinished.rename(folder)
        return
    except OSError:
        if not folder.exists():
            raise
    if is_whole(folder):
        return
    damaged = unfinished.with_name(f"{unfinished.name}-damaged")
    # Two processes may repair at once: the one that comes second finds nothing to move, or a whole entry in place.
    with contextlib.suppress(OSError):
        folder.rename(damaged)
    shutil.rmtree(damaged, ignore_errors=True)
    with contextlib.suppress(OSError):
        unfinished.rename(folder)
