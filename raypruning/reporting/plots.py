"""Figures of a sweep as SVG texts, one panel each, for a page that lays them out.

All ratios lie on the axis of the search, -log(1 - ratio), labelled by what is kept and what is removed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from raypruning.core.records import Potential, SweepResults, Task
from raypruning.core.search.axis import position
from raypruning.reporting import wording
from raypruning.reporting.answer import (
    Standing,
    controls,
    largest_budget,
    marked_weakest,
    method_names,
    nominal_tasks,
    searched_budgets,
    shifted_tasks,
    standings,
)
from raypruning.reporting.drawing import (
    GRID,
    INK,
    MUTED,
    PAPER,
    SMALL,
    TEXT,
    Panel,
    axes_at,
    draw_bar,
    heading,
    kept_axis,
    kept_ticks,
    panel,
    points_axis,
    series_colours,
    thinned,
)
from raypruning.reporting.frames import errors_frame, excess_errors_frame
from raypruning.reporting.mean_curve import Measured, height_at, mean_curve
from raypruning.reporting.notes import WEAKEST_MARK, marked_amount

# Smaller budgets, from the largest down: the largest is solid.
DASHES = ("-", (0, (5, 2)), (0, (2, 1.6)), (0, (1, 1.4)))
MANY_TASKS = 6


# -- error against ratio ---------------------------------------------------------------------------------------------


def error_panels(results: SweepResults, *, delta: float) -> list[Panel]:
    """One panel per task: error above the parent's against what is kept, a line per method and budget.

    Seeds are points (largest budget), their mean a line; thick bars on the threshold are the brackets of the
    potentials; a hollow diamond is the retrained parent; crosses on the axis are probes that failed.

    Args:
        results: of the sweep.
        delta: the threshold that the brackets belong to; the sweep's other ones are drawn thin.
    """
    frame = errors_frame(results).rename(columns={"ratio_reached": "ratio"})
    pruned = frame[frame["method"] != "dense"]
    if not pruned["added_error"].notna().any():
        return []
    scale = _Scale(
        linear=100 * delta,
        low=100 * float(frame["added_error"].min()),
        high=100 * float(frame["added_error"].max()),
        largest=float(pruned["ratio_asked"].max()),
    )
    return [
        panel(
            f"Error on {task.name} against what is kept",
            height=310,
            draw=lambda figure, task=task: _draw_errors(figure, results, pruned, task=task, delta=delta, scale=scale),
        )
        for task in results.tasks
    ]


class _Scale(NamedTuple):
    """What panels that are looked at side by side share. In points, but for the largest ratio."""

    linear: float
    low: float
    high: float
    largest: float


def _draw_errors(
    figure: Figure, results: SweepResults, pruned: pd.DataFrame, *, task: Task, delta: float, scale: _Scale
) -> None:
    frame = pruned[pruned["task"] == task.name]
    heading(figure, task.name, left="points above the parent", right="error")
    axes = axes_at(figure, left=40, right=48, top=46, bottom=58)
    kept_axis(axes, largest=scale.largest)
    points_axis(axes, low=scale.low, high=scale.high, linear=scale.linear)
    _error_ticks(axes, dense_error=float(frame["dense_error"].mean()), delta=delta)
    axes.axhline(0, color=MUTED, linewidth=1)
    for other in results.spec.deltas:
        is_main = other == delta
        axes.axhline(100 * other, color=INK, linewidth=1.2 if is_main else 0.8, linestyle=(0, (4, 3)))
    for method, colour in series_colours(method_names(results)).items():
        for age, budget in enumerate(searched_budgets(results)):
            rows = frame[(frame["method"] == method) & (frame["budget"] == budget)]
            _draw_curve(axes, rows, column="added_error", colour=colour, age=age, linear=scale.linear)
            failed = rows[rows["status"] == "failed"]
            ends = [position(ratio) for ratio in failed["ratio_asked"]]
            axes.plot(ends, [0.0] * len(ends), "x", color=colour, transform=axes.get_xaxis_transform(), **_CROSS)
        _draw_brackets(axes, results, task=task.name, method=method, delta=delta, colour=colour)
    for control in controls(results):
        if control.task == task.name and control.budget == largest_budget(results):
            added = 100 * (control.error - control.parent_error)
            axes.plot([0], [added], "D", color=MUTED, markerfacecolor=PAPER, markersize=6, clip_on=False, zorder=6)


_CROSS = {"markersize": 7, "markeredgewidth": 2, "clip_on": False, "zorder": 7}


def _error_ticks(axes: Axes, *, dense_error: float, delta: float) -> None:
    """On the right, the error itself at each tick of added points; those of parent and threshold are set off."""
    for tick, label in zip(axes.get_yticks(), axes.get_yticklabels(), strict=True):
        if _is_marked(tick, delta):
            label.set(color=INK, fontweight="bold")
    if np.isnan(dense_error):
        return
    for tick in axes.get_yticks():
        error = dense_error + tick / 100
        if 0 <= error <= 1:
            color, weight = (INK, "bold") if _is_marked(tick, delta) else (MUTED, "normal")
            axes.annotate(
                wording.percent(error),
                (1, tick),
                (48, 0),
                xycoords=("axes fraction", "data"),
                textcoords="offset points",
                fontsize=SMALL,
                color=color,
                fontweight=weight,
                ha="right",
                va="center",
            )


def _is_marked(tick: float, delta: float) -> bool:
    return tick == 0 or abs(tick - 100 * delta) < 1e-9


def _draw_curve(axes: Axes, rows: pd.DataFrame, *, column: str, colour: str, age: int, linear: float) -> None:
    """Mean over seeds as a line, and seeds as points where it is the largest budget (age 0)."""
    seeds = _by_seed(rows, column)
    if not seeds:
        return
    mean = mean_curve(seeds, linear=linear)
    if len(mean.positions):
        # Faint: between the parent and the first ratio nothing was measured.
        start = [[0.0, mean.positions[0]], [0.0, mean.points[0]]]
        axes.plot(*start, color=colour, linewidth=1.3, alpha=0.3, zorder=3)
    axes.plot(
        mean.positions,
        mean.points,
        color=colour,
        linewidth=2.2 if age == 0 else 1.3,
        linestyle=DASHES[min(age, len(DASHES) - 1)],
        alpha=1 if age == 0 else 0.75,
        zorder=5 if age == 0 else 4,
    )
    if age == 0:
        for positions, points in seeds:
            axes.plot(positions, points, "o", color=colour, markersize=4.5, markeredgewidth=0, alpha=0.7, zorder=5)


def _potentials(results: SweepResults, *, task: str, method: str, delta: float, budget: int) -> list[Potential]:
    key = (task, method, delta, budget)
    return [p for p in results.potentials if (p.task, p.curve.method, p.delta, p.curve.budget) == key]


def _draw_brackets(axes: Axes, results: SweepResults, *, task: str, method: str, delta: float, colour: str) -> None:
    """On the threshold, from each seed's potential to the next ratio that was measured and fails."""
    for found in _potentials(results, task=task, method=method, delta=delta, budget=largest_budget(results)):
        if found.ratio is None:
            continue
        low = position(found.ratio)
        high = axes.get_xlim()[1] if found.next_ratio is None else position(found.next_ratio)
        axes.plot([low, high], [100 * delta] * 2, color=colour, linewidth=7, alpha=0.3, solid_capstyle="butt", zorder=3)
        axes.plot([low], [100 * delta], "|", color=colour, markersize=11, markeredgewidth=2, zorder=6)


# -- potential per task ----------------------------------------------------------------------------------------------


def potential_panels(results: SweepResults, *, delta: float) -> list[Panel]:
    """One panel per method: a bar per task as long as its potential, with interval; an arrow where it is censored."""
    rows = standings(results, delta=delta)
    if not any(one.ratio is not None for row in rows.values() for one in row.values()):
        return []
    ends = [end for row in rows.values() for one in row.values() for end in (one.ratio, one.high) if end is not None]
    colours = series_colours(list(rows))
    return [
        panel(
            f"Potential of {method} on each task",
            height=76 + 38 * len(row),
            draw=lambda figure, method=method, row=row: _draw_potentials(
                figure, method, list(row.values()), colour=colours[method], largest=max(ends)
            ),
        )
        for method, row in rows.items()
    ]


def _draw_potentials(figure: Figure, method: str, row: list[Standing], *, colour: str, largest: float) -> None:
    heading(figure, method)
    axes = axes_at(figure, left=4, right=14, top=22, bottom=52)
    kept_axis(axes, largest=largest, is_flush=True)
    axes.set_ylim(len(row) - 0.25, -0.15)
    axes.set_yticks([])
    low = marked_weakest(row)
    texts = _bar_texts(row, low=low)
    right = axes.get_xlim()[1]
    paper = {"facecolor": PAPER, "linewidth": 0, "pad": 1.5}  # or the grid would run through the text
    for index, (one, text) in enumerate(zip(row, texts, strict=True)):
        style = {"fontsize": TEXT, "fontweight": "bold" if one == low else "normal", "va": "center", "bbox": paper}
        axes.text(0, index + 0.2, text.left, **style)
        axes.text(right, index + 0.2, text.right, ha="right", **style)
        if one.ratio is not None:
            draw_bar(axes, one, at=index + 0.56, height=0.28, colour=colour)


class _BarText(NamedTuple):
    left: str
    right: str


# As many letters as fit above a bar, in a bold and wide font.
BAR_LETTERS = 45


def _bar_texts(row: list[Standing], *, low: Standing | None) -> list[_BarText]:
    """Task and amount; where one has no room, all go without interval, which the bars show, and long names are cut."""
    names = [f"{one.task} {WEAKEST_MARK}" if one == low else one.task for one in row]
    amounts = [marked_amount(one, is_weakest=False) for one in row]
    wholes = [f"{amount} {one.spread}".strip() for amount, one in zip(amounts, row, strict=True)]
    if all(len(name) + len(whole) <= BAR_LETTERS for name, whole in zip(names, wholes, strict=True)):
        return [_BarText(name, whole) for name, whole in zip(names, wholes, strict=True)]
    rooms = [BAR_LETTERS - len(amount) for amount in amounts]
    cut = [
        name if len(name) <= room else name[: room - 1] + "\N{HORIZONTAL ELLIPSIS}"
        for name, room in zip(names, rooms, strict=True)
    ]
    return [_BarText(name, amount) for name, amount in zip(cut, amounts, strict=True)]


# -- excess error against ratio --------------------------------------------------------------------------------------


def excess_panels(results: SweepResults, *, delta: float) -> list[Panel]:
    """One panel per shifted task, and one of their mean: difference in excess error against what is kept.

    Bands are the seeds' intervals, their ends averaged; a diamond stands at the method's mean nominal potential.
    Only the largest budget is drawn.
    """
    every = excess_errors_frame(results)
    frame = every[every["budget"] == largest_budget(results)]
    if frame.empty:
        return []
    names = {task.name: frame[frame["task"] == task.name] for task in shifted_tasks(results)}
    if len(names) > 1:
        keys = ["method", "seed", "ratio"]
        mean = frame.groupby(keys, sort=False, as_index=False)[["value", "low", "high"]].mean()
        names = {f"mean of {len(names)} shifted tasks": mean, **names}
    ends = frame[["value", "low", "high"]].to_numpy(dtype=float)
    scale = _Scale(
        linear=100 * delta,
        low=100 * float(np.nanmin(ends)),
        high=100 * float(np.nanmax(ends)),
        largest=float(frame["ratio"].max()),
    )
    rows_of = standings(results, delta=delta)
    only = [task.name for task in nominal_tasks(results)]
    # With several nominal tasks a method has several nominal potentials, and no one place for a diamond.
    nominal = {method: row[only[0]].ratio for method, row in rows_of.items()} if len(only) == 1 else {}
    return [
        panel(
            f"Excess error on {name}",
            height=280,
            draw=lambda figure, name=name, rows=rows: _draw_excess(
                figure, rows, name=name, nominal=nominal, colours=series_colours(method_names(results)), scale=scale
            ),
        )
        for name, rows in names.items()
    ]


def _draw_excess(
    figure: Figure,
    frame: pd.DataFrame,
    *,
    name: str,
    nominal: Mapping[str, float | None],
    colours: Mapping[str, str],
    scale: _Scale,
) -> None:
    heading(figure, name, left="points lost beyond those on the nominal task")
    axes = axes_at(figure, left=40, right=14, top=46, bottom=58)
    kept_axis(axes, largest=scale.largest)
    points_axis(axes, low=scale.low, high=scale.high, linear=scale.linear)
    axes.axhline(0, color=INK, linewidth=1)
    for method, colour in colours.items():
        rows = frame[frame["method"] == method]
        _draw_band(axes, rows, colour=colour, linear=scale.linear)
        _draw_curve(axes, rows, column="value", colour=colour, age=0, linear=scale.linear)
        ratio = nominal.get(method)
        if ratio and not rows.empty:
            _draw_diamond(axes, rows, ratio=ratio, colour=colour, linear=scale.linear)


def _by_seed(rows: pd.DataFrame, column: str) -> list[Measured]:
    """Positions and points of each seed, of the rows that have a value."""
    measured = rows[rows[column].notna()]
    return [
        Measured(seed["ratio"].map(position).to_numpy(dtype=float), 100 * seed[column].to_numpy(dtype=float))
        for _, seed in measured.groupby("seed")
    ]


def _draw_band(axes: Axes, rows: pd.DataFrame, *, colour: str, linear: float) -> None:
    if rows.empty or rows["low"].isna().any():
        return
    low, high = (mean_curve(_by_seed(rows, end), linear=linear) for end in ("low", "high"))
    axes.fill_between(low.positions, low.points, high.points, color=colour, alpha=0.18, linewidth=0, zorder=2)


def _draw_diamond(axes: Axes, rows: pd.DataFrame, *, ratio: float, colour: str, linear: float) -> None:
    seeds = _by_seed(rows, "value")
    height = height_at(mean_curve(seeds, linear=linear), position(ratio), linear=linear) if seeds else None
    if height is not None:
        axes.plot([position(ratio)], [height], "D", color=colour, markeredgecolor=PAPER, markersize=9, zorder=7)


# -- potential against budget ----------------------------------------------------------------------------------------


def budget_panels(results: SweepResults, *, delta: float) -> list[Panel]:
    """Potential against retraining epochs, a line per method: all tasks when few, else nominal and weakest ones.

    None with a single budget.
    """
    budgets = searched_budgets(results)[::-1]
    if len(budgets) < 2:
        return []
    rows = {budget: standings(results, delta=delta, budget=budget) for budget in budgets}
    every = [one for row in rows.values() for tasks in row.values() for one in tasks.values()]
    known = [one.ratio for one in every if one.ratio is not None]
    if not known:
        return []
    names = [task.name for task in results.tasks]
    if len(names) > MANY_TASKS:
        lows = [marked_weakest(row.values()) for row in rows[budgets[-1]].values()]
        kept = {task.name for task in nominal_tasks(results)} | {low.task for low in lows if low}
        names = [name for name in names if name in kept]
    ends = [end for one in every for end in (one.ratio, one.high) if end is not None]
    return [
        panel(
            f"Potential on {name} against retraining",
            height=280,
            draw=lambda figure, name=name: _draw_budgets(
                figure, results, [{m: row[name] for m, row in rows[b].items()} for b in budgets], largest=max(ends)
            ),
        )
        for name in names
    ]


def _draw_budgets(figure: Figure, results: SweepResults, row: list[dict[str, Standing]], *, largest: float) -> None:
    budgets = searched_budgets(results)[::-1]
    task = next(one.task for one in row[0].values())
    heading(figure, task, left="% of the parameters removed")
    axes = axes_at(figure, left=40, right=14, top=46, bottom=48)
    axes.set_xlim(-0.35, len(budgets) - 0.65)
    axes.set_xticks(range(len(budgets)), [f"{budget:g}" for budget in budgets])
    axes.set_xlabel("epochs of retraining", fontsize=SMALL, color=MUTED, labelpad=4)
    end = max(position(largest) * 1.05, position(0.5))
    axes.set_ylim(0, end)
    ticks = thinned(kept_ticks(end), at=lambda kept: axes.transData.transform((0, position(1 - kept)))[1], gap=16)
    axes.set_yticks([position(1 - kept) for kept in ticks], [f"{100 - 100 * kept:g}" for kept in ticks])
    axes.yaxis.grid(visible=True, color=GRID, linewidth=0.8)
    colours = series_colours(method_names(results))
    for index, (method, colour) in enumerate(colours.items()):
        # Beside each other, or intervals of methods would hide each other.
        shift = 0.06 * (index - (len(colours) - 1) / 2)
        found = [(at + shift, column[method]) for at, column in enumerate(row) if column[method].ratio is not None]
        xs, ys = [at for at, _ in found], [position(one.ratio or 0.0) for _, one in found]
        axes.plot(xs, ys, color=colour, linewidth=2.2, zorder=4)
        for at, one in found:
            _draw_standing(axes, one, at=at, colour=colour)


def _draw_standing(axes: Axes, one: Standing, *, at: float, colour: str) -> None:
    height = position(one.ratio or 0.0)
    if one.low is not None and one.high is not None and one.status == "known":
        axes.plot([at, at], [position(max(0.0, one.low)), position(one.high)], color=colour, linewidth=1.2, alpha=0.7)
    mark = {"known": "o", "at_top": "^", "open": "^"}[one.status]
    face = PAPER if one.status == "open" else colour
    axes.plot([at], [height], mark, color=colour, markerfacecolor=face, markersize=7.5, clip_on=False, zorder=6)
