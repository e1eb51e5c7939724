"""Where a curve of loss against ratio crosses a threshold, from all that was measured of it.

The measured potential is the largest of a few ratios. It lies below the crossing by what was not measured in between,
and above it where noise lets a network pass. A curve fitted to all networks uses those on either side as well.
"""

# N equally likely curves, T deltas

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from raypruning.core.records import Estimate, SearchSpec
from raypruning.core.search.axis import position
from raypruning.core.search.curve_fit import Measurements, fit
from raypruning.core.search.strategy import Loss

CONFIDENCE = 0.9


def fitted_ratios(losses: Iterable[tuple[float, Loss]], deltas: Sequence[float], *, search: SearchSpec) -> np.ndarray:
    """Ratios at which equally likely curves cross each delta, (N, T), from 0 to the largest of the search.

    Args:
        losses: reached ratios and what was lost there, of at least one network.
    """
    measured = Measurements.of(losses)
    top = max(position(search.high), float(measured.positions_M.max()))
    curves = fit(measured, low=position(search.low), high=top)
    return np.asarray(-np.expm1(-np.clip(curves.crossings(deltas), 0.0, top)))


def estimate_of(ratios_N: np.ndarray) -> Estimate:
    """Median and central interval."""
    tail = (1.0 - CONFIDENCE) / 2.0
    low, middle, high = np.quantile(ratios_N, [tail, 0.5, 1.0 - tail])
    return Estimate(ratio=float(middle), low=float(low), high=float(high), confidence=CONFIDENCE)


def mean_estimate(estimates: Sequence[Estimate]) -> Estimate:
    """Over seeds: their mean, and an interval for it that counts how much seeds differ as well.

    Random effects: the variance of one seed's estimate is the larger of what its own interval says and what the seeds
    show. Source: DerSimonian and Laird 1986, with equal weights.
    """
    ratios_S = np.array([one.ratio for one in estimates])
    if len(ratios_S) == 1:
        return estimates[0]
    mean = float(ratios_S.mean())
    below = float(np.mean([(one.ratio - one.low) ** 2 for one in estimates]))
    above = float(np.mean([(one.high - one.ratio) ** 2 for one in estimates]))
    # 1.645 standard deviations, as in an interval of 90 %.
    between = float(ratios_S.var(ddof=1)) * 1.645**2
    low, high = (np.sqrt(max(within, between) / len(ratios_S)) for within in (below, above))
    top = max(one.high for one in estimates)  # Nothing is known beyond the largest ratio of the search.
    return Estimate(
        ratio=mean, low=max(mean - float(low), 0.0), high=min(mean + float(high), top), confidence=CONFIDENCE
    )
