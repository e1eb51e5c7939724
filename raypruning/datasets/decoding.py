"""Image files to uint8 arrays.

Legend of shape suffixes: C channels, H and W pixels.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np

from raypruning.datasets.random_bits import raw_bits, unit_floats
from raypruning.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

Item = TypeVar("Item")
Result = TypeVar("Result")
Preparation = Literal["resize", "fit"]

# Szegedy et al. 2015, "Going deeper with convolutions", section 6.
_CROP_AREA = (0.08, 1.0)
_CROP_ASPECT = (3 / 4, 4 / 3)
_CROP_ATTEMPTS = 10
# What ImageNet networks are tested with: 224 px from the centre of a picture whose short side is 256 px.
_TEST_RESIZE = (256, 224)
# An image this much larger at most is padded, since resizing by a few pixels only blurs (28 to 32 px for MNIST).
MAX_PADDING_PIXELS = 4


def map_threads(function: Callable[[Item], Result], items: Iterable[Item], *, num_threads: int) -> list[Result]:
    """Apply `function` to each item, results in the order of the items. The first error is raised."""
    if num_threads <= 1:
        return [function(item) for item in items]
    with ThreadPoolExecutor(num_threads) as pool:
        return list(pool.map(function, items))


def decode(source: Path | str | bytes, channels: int | None, *, name: str | None = None) -> Image.Image:
    """The picture in a file, or in the bytes of one, in grey (1 channel) or in colours (3).

    Args:
        source: a path, or the content of a file.
        channels: 1, 3, or None for 1 where the picture is grey and 3 otherwise. Transparency is dropped.
        name: how a message calls the file; the path by default.

    Raises:
        DataError: missing, no image, or cut off; the message names the file.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            if image.mode == "P":
                # A palette may hide transparency; Pillow warns unless it is unfolded first.
                image = image.convert("RGBA")
            if channels is None:
                channels = 1 if image.mode in ("1", "L", "LA") else 3
            return image.convert("L" if channels == 1 else "RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{name or source} cannot be read as an image: {error}") from error


def size_of(path: Path) -> tuple[int, int]:
    """Width and height of the picture in a file, from its header. Raises DataError as `decode` does."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} cannot be read as an image: {error}") from error


def to_array(image: Image.Image) -> np.ndarray:
    """A picture as uint8 of shape C, H, W."""
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def decode_for_test(
    path: str, size: int, channels: int, *, preparation: Preparation = "resize", border: int = 0
) -> np.ndarray:
    """The square of an image that a network is tested on, `size` px a side.

    Args:
        preparation: "resize": the centre, after the short side became size * 256 / 224. "fit": all of it, as is done
            to images in memory: left alone where it is such a square, padded with zeros where it is a square up to 4 px
            smaller, otherwise its short side becomes `size`, and the centre is taken.
        border: what is cut off at each side first, pixels.

    Raises:
        DataError: missing, no image, cut off, or nothing but border; the message names the file.
    """
    from PIL import Image

    image = decode(path, channels)
    if border:
        width, height = image.size
        if min(width, height) <= 2 * border:
            raise DataError(f"{path} is {width} x {height} px: nothing is left without a border of {border} px")
        image = image.crop((border, border, width - border, height - border))
    if preparation == "fit":
        short, side = size, image.width
        if image.width == image.height and side <= size <= side + MAX_PADDING_PIXELS:
            before = (size - side) // 2
            return to_array(image.crop((-before, -before, size - before, size - before)))
    else:
        short = round(size * _TEST_RESIZE[0] / _TEST_RESIZE[1])
    scale = short / min(image.size)
    width, height = (max(short, round(side * scale)) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (width - size) // 2, (height - size) // 2
    return to_array(image.crop((left, top, left + size, top + size)))


def decode_random_crop(path: str, size: int, channels: int, *, seed: int, index: int) -> np.ndarray:
    """A random part of an image, flipped half of the time, `size` px a side. (seed, index) decides which part."""
    from PIL import Image

    image = decode(path, channels)
    random = unit_floats(raw_bits(4 * _CROP_ATTEMPTS + 1, seed=seed, stream=index))
    box = _random_box(image.size, random[1:].reshape(_CROP_ATTEMPTS, 4))
    image = image.resize((size, size), Image.Resampling.BILINEAR, box=box)
    pixels_CHW = to_array(image)
    return np.ascontiguousarray(pixels_CHW[:, :, ::-1]) if random[0] < 0.5 else pixels_CHW


def _random_box(size: tuple[int, int], random: np.ndarray) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of a part of the image; the largest allowed part of the centre if no attempt fits."""
    width, height = size
    for area_random, aspect_random, x_random, y_random in random:
        area = width * height * (_CROP_AREA[0] + (_CROP_AREA[1] - _CROP_AREA[0]) * area_random)
        aspect = _CROP_ASPECT[0] * (_CROP_ASPECT[1] / _CROP_ASPECT[0]) ** aspect_random
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(x_random * (width - w + 1)), int(y_random * (height - h + 1))
            return left, top, left + w, top + h
    aspect = min(max(width / height, _CROP_ASPECT[0]), _CROP_ASPECT[1])
    w, h = min(width, max(1, round(height * aspect))), min(height, max(1, round(width / aspect)))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h
