"""P-values adjusted for having made several tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values, in the same order: the chance of even one false claim stays below the level.

    Holds whatever the tests have to do with each other. Source: Holm 1979.
    """
    order = np.argsort(p_values, kind="stable")
    scaled = np.asarray(p_values, dtype=float)[order] * np.arange(len(order), 0, -1)
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return [float(value) for value in adjusted]


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values, in the same order: of the claims made, the expected share of false ones is below the level.

    Holds for tests that are independent or depend on each other positively. Source: Benjamini and Hochberg 1995.
    """
    order = np.argsort(p_values, kind="stable")[::-1]
    num = len(order)
    scaled = np.asarray(p_values, dtype=float)[order] * num / np.arange(num, 0, -1)
    adjusted = np.empty(num)
    adjusted[order] = np.minimum(np.minimum.accumulate(scaled), 1.0)
    return [float(value) for value in adjusted]


Correction = Literal["bh", "holm", "none"]

CORRECTIONS: Mapping[Correction, Callable[[Sequence[float]], list[float]]] = {
    "bh": benjamini_hochberg,
    "holm": holm,
    "none": list,
}
