"""What pruning does to each class, as figures: recall before and after at one ratio, and over the ratios."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from raypruning.analysis.class_impact import ClassImpact, Impact, PopulationImpact
from raypruning.core.search.axis import position
from raypruning.reporting import wording
from raypruning.reporting.drawing import (
    GRID,
    INK,
    MUTED,
    PAPER,
    SERIES,
    SMALL,
    TEXT,
    Panel,
    axes_at,
    heading,
    kept_axis,
    panel,
)
from raypruning.reporting.impact import Block, blocks, is_tolerable, short_name
from raypruning.reporting.populations import setting

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LOST, GAINED = SERIES[1], SERIES[0]
_COLOURS = {"lost": LOST, "gained": GAINED, "none": MUTED}
_ROW_PIXELS = 19
_MAX_ROWS = 24
_WORST, _BEST = 14, 8  # shown of more classes than that
_MAX_BLOCKS = 8  # on a page
_MAX_LINES = 30  # beyond, classes are a band
_NAMED = (SERIES[1], SERIES[3], SERIES[4])


def panels(found: Impact) -> list[Panel]:
    """What a page shows of each task, method and budget: all ratios, and the classes at the largest tolerable one.

    Where they are many, those in which a class loses most there.
    """
    every = blocks(found)
    ranked = sorted(every, key=lambda block: -_telling(block).worst_first[0].tested)
    shown = []
    for block in every if len(every) <= _MAX_BLOCKS else [block for block in every if block in ranked[:_MAX_BLOCKS]]:
        if len(block) > 1:
            shown.append(_over_ratios(found, block))
        shown.append(_of_population(found, _telling(block)))
    return shown


def named_figures(found: Impact) -> dict[str, Panel]:
    """A figure for each task and population, and one over the ratios where there are several, by names for files."""
    each = {setting_stem(one): _of_population(found, one) for one in found.populations}
    over = {block_stem(block): _over_ratios(found, block) for block in blocks(found) if len(block) > 1}
    return each | over


def setting_stem(one: PopulationImpact) -> str:
    """Of the file of a population, such as `noise-uniform-0.1_wt_2_0.98`."""
    return "_".join(_plain(part) for part in (one.task, one.method, f"{one.budget}", f"{one.ratio:.6g}"))


def block_stem(block: Block) -> str:
    """Of the file over its ratios; with the seed where each has a block of its own."""
    one = block[0]
    seeds = ["seed" + "-".join(map(str, one.seeds_dense))] if one.is_paired else []
    return "_".join(_plain(part) for part in (one.task, one.method, f"{one.budget}", *seeds, "ratios"))


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.=+]+", "-", name)


# -- at one ratio ----------------------------------------------------------------------------------------------------


def _telling(block: Block) -> PopulationImpact:
    """The largest ratio at which accuracy is still tolerable; the smallest where it never is."""
    tolerable = [one for one in block if is_tolerable(one)]
    return tolerable[-1] if tolerable else block[0]


def _of_population(found: Impact, one: PopulationImpact) -> Panel:
    num_rows = 1 + (len(one.classes) if len(one.classes) <= _MAX_ROWS else _WORST + 1 + _BEST)
    return panel(
        f"Recall of each class on {one.task}, {setting(one)}",
        height=108 + _ROW_PIXELS * num_rows,
        draw=lambda figure: _draw_population(figure, found, one),
    )


def _draw_population(figure: Figure, found: Impact, one: PopulationImpact) -> None:
    heading(figure, one.task, left=setting(one), right="points lost")
    axes = axes_at(figure, left=122, right=52, top=44, bottom=64)
    rows: list[ClassImpact | None] = list(one.worst_first)
    if len(rows) > _MAX_ROWS:
        rows = [*rows[:_WORST], None, *rows[-_BEST:]]
    axes.set_ylim(len(rows) + 0.6, -0.6)
    axes.set_yticks([])
    _recall_axis(axes, one)
    _draw_row(axes, 0, "accuracy", one.accuracy_dense.mean, one.accuracy_pruned.mean, colour=INK, is_bold=True)
    for index, each in enumerate(rows, start=1):
        if each is None:
            text = f"{wording.thousands(len(one.classes) - _WORST - _BEST)} classes in between"
            axes.annotate(text, (0.5, index), xycoords=("axes fraction", "data"), **_CENTRED, color=MUTED)
            continue
        colour = _COLOURS[each.verdict]
        axes.plot([100 * each.pruned.low, 100 * each.pruned.high], [index] * 2, color=colour, linewidth=1, alpha=0.55)
        name = short_name(found, each.label)
        _draw_row(axes, index, name, each.dense.mean, each.pruned.mean, colour=colour)
        if each in one.never_found:
            beside = {"textcoords": "offset points", "fontsize": SMALL, "va": "center", "zorder": 6}
            ground = {"facecolor": PAPER, "linewidth": 0, "pad": 1}
            axes.annotate("never found", (0, index), (12, 0), color=colour, bbox=ground, **beside)
    _legend(figure, one)


_CENTRED = {"ha": "center", "va": "center", "fontsize": SMALL}


def _recall_axis(axes: Axes, one: PopulationImpact) -> None:
    lows = [min(each.dense.mean, each.pruned.low) for each in one.classes]
    low = min(70.0, 10 * np.floor(10 * min(lows)))
    axes.set_xlim(low - 0.02 * (100 - low), 100 + 0.02 * (100 - low))
    step = 20 if low < 40 else 10
    ticks = np.arange(step * np.ceil(low / step), 101, step)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.xaxis.grid(visible=True, color=GRID, linewidth=0.8)


def _draw_row(
    axes: Axes, index: int, name: str, before: float, after: float, *, colour: str, is_bold: bool = False
) -> None:
    ends = [100 * before, 100 * after]
    axes.plot(ends, [index] * 2, color=colour, linewidth=2.4, alpha=0.5, zorder=3, solid_capstyle="butt")
    axes.plot(ends[:1], [index], "o", color=colour, markerfacecolor=PAPER, markersize=7, zorder=4, clip_on=False)
    axes.plot(ends[1:], [index], "o" if after else "X", color=colour, markersize=8, zorder=5, clip_on=False)
    weight = "bold" if is_bold else "normal"
    beside = {"textcoords": "offset points", "va": "center", "fontsize": TEXT, "fontweight": weight, "color": INK}
    axes.annotate(name, (0, index), (-8, 0), xycoords=("axes fraction", "data"), ha="right", **beside)
    lost = wording.signed_points(before - after)
    axes.annotate(lost, (1, index), (51, 0), xycoords=("axes fraction", "data"), ha="right", **beside)


def _legend(figure: Figure, one: PopulationImpact) -> None:
    height = figure.get_size_inches()[1] * 72
    more = "" if one.is_paired else " more than accuracy"
    less = "gained" if one.is_paired else "less, or gained"
    at = {"fontsize": SMALL, "va": "center"}
    figure.text(0.002, 8 / height, f"\N{BLACK CIRCLE} {len(one.lost)} lost{more}", color=LOST, **at)
    figure.text(0.55, 8 / height, f"\N{BLACK CIRCLE} {len(one.gained)} {less}", color=GAINED, **at)
    recall = "recall in %: \N{WHITE CIRCLE} dense, \N{BLACK CIRCLE} pruned"
    if one.accuracy_pruned.num > 1:
        recall += f", mean and range of {one.accuracy_pruned.num}"
    figure.text(0.002, 26 / height, recall, color=MUTED, **at)


# -- over the ratios -------------------------------------------------------------------------------------------------


def _over_ratios(found: Impact, block: Block) -> Panel:
    one = block[0]
    seeds = f", seed {wording.listing([f'{seed}' for seed in one.seeds_dense])}" if one.is_paired else ""
    return panel(
        f"Recall of each class on {one.task} against what is kept, {one.method}, {one.budget} epochs{seeds}",
        height=300,
        draw=lambda figure: _draw_ratios(figure, found, block),
    )


def _draw_ratios(figure: Figure, found: Impact, block: Block) -> None:
    one = block[0]
    named = [each.label for each in _telling(block).worst_first[: len(_NAMED)]]
    heading(figure, one.task, left=f"{one.method}, {wording.count(one.budget, 'epoch')}: recall of each class, %")
    names = {label: short_name(found, label) for label in named}
    letters = max(map(len, [*names.values(), "accuracy"]))
    axes = axes_at(figure, left=32, right=12 + 7 * letters, top=46, bottom=58)
    kept_axis(axes, largest=max(each.ratio_reached for each in block))
    axes.set_ylim(-2, 102)
    axes.set_yticks(range(0, 101, 20))
    axes.yaxis.grid(visible=True, color=GRID, linewidth=0.8)
    at = [0.0, *(position(each.ratio_reached) for each in block)]
    labels = [each.label for each in one.classes]
    recall_RC = np.array(
        [[each.dense.mean for each in one.classes], *([each.pruned.mean for each in part.classes] for part in block)]
    )
    if len(labels) > _MAX_LINES:
        low_R, high_R = (np.quantile(100 * recall_RC, share, axis=1) for share in (0.1, 0.9))
        axes.fill_between(at, low_R, high_R, color=MUTED, alpha=0.2, linewidth=0)
    else:
        others = [index for index, label in enumerate(labels) if label not in named]
        axes.plot(at, 100 * recall_RC[:, others], color=MUTED, linewidth=1.1, alpha=0.6)
    ends = []
    for label, colour in zip(named, _NAMED, strict=False):
        column_R = 100 * recall_RC[:, labels.index(label)]
        axes.plot(at, column_R, "o-", color=colour, linewidth=2, markersize=4.5, zorder=4)
        ends.append((float(column_R[-1]), names[label], colour))
    accuracy_R = [100 * one.accuracy_dense.mean, *(100 * each.accuracy_pruned.mean for each in block)]
    axes.plot(at, accuracy_R, color=INK, linewidth=2, linestyle=(0, (4, 2)), zorder=5)
    ends.append((accuracy_R[-1], "accuracy", INK))
    _name_ends(axes, ends, at=at[-1])


def _name_ends(axes: Axes, ends: Sequence[tuple[float, str, str]], *, at: float) -> None:
    """Names behind the ends of lines, pushed apart where they would overlap, and all within the axes."""
    least = 8.0  # points of recall, as high as a line of text
    ordered = sorted(ends, reverse=True)
    heights: list[float] = []
    for index, (end, _, _) in enumerate(ordered):
        lowest = least * (len(ordered) - 1 - index)
        heights.append(max(lowest, min(end, heights[-1] - least) if heights else end))
    for height, (_, name, colour) in zip(heights, ordered, strict=True):
        axes.annotate(name, (at, height), (8, 0), textcoords="offset points", va="center", fontsize=SMALL, color=colour)
