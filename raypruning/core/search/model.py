"""Ask where the thresholds of all tasks are least certain, given curves fitted to what was measured.

The first round divides the range evenly. Each further one takes the ratio whose measurement is expected to lower the
variance of all thresholds' positions the most. A search ends when they are known to the resolution, when one more
network would hardly help, or after `max_points` networks. The ends of the range are asked for last, and only where a
threshold turns out to lie at one.

Source: the criterion is that of Cohn 1996 (active learning with statistical models), with linear prediction.
"""

# N curves, U candidates, T thresholds of a task, C = U + T

from __future__ import annotations

import functools
from collections.abc import Collection, Sequence
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
    num_inside = len(asked - {search.low, search.high})
    candidates_U = _candidates(search, asked)
    num = min(search.probes_per_round, search.max_points - NUM_ENDS - num_inside, len(candidates_U))
    if num <= 0:
        return ()
    if not asked:  # Nothing is known, and any other place would be that of the prior.
        low, high = position(search.low), position(search.high)
        return tuple(ratio_at(low + (high - low) * i / (num + 1)) for i in range(1, num + 1))
    views = [_view(search, deltas, losses, candidates_U) for deltas, losses in rows]
    chosen: list[int] = []
    for _ in range(num):
        left = sum(view.left for view in views)
        if left == 0.0:
            break
        share_U = np.sum([view.gain_U for view in views], axis=0) / left
        share_U[chosen] = -1.0
        # Rounded, so that a last bit that differs between platforms decides nothing. Ties: the lower ratio.
        best = int(np.argmax(np.round(share_U, 9)))
        if not chosen and share_U[best] < MIN_GAIN:
            break
        chosen.append(best)
        views = [view.after(best) for view in views]
    return tuple(sorted(ratio_at(candidates_U[index]) for index in chosen))


def _candidates(search: SearchSpec, asked: Collection[float]) -> np.ndarray:
    """Positions a resolution apart, without those too near to a ratio that was asked for."""
    low, high, step = position(search.low), position(search.high), width(search.resolution)
    inside_U = np.linspace(low, high, 2 + int((high - low) / step))[1:-1]
    taken = np.array([position(ratio) for ratio in asked])
    return np.asarray(inside_U[(np.abs(inside_U[:, None] - taken[None, :]) > step / 2).all(axis=1)])


class _View(NamedTuple):
    """What curves say of one task.

    Attributes:
        covariance_CC: of the losses at the candidates, then of the open thresholds' positions.
        noise_U: variance of a measurement at each candidate.
    """

    covariance_CC: np.ndarray
    noise_U: np.ndarray

    @property
    def left(self) -> float:
        """The variance of all open thresholds."""
        return float(np.diag(self.covariance_CC)[len(self.noise_U) :].sum())

    @property
    def gain_U(self) -> np.ndarray:
        """How much less of it there would be after a measurement at each candidate."""
        num = len(self.noise_U)
        cross_UT = self.covariance_CC[:num, num:]
        return np.asarray((cross_UT**2).sum(axis=1) / (np.diag(self.covariance_CC)[:num] + self.noise_U))

    def after(self, index: int) -> _View:
        """The view after a measurement at a candidate."""
        column_C = self.covariance_CC[:, index]
        taken_CC = np.outer(column_C, column_C) / (column_C[index] + self.noise_U[index])
        return self._replace(covariance_CC=self.covariance_CC - taken_CC)


def _view(
    search: SearchSpec, deltas: Sequence[float], losses: Sequence[tuple[float, Loss]], candidates_U: np.ndarray
) -> _View:
    low, high = position(search.low), position(search.high)
    measured = Measurements.of(losses)
    curves = fit(measured, low=low, high=high)
    losses_NU = curves.losses(candidates_U)
    crossings_NT = np.clip(curves.crossings(deltas), low, high)
    spread_T = np.subtract(*np.quantile(crossings_NT, [0.95, 0.05], axis=0))
    quantities_NC = np.concatenate([losses_NU, crossings_NT[:, spread_T > width(search.resolution)]], axis=1)
    error = np.sqrt(np.mean(measured.errors_M**2)) if losses else TYPICAL_ERROR
    noise_U = error**2 + curves.deviation**2 + (MISFIT * np.median(losses_NU, axis=0)) ** 2
    return _View(np.atleast_2d(np.cov(quantities_NC, rowvar=False, bias=True)), noise_U)
