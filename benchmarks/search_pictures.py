"""The two pictures of docs/finding_a_potential.md and docs/reading_an_interval.md, from benchmarks/search_grid.npz.

python benchmarks/search_pictures.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from search import search_all
from search_grid import GridCurve, GridWorld, read_grid

from raypruning.analysis.certified import certified
from raypruning.analysis.estimates import estimate_of, fitted_ratios
from raypruning.analysis.paired import discordance, is_within
from raypruning.core.records import SearchSpec
from raypruning.core.search.axis import position
from raypruning.core.search.curve_fit import Curves, Measurements, fit

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs"
DELTA = 0.005
SEARCH = SearchSpec(strategy="model", low=0.3, high=0.99)
TICKS = (0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99)
BLUE, ORANGE, GREY, INK = "#0072b2", "#d55e00", "#9a9a9a", "#222222"


def axis_of_ratios(axes: Axes) -> None:
    axes.set_xlim(position(0.28), position(0.9915))
    axes.set_xticks([position(tick) for tick in TICKS], [f"{100 * tick:g}" for tick in TICKS])
    axes.set_xlabel("% of the parameters removed")
    axes.spines[["top", "right"]].set_visible(False)


def draw_search(curve: GridCurve, shown: tuple[str, str], path: Path) -> None:
    """Losses of the networks that were asked for, numbered, and equally likely curves."""
    world = GridWorld(curve)
    asked = search_all(world, (0.0025, 0.005, 0.01, 0.02, 0.05), SEARCH).losses
    figure = Figure(figsize=(9.2, 3.6), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    positions_U = np.linspace(position(0.28), position(0.9915), 400)
    for axes, task in zip(panels, shown, strict=True):
        index = curve.tasks.index(task)
        everything = [(position(q), world.measure(q)[index].value) for q in curve.ratios_P]
        axes.plot(*zip(*((u, 100 * loss) for u, loss in everything), strict=True), "o", ms=3.5, color=GREY, zorder=2)
        # Several asked ratios may be given the same network.
        points = list({world.reached(q): (position(world.reached(q)), row[index]) for q, row in asked.items()}.values())
        curves = fit(
            Measurements.of((world.reached(q), row[index]) for q, row in asked.items()),
            low=position(SEARCH.low),
            high=position(SEARCH.high),
        )
        losses_NU = 100 * curves.losses(positions_U)
        low_U, middle_U, high_U = np.quantile(losses_NU, [0.05, 0.5, 0.95], axis=0)
        axes.fill_between(positions_U, low_U, high_U, color=BLUE, alpha=0.16, lw=0, zorder=1)
        axes.plot(positions_U, middle_U, color=BLUE, lw=1.6, zorder=3)
        for number, (u, one) in enumerate(points, start=1):
            axes.errorbar(u, 100 * one.value, yerr=100 * one.standard_error, fmt="o", ms=5, color=INK, lw=1, zorder=4)
            if 100 * one.value < 5.5:
                axes.annotate(
                    f"{number}", (u, 100 * one.value), (0, 9), textcoords="offset points", ha="center", weight="bold"
                )
        axes.axhline(100 * DELTA, color=ORANGE, lw=1.2, ls=(0, (4, 3)))
        estimate = estimate_of(curves_crossing(curves))
        axes.plot([position(estimate.low), position(estimate.high)], [100 * DELTA] * 2, color=ORANGE, lw=4, zorder=5)
        axes.set_title(task, loc="left", fontsize=11, weight="bold")
        axis_of_ratios(axes)
        axes.set_ylim(-1.0, 6.0)
    panels[0].set_ylabel("points of accuracy lost")
    panels[0].text(position(0.9905), 100 * DELTA + 0.12, "delta", color=ORANGE, ha="right")
    figure.savefig(path, dpi=110)


def curves_crossing(curves: Curves) -> np.ndarray:
    """Ratios at which curves cross delta."""
    crossings_N = curves.crossings([DELTA])[:, 0]
    return np.asarray(-np.expm1(-np.clip(crossings_N, 0.0, position(SEARCH.high))))


def draw_intervals(curve: GridCurve, path: Path) -> None:
    """Measured, certified and fitted potentials of one curve on each task."""
    world = GridWorld(curve)
    ratios = [world.reached(q) for q in search_all(world, (DELTA,), SEARCH).losses]
    order = sorted(set(ratios))
    figure = Figure(figsize=(9.2, 2.9), layout="constrained")
    axes = figure.subplots()
    for row, task in enumerate(curve.tasks):
        index = curve.tasks.index(task)
        places = [int(np.argmin(np.abs(curve.ratios_P - q))) for q in order]
        pairs = [discordance(curve.parents_TN[index], curve.wrong_TPN[index, place]) for place in places]
        passing = [q for q, pair in zip(order, pairs, strict=True) if pair.loss <= DELTA]
        measured = max(passing, default=0.0)
        above = min((q for q in order if q > measured), default=None)
        proven = certified(order, [is_within(pair, DELTA) for pair in pairs])
        losses = [(q, world.measure(q)[index]) for q in order]
        estimate = estimate_of(fitted_ratios(losses, (DELTA,), search=SEARCH)[:, 0])
        left = position(0.28)
        axes.barh(row, max(position(measured) - left, 0), left=left, height=0.5, color=BLUE, alpha=0.85)
        if above:
            axes.barh(
                row,
                position(above) - max(position(measured), left),
                left=max(position(measured), left),
                height=0.5,
                facecolor="none",
                edgecolor=BLUE,
                lw=1,
                ls=(0, (2, 2)),
            )
        middle = position(estimate.ratio)
        axes.errorbar(
            middle,
            row,
            fmt="|",
            ms=14,
            color=INK,
            lw=2,
            capsize=5,
            xerr=[[middle - position(estimate.low)], [position(estimate.high) - middle]],
        )
        if proven is not None:
            axes.plot(position(order[proven]), row, "D", ms=8, color=ORANGE, mec="white", zorder=5)
    axes.set_yticks(range(len(curve.tasks)), curve.tasks)
    axes.invert_yaxis()
    axis_of_ratios(axes)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Draw both."""
    grid = read_grid(HERE / "search_grid.npz")
    by_label = {curve.label: curve for curve in grid.curves}
    tasks = by_label["wt, seed 0"].tasks
    draw_search(by_label["wt, seed 1"], (tasks[0], tasks[2]), DOCS / "finding_a_potential.png")
    draw_intervals(by_label["wt, seed 1"], DOCS / "reading_an_interval.png")


if __name__ == "__main__":
    main()
