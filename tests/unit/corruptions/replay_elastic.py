"""The oracle's draws of elastic transform and spatter, and the elastic transform of the published data.

The package has no other elastic transform than its own, so that of Hendrycks and Dietterich is defined here anew, slow
and plain.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import gaussian_filter, map_coordinates
from torch import Tensor

from tests.unit.corruptions.parity import Replay


def _fields(rng: np.random.RandomState, image: np.ndarray, _parameters: tuple[float, ...]) -> dict[str, Tensor]:
    # The oracle draws between the bounds +-0.005 of the height, which is part of the factor here.
    height = image.shape[0]
    bound = height * 0.005
    fields = [rng.uniform(-bound, bound, size=image.shape[:2]) / bound for _ in range(2)]
    return {"fields": torch.from_numpy(np.stack(fields))[None]}


def _liquid(rng: np.random.RandomState, image: np.ndarray, _parameters: tuple[float, ...]) -> dict[str, Tensor]:
    return {"liquid": torch.from_numpy(rng.normal(size=image.shape[:2]))[None]}


REPLAYS: dict[str, Replay] = {"elastic_simple": _fields, "spatter": _liquid}


def transform_draws(rng: np.random.RandomState, image: np.ndarray, parameters: tuple[float, ...]) -> dict[str, Tensor]:
    """Those of the generator of the published data, in its order: three points, the field of x, the field of y."""
    jitter = parameters[2]
    moves = rng.uniform(-jitter, jitter, size=(3, 2))
    fields = [rng.uniform(-1, 1, size=image.shape[:2]) for _ in range(2)]
    return {"moves": torch.from_numpy(moves)[None], "fields": torch.from_numpy(np.stack(fields))[None]}


def transformed(image_HWC: np.ndarray, draws: dict[str, Tensor], parameters: tuple[float, ...]) -> np.ndarray:
    """The elastic transform by its definition: a system of equations for the map, scipy for fields and places."""
    alpha, sigma, _jitter = parameters
    warped = affine_warp(image_HWC.astype(np.float32) / np.float32(255), draws["moves"][0].numpy())
    fields = draws["fields"][0].numpy()
    # Sigma 0 is a smoothing that changes nothing.
    dx, dy = (
        (gaussian_filter(field, sigma, mode="reflect", truncate=3) * alpha).astype(np.float32) for field in fields
    )
    rows, columns = np.mgrid[0 : image_HWC.shape[0], 0 : image_HWC.shape[1]]
    places = (rows + dy, columns + dx)
    channels = [map_coordinates(warped[..., c], places, order=1, mode="reflect") for c in range(image_HWC.shape[2])]
    levels: np.ndarray = np.clip(np.stack(channels, axis=-1), 0, 1) * 255
    return levels.astype(np.uint8)


def affine_warp(image_HWC: np.ndarray, moves_32: np.ndarray) -> np.ndarray:
    """Bilinear, float64 places, mirrored about the border pixels: what OpenCV's warpAffine says that it computes."""
    height, width = image_HWC.shape[:2]
    points, moved = corner_points(height, width, moves_32)
    # Six unknowns from three pairs of points: moved -> original, both as (x, y).
    source = np.linalg.solve(np.hstack([moved.astype(np.float64), np.ones((3, 1))]), points.astype(np.float64))
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float64)
    x, y = (source[0, k] * columns + source[1, k] * rows + source[2, k] for k in (0, 1))
    # Scipy's "mirror" is the one about border pixels.
    channels = [
        map_coordinates(image_HWC[..., c].astype(np.float64), (y, x), order=1, mode="mirror")
        for c in range(image_HWC.shape[2])
    ]
    return np.stack(channels, axis=-1).astype(np.float32)


def corner_points(height: int, width: int, moves_32: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Before and after, float32 (3, 2); rows and columns of the middle are swapped, as in the generator."""
    middle = np.array((height, width), dtype=np.float32) // 2
    side = min(height, width) // 3
    points = np.array([middle + side, [middle[0] + side, middle[1] - side], middle - side], dtype=np.float32)
    return points, points + moves_32.astype(np.float32)
