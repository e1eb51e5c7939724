"""The draws of the oracle's motion blur and weather, from its own generator."""

from __future__ import annotations

import functools
import importlib.util
import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from raypruning.corruptions.frost import parts
from raypruning.corruptions.frost_textures import Textures, from_folder
from tests.unit.corruptions.parity import Replay


def _angle(rng: np.random.RandomState, _image: np.ndarray, _parameters: tuple[float, ...]) -> dict[str, Tensor]:
    return {"angle": torch.tensor([rng.uniform(-45, 45)], dtype=torch.float64)}


def _flakes(rng: np.random.RandomState, image: np.ndarray, parameters: tuple[float, ...]) -> dict[str, Tensor]:
    height, width = image.shape[:2]
    normal = rng.normal(size=(height, width))
    num_rows, num_columns = math.ceil(height / parameters[2]), math.ceil(width / parameters[2])
    top, left = (height - num_rows) // 2, (width - num_columns) // 2
    middle = normal[top : top + num_rows, left : left + num_columns].copy()
    angle = torch.tensor([rng.uniform(-135, -45)], dtype=torch.float64)
    return {"flakes": torch.from_numpy(middle)[None], "angle": angle}


def _displacements(rng: np.random.RandomState, image: np.ndarray, _parameters: tuple[float, ...]) -> dict[str, Tensor]:
    size = 2 ** math.ceil(math.log2(max(image.shape[:2])))
    return {"displacements": torch.from_numpy(2.0 * rng.random_sample(size**2 - 1) - 1.0)[None]}


@functools.cache
def their_textures() -> Textures:
    """The oracle's own pictures of frost."""
    spec = importlib.util.find_spec("imagecorruptions")
    assert spec is not None and spec.origin is not None
    return from_folder(Path(spec.origin).with_name("frost"))


def _frost(rng: np.random.RandomState, image: np.ndarray, _parameters: tuple[float, ...]) -> dict[str, Tensor]:
    """Of the oracle's size of frost for either set of constants; the generator for `cifar` shrinks the frost."""
    size = image.shape[:2]
    picture = rng.randint(5)
    own = their_textures().pictures[picture].shape[:2]
    factor = max(1.0, size[0] / own[0], size[1] / own[1]) * 1.1
    top, left = (rng.randint(0, math.ceil(length * factor) - needed) for length, needed in zip(own, size, strict=True))
    place = (torch.tensor([number]) for number in (picture, top, left))
    return {"frost": parts(their_textures(), *place, size, is_shrunk=False)}


REPLAYS: dict[str, Replay] = {
    "motion_blur": _angle,
    "snow": _flakes,
    "fog": _displacements,
    "frost": _frost,
}
