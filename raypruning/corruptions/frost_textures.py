"""Pictures of frost on glass: five of our own making, or those of a folder.

The pictures of Hendrycks and Dietterich's generator come from the web, under licences that nobody stated, so they are
not part of this package. Ours have their brightness, contrast and tint; who has theirs names the folder in
`RAYPRUNING_FROST_DIR`.
"""

# H W height and width of a picture, N crystals or branches

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from raypruning.errors import DataError

NUM_USED: Final = 5
FOLDER_VARIABLE: Final = "RAYPRUNING_FROST_DIR"
_SUFFIXES = (".png", ".jpg", ".jpeg")
_EXPECTED = f"frost pictures are read from a folder of .png or .jpg files ({FOLDER_VARIABLE}), and"
_HEIGHT, _WIDTH = 480, 720
# Lines are drawn to 1/16 of a pixel in whole numbers, so that no rounding of sines shows.
_LINE_BITS = 4


@dataclass(frozen=True, eq=False)
class Textures:
    """Frost pictures, uint8 (H, W, 3), red first; of any sizes, the first five of a folder at most."""

    pictures: tuple[np.ndarray, ...]


@dataclass(frozen=True, kw_only=True)
class _Look:
    """How a picture of ours looks.

    Attributes:
        mean, std: of red, green and blue: those of the picture that this one stands for.
        num: crystals; `length` of their stems in pixels, `arms` the stems of one.
        angle: between a branch and its stem in degrees; 60 is how ice grows freely, less where it is crowded.
        spacing: of the branches along a stem in pixels.
        reach: of the lowest branches, as a share of the stem.
        haze: weight of the clouds behind the crystals, relative to these.
        tint: how far the colours vary apart, in grey levels.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    num: int
    length: float
    arms: int
    angle: float
    spacing: float
    reach: float
    haze: float
    tint: float = 0.0


# fmt: off
_LOOKS = (
    _Look(
        mean=(78, 149, 166), std=(27, 17, 15), num=170, length=110, arms=1, angle=28, spacing=6, reach=0.35, haze=1.6,
        tint=10.0,
    ),
    _Look(mean=(201, 205, 214), std=(22, 22, 22), num=420, length=80, arms=1, angle=22, spacing=5, reach=0.5, haze=0.8),
    _Look(mean=(201, 205, 214), std=(22, 22, 22), num=260, length=70, arms=2, angle=38, spacing=5, reach=0.5, haze=0.8),
    _Look(mean=(138, 153, 165), std=(28, 28, 30), num=300, length=38, arms=5, angle=48, spacing=4, reach=0.5, haze=0.9),
    _Look(mean=(112, 123, 135), std=(44, 43, 42), num=150, length=62, arms=4, angle=55, spacing=5, reach=0.5, haze=0.8),
)
# fmt: on


def default() -> Textures:
    """Those of the folder in `RAYPRUNING_FROST_DIR`, else our own. Read once in a process."""
    folder = os.environ.get(FOLDER_VARIABLE)
    return _read_once(folder) if folder else procedural()


def paths_in(folder: Path | str) -> list[Path]:
    """The first five pictures of a folder by name. Raises DataError: there is no such folder, or none in it."""
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{_EXPECTED} {folder} is no folder")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES)[:NUM_USED]
    if not paths:
        raise DataError(f"{_EXPECTED} {folder} has none")
    return paths


def from_folder(folder: Path | str) -> Textures:
    """The first five pictures of a folder by name, png or jpg; with Hendrycks' that is frost1 to frost5, as he does.

    Raises: DataError: there is no such folder, no picture in it, or one that cannot be read.
    """
    import cv2

    pictures = []
    for path in paths_in(folder):
        # Not cv2.imread, which writes to stderr rather than say what is wrong.
        encoded = np.frombuffer(path.read_bytes(), np.uint8)
        picture = cv2.imdecode(encoded, cv2.IMREAD_COLOR) if len(encoded) else None
        if picture is None:
            raise DataError(f"{_EXPECTED} {folder} has {path.name}, which is no such picture")
        pictures.append(np.ascontiguousarray(picture[..., ::-1]))
    return Textures(tuple(pictures))


@functools.cache
def procedural() -> Textures:
    """Our five, 480 x 720, the same on every machine but for single values one level apart."""
    return Textures(tuple(_picture(look, seed) for seed, look in enumerate(_LOOKS)))


_read_once = functools.cache(from_folder)


def _picture(look: _Look, seed: int) -> np.ndarray:
    # The legacy generator, whose numbers NumPy promises not to change.
    rng = np.random.RandomState(seed)
    # Some parts of a pane are frozen over more than others.
    clouds_HW = _standard(_clouds(rng, 6))
    behind_HW = look.haze * (clouds_HW + 0.35 * _standard(_ridges(rng)))
    shades_HW = _standard(behind_HW + _standard(_crystals(rng, look)) * (1.0 + 0.3 * clouds_HW))
    colours = [mean + std * shades_HW for mean, std in zip(look.mean, look.std, strict=True)]
    if look.tint:
        tint_HW = look.tint * _standard(_clouds(rng, 3))
        colours = [colour + part * tint_HW for colour, part in zip(colours, (2.0, 0.3, -0.5), strict=True)]
    picture = np.stack(colours, axis=-1)
    # The tint widens the spread again: bring it back.
    spread = (picture - picture.mean(axis=(0, 1))) / picture.std(axis=(0, 1))
    levels: np.ndarray = np.clip(np.rint(spread * look.std + look.mean), 0, 255)
    return levels.astype(np.uint8)


def _standard(values_HW: np.ndarray) -> np.ndarray:
    """Of mean 0 and standard deviation 1."""
    standard_HW: np.ndarray = (values_HW - values_HW.mean()) / values_HW.std()
    return standard_HW


def _clouds(rng: np.random.RandomState, num_octaves: int) -> np.ndarray:
    """Smooth noise of several scales, the coarsest the strongest."""
    import cv2

    clouds_HW = np.zeros((_HEIGHT, _WIDTH), np.float32)
    for octave in range(num_octaves):
        coarse = rng.random_sample((2 * 2**octave + 1, 3 * 2**octave + 1)).astype(np.float32) - 0.5
        clouds_HW += 0.5**octave * cv2.resize(coarse, (_WIDTH, _HEIGHT), interpolation=cv2.INTER_CUBIC)
    return clouds_HW


def _ridges(rng: np.random.RandomState) -> np.ndarray:
    """Thin bright creases, where smooth noise crosses zero."""
    import cv2

    ridges_HW = np.zeros((_HEIGHT, _WIDTH), np.float32)
    for num in (24, 60, 140):
        coarse = rng.random_sample((num * 2 // 3, num)).astype(np.float32) - 0.5
        ridges_HW += 1.0 - 4.0 * np.abs(cv2.resize(coarse, (_WIDTH, _HEIGHT), interpolation=cv2.INTER_CUBIC))
    return np.maximum(ridges_HW, -1.5)


def _crystals(rng: np.random.RandomState, look: _Look) -> np.ndarray:
    """Feathers of ice in three depths, the nearest sharpest, lit from the upper left."""
    import cv2

    height_HW = np.zeros((_HEIGHT, _WIDTH), np.float32)
    for depth in range(3):
        layer = np.zeros((_HEIGHT, _WIDTH), np.uint8)
        _draw_crystals(layer, rng, look)
        blur = (1.6, 0.9, 0.5)[depth]
        near_HW = cv2.GaussianBlur(layer.astype(np.float32), (0, 0), blur)
        height_HW = np.maximum(0.6 * height_HW, near_HW) + 0.25 * height_HW
    down, right = np.gradient(cv2.GaussianBlur(height_HW, (0, 0), 0.8))
    lit_HW: np.ndarray = height_HW + 1.2 * (down + right)
    return lit_HW


def _draw_crystals(layer: np.ndarray, rng: np.random.RandomState, look: _Look) -> None:
    num = look.num
    where_N2 = rng.random_sample((num, 1, 2)) * (_WIDTH, _HEIGHT)
    first_angle_N = rng.random_sample((num, 1)) * 2.0 * np.pi
    # Not quite even stars, and some arms much shorter.
    between = 2.0 * np.pi / max(look.arms, 3)
    angles = first_angle_N + between * (np.arange(look.arms) + 0.35 * rng.random_sample((num, look.arms)))
    lengths = look.length * (0.35 + 0.9 * rng.random_sample((num, look.arms)))
    brightness_N = 120 + 135 * rng.random_sample(num)
    starts = np.broadcast_to(where_N2, (num, look.arms, 2))
    for crystal in range(num):
        stems = starts[crystal], angles[crystal], lengths[crystal]
        _draw_lines(layer, *stems, brightness=0.9 * brightness_N[crystal])
        twigs = _branches(*stems, look.spacing, look.angle, look.reach)
        _draw_lines(layer, *twigs, brightness=0.8 * brightness_N[crystal])
        needles = _branches(*twigs, 0.8 * look.spacing, look.angle, 0.4)
        _draw_lines(layer, *needles, brightness=0.7 * brightness_N[crystal])


def _branches(
    starts: np.ndarray, angles: np.ndarray, lengths: np.ndarray, spacing: float, angle: float, reach: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of branches along lines (N, 2), (N,), (N,): long at the foot, short at the tip; at even distances."""
    num_each = (lengths / spacing).astype(int)
    line = np.repeat(np.arange(len(lengths)), num_each)
    step = np.arange(len(line)) - np.repeat(np.cumsum(num_each) - num_each, num_each) + 1
    along = step * spacing
    feet = starts[line] + along[:, None] * _direction(angles[line])
    # A ripple, since no two neighbours grow equally fast.
    sizes = reach * (lengths[line] - along) * (0.75 + 0.25 * np.sin(2.4 * step + line))
    turn = np.deg2rad(angle)
    both = np.concatenate([angles[line] - turn, angles[line] + turn])
    return np.concatenate([feet, feet]), both, np.concatenate([sizes, sizes])


def _direction(angles: np.ndarray) -> np.ndarray:
    return np.stack([np.cos(angles), np.sin(angles)], axis=-1)


def _draw_lines(
    layer: np.ndarray, starts: np.ndarray, angles: np.ndarray, lengths: np.ndarray, *, brightness: float
) -> None:
    import cv2

    is_seen = lengths >= 1.0
    ends = starts + lengths[:, None] * _direction(angles)
    lines = np.rint(np.stack([starts[is_seen], ends[is_seen]], axis=1) * (1 << _LINE_BITS)).astype(np.int32)
    if len(lines):
        cv2.polylines(layer, lines, False, int(brightness), 1, cv2.LINE_AA, _LINE_BITS)
