"""Ours against the oracle, both fed with the same random draws."""

# B images of a batch (one here), C channels, H W height and width

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from raypruning.corruptions.corrupt import apply
from raypruning.corruptions.parameters import parameters_of
from tests.unit.corruptions import oracle

# (legacy generator in the state that the oracle begins with, image HWC, parameters) -> draws of a batch of one.
Replay = Callable[[np.random.RandomState, np.ndarray, tuple[float, ...]], dict[str, Tensor]]

SIZES = ((32, 32), (33, 47), (64, 40))


class Difference(NamedTuple):
    """Of two uint8 images."""

    largest: int
    share_equal: float


def picture(height: int, width: int, *, seed: int = 0) -> np.ndarray:
    """An image (H, W, 3) with what images have: shades, edges, texture, and white, black and grey patches."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    shades = np.stack([np.sin(3 * x + 1), np.cos(4 * y), np.sin(5 * (x + y))], axis=-1) * 90 + 128
    shades[height // 4 : height // 2, width // 3 : width // 2] += (60, -70, 20)
    image = np.clip(shades + rng.normal(size=shades.shape) * 12, 0, 255).astype(np.uint8)
    side = max(3, min(height, width) // 6)
    image[:side, :side], image[:side, -side:], image[-side:, :side] = 255, 0, 128
    return image


def ours(
    name: str, severity: int, image_HWC: np.ndarray, draws: dict[str, Tensor], *, parameter_set: str
) -> np.ndarray:
    """Our corruption of one image with given draws, (H, W, C)."""
    images_BCHW = torch.from_numpy(image_HWC.transpose(2, 0, 1).copy())[None]
    return apply(name, severity, images_BCHW, draws, parameter_set=parameter_set)[0].numpy().transpose(1, 2, 0)


def difference(name: str, severity: int, image_HWC: np.ndarray, replay: Replay, *, parameter_set: str) -> Difference:
    """Between ours and the oracle's, for the seed 7."""
    expected = oracle.reference(name, severity, image_HWC, seed=7, parameter_set=parameter_set)
    parameters = parameters_of(name, severity, parameter_set=parameter_set)
    draws = replay(np.random.RandomState(7), image_HWC, parameters)
    found = ours(name, severity, image_HWC, draws, parameter_set=parameter_set)
    return compare(found, expected)


def compare(found: np.ndarray, expected: np.ndarray) -> Difference:
    """How far two images are apart."""
    assert found.shape == expected.shape and found.dtype == expected.dtype == np.uint8
    gap = np.abs(found.astype(int) - expected.astype(int))
    return Difference(int(gap.max()), float((gap == 0).mean()))
