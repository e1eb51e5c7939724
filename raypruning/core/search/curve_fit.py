"""What a few noisy measurements say of a whole curve of loss against ratio, and so of where it crosses a threshold.

A curve is taken as c + b * u + s * w * softplus((u - k) / w). From the level c, below 0 where a little pruning makes
networks better, it rises slowly, by b for every e-fold less that is kept, as losses of filter pruning and on shifted
tasks do long before a network breaks. Behind a knee at u = k it rises by s more, over a bend of width w. All of k, w,
s and the spread of retraining lie on a grid; c, and b, which is never negative, follow in closed form. What comes out
is a few hundred curves that are equally likely, the same ones whenever the same was measured.

Real curves are of no such family. So a measurement counts for less the further it is from where thresholds lie.

Source: Bayesian model averaging over a grid, with the positions of Lost in Pruning's curves as prior. How often its
intervals hold is measured by benchmarks/search.py.
"""

# G grid of (k, w), S slopes, V deviations, M measurements, N curves, U positions, T deltas

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import expit, log_ndtr, ndtri, ndtri_exp

from raypruning.core.search.axis import position
from raypruning.core.search.strategy import Loss

NUM_CURVES = 512

_KNEES_PER_UNIT = 12  # knees per unit of u: less than a tenth of what is kept apart
_WIDTHS = np.array([0.03, 0.1, 0.25, 0.6, 1.2])
_SLOPES = np.geomspace(0.03, 4.0, 10)  # what is slower is the slow rise
# Of a retraining's error from seed to seed where little is lost.
DEVIATIONS = np.array([0.0005, 0.001, 0.002])
# Of c: most networks differ little from their parent where little is pruned, on shifted tasks some by points.
LEVEL_DEVIATIONS = np.array([0.001, 0.003, 0.01])
# Of b, as a fraction of that of c: a task on which retraining costs much is one on which pruning does. Weights pruned
# by magnitude cost a LeNet .001 for an e-fold less kept, filters .002 to .015, of which a wide bend takes the larger.
RISE = 0.3
# Of the variance over images, what is the parent's own and common to all ratios: it hides in the level of a curve.
SHARED = 0.5
# How far a network may be from its curve, as a fraction of the loss itself: retrained once more it loses 5 to 25 % more
# or less, .16 in the mean square, and real curves are from the family by as much again.
MISFIT = 0.22

# No more than twice the room is lost where they begin, from where six reach the last bits.
_NEWTON_STEPS = 8


class Measurements(NamedTuple):
    """Losses of one curve on one task.

    Attributes:
        positions_M: where they were measured, -log(1 - ratio).
        losses_M: error minus the parent's.
        errors_M: their standard errors over test images.
    """

    positions_M: np.ndarray
    losses_M: np.ndarray
    errors_M: np.ndarray

    @classmethod
    def of(cls, losses: Iterable[tuple[float, Loss]]) -> Measurements:
        """From ratios and what was lost there, in any order: sums are rounded, and these are always the same."""
        rows = [(position(ratio), *loss) for ratio, loss in sorted(losses)]
        return cls(*np.array(rows, dtype=float).reshape(-1, 3).T)


class Curves(NamedTuple):
    """Equally likely curves.

    Attributes:
        knees_N, widths_N, slopes_N, rises_N, levels_N: k, w, s, b and c of each.
        deviation: root mean square of the deviation from one retraining to the next.
    """

    knees_N: np.ndarray
    widths_N: np.ndarray
    slopes_N: np.ndarray
    rises_N: np.ndarray
    levels_N: np.ndarray
    deviation: float

    def losses(self, positions_U: np.ndarray) -> np.ndarray:
        """At positions from 0 on, (N, U)."""
        slow_NU = self.levels_N[:, None] + self.rises_N[:, None] * positions_U[None, :]
        x_NU = (positions_U[None, :] - self.knees_N[:, None]) / self.widths_N[:, None]
        return np.asarray(slow_NU + (self.slopes_N * self.widths_N)[:, None] * np.logaddexp(0.0, x_NU))

    def crossings(self, deltas: Sequence[float]) -> np.ndarray:
        """Where each curve passes each delta, (N, T); -inf where it lies above from 0 on."""
        k, w, s, b, c = (axis_N[:, None] for axis_N in self[:5])
        room_NT = np.asarray(deltas)[None, :] - c
        is_above_NT = room_NT <= s * w * np.logaddexp(0.0, -k / w)
        room_NT = np.where(is_above_NT, 1.0, room_NT)  # any: the result is not used
        # The inverse of softplus, for the knee alone; y + log(1 - exp(-y)) does not overflow.
        y_NT = room_NT / (s * w)
        knee_NT = k + w * (y_NT + np.log(-np.expm1(-y_NT)))
        # The slow rise alone crosses at room / b, and both together before either. From behind the crossing of a convex
        # curve Newton's steps come down to it, and do not pass it.
        u_NT = np.minimum(knee_NT, room_NT / np.maximum(b, 1e-12))
        for _ in range(_NEWTON_STEPS):
            x_NT = (u_NT - k) / w
            over_NT = b * u_NT + s * w * np.logaddexp(0.0, x_NT) - room_NT
            u_NT = u_NT - over_NT / (b + s * expit(x_NT))
        return np.where(is_above_NT, -np.inf, u_NT)


class _Line(NamedTuple):
    """The straight part c + b * u of a curve: what Gaussian priors and weighted measurements make of it.

    Attributes:
        cc_V, cb_V, bb_V: the matrix of precisions of c and b.
        log_volume_V: log of the posterior's volume over the prior's.
    """

    cc_V: np.ndarray
    cb_V: np.ndarray
    bb_V: np.ndarray
    log_volume_V: np.ndarray

    @classmethod
    def of(
        cls, weights_VM: np.ndarray, positions_M: np.ndarray, *, c_variance_V: np.ndarray, b_variance_V: np.ndarray
    ) -> _Line:
        cc_V = weights_VM.sum(axis=1) + 1.0 / c_variance_V
        cb_V = weights_VM @ positions_M
        bb_V = weights_VM @ positions_M**2 + 1.0 / b_variance_V
        return cls(cc_V, cb_V, bb_V, -0.5 * np.log((cc_V * bb_V - cb_V**2) * c_variance_V * b_variance_V))

    @property
    def b_deviation_V(self) -> np.ndarray:
        return np.asarray(np.sqrt(self.cc_V / (self.cc_V * self.bb_V - self.cb_V**2)))


def fit(measured: Measurements, *, low: float, high: float) -> Curves:
    """Curves that explain the measurements.

    Args:
        measured: none, one or more.
        low, high: positions between which thresholds are looked for.
    """
    positions_M, losses_M, errors_M = measured
    knees_K = np.linspace(low - 0.5, high + 0.5, 2 + int(_KNEES_PER_UNIT * (high - low + 1.0)))
    knees_G, widths_G = (axis.ravel() for axis in np.meshgrid(knees_K, _WIDTHS, indexing="ij"))
    basis_GM = widths_G[:, None] * np.logaddexp(0.0, (positions_M - knees_G[:, None]) / widths_G[:, None])
    deviations_V, levels_V = (axis.ravel() for axis in np.meshgrid(DEVIATIONS, LEVEL_DEVIATIONS, indexing="ij"))
    shared = SHARED * float(np.mean(errors_M**2)) if len(errors_M) else 0.0
    alone_M = (1.0 - SHARED) * errors_M**2 + (MISFIT * losses_M) ** 2
    variance_VM = alone_M + deviations_V[:, None] ** 2
    weights_VM = 1.0 / variance_VM
    line = _Line.of(weights_VM, positions_M, c_variance_V=levels_V**2 + shared, b_variance_V=(RISE * levels_V) ** 2)
    # Weighted sums of what the knee leaves to the line, from which c and b are integrated out for every slope.
    s = _SLOPES[None, :, None]
    sum_GSV = weights_VM @ losses_M - s * (basis_GM @ weights_VM.T)[:, None, :]
    moment_GSV = weights_VM @ (losses_M * positions_M) - s * ((basis_GM * positions_M) @ weights_VM.T)[:, None, :]
    square_GSV = weights_VM @ losses_M**2 - 2 * s * ((basis_GM * losses_M) @ weights_VM.T)[:, None, :]
    square_GSV += s**2 * (basis_GM**2 @ weights_VM.T)[:, None, :]
    # The mean of b in units of its deviation. Only where b is positive counts: that share multiplies the likelihood.
    mean_GSV = (moment_GSV - sum_GSV * (line.cb_V / line.cc_V)) * line.b_deviation_V
    log_share_GSV = log_ndtr(mean_GSV)
    log_GSV = 0.5 * (sum_GSV**2 / line.cc_V + mean_GSV**2 - square_GSV) + log_share_GSV
    log_GSV += line.log_volume_V - 0.5 * np.log(variance_VM).sum(axis=1)
    picked_N = _systematic(np.exp(log_GSV - log_GSV.max()).ravel())
    g, i, v = np.unravel_index(picked_N, log_GSV.shape)
    # Inside of its cell a curve takes b from the positive part of its distribution, and c from what that is given b.
    beyond_N = ndtri_exp(log_share_GSV[g, i, v] + np.log(_places(0)))
    b_N = line.b_deviation_V[v] * np.maximum(mean_GSV[g, i, v] - beyond_N, 0.0)
    c_N = (sum_GSV[g, i, v] - line.cb_V[v] * b_N) / line.cc_V[v] + ndtri(_places(1)) / np.sqrt(line.cc_V[v])
    # Part of that level is luck of the parent's images, and no property of the networks.
    own_N = levels_V[v] ** 2 / (levels_V[v] ** 2 + shared)
    c_N = c_N * own_N + ndtri(_places(2)) * np.sqrt(own_N * shared)
    deviation = float(np.sqrt(np.mean(deviations_V[v] ** 2)))
    return Curves(knees_G[g], widths_G[g], _SLOPES[i], b_N, c_N, deviation)


def _systematic(weights_W: np.ndarray) -> np.ndarray:
    """`NUM_CURVES` picks in proportion to the weights."""
    total_W = np.cumsum(weights_W / weights_W.sum())
    points_N = (np.arange(NUM_CURVES) + 0.5) / NUM_CURVES
    return np.minimum(np.searchsorted(total_W, points_N), len(weights_W) - 1)


# Inverse powers of the root of x**4 = x + 1: their multiples, modulo 1, fill the unit cube evenly (Roberts 2018).
_STEPS = (0.8191725133961645, 0.6710436067037893, 0.5497004779019703)


def _places(axis: int) -> np.ndarray:
    """A place in (0, 1) for each curve: even among those of a cell, and in no order that another axis follows."""
    return np.asarray(np.clip((np.arange(NUM_CURVES) * _STEPS[axis] + 0.5) % 1.0, 1e-6, 1 - 1e-6))
