"""The axis a search walks on: u = -log(1 - ratio), since knees lie at .9 to .99 and what matters is what is kept."""

from __future__ import annotations

import math

# Ratios are asked for in steps of a millionth: fine enough for any network, and the same text on every platform,
# which the identity of a training needs.
RATIO_DIGITS = 6


def position(ratio: float) -> float:
    """Where a ratio lies: 0 for dense, log 2 = 0.69 further for every halving of what is kept."""
    return -math.log1p(-ratio)


def ratio_at(u: float) -> float:
    """The ratio at a position, rounded to a millionth."""
    return round(-math.expm1(-u), RATIO_DIGITS)


def width(resolution: float) -> float:
    """The width of a bracket whose ends keep fractions that differ by `resolution` of the larger."""
    return -math.log1p(-resolution)
