"""Reading what somebody else may have written: whoever can write to a storage, or made the one that was copied here.

Nothing read so can run code, exhaust the memory, hang, or bring in a number that is none.
"""

from __future__ import annotations

import json
import math
import os
import stat
from pathlib import Path
from typing import Any

from raypruning.errors import StoreError

# Resume states are the largest: weights and two moments of torchvision's largest network, of 2.6 GB, are 7.8 GB.
MAX_FILE_BYTES = 16 << 30
# A training of 10 000 epochs has 3 MB. Parsed, JSON takes up to 20 times its size.
MAX_JSON_BYTES = 64 << 20


class TooLargeError(StoreError):
    """A file that is larger than any of its kind can be; it was not read."""

    is_retriable = False


def read_regular(place: Path, *, at_most: int) -> bytes | None:
    """The content of a file; None for what is none, such as a pipe, which a reader would wait at for ever.

    Raises: OSError, as `open` does; TooLargeError.
    """
    # Without a file object, which asks the system four more things of each of a report's ten thousand files.
    descriptor = os.open(place, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return None
        check_size(str(place), status.st_size, at_most=at_most)
        parts = []
        while part := os.read(descriptor, status.st_size + 1):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(descriptor)


def check_size(name: str, num_bytes: int, *, at_most: int) -> None:
    """Raise TooLargeError for a file that is not worth reading."""
    if num_bytes > at_most:
        raise TooLargeError(f"{name} has {num_bytes} bytes, and no such file has more than {at_most}: it is not read")


def parse_json(data: bytes) -> Any:
    """The value of a JSON text, as the standard has it: Python would take NaN and Infinity, and 1e999 for infinity.

    Raises: ValueError: no such text, one that is nested too deep or too long, or half a character in it.
    """
    if len(data) > MAX_JSON_BYTES:
        raise ValueError(f"{len(data)} bytes of JSON are more than {MAX_JSON_BYTES}")
    try:
        value = json.loads(data, parse_constant=_no_number, parse_float=_finite)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    if b"\\u" in data:  # Only so can a text have half of a surrogate pair, which no file can be written with.
        json.dumps(value, ensure_ascii=False).encode()
    return value


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number")


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _no_number(text)
