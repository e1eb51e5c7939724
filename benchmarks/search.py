"""How many retrained networks a search takes, how far off its answers are, and how often its intervals hold.

    python benchmarks/search.py [--worlds 200] [--grid FILE] [--json FILE]

Worlds are simulated, so that the truth is known: curves of loss against ratio for 21 tasks, measured with the noise of
a test set, of retraining, and of the parent. Every strategy is the one that `prune-cli sweep` runs; it sees nothing but
what it asked for. Networks at the same ratio are the same for all strategies.

The generator, of which the fitted curves know nothing: loss = A (1 - exp(-(u / l)^m)) - g exp(-((u - c) / h)^2) + o
with u = -log(1 - ratio), that is, a Weibull curve that saturates at A, a bump below zero for what a little pruning
gains, and an offset for what retraining does at any ratio. The fit is a straight line and a softplus. Knees, shapes,
gains and noise are drawn anew for each world.
- Test set: 10 000 images (2 000 for one task); parent and pruned network disagree on a fraction p of them, .04 to .2,
  and more where more is lost; half of that variance is the parent's and shared by all ratios.
- Seed: a network's own deviation, .1 to .3 points and 5 to 25 % of what is lost (as the real networks below scatter),
  half of it shared by all tasks.
- Parent: the truth is that of the parent at hand, on infinitely many images and over all retrainings.

With --grid, every strategy is replayed on real networks as well: an exhaustive grid of LeNet-5 on MNIST, made by
benchmarks/search_grid.toml and kept as which image each network has right (see benchmarks/search_grid.py). Their truth
has to be estimated; how far that alters the scores is measured on simulated networks at the same ratios.
"""

# T tasks, D deltas

from __future__ import annotations

import argparse
import functools
import json
import platform
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from raypruning.analysis.estimates import fitted_ratios
from raypruning.core.records import SearchSpec
from raypruning.core.search.axis import position, ratio_at
from raypruning.core.search.strategy import Known, Loss, TaskLosses, strategy

LOW, HIGH = 0.3, 0.99
DELTAS = (0.0025, 0.005, 0.01, 0.02, 0.05)
NUM_TASKS = 21
CONFIDENCE = 0.9
ROUNDING = 5e-4  # of a ratio: what the truth is known to

Losses = Mapping[float, Sequence[Loss]]  # ratio -> loss of each task


class World(Protocol):
    """Something that can be measured."""

    num_tasks: int

    def reached(self, ratio: float) -> float:
        """The ratio of the network that is had for one that is asked for."""

    def measure(self, ratio: float) -> Sequence[Loss]:
        """The losses of that network."""

    def potentials(self, deltas: Sequence[float]) -> np.ndarray:
        """The true answer, (T, D)."""


class SimulatedWorld:
    """See the module."""

    def __init__(self, seed: int, num_tasks: int) -> None:
        random = np.random.default_rng([7, seed])
        self.seed, self.num_tasks = seed, num_tasks
        knee = random.uniform(0.9, 3.6)
        self.scale_T = knee * 1.6 * np.exp(np.r_[0.0, random.normal(-0.12, 0.25, NUM_TASKS - 1)])
        self.shape_T = random.uniform(2.5, 8.0) * np.exp(random.normal(0.0, 0.15, NUM_TASKS))
        self.top_T = random.uniform(0.5, 0.9, NUM_TASKS)
        self.gain_T = max(0.0, random.normal(0.001, 0.002)) * np.exp(random.normal(0.0, 0.3, NUM_TASKS))
        self.gain_at, self.gain_width = knee * random.uniform(0.3, 0.8), knee * random.uniform(0.2, 0.6)
        self.offset_T = random.normal(0.0, 0.001, NUM_TASKS)
        self.num_images_T = np.array([10_000, 2_000, *[10_000] * (NUM_TASKS - 2)])
        self.disagree_T = np.array([0.04, 0.10, *random.uniform(0.06, 0.2, NUM_TASKS - 2)])
        self.deviation, self.relative = random.uniform(0.001, 0.003), random.uniform(0.05, 0.25)
        self.parents_T = random.normal(size=NUM_TASKS) * np.sqrt(0.5 * self.disagree_T / self.num_images_T)

    def reached(self, ratio: float) -> float:
        """What was asked for."""
        return ratio

    def truth(self, positions_U: np.ndarray) -> np.ndarray:
        """(T, U)."""
        u = positions_U[None, :]
        rise = self.top_T[:, None] * (1.0 - np.exp(-((u / self.scale_T[:, None]) ** self.shape_T[:, None])))
        bump = self.gain_T[:, None] * np.exp(-(((u - self.gain_at) / self.gain_width) ** 2))
        return (rise - bump + self.offset_T[:, None])[: self.num_tasks]

    def potentials(self, deltas: Sequence[float]) -> np.ndarray:
        """By a fine scan."""
        positions_U = np.linspace(position(LOW), position(HIGH), 4000)
        losses_TU = self.truth(positions_U)
        return np.array([[_last(positions_U, row <= delta) for delta in deltas] for row in losses_TU])

    def measure(self, ratio: float) -> list[Loss]:
        """The same network whoever asks."""
        random = np.random.default_rng([11, self.seed, round(ratio * 1e6)])
        own_T, alone_T = random.normal(size=(2, NUM_TASKS))[:, : self.num_tasks]
        shared = random.normal()
        true_T = self.truth(np.array([position(ratio)]))[:, 0]
        lost_T, num_T = np.maximum(true_T, 0.0), self.num_images_T[: self.num_tasks]
        disagree_T = self.disagree_T[: self.num_tasks]
        test_set_T = np.sqrt((0.5 * disagree_T + lost_T) / num_T) * own_T
        seed_T = np.hypot(self.deviation, self.relative * lost_T) * (shared + alone_T) / np.sqrt(2.0)
        loss_T = true_T + self.parents_T[: self.num_tasks] + test_set_T + seed_T
        loss_T = np.round(loss_T * num_T) / num_T
        errors_T = np.sqrt(np.maximum(disagree_T + lost_T - loss_T**2, 1e-6) / num_T)
        return [Loss(*pair) for pair in zip(loss_T.tolist(), errors_T.tolist(), strict=True)]


def _last(positions_U: np.ndarray, passes_U: np.ndarray) -> float:
    found = np.flatnonzero(passes_U)
    return float(-np.expm1(-positions_U[found[-1]])) if len(found) else 0.0


# -- strategies ------------------------------------------------------------------------------------------------------


class Asked(NamedTuple):
    """What a strategy asked for, and in how many rounds, each of which may run at once."""

    losses: Losses
    num_rounds: int


def known(losses: Losses, deltas: Sequence[float], tasks: Iterable[int]) -> Known:
    """What a strategy is told."""
    rows = [{ratio: values[task] for ratio, values in losses.items()} for task in tasks]
    outcomes = tuple(
        {ratio: loss.value <= delta + 1e-12 for ratio, loss in row.items()} for row in rows for delta in deltas
    )
    told = tuple(TaskLosses(tuple(deltas), row) for row in rows)
    return Known(outcomes, tuple(() for _ in outcomes), (), told)


def search_all(world: World, deltas: Sequence[float], search: SearchSpec) -> Asked:
    """One of ours, over all thresholds at once."""
    ask, losses, rounds = strategy(search.strategy), {}, 0
    while ratios := ask(search, known(losses, deltas, range(world.num_tasks))):
        losses |= {ratio: world.measure(ratio) for ratio in ratios}
        rounds += 1
    return Asked(losses, rounds)


def search_each(world: World, deltas: Sequence[float], search: SearchSpec) -> Asked:
    """Classic bisection of one threshold after the other; networks are shared."""
    ask, everything, rounds = strategy("bisect"), {}, 0
    for task in range(world.num_tasks):
        for delta in deltas:
            losses: dict[float, Sequence[Loss]] = {}
            while ratios := ask(search, known(losses, (delta,), (task,))):
                rounds += not set(ratios) <= set(everything)
                everything |= {ratio: world.measure(ratio) for ratio in ratios if ratio not in everything}
                losses |= {ratio: everything[ratio] for ratio in ratios}
    return Asked(everything, rounds)


def strategies(points: Sequence[float] | None) -> dict[str, Callable[[World, Sequence[float]], Asked]]:
    """By name. `points`: the only ratios that can be measured, None for all."""

    def ours(**fields: object) -> Callable[[World, Sequence[float]], Asked]:
        search = SearchSpec.model_validate({"low": LOW, "high": HIGH, **fields})
        return functools.partial(search_all, search=search)

    grid20 = tuple(ratio_at(u) for u in np.linspace(position(LOW), position(HIGH), 20))
    if points is not None:
        grid20 = tuple(points[round(i)] for i in np.linspace(0, len(points) - 1, 20))
    return {
        "grid of 20 (the study's way)": ours(strategy="grid", ratios=grid20),
        "classic bisection, each threshold": functools.partial(search_each, search=SearchSpec(low=LOW, high=HIGH)),
        "bisect": ours(strategy="bisect"),
        "bisect, k = 8": ours(strategy="bisect", probes_per_round=8),
        "model": ours(strategy="model"),
        "model, k = 3": ours(strategy="model", probes_per_round=3),
        "model, k = 8": ours(strategy="model", probes_per_round=8),
    }


# -- scores ----------------------------------------------------------------------------------------------------------


class Score(NamedTuple):
    """Of one search in one world. Errors are in units of ratio; `measured` is the largest ratio that passes."""

    num_networks: float
    num_rounds: float
    measured_error: float
    measured_bias: float
    fitted_error: float
    fitted_bias: float
    coverage: float
    width: float


def score(world: World, asked: Asked, deltas: Sequence[float], truth_TD: np.ndarray) -> Score:
    """Compare with the truth."""
    losses = {world.reached(ratio): row for ratio, row in asked.losses.items()}
    measured_TD = np.array(
        [
            [max((q for q, row in losses.items() if row[t].value <= d + 1e-12), default=0.0) for d in deltas]
            for t in range(world.num_tasks)
        ]
    )
    search = SearchSpec(low=LOW, high=HIGH)
    tail = (1.0 - CONFIDENCE) / 2.0
    ends = []
    for t in range(world.num_tasks):
        ratios_ND = fitted_ratios([(q, row[t]) for q, row in losses.items()], deltas, search=search)
        # Below the range is nothing but the dense network, for the truth as well.
        ends.append(np.quantile(np.where(ratios_ND < LOW, 0.0, ratios_ND), [tail, 0.5, 1.0 - tail], axis=0))
    low_TD, fitted_TD, high_TD = np.stack(ends, axis=1)
    holds_TD = (low_TD - ROUNDING <= truth_TD) & (truth_TD <= high_TD + ROUNDING)
    return Score(
        len(losses),
        asked.num_rounds,
        float(np.abs(measured_TD - truth_TD).mean()),
        float((measured_TD - truth_TD).mean()),
        float(np.abs(fitted_TD - truth_TD).mean()),
        float((fitted_TD - truth_TD).mean()),
        float(holds_TD.mean()),
        float((high_TD - low_TD).mean()),
    )


def simulated_scores(seed: int, num_tasks: int, deltas: Sequence[float]) -> dict[str, Score]:
    """All strategies in one world."""
    world = SimulatedWorld(seed, num_tasks)
    truth_TD = world.potentials(deltas)
    return {name: score(world, run(world, deltas), deltas, truth_TD) for name, run in strategies(None).items()}


class Judged(NamedTuple):
    """`model` on simulated networks at a grid's ratios, judged by the truth and by what stands for it on real ones."""

    holds_by_truth: float
    holds_by_regression: float
    fitted_error: float
    apart: float  # the fitted limits from the regression
    regression_error: float


def judged_twice(seed: int, ratios: Sequence[float]) -> Judged:
    """Four tasks, all deltas."""
    from search_grid import NearestWorld

    simulated = SimulatedWorld(seed, 4)
    world = NearestWorld(np.array(ratios), list(zip(*map(simulated.measure, ratios), strict=True)))
    asked = strategies(ratios)["model"](world, DELTAS)
    truth_TD, regression_TD = simulated.potentials(DELTAS), world.potentials(DELTAS)
    one, other = (score(world, asked, DELTAS, potentials_TD) for potentials_TD in (truth_TD, regression_TD))
    off = float(np.abs(regression_TD - truth_TD).mean())
    return Judged(one.coverage, other.coverage, one.fitted_error, other.fitted_error, off)


def table(rows: Mapping[str, Sequence[Score]]) -> str:
    """Means over worlds, with the standard error of the mean of each error."""
    lines = [
        "| strategy | networks (most) | rounds | error of the measured | bias | error of the fitted | bias | "
        "90 % intervals hold | width |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, scores in rows.items():
        values = np.array(scores)
        mean, spread = values.mean(axis=0), values.std(axis=0, ddof=1) / np.sqrt(len(values))
        one = Score(*mean)
        lines.append(
            f"| {name} | {one.num_networks:.1f} ({values[:, 0].max():.0f}) | {one.num_rounds:.1f} "
            f"| {one.measured_error:.4f} ± {spread[2]:.4f} | {one.measured_bias:+.4f} "
            f"| {one.fitted_error:.4f} ± {spread[4]:.4f} | {one.fitted_bias:+.4f} "
            f"| {100 * one.coverage:.1f} ± {100 * spread[6]:.1f} % | {one.width:.3f} |"
        )
    return "\n".join(lines)


def judged_table(worlds: Sequence[Judged]) -> str:
    """Means over worlds, with their standard errors."""
    values = np.array(worlds)
    mean, spread = Judged(*values.mean(axis=0)), Judged(*values.std(axis=0, ddof=1) / np.sqrt(len(values)))
    return "\n".join(
        [
            "| judged by | 90 % intervals hold | error of the fitted | error of the judge |",
            "|---|--:|--:|--:|",
            f"| the truth | {100 * mean.holds_by_truth:.1f} ± {100 * spread.holds_by_truth:.1f} % "
            f"| {mean.fitted_error:.4f} ± {spread.fitted_error:.4f} | 0 |",
            f"| isotonic regression | {100 * mean.holds_by_regression:.1f} ± {100 * spread.holds_by_regression:.1f} % "
            f"| {mean.apart:.4f} ± {spread.apart:.4f} | {mean.regression_error:.4f} ± {spread.regression_error:.4f} |",
        ]
    )


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=200)
    parser.add_argument("--grid", type=Path, help="a file of benchmarks/search_grid.py")
    parser.add_argument("--json", type=Path, help="write all scores to this file")
    arguments = parser.parse_args()
    print(f"Python {platform.python_version()}, numpy {np.__version__}, {platform.machine()}")
    print(f"command: python benchmarks/{' '.join([Path(sys.argv[0]).name, *sys.argv[1:]])}")
    print(f"range {LOW} to {HIGH}, resolution 0.05, {arguments.worlds} simulated worlds; ± standard error over worlds")
    everything = {}
    for num_tasks, deltas in ((1, (0.005,)), (NUM_TASKS, (0.005,)), (NUM_TASKS, DELTAS)):
        started = time.monotonic()
        with ProcessPoolExecutor(2) as pool:
            run = functools.partial(simulated_scores, num_tasks=num_tasks, deltas=deltas)
            worlds = list(pool.map(run, range(arguments.worlds), chunksize=5))
        title = f"{num_tasks} task{'s' if num_tasks > 1 else ''}, {len(deltas)} delta{'s' if len(deltas) > 1 else ''}"
        rows = {name: [one[name] for one in worlds] for name in worlds[0]}
        everything[title] = rows
        print(f"\n## Simulated: {title}\n\n{table(rows)}\n\n{time.monotonic() - started:.0f} s", flush=True)
    if arguments.grid:
        from search_grid import GridWorld, read_grid

        grid = read_grid(arguments.grid)
        worlds_of = [GridWorld(curve) for curve in grid.curves]
        for deltas in ((0.005,), DELTAS):
            rows = {
                name: [score(world, run(world, deltas), deltas, world.potentials(deltas)) for world in worlds_of]
                for name, run in strategies(grid.ratios).items()
            }
            title = f"{worlds_of[0].num_tasks} tasks, {len(deltas)} delta{'s' if len(deltas) > 1 else ''}"
            everything[f"real: {title}"] = rows
            print(f"\n## Real networks: {title}\n\n{table(rows)}", flush=True)
        print("\n## Simulated networks at the ratios of the real ones: 4 tasks, 5 deltas, `model`\n")
        with ProcessPoolExecutor(2) as pool:
            judge = functools.partial(judged_twice, ratios=grid.ratios)
            print(judged_table(list(pool.map(judge, range(arguments.worlds), chunksize=5))), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(everything, default=list))


if __name__ == "__main__":
    main()
