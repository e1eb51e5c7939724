"""The draws of the oracle's blurs, from its own generator."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from tests.unit.corruptions.parity import Replay


def _nothing(_rng: np.random.RandomState, _image: np.ndarray, _parameters: tuple[float, ...]) -> dict[str, Tensor]:
    return {}


def _offsets(rng: np.random.RandomState, image: np.ndarray, parameters: tuple[float, ...]) -> dict[str, Tensor]:
    _, reach, num_times = (int(parameter) for parameter in parameters)
    shape = (num_times, image.shape[0] - 2 * reach, image.shape[1] - 2 * reach, 2)
    # One call for all: the legacy generator gives the values that a call of two for each pixel gives.
    return {"offsets": torch.from_numpy(rng.randint(-reach, reach, size=shape))[None].to(torch.int32)}


REPLAYS: dict[str, Replay] = {
    "gaussian_blur": _nothing,
    "defocus_blur": _nothing,
    "glass_blur": _offsets,
    "zoom_blur": _nothing,
}
