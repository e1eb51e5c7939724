"""The draws of the oracle's noises, from its own generator."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from tests.unit.corruptions.parity import Replay


def _batch(values_HWC: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values_HWC.transpose(2, 0, 1)))[None]


def _normal(rng: np.random.RandomState, image: np.ndarray, _parameters: tuple[float, ...]) -> dict[str, Tensor]:
    return {"normal": _batch(rng.normal(size=image.shape)).float()}


def _counts(rng: np.random.RandomState, image: np.ndarray, parameters: tuple[float, ...]) -> dict[str, Tensor]:
    return {"counts": _batch(rng.poisson(image / 255.0 * parameters[0]))}


def _impulses(rng: np.random.RandomState, image: np.ndarray, parameters: tuple[float, ...]) -> dict[str, Tensor]:
    generator = np.random.default_rng(rng.randint(1 << 31))
    is_flipped = generator.random(image.shape) <= parameters[0]
    is_salt = generator.random(image.shape) <= 0.5
    return {"flip": _batch(np.where(is_flipped, 0, 65535)), "salt": _batch(np.where(is_salt, 0, 65535))}


REPLAYS: dict[str, Replay] = {
    "gaussian_noise": _normal,
    "speckle_noise": _normal,
    "shot_noise": _counts,
    "impulse_noise": _impulses,
}
