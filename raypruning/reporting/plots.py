"""Figures of a sweep as SVG texts: one panel each, for a page that lays them out.

Colours are CSS variables with a fallback (`var(--series-1, #0072b2)`), so that a page can darken them; text is text, in
the font of the page. Sizes are pixels: one unit of the figure is one pixel at its natural width. The same results give
the same bytes.

All ratios lie on the axis of the search, -log(1 - ratio), and are labelled by what is kept and what is removed.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from raypruning.core.records import SweepResults, Task
from raypruning.core.search.axis import position
from raypruning.reporting import wording
from raypruning.reporting.answer import (
    Standing,
    controls,
    largest_budget,
    marked_weakest,
    method_names,
    nominal_tasks,
    shifted_tasks,
    standings,
)
from raypruning.reporting.frames import errors_frame, excess_errors_frame

WIDTH = 420
TEXT = 12.5
SMALL = 11.5

INK, MUTED, GRID, PAPER = "#101112", "#6a6b6c", "#dcdddf", "#fefdfc"
# Okabe and Ito (2008), without yellow, which is too light for lines on white; told apart by the colour-blind.
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a5195", "#8c6d31")
_VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--grid",
    PAPER: "--paper",
    **{colour: f"--series-{index}" for index, colour in enumerate(SERIES, start=1)},
}

KEPT_TICKS = (1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001, 0.0005, 0.0002, 0.0001)
FINE_KEPT_TICKS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)
POINT_TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)


class Panel(NamedTuple):
    """One figure: what it shows in words, and its SVG."""

    title: str
    svg: str


def series_variables() -> dict[str, str]:
    """CSS variable -> the colour it has on a light page."""
    return {variable: colour for colour, variable in _VARIABLES.items()}


def method_colours(names: Sequence[str]) -> dict[str, str]:
    """A colour for each name, by its place: the same in every figure of a sweep. They repeat after eight."""
    return {name: SERIES[index % len(SERIES)] for index, name in enumerate(names)}


def series_variable(colour: str) -> str:
    """The CSS variable of a colour of ours."""
    return _VARIABLES[colour]


# -- error against ratio ---------------------------------------------------------------------------------------------


def error_panels(results: SweepResults, *, delta: float) -> list[Panel]:
    """One panel per task: error above the parent's against what is kept, a line per method and budget.

    Args:
        results: of the sweep.
        delta: the threshold drawn strong, with its brackets; other deltas of the sweep are drawn thin.
    """
    frame = errors_frame(results)
    pruned = frame[frame["method"] != "dense"]
    if pruned["added_error"].notna().sum() == 0:
        return []
    return [_error_panel(results, pruned[pruned["task"] == task.name], task, delta=delta) for task in results.tasks]


def _error_panel(results: SweepResults, frame: pd.DataFrame, task: Task, *, delta: float) -> Panel:
    title = f"{task.name}: error against what is kept"
    with _figure(title, height=320) as (figure, panel):
        axes = _axes(figure, left=44, right=48, top=52, bottom=46)
        _heading(figure, task.name)
        figure.text(2 / WIDTH, 1 - 38 / 320, "points above the parent", color=MUTED, fontsize=SMALL, va="center")
        figure.text(1 - 2 / WIDTH, 1 - 38 / 320, "error", color=MUTED, fontsize=SMALL, va="center", ha="right")
        _kept_axis(axes, _largest_position(results))
        added = _points_of_all(results)
        _points_axis(axes, added, width=100 * min(results.spec.deltas))
        dense_error = frame["dense_error"].mean()
        _error_axis(axes, dense_error)
        axes.axhline(0, color=INK, linewidth=1)
        _thresholds(axes, results, delta=delta)
        colours = method_colours(method_names(results))
        for budget in sorted(results.spec.budgets):
            is_main = budget == largest_budget(results)
            for method, colour in colours.items():
                rows = frame[(frame["method"] == method) & (frame["budget"] == budget)]
                _error_line(axes, rows, colour=colour, is_main=is_main, width=100 * min(results.spec.deltas))
        _brackets(axes, results, task.name, delta=delta)
        _control_mark(axes, results, task.name)
    return panel()
