"""Pictures of simple shapes with the class of each pixel, drawn from a fixed seed.

Only whole numbers are used, and square roots, which every platform rounds alike: the pictures are the same everywhere.

Legend of shape suffixes: N pictures, S shapes of a picture, H and W pixels, P pixels that are painted, C channels, U x
and y, or cosine and sine. Lengths are in units of 1/64 px.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from raypruning.datasets.masked_files import VOID
from raypruning.datasets.random_bits import permutation, raw_bits

SIDE = 64  # pixels
_PIXEL = 64  # units
_SEED = 4_217
_ONE = 1024  # of fractions: cosines, sines, directions
_MAX_SHAPES = 3
_RADIUS = (8 * _PIXEL, 17 * _PIXEL)
# Shapes lie in different quarters of the picture, this far from the middle of their quarter at most, so they overlap
# and leave the picture now and then, and are never wholly hidden.
_JITTER = 9 * _PIXEL
_HUES = 1536  # 256 steps between each two of red, yellow, green, cyan, blue, magenta
_HUE_JITTER = 150  # about half the distance between the hues of two classes
_KNOT_CELL = 16  # pixels between the knots of a background
_NOISE = 12  # grey levels to each side


class Drawn(NamedTuple):
    """Pictures uint8 (N, 3, H, W) and masks uint8 (N, H, W): 0 for background, 1 to 5 for shapes, VOID on outlines."""

    images_NCHW: np.ndarray
    masks_NHW: np.ndarray


class _Shapes(NamedTuple):
    """What is drawn, from bottom to top."""

    is_there_NS: np.ndarray
    class_NS: np.ndarray
    centre_NSU: np.ndarray  # x, y
    radius_NS: np.ndarray
    turn_NSU: np.ndarray  # cosine and sine
    colour_NSC: np.ndarray


class _Random:
    """Whole numbers, the same on every platform. Each call has a stream of its own, so none depends on another's."""

    def __init__(self, split: int) -> None:
        self._stream = 1_000 * (split + 1)

    def integers(self, low: int, high: int, *shape: int) -> np.ndarray:
        """From `low` up to, not including, `high`; int32, in which all that follows has room."""
        bits = self._bits(math.prod(shape)).reshape(shape)
        return low + (bits % np.uint64(high - low)).astype(np.int32)

    def octets(self, *shape: int) -> np.ndarray:
        """From 0 to 255, uint8; eight times as fast as `integers`."""
        count = math.prod(shape)
        return self._bits(-(-count // 8)).astype("<u8").view(np.uint8)[:count].reshape(shape)

    def _bits(self, count: int) -> np.ndarray:
        self._stream += 1
        return raw_bits(count, seed=_SEED, stream=self._stream)


def draw(count: int, *, split: int) -> Drawn:
    """`count` pictures of one to three shapes each. Another split has other pictures.

    A class has its own hue in half of the cases and any in the others, so colour alone tells it in three of five. The
    classes of the shapes at the bottom are even.
    """
    random = _Random(split)
    images_NHWC = _backgrounds(count, random)
    masks_NHW = np.zeros((count, SIDE, SIDE), np.uint8)
    shapes = _choose(count, random, split)
    for slot in range(_MAX_SHAPES):
        _paint(images_NHWC, masks_NHW, shapes, slot)
    images_NHWC += random.octets(*images_NHWC.shape) % (2 * _NOISE + 1)
    images_NHWC -= _NOISE
    images_NCHW = np.ascontiguousarray(np.clip(images_NHWC, 0, 255).astype(np.uint8).transpose(0, 3, 1, 2))
    return Drawn(images_NCHW, masks_NHW)


def class_colour(label: int) -> tuple[int, int, int]:
    """The pure colour of a class, RGB, 0 to 255; black for the background."""
    if label == 0:
        return 0, 0, 0
    red, green, blue = _rgb(np.array(_class_hue(np.array(label)))).tolist()
    return red, green, blue


def _circle(x: np.ndarray, y: np.ndarray, radius: np.ndarray) -> np.ndarray:
    distance: np.ndarray = _length(x, y) - radius
    return distance


def _square(x: np.ndarray, y: np.ndarray, radius: np.ndarray) -> np.ndarray:
    distance: np.ndarray = np.maximum(np.abs(x), np.abs(y)) - radius * 7 // 8
    return distance


def _triangle(x: np.ndarray, y: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Equilateral: the largest distance from a side, whose directions are 120 degrees apart."""
    slanted = np.abs(x) * 887 // _ONE - y // 2  # 887 / 1024 is the sine of 60 degrees
    distance: np.ndarray = np.maximum(slanted, y) - radius * 11 // 16
    return distance


def _cross(x: np.ndarray, y: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Two bars, each a third as wide as it is long."""
    long, short = np.maximum(np.abs(x), np.abs(y)), np.minimum(np.abs(x), np.abs(y))
    distance: np.ndarray = np.maximum(long - radius * 9 // 8, short - radius * 3 // 8)
    return distance


def _ring(x: np.ndarray, y: np.ndarray, radius: np.ndarray) -> np.ndarray:
    distance: np.ndarray = np.abs(_length(x, y) - radius * 7 // 8) - radius * 5 // 16
    return distance


# How far a point lies outside of a shape around 0, negative inside; at outlines exact, elsewhere roughly.
_DISTANCES: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "cross": _cross,
    "ring": _ring,
}
CLASS_NAMES = ("background", *_DISTANCES)


def _length(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    length: np.ndarray = np.sqrt(x * x + y * y).astype(np.int32)
    return length


def _choose(count: int, random: _Random, split: int) -> _Shapes:
    num_classes = len(_DISTANCES)
    size = (count, _MAX_SHAPES)
    num_shapes_N = random.integers(1, _MAX_SHAPES + 1, count)
    class_NS = random.integers(0, num_classes, *size)
    class_NS[:, 0] = permutation(count, seed=_SEED + split) % num_classes
    class_NS += 1
    quarter_NS = np.argsort(random.integers(0, 1 << 30, count, 4), axis=1, kind="stable")[:, :_MAX_SHAPES]
    middle_NSU = (np.stack([quarter_NS % 2, quarter_NS // 2], axis=-1) * 2 + 1) * (SIDE * _PIXEL // 4)
    # With h the tangent of half the angle, cosine and sine are (1 - h^2) / (1 + h^2) and 2 h / (1 + h^2).
    half_NS = random.integers(-256, 257, *size)
    norm_NS = 256**2 + half_NS**2
    turn_NSU = np.stack([(256**2 - half_NS**2) * _ONE // norm_NS, 512 * half_NS * _ONE // norm_NS], axis=-1)
    hue_NS = _class_hue(class_NS) + random.integers(-_HUE_JITTER, _HUE_JITTER + 1, *size)
    hue_NS = np.where(random.integers(0, 2, *size) == 0, hue_NS, random.integers(0, _HUES, *size))
    dark_NS1, bright_NS1 = random.integers(10, 90, *size, 1), random.integers(150, 250, *size, 1)
    return _Shapes(
        is_there_NS=np.arange(_MAX_SHAPES) < num_shapes_N[:, None],
        class_NS=class_NS,
        centre_NSU=middle_NSU + random.integers(-_JITTER, _JITTER + 1, *size, 2),
        radius_NS=random.integers(*_RADIUS, *size),
        turn_NSU=turn_NSU,
        colour_NSC=dark_NS1 + (bright_NS1 - dark_NS1) * _rgb(hue_NS) // 255,
    )


def _class_hue(label: np.ndarray) -> np.ndarray:
    return (label - 1) * _HUES // len(_DISTANCES)


def _rgb(hue: np.ndarray) -> np.ndarray:
    """The pure colour of a hue, 0 to 255, channels last."""
    hue = hue % _HUES
    red = np.abs(hue - _HUES // 2) - 256
    green, blue = 512 - np.abs(hue - 512), 512 - np.abs(hue - 1024)
    rgb: np.ndarray = np.clip(np.stack([red, green, blue], axis=-1), 0, 255)
    return rgb


def _backgrounds(count: int, random: _Random) -> np.ndarray:
    """Soft greyish blotches with faint stripes across, int32 (N, H, W, C)."""
    num_knots = SIDE // _KNOT_CELL + 1
    grey_NKK1 = random.integers(50, 200, count, num_knots, num_knots, 1)
    knots_NKKC = grey_NKK1 + random.integers(-25, 26, count, num_knots, num_knots, 3)
    place = np.arange(SIDE, dtype=np.int32)
    cell, right = place // _KNOT_CELL, place % _KNOT_CELL
    left = _KNOT_CELL - right
    rows_NHKC = knots_NKKC[:, cell] * left[:, None, None] + knots_NKKC[:, cell + 1] * right[:, None, None]
    images_NHWC: np.ndarray = rows_NHKC[:, :, cell] * left[:, None] + rows_NHKC[:, :, cell + 1] * right[:, None]
    images_NHWC //= _KNOT_CELL**2
    slope_NU11 = random.integers(-6, 7, count, 2, 1, 1)
    phase_NHW = slope_NU11[:, 0] * place + slope_NU11[:, 1] * place[:, None]
    # A triangle wave with a period of 32, from -8 to 8, made stronger or weaker.
    wave_NHW = np.abs(phase_NHW % 32 - 16) - 8
    images_NHWC += (wave_NHW * random.integers(0, 4, count, 1, 1))[..., None]
    return images_NHWC


def _paint(images_NHWC: np.ndarray, masks_NHW: np.ndarray, shapes: _Shapes, slot: int) -> None:
    """Put one shape into each picture that has so many, and its class into the mask."""
    centres = np.arange(SIDE, dtype=np.int32) * _PIXEL + _PIXEL // 2
    for label, distance in enumerate(_DISTANCES.values(), start=1):
        chosen = np.flatnonzero(shapes.is_there_NS[:, slot] & (shapes.class_NS[:, slot] == label))
        x, y = (shapes.centre_NSU[chosen, slot, axis, None, None] for axis in (0, 1))
        cosine, sine = (shapes.turn_NSU[chosen, slot, axis, None, None] for axis in (0, 1))
        x, y = centres - x, centres[:, None] - y
        distance_NHW = distance(
            (x * cosine + y * sine) // _ONE,
            (y * cosine - x * sine) // _ONE,
            shapes.radius_NS[chosen, slot, None, None],
        )
        place, row_P, column_P = np.nonzero(distance_NHW <= _PIXEL // 2)
        picture_P, distance_P = chosen[place], distance_NHW[place, row_P, column_P]
        # A pixel is half covered where the outline passes its centre.
        covered_P1 = np.minimum(_PIXEL // 2 - distance_P, _PIXEL)[:, None]
        behind_PC, colour_PC = images_NHWC[picture_P, row_P, column_P], shapes.colour_NSC[picture_P, slot]
        mixed_PC = behind_PC * (_PIXEL - covered_P1) + colour_PC * covered_P1
        images_NHWC[picture_P, row_P, column_P] = mixed_PC // _PIXEL
        masks_NHW[picture_P, row_P, column_P] = np.where(distance_P < -_PIXEL // 2, label, VOID)
