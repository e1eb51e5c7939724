"""The draws of the oracle's corruptions of colour, resolution and storage: there are none."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from tests.unit.corruptions.parity import Replay


def _nothing(_rng: np.random.RandomState, _image: np.ndarray, _parameters: tuple[float, ...]) -> dict[str, Tensor]:
    return {}


REPLAYS: dict[str, Replay] = dict.fromkeys(
    ("brightness", "contrast", "saturate", "pixelate", "jpeg_compression"), _nothing
)
