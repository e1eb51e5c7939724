"""The exhaustive grid of real networks, packed into one small file, and read as worlds that can be measured.

    python benchmarks/search_grid.py STORAGE FILE

packs the finished sweep of benchmarks/search_grid.toml: for each network and task, one bit for each test image, whether
it is wrong. That is all that a search and its intervals are made of.
"""

# T tasks, P points of the grid, N images

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from sklearn.isotonic import IsotonicRegression

from raypruning.analysis.paired import discordance
from raypruning.core.search.axis import position
from raypruning.core.search.strategy import Loss


class GridCurve(NamedTuple):
    """Of one method and seed.

    Attributes:
        ratios_P: reached by each network.
        wrong_TPN: of each network.
        parents_TN: of their parent.
    """

    label: str
    tasks: Sequence[str]
    ratios_P: np.ndarray
    wrong_TPN: np.ndarray
    parents_TN: np.ndarray


class Grid(NamedTuple):
    """All curves, and the ratios that were asked for on each."""

    ratios: Sequence[float]
    curves: Sequence[GridCurve]


class NearestWorld:
    """Whoever asks for a ratio is given the nearest of a number of networks.

    The truth is not known here. It is taken from all networks of a curve: an isotonic regression of their losses,
    which knows no family of curves, and where it passes delta. From thirty networks that is no exact truth: in
    simulated worlds, where the truth is known, it is further off than fitted limits are. Yet intervals hold against it
    a little more often than against the truth (benchmarks/search.py prints both), since networks, images and parent
    are the same. So they are held against it as it is: a margin for its error would only flatter them.
    """

    def __init__(self, ratios_P: np.ndarray, losses: Sequence[Sequence[Loss]]) -> None:
        """`losses`: of each network on each task, tasks first."""
        self.num_tasks = len(losses)
        self._positions_P = np.array([position(ratio) for ratio in ratios_P])
        self._ratios_P, self._losses = ratios_P, losses

    def reached(self, ratio: float) -> float:
        """The ratio of the network that stands in."""
        return float(self._ratios_P[self._nearest(ratio)])

    def measure(self, ratio: float) -> list[Loss]:
        """The losses of that network."""
        index = self._nearest(ratio)
        return [row[index] for row in self._losses]

    def potentials(self, deltas: Sequence[float]) -> np.ndarray:
        """(T, D), by isotonic regression."""
        fine_U = np.linspace(0.0, self._positions_P[-1], 5000)
        positions, found = np.r_[0.0, self._positions_P], []
        for row in self._losses:
            losses = np.array([0.0, *(loss.value for loss in row)])
            weights = np.array([1e6, *(1.0 / (loss.standard_error**2 + 1e-6) for loss in row)])
            fitted = IsotonicRegression().fit(positions, losses, sample_weight=weights)
            smooth_U = fitted.predict(fine_U)
            found.append([-np.expm1(-fine_U[np.flatnonzero(smooth_U <= delta)[-1]]) for delta in deltas])
        # Below the grid is nothing but the dense network.
        return np.where(np.array(found) < self._ratios_P[0], 0.0, found)

    def _nearest(self, ratio: float) -> int:
        return int(np.argmin(np.abs(self._positions_P - position(ratio))))


class GridWorld(NearestWorld):
    """The real networks of a curve."""

    def __init__(self, curve: GridCurve) -> None:
        pairs = zip(curve.parents_TN, curve.wrong_TPN, strict=True)
        super().__init__(
            curve.ratios_P, [[_loss(parent_N, wrong_N) for wrong_N in wrong_PN] for parent_N, wrong_PN in pairs]
        )


def _loss(parent_N: np.ndarray, wrong_N: np.ndarray) -> Loss:
    pair = discordance(parent_N, wrong_N)
    return Loss(pair.loss, pair.standard_error)


def read_grid(path: Path) -> Grid:
    """What `pack` wrote."""
    with np.load(path) as stored:
        num = int(stored["num_images"])
        tasks = [str(task) for task in stored["tasks"]]
        curves = [
            GridCurve(
                str(label),
                tasks,
                stored[f"{label}/ratios"],
                np.unpackbits(stored[f"{label}/wrong"], axis=-1, count=num).astype(bool),
                np.unpackbits(stored[f"{label}/parent"], axis=-1, count=num).astype(bool),
            )
            for label in stored["labels"]
        ]
        return Grid([float(ratio) for ratio in stored["ratios"]], curves)


def pack(storage: str, path: Path) -> None:
    """Read a finished sweep from its storage and write the file."""
    from raypruning.app.read import open_sweep

    sweep = open_sweep("search-grid", storage=storage)
    spec, tasks = sweep.results.spec, [task.name for task in sweep.results.tasks]

    def wrong_TN(training: str) -> np.ndarray:
        frames = [sweep.predictions(training, task) for task in tasks]
        return np.stack([(frame["predicted"] != frame["label"]).to_numpy() for frame in frames])

    done = [one for one in sweep.results.probes if one.is_done]
    arrays: dict[str, np.ndarray] = {"tasks": np.array(tasks), "ratios": np.array(spec.search.ratios)}
    labels = []
    for method in spec.methods:
        for seed in spec.seeds:
            label = f"{method.label}, seed {seed}"
            mine = [one for one in done if (one.probe.curve.method, one.probe.curve.seed) == (method.label, seed)]
            mine.sort(key=lambda one: one.ratio_reached)
            parent = next(
                one
                for one in done
                if one.probe.curve.is_dense and one.probe.curve.budget == 0 and one.probe.curve.seed == seed
            )
            labels.append(label)
            arrays[f"{label}/ratios"] = np.array([one.ratio_reached for one in mine])
            bits = np.stack([wrong_TN(one.probe.id) for one in mine], axis=1)
            arrays[f"{label}/wrong"] = np.packbits(bits, axis=-1)
            arrays[f"{label}/parent"] = np.packbits(wrong_TN(parent.probe.id), axis=-1)
    num_images = sweep.results.tasks[0].num_examples
    np.savez_compressed(path, labels=np.array(labels), num_images=np.array(num_images), **arrays)  # type: ignore[arg-type]


if __name__ == "__main__":
    pack(sys.argv[1], Path(sys.argv[2]))
