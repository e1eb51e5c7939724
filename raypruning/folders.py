"""A folder that appears whole or not at all."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from raypruning.errors import ResourceError, SpecError


def check_free(folder: Path) -> None:
    """Raise SpecError unless a folder can be made there: it is absent, or empty."""
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise SpecError(f"{folder} exists and is not an empty folder: name another with --output")


@contextmanager
def folder_at_once(folder: Path) -> Iterator[Path]:
    """A temporary folder that gets its name when the block ends well; otherwise nothing is left of it.

    Raises:
        ResourceError: it cannot be made there.
        SpecError: something lies there already.
    """
    folder = folder.absolute()
    part = folder.with_name(f".{folder.name}-{uuid.uuid4().hex[:8]}.part")
    try:
        part.mkdir(parents=True)
    except OSError as error:
        raise ResourceError(f"{folder.parent} cannot be written: {error.strerror}") from error
    try:
        yield part
        check_free(folder)
        try:
            os.replace(part, folder)
        except OSError as error:
            raise ResourceError(f"{folder} cannot be written: {error.strerror}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
