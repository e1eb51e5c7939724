"""What a few noisy measurements say of a whole curve of loss against ratio, and so of where it crosses a threshold.

A curve is taken as c + s * w * softplus((u - k) / w): level at c up to a knee at u = k, and rising with the slope s
behind it, over a bend of width w. c may be below 0, since networks pruned a little are often better than their parent.
All of k, w, s and the spread of retraining lie on a grid; c follows in closed form. What comes out is a few hundred
curves that are equally likely, the same ones whenever the same was measured.

Real curves are of no such family. So a measurement counts for less the further it is from where thresholds lie.

Source: Bayesian model averaging over a grid, with the positions of Lost in Pruning's curves as prior; see
docs/search.md for how well its intervals cover.
"""

# G grid of (k, w), S slopes, D deviations of retraining, M measurements, N curves, Q levels of c, U positions, T deltas

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import ndtri

from raypruning.core.search.axis import position
from raypruning.core.search.strategy import Loss

NUM_CURVES = 512

_KNEES_PER_UNIT = 12  # knees per unit of u: less than a tenth of what is kept apart
_WIDTHS = np.array([0.03, 0.1, 0.25, 0.6, 1.2])
_SLOPES = np.geomspace(0.01, 4.0, 12)
DEVIATIONS = np.array([0.0005, 0.001, 0.002, 0.004])  # of a retraining's error from seed to seed
# Of c: most networks differ little from their parent where little is pruned, on shifted tasks some by points.
LEVEL_DEVIATIONS = np.array([0.001, 0.003, 0.01])
# Of the variance over images, what is the parent's own and common to all ratios: it hides in the level of a curve.
SHARED = 0.5
# How far a curve may be from the family, as a fraction of the loss itself.
MISFIT = 0.15
MISFIT_FLOOR = 0.0005
NEIGHBOURHOOD = 0.3  # in u


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
        knees_N, widths_N, slopes_N, levels_N: k, w, s and c of each.
        deviation: root mean square of the deviation from one retraining to the next.
    """

    knees_N: np.ndarray
    widths_N: np.ndarray
    slopes_N: np.ndarray
    levels_N: np.ndarray
    deviation: float

    def losses(self, positions_U: np.ndarray) -> np.ndarray:
        """(N, U)."""
        x_NU = (positions_U[None, :] - self.knees_N[:, None]) / self.widths_N[:, None]
        rise_N = self.slopes_N * self.widths_N
        return np.asarray(self.levels_N[:, None] + rise_N[:, None] * np.logaddexp(0.0, x_NU))

    def crossings(self, deltas: Sequence[float]) -> np.ndarray:
        """Where each curve passes each delta, (N, T); -inf where it lies above everywhere."""
        room_NT = np.asarray(deltas)[None, :] - self.levels_N[:, None]
        y_NT = np.maximum(room_NT, 1e-12) / (self.slopes_N * self.widths_N)[:, None]
        # The inverse of softplus; y + log(1 - exp(-y)) does not overflow.
        x_NT = y_NT + np.log(-np.expm1(-y_NT))
        return np.where(room_NT > 0, self.knees_N[:, None] + self.widths_N[:, None] * x_NT, -np.inf)


def fit(measured: Measurements, *, low: float, high: float) -> Curves:
    """Curves that explain the measurements.

    Args:
        measured: none, one or more.
        low, high: positions between which thresholds are looked for.
    """
    knees_K = np.linspace(low - 0.5, high + 0.5, 2 + int(_KNEES_PER_UNIT * (high - low + 1.0)))
    knees_G, widths_G = (axis.ravel() for axis in np.meshgrid(knees_K, _WIDTHS, indexing="ij"))
    basis_GM = widths_G[:, None] * np.logaddexp(0.0, (measured.positions_M - knees_G[:, None]) / widths_G[:, None])
    deviations_V, levels_V = (axis.ravel() for axis in np.meshgrid(DEVIATIONS, LEVEL_DEVIATIONS, indexing="ij"))
    variance_VM = _variance(measured) + deviations_V[:, None] ** 2
    shared = SHARED * float(np.mean(measured.errors_M**2)) if len(measured.errors_M) else 0.0
    prior_V = levels_V**2 + shared
    # Weighted sums, from which the likelihood with c integrated out follows for every slope.
    precision_VM = 1.0 / variance_VM
    loss_V = precision_VM @ measured.losses_M
    square_V = precision_VM @ measured.losses_M**2
    basis_GV = basis_GM @ precision_VM.T
    cross_GV = (basis_GM * measured.losses_M) @ precision_VM.T
    basis2_GV = basis_GM**2 @ precision_VM.T
    s = _SLOPES[None, :, None]
    residual_GSV = loss_V - s * basis_GV[:, None, :]
    residual2_GSV = square_V - 2 * s * cross_GV[:, None, :] + s**2 * basis2_GV[:, None, :]
    posterior_V = 1.0 / (precision_VM.sum(axis=1) + 1.0 / prior_V)
    log_GSV = -0.5 * (residual2_GSV - residual_GSV**2 * posterior_V)
    log_GSV += 0.5 * np.log(posterior_V / prior_V) - 0.5 * np.log(variance_VM).sum(axis=1)
    weights_GSV = np.exp(log_GSV - log_GSV.max())
    picked, places = _systematic(weights_GSV.ravel())
    g, i, v = np.unravel_index(picked, weights_GSV.shape)
    # Levels are spread over their distribution by the place that a curve has among those of its cell.
    level_N = residual_GSV[g, i, v] * posterior_V[v] + ndtri(places) * np.sqrt(posterior_V[v])
    # Part of that level is luck of the parent's images, and no property of the networks.
    own_N = levels_V[v] ** 2 / prior_V[v]
    level_N = level_N * own_N + _spread(NUM_CURVES) * np.sqrt(own_N * shared)
    deviation = float(np.sqrt(np.mean(deviations_V[v] ** 2)))
    return Curves(knees_G[g], widths_G[g], _SLOPES[i], level_N, deviation)


def _variance(measured: Measurements) -> np.ndarray:
    """Of each measurement but for retraining, (M,), without what all share."""
    # How a curve differs from the family is much the same for neighbours: more of them do not average it out.
    apart_MM = measured.positions_M[:, None] - measured.positions_M[None, :]
    neighbours_M = np.exp(-0.5 * (apart_MM / NEIGHBOURHOOD) ** 2).sum(axis=1)
    misfit_M = neighbours_M * (MISFIT_FLOOR**2 + (MISFIT * measured.losses_M) ** 2)
    return np.asarray((1.0 - SHARED) * measured.errors_M**2 + misfit_M)


def _systematic(weights_W: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`NUM_CURVES` picks in proportion to the weights, and a place in (0, 1) for each inside of its cell."""
    total_W = np.cumsum(weights_W / weights_W.sum())
    points_N = (np.arange(NUM_CURVES) + 0.5) / NUM_CURVES
    picked_N = np.minimum(np.searchsorted(total_W, points_N), len(weights_W) - 1)
    # A cell that is picked often takes its places evenly; across cells they follow a sequence without a pattern.
    places_N = (np.arange(NUM_CURVES) * 0.6180339887498949 + 0.5) % 1.0
    return picked_N, np.clip(places_N, 1e-6, 1 - 1e-6)


def _spread(num: int) -> np.ndarray:
    """Standard normal values in an order that follows nothing else."""
    return np.asarray(ndtri(np.clip((np.arange(num) * 0.7548776662466927 + 0.5) % 1.0, 1e-6, 1 - 1e-6)))
