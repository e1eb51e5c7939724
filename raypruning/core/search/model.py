"""Ask where the thresholds of all tasks are least certain, given curves fitted to what was measured.

Each round takes the ratio whose measurement is expected to lower the variance of all thresholds' positions the most. A
search ends when they are known to the resolution, when one more network would hardly help, or after `max_points`
networks. The ends of the range are asked for last, and only where a threshold turns out to lie at one.

Source: the criterion is that of Cohn 1996 (active learning with statistical models), with linear prediction.
"""

# N curves, U candidates, T thresholds of a task, C = U + T

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from raypruning.core.records import SearchSpec
from raypruning.core.search.axis import position, ratio_at, width
from raypruning.core.search.brackets import bracket, missing_end
from raypruning.core.search.curve_fit import MISFIT, Measurements, fit
from raypruning.core.search.strategy import Known, Loss

NUM_ENDS = 2  # networks that are kept back for the ends of the range
MIN_GAIN = 0.05  # of the variance that is left: what one more network must promise
TYPICAL_ERROR = 0.003  # standard error of a loss, before one was measured

_Rows = tuple[tuple[tuple[float, ...], tuple[tuple[float, Loss], ...]], ...]


def next_ratios(search: SearchSpec, known: Known) -> tuple[float, ...]:
    """Up to `probes_per_round` ratios; none when enough is known."""
    rows = tuple((task.deltas, tuple(sorted(task.by_ratio.items()))) for task in known.tasks)
    chosen = _informative(search, rows, frozenset(known.asked))
    if chosen:
        return chosen
    brackets = [bracket(outcomes, top=search.high) for outcomes in known.outcomes]
    ends = {end for one in brackets if (end := missing_end(one, search=search)) is not None} - known.asked
    return tuple(sorted(ends)[: search.probes_per_round])


# A search is replayed from its beginning after every result: what it said before need not be computed again.
@functools.lru_cache(maxsize=4096)
def _informative(search: SearchSpec, rows: _Rows, asked: frozenset[float]) -> tuple[float, ...]:
    inside = asked - {search.low, search.high}
    num = min(search.probes_per_round, search.max_points - NUM_ENDS - len(inside))
    low, high, step = position(search.low), position(search.high), width(search.resolution)
    candidates_U = np.linspace(low, high, 2 + int((high - low) / step))[1:-1]
    taken = np.array([position(ratio) for ratio in asked])
    is_free_U = (np.abs(candidates_U[:, None] - taken[None, :]) > step / 2).all(axis=1)
    candidates_U = candidates_U[is_free_U]
    if num <= 0 or not len(candidates_U):
        return ()
    views = [_view(deltas, dict(losses), candidates_U, low=low, high=high, step=step) for deltas, losses in rows]
    chosen: list[int] = []
    for _ in range(min(num, len(candidates_U))):
        gain_U = np.sum([_gain(view) for view in views], axis=0)
        left = sum(float(np.trace(view.covariance_CC[len(candidates_U) :, len(candidates_U) :])) for view in views)
        gain_U[chosen] = -1.0
        best = int(np.argmax(np.round(gain_U / max(left, 1e-12), 9)))
        if left <= 0 or (inside and not chosen and gain_U[best] < MIN_GAIN * left):
            break
        chosen.append(best)
        views = [_after(view, best) for view in views]
    return tuple(sorted(ratio_at(candidates_U[index]) for index in chosen))


class _View(NamedTuple):
    """What curves say of one task.

    Attributes:
        covariance_CC: of the losses at the candidates, then of the open thresholds' positions.
        noise_U: variance of a measurement at each candidate.
    """

    covariance_CC: np.ndarray
    noise_U: np.ndarray


def measurements(losses: Mapping[float, Loss]) -> Measurements:
    """Losses by ratio as arrays."""
    return Measurements(
        np.array([position(ratio) for ratio in losses]),
        np.array([loss.value for loss in losses.values()]),
        np.array([loss.standard_error for loss in losses.values()]),
    )


def _view(
    deltas: Sequence[float],
    losses: Mapping[float, Loss],
    candidates_U: np.ndarray,
    *,
    low: float,
    high: float,
    step: float,
) -> _View:
    measured = measurements(losses)
    curves = fit(measured, low=low, high=high)
    losses_NU = curves.losses(candidates_U)
    crossings_NT = np.clip(curves.crossings(deltas), low, high)
    spread_T = np.subtract(*np.quantile(crossings_NT, [0.95, 0.05], axis=0))
    quantities_NC = np.concatenate([losses_NU, crossings_NT[:, spread_T > step]], axis=1)
    error = np.sqrt(np.mean(measured.errors_M**2)) if losses else TYPICAL_ERROR
    noise_U = error**2 + curves.deviation**2 + (MISFIT * np.median(losses_NU, axis=0)) ** 2
    return _View(np.atleast_2d(np.cov(quantities_NC, rowvar=False, bias=True)), noise_U)


def _gain(view: _View) -> np.ndarray:
    """How much less variance all thresholds of a task would have after a measurement at each candidate."""
    num = len(view.noise_U)
    cross_UT = view.covariance_CC[:num, num:]
    return np.asarray((cross_UT**2).sum(axis=1) / (np.diag(view.covariance_CC)[:num] + view.noise_U))


def _after(view: _View, index: int) -> _View:
    """The view after a measurement at a candidate."""
    column_C = view.covariance_CC[:, index]
    taken_CC = np.outer(column_C, column_C) / (column_C[index] + view.noise_U[index])
    return view._replace(covariance_CC=view.covariance_CC - taken_CC)
