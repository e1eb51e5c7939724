"""The dataset that needs no download: handwritten-looking digits, drawn from a fixed seed.

17 000 grey images of 28 px and ten classes. Only integers are used, and only raw random bits, so that every platform
and every version of numpy draws the same bytes; floats, sines and square roots differ in the last bit between C
libraries, and one differing pixel would be another dataset.

Legend of shape suffixes: N images, P points along the pen's path, K control points, H and W pixels, U units in x and y.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from raypruning.datasets.base import Dataset, loaders_of_entry
from raypruning.datasets.cache import Built, key_of, load_or_build
from raypruning.datasets.random_bits import permutation, raw_bits
from raypruning.datasets.stroke_templates import TEMPLATES

# Of the arrays that `draw_splits` returns; a change below that alters one pixel must change it.
FINGERPRINT = "c0ba6b8eb989b6649bc6f6ed8f0a7128a402d8f792797e8472ab152a9e41b2e6"
# 28 px, 10 classes and 10 000 test images as in MNIST; few training images, so that an epoch takes half a second.
NUM_IMAGES = {"train": 6_000, "validation": 1_000, "test": 10_000}
_SIDE = 28
_NUM_CLASSES = 10
_SEED = 20_240_229
# Of all pixels of the training split, rounded.
_MEAN, _STD = 0.0904, 0.2000

# Lengths are in units of 1/32 px; fractions in units of 1/16384.
_UNITS_PER_PIXEL = 32
_FRACTION_BITS = 14
_ONE = 1 << _FRACTION_BITS
_BOX_CENTRE = (30, 50)
# 100 template units are 19 px, as in MNIST, whose digits fill a box of 20 px.
_UNITS_PER_TEMPLATE_UNIT = 6

_NUM_POINTS = 112
_NUM_BLOT_POINTS = 8
_GRID = 4
_FAR = -10_000  # A point here marks no pixel.
# Distances beyond 90 units (2.8 px) are all the same to a pen of at most 2 px radius, and squares then fit int16.
_MAX_SQUARE = 8_100


class Knobs(NamedTuple):
    """How badly people write; standard deviations unless said otherwise.

    Tuned so that LeNet-5 errs on 4 to 5 % of the test images, far enough from zero for half a point to be 50 images
    (10 epochs of SGD, learning rate .05 to 0 by a cosine, momentum .9, batches of 64: 4.06, 4.45 and 4.48 %).
    """

    jitter: int = 24  # of a control point, 1/32 px times sloppiness
    warp: int = 24  # of the page, 1/32 px times sloppiness
    rotation: int = 20  # 1/256 of a half-angle tangent: 20 is 9 degrees
    shear: int = 2_400  # fraction
    scale: int = 1_600  # fraction
    shift: int = 40  # 1/32 px
    sloppiness: tuple[int, int] = (6, 26)  # uniform, in 1/16
    pen: tuple[int, int] = (16, 48)  # uniform radius, 1/32 px
    ink: tuple[int, int] = (130, 256)  # uniform, darkest grey
    noise: tuple[int, int] = (0, 30)  # uniform amplitude of pixel noise, grey levels
    gap_share: int = 48  # of 256 images: the pen skips
    gap_points: int = 22  # at most
    blot_share: int = 48  # of 256 images: a short line that does not belong


class Draws(NamedTuple):
    """Random bits of N images, one field per use, so that adding a use moves no other."""

    pick: np.ndarray  # (N, 12)
    control: np.ndarray  # (N, K, 2)
    page: np.ndarray  # (N, 8)
    warp: np.ndarray  # (N, GRID, GRID, 2)
    blot: np.ndarray  # (N, 4)


def open_strokes(argument: str, *, data_dir: Path | None, download: bool) -> Dataset:
    """Handwritten-looking digits of our own: 6 000 training, 1 000 validation, 10 000 test images. Needs no data.

    The first call takes a few seconds to draw them, later ones read the cache.
    """
    entry = load_or_build("strokes", key_of(FINGERPRINT), lambda: Built(draw_splits(), {}))
    return Dataset(
        name="strokes",
        num_classes=_NUM_CLASSES,
        channels=1,
        image_size=_SIDE,
        mean=(_MEAN,),
        std=(_STD,),
        class_names=tuple("0123456789"),
        fingerprint=entry.fingerprint,
        augmentation="none",
        source="drawn by raypruning from pen strokes and a fixed seed (raypruning/datasets/strokes.py)",
        loaders=loaders_of_entry(entry),
    )


def draw_splits(knobs: Knobs | None = None) -> dict[str, np.ndarray]:
    """Images (uint8, N x 1 x 28 x 28) and labels (int64, N) of the three splits, under `<split>_images` and `_labels`.

    Every class has the same number of images in every split. Each split has a random stream of its own.
    """
    arrays = {}
    for stream, (split, count) in enumerate(NUM_IMAGES.items()):
        labels_N = permutation(count, seed=_SEED + stream) % _NUM_CLASSES
        images_NHW = draw_images(labels_N, stream=stream, knobs=knobs or Knobs())
        arrays[f"{split}_images"] = images_NHW[:, None]
        arrays[f"{split}_labels"] = labels_N
    return arrays


def draw_images(labels_N: np.ndarray, *, stream: int, knobs: Knobs) -> np.ndarray:
    """One image per label, uint8 of shape N, 28, 28: bright strokes on black."""
    draws = _draws(len(labels_N), stream)
    sloppiness_N = _uniform(draws.pick[:, 0], knobs.sloppiness)
    points_NPU = _pen_paths(labels_N, draws, sloppiness_N, knobs)
    points_NPU = _on_page(points_NPU, draws, knobs)
    points_NPU += _warp(points_NPU, draws.warp, sloppiness_N * knobs.warp // 16)
    points_NPU = np.concatenate([_with_gaps(points_NPU, draws, knobs), _blots(draws, knobs)], axis=1)
    radius_N = _uniform(draws.pick[:, 2], knobs.pen)
    coverage_NHW = _coverage(points_NPU, radius_N)
    ink_N = _uniform(draws.pick[:, 3], knobs.ink)
    amplitude_N = _uniform(draws.pick[:, 4], knobs.noise)
    # The sum of two bytes less their mean has a standard deviation of 104.
    noise_bits = raw_bits(len(labels_N) * _SIDE * _SIDE // 4, seed=_SEED, stream=100 + stream)
    pairs = noise_bits.astype("<u8").view(np.uint8).reshape(len(labels_N), _SIDE, _SIDE, 2)
    noise_NHW = (pairs[..., 0].astype(np.int32) + pairs[..., 1] - 255) * amplitude_N[:, None, None].astype(np.int32)
    grey_NHW = coverage_NHW * ink_N[:, None, None].astype(np.int32) // 255 + noise_NHW // 104
    return np.clip(grey_NHW, 0, 255).astype(np.uint8)


def _draws(count: int, stream: int) -> Draws:
    num_control = max(len(_control_points(text)) for texts in TEMPLATES for text in texts)
    shapes = Draws((12,), (num_control, 2), (8,), (_GRID, _GRID, 2), (4,))
    fields = []
    for field, shape in enumerate(shapes):
        bits = raw_bits(count * math.prod(shape), seed=_SEED, stream=1_000 * (field + 1) + stream)
        fields.append(bits.reshape(count, *shape))
    return Draws(*fields)


def _uniform(bits: np.ndarray, bounds: tuple[int, int]) -> np.ndarray:
    """Integers from bounds[0] up to, not including, bounds[1]."""
    low, high = bounds
    return low + (bits % np.uint64(high - low)).astype(np.int64)


def _bell(bits: np.ndarray, deviation: int | np.ndarray) -> np.ndarray:
    """Integers of mean 0 and the given standard deviation, nearly normal, at most 4.9 deviations from 0."""
    octets = np.ascontiguousarray(bits).view(np.uint8).reshape(*bits.shape, 8)
    # Eight bytes add to 1020 on average, with a standard deviation of 209.
    return (octets.sum(axis=-1, dtype=np.int64) - 1020) * deviation // 209


def _control_points(text: str) -> list[tuple[int, int]]:
    """The distinct points of a template, in the order in which the pen meets them."""
    points = [tuple(int(number) for number in point.split(",")) for point in text.replace("|", " ").split()]
    return list(dict.fromkeys(points))


def _path_weights(text: str) -> np.ndarray:
    """How the P points of the pen's path mix the K control points, in fractions, int64 of shape P, K.

    Catmull-Rom splines: the curve passes its control points, and is linear in them, so a moved control point needs no
    new weights. Points are spread over the pieces by their length.
    """
    control = _control_points(text)
    pieces = []
    for stroke in text.split("|"):
        path = [control.index(point) for point in (tuple(map(int, p.split(","))) for p in stroke.split())]
        is_ring = path[0] == path[-1]
        for i in range(len(path) - 1):
            before = path[i - 1] if i > 0 else (path[-2] if is_ring else path[0])
            after = path[i + 2] if i + 2 < len(path) else (path[1] if is_ring else path[-1])
            pieces.append((before, path[i], path[i + 1], after))
    lengths = [math.isqrt(sum((control[b][u] - control[c][u]) ** 2 for u in (0, 1))) for _, b, c, _ in pieces]
    ends = np.cumsum([0, *lengths]) * (_NUM_POINTS - 1) // sum(lengths)
    weights_PK = np.zeros((_NUM_POINTS, len(control)), np.int64)
    for piece, start, end in zip(pieces, ends[:-1], ends[1:], strict=True):
        for point in range(start, end + 1):
            weights_PK[point] = 0
            t, n = int(point - start), max(1, int(end - start))
            numerators = (
                -(t**3) + 2 * t**2 * n - t * n**2,
                3 * t**3 - 5 * t**2 * n + 2 * n**3,
                -3 * t**3 + 4 * t**2 * n + t * n**2,
                t**3 - t**2 * n,
            )
            for index, numerator in zip(piece, numerators, strict=True):
                weights_PK[point, index] += numerator * _ONE // (2 * n**3)
    return weights_PK


def _pen_paths(labels_N: np.ndarray, draws: Draws, sloppiness_N: np.ndarray, knobs: Knobs) -> np.ndarray:
    """Where the pen passes, relative to the centre of the digit, units, int64 of shape N, P, 2."""
    points_NPU = np.zeros((len(labels_N), _NUM_POINTS, 2), np.int64)
    choice_N = (draws.pick[:, 1] >> np.uint64(8)).astype(np.int64)
    for label, texts in enumerate(TEMPLATES):
        for number, text in enumerate(texts):
            chosen = np.flatnonzero((labels_N == label) & (choice_N % len(texts) == number))
            control_KU = (np.array(_control_points(text), np.int64) - _BOX_CENTRE) * _UNITS_PER_TEMPLATE_UNIT
            deviation_N = sloppiness_N[chosen, None, None] * knobs.jitter // 16
            jitter_NKU = _bell(draws.control[chosen, : len(control_KU)], 1024) * deviation_N // 1024
            mixed_NPU = np.einsum("pk,nku->npu", _path_weights(text), control_KU + jitter_NKU)
            points_NPU[chosen] = mixed_NPU >> _FRACTION_BITS
    return points_NPU


def _on_page(points_NPU: np.ndarray, draws: Draws, knobs: Knobs) -> np.ndarray:
    """Turn, slant, scale and shift each digit, then move the origin from the centre of the page to its corner."""
    half_N = np.clip(_bell(draws.page[:, 0], knobs.rotation), -90, 90)
    # With h the tangent of half the angle, cosine and sine are (1 - h^2) / (1 + h^2) and 2 h / (1 + h^2).
    norm_N = 256**2 + half_N**2
    cosine_N, sine_N = (256**2 - half_N**2) * _ONE // norm_N, 512 * half_N * _ONE // norm_N
    shear_N = _bell(draws.page[:, 1], knobs.shear)
    scale_x_N = np.clip(_ONE + _bell(draws.page[:, 2], knobs.scale), _ONE // 2, _ONE * 3 // 2)
    scale_y_N = np.clip(_ONE + _bell(draws.page[:, 3], knobs.scale), _ONE // 2, _ONE * 3 // 2)
    shift_NU = _bell(draws.page[:, 4:6], knobs.shift) + _SIDE * _UNITS_PER_PIXEL // 2
    x, y = points_NPU[..., 0] * scale_x_N[:, None], points_NPU[..., 1] * scale_y_N[:, None]
    x, y = (x >> _FRACTION_BITS), (y >> _FRACTION_BITS)
    x = x + (y * shear_N[:, None] >> _FRACTION_BITS)
    turned_x = (x * cosine_N[:, None] - y * sine_N[:, None]) >> _FRACTION_BITS
    turned_y = (x * sine_N[:, None] + y * cosine_N[:, None]) >> _FRACTION_BITS
    return np.stack([turned_x, turned_y], axis=-1) + shift_NU[:, None]


def _warp(points_NPU: np.ndarray, bits: np.ndarray, deviation_N: np.ndarray) -> np.ndarray:
    """How far a crumpled page moves each point: random at a coarse grid of knots, linear between them."""
    knots = _bell(bits, 1024) * deviation_N[:, None, None, None] // 1024
    cell = _SIDE * _UNITS_PER_PIXEL // (_GRID - 1)
    inside = np.clip(points_NPU, 0, cell * (_GRID - 1) - 1)
    column, row = inside[..., 0] // cell, inside[..., 1] // cell
    right, down = inside[..., 0] % cell, inside[..., 1] % cell
    image = np.arange(len(knots))[:, None]
    moved = np.zeros_like(points_NPU)
    for step_y, weight_y in ((0, cell - down), (1, down)):
        for step_x, weight_x in ((0, cell - right), (1, right)):
            moved += knots[image, row + step_y, column + step_x] * (weight_y * weight_x)[..., None]
    return moved // cell**2


def _with_gaps(points_NPU: np.ndarray, draws: Draws, knobs: Knobs) -> np.ndarray:
    """Lift the pen for a while in some images."""
    has_gap_N = (draws.pick[:, 5] >> np.uint64(8)) % np.uint64(256) < knobs.gap_share
    start_N = _uniform(draws.pick[:, 6], (0, _NUM_POINTS))
    length_N = _uniform(draws.pick[:, 7], (1, knobs.gap_points + 1)) * has_gap_N
    since_NP = np.arange(_NUM_POINTS) - start_N[:, None]
    return np.where(((since_NP >= 0) & (since_NP < length_N[:, None]))[..., None], _FAR, points_NPU)


def _blots(draws: Draws, knobs: Knobs) -> np.ndarray:
    """A short straight line in some images, as points of shape N, 8, 2."""
    page = _SIDE * _UNITS_PER_PIXEL
    has_blot_N = (draws.pick[:, 8] >> np.uint64(8)) % np.uint64(256) < knobs.blot_share
    start_NU = _uniform(draws.blot[:, :2], (page // 8, page * 7 // 8))
    # At most 4 px to each side.
    along_NU = _uniform(draws.blot[:, 2:], (-4 * _UNITS_PER_PIXEL, 4 * _UNITS_PER_PIXEL + 1))
    steps = np.arange(_NUM_BLOT_POINTS)[None, :, None]
    points_NPU = start_NU[:, None] + along_NU[:, None] * steps // (_NUM_BLOT_POINTS - 1)
    return np.where(has_blot_N[:, None, None], points_NPU, _FAR)


def _coverage(points_NPU: np.ndarray, radius_N: np.ndarray, *, chunk: int = 256) -> np.ndarray:
    """How much ink each pixel gets, 0 to 255, int32 of shape N, H, W, with an edge one pixel wide."""
    root = np.array([math.isqrt(square) for square in range(2 * _MAX_SQUARE + 1)], np.int32)
    centres = np.arange(_SIDE) * _UNITS_PER_PIXEL + _UNITS_PER_PIXEL // 2
    coverage_NHW = np.empty((len(points_NPU), _SIDE, _SIDE), np.int32)
    for first in range(0, len(points_NPU), chunk):
        # Images last: the inner loop then runs over many numbers, six times as fast as over 28 pixels.
        points_PUN = points_NPU[first : first + chunk].transpose(1, 2, 0)
        squares_PUWN = np.minimum((points_PUN[:, :, None] - centres[:, None]) ** 2, _MAX_SQUARE).astype(np.int16)
        nearest_HWN = np.full((_SIDE, _SIDE, points_PUN.shape[2]), 2 * _MAX_SQUARE, np.int16)
        square_HWN = np.empty_like(nearest_HWN)
        for x_WN, y_HN in squares_PUWN:
            np.add(x_WN[None], y_HN[:, None], out=square_HWN)
            np.minimum(nearest_HWN, square_HWN, out=nearest_HWN)
        depth_NHW = (radius_N[first : first + chunk] + _UNITS_PER_PIXEL // 2 - root[nearest_HWN]).transpose(2, 0, 1)
        coverage_NHW[first : first + chunk] = np.clip(depth_NHW * 255 // _UNITS_PER_PIXEL, 0, 255)
    return coverage_NHW
