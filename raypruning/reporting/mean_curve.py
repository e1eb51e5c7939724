"""The mean of curves that were not measured at the same ratios: a search goes where its own curve leads it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Measured(NamedTuple):
    """A curve: positions on the axis of ratios, and points of error there."""

    positions: np.ndarray
    points: np.ndarray


def mean_curve(seeds: Sequence[Measured], *, linear: float) -> Measured:
    """The mean over seeds, at every position that any of them measured, where all of them reach.

    Between its own measurements a seed's curve is taken to be straight, as drawn on the vertical scale of the figures;
    beyond them it is not taken to be anything.

    Args:
        seeds: one or more, each with its positions in any order.
        linear: of the vertical scale, `asinh(points / linear)`.

    Returns: positions ascending; empty where the seeds have no range in common.
    """
    first = max(seed.positions.min() for seed in seeds)
    last = min(seed.positions.max() for seed in seeds)
    every = np.unique(np.concatenate([seed.positions for seed in seeds]))
    grid = every[(every >= first) & (every <= last)]
    curves = []
    for seed in seeds:
        order = np.argsort(seed.positions, kind="stable")
        curves.append(np.interp(grid, seed.positions[order], np.arcsinh(seed.points[order] / linear)))
    return Measured(grid, linear * np.mean(np.sinh(curves), axis=0))


def height_at(curve: Measured, position: float, *, linear: float) -> float | None:
    """Points of a curve at a position, as drawn; None where it does not reach."""
    if not len(curve.positions) or not curve.positions[0] <= position <= curve.positions[-1]:
        return None
    return float(linear * np.sinh(np.interp(position, curve.positions, np.arcsinh(curve.points / linear))))
