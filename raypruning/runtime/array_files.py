"""Named arrays as bytes: safetensors, which hold numbers and names and nothing that could run."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from raypruning.runtime.untrusted import parse_json

if TYPE_CHECKING:
    from raypruning.core.ports import Arrays


class Contents(NamedTuple):
    """Arrays by name, and what was noted beside them."""

    arrays: dict[str, np.ndarray]
    note: Mapping[str, Any]


def encode(arrays: Arrays, note: Mapping[str, object] | None = None) -> bytes:
    """The same arrays and note always give the same bytes: names are sorted, and there is one metadata key only.

    Raises: ValueError: an array has no plain numbers in it.
    """
    for name, array in arrays.items():
        if array.dtype.kind not in "biuf":
            raise ValueError(f"array {name!r} has dtype {array.dtype}; booleans, integers and floats can be stored")
    # A view that is not in C order would be written in the order of its memory, which is another array.
    contiguous = {name: np.asarray(array, order="C") for name, array in sorted(arrays.items())}
    text = json.dumps(note, sort_keys=True, separators=(",", ":")) if note else None
    data: bytes = save(contiguous, metadata={"note": text} if text else None)
    return data


def decode(data: bytes) -> Contents:
    """What `encode` made bytes of. Raises ValueError for bytes that it did not."""
    try:
        arrays = load(data)
        text = data[8 : 8 + int.from_bytes(data[:8], "little")]
        if b"__metadata__" not in text:
            return Contents(arrays, {})
        header = parse_json(text)
        note = parse_json(header.get("__metadata__", {}).get("note", "{}").encode())
        return Contents(arrays, dict(note))
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"is not a safetensors file: {error}") from error


def encode_masks(masks: Arrays) -> bytes:
    """Masks, one bit a weight. Raises ValueError for one that is not boolean."""
    for name, mask in masks.items():
        if mask.dtype != np.bool_:
            raise ValueError(f"mask {name!r} has dtype {mask.dtype}; masks are boolean, True where kept")
    packed = {name: np.packbits(np.asarray(mask, order="C").reshape(-1)) for name, mask in masks.items()}
    return encode(packed, {"shapes": {name: list(mask.shape) for name, mask in masks.items()}})


def decode_masks(contents: Contents) -> dict[str, np.ndarray]:
    """What `encode_masks` packed. Raises ValueError where shapes are not those of the bits."""
    shapes = contents.note.get("shapes", {})
    if not isinstance(shapes, dict) or shapes.keys() != contents.arrays.keys():
        raise ValueError("its shapes are of other masks")
    return {name: _unpacked(contents.arrays[name], shape, name=name) for name, shape in shapes.items()}


def _unpacked(packed: np.ndarray, shape: Any, *, name: str) -> np.ndarray:
    is_shape = isinstance(shape, list) and all(type(side) is int and side >= 0 for side in shape)
    # In Python's integers: those of numpy would wrap around.
    if not is_shape or packed.dtype != np.uint8 or packed.shape != (-(-math.prod(shape) // 8),):
        raise ValueError(f"the mask {name!r} of shape {shape} has other bits")
    return np.unpackbits(packed, count=math.prod(shape)).view(np.bool_).reshape(shape)
