"""Figures of `prune-cli similarity`: pruned networks beside separate ones, under noise, on tasks, in features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from raypruning.analysis.similarity import Estimate, Likeness, NoiseLevel, Similarity
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

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_CONTROL = (0, (4, 3))  # dashes
# Tasks that a figure has room for: the nominal one, and those with the largest churn.
_MAX_TASKS = 8
_MAX_RATIOS = 6
_BAR_TEXT = 116  # pixels of what stands after a bar


def panels(found: Similarity) -> list[Panel]:
    """For each method and budget matching predictions, softmax distance and churn; one of features for all."""
    kinds: dict[tuple[str, int], list[Likeness]] = {}
    for one in found.populations:
        kinds.setdefault((one.method, one.budget), []).append(one)
    drawn = []
    for (method, budget), every in kinds.items():
        row = [every[index] for index in spread_places(len(every), limit=_MAX_RATIOS)]
        name = method if len({other for _, other in kinds}) == 1 else f"{method}, {wording.count(budget, 'epoch')}"
        drawn += [*_noise_panels(found, row, name=name), _churn_panel(found, row, name=name)]
    return [*drawn, _features_panel(found, list(kinds.values()))]


def spread_places(num: int, *, limit: int) -> list[int]:
    """Places of what has room, at least two: the first, the last, and some evenly between; all where there are few."""
    limit = max(2, limit)
    if num <= limit:
        return list(range(num))
    return [round(index * (num - 1) / (limit - 1)) for index in range(limit)]


def _ratio_colours(row: Sequence[Likeness]) -> list[str]:
    return [SERIES[index % len(SERIES)] for index in range(len(row))]


# -- under noise -------------------------------------------------------------------------------------------------------


def _noise_panels(found: Similarity, row: Sequence[Likeness], *, name: str) -> list[Panel]:
    if len(found.amplitudes) < 2:
        return []
    return [
        panel(
            f"{title} of {name} under noise",
            height=300,
            draw=lambda figure, title=title, left=left, quantity=quantity, scale=scale: _draw_noise(
                figure, found, row, quantity=quantity, scale=scale, title=f"{title}: {name}", left=left
            ),
        )
        for title, left, quantity, scale in (
            ("Matching predictions", "% of images with the same class as the parent", "matching", 100.0),
            ("Softmax distance", "mean distance to the parent's softmax output", "distance", 1.0),
        )
    ]


def _draw_noise(
    figure: Figure,
    found: Similarity,
    row: Sequence[Likeness],
    *,
    quantity: str,
    scale: float,
    title: str,
    left: str,
) -> None:
    heading(figure, title, left=left)
    axes = axes_at(figure, left=40, right=78, top=46, bottom=44)
    axes.set_xlim(0, found.amplitudes[-1])
    axes.set_xlabel("noise level", fontsize=SMALL, color=MUTED, labelpad=4)
    axes.yaxis.grid(visible=True, color=GRID, linewidth=0.8)
    lines = [
        (one, f"{wording.MINUS}{wording.percent(one.ratio_reached)}", colour, "-")
        for one, colour in zip(row, _ratio_colours(row), strict=True)
    ]
    if found.control is not None:
        lines.append((found.control, "separate", INK, _CONTROL))
    ends = []
    for one, label, colour, dashes in lines:
        values = [scale * _estimate(level, quantity).value for level in one.levels]
        errors = [scale * 2 * (_estimate(level, quantity).standard_error or 0.0) for level in one.levels]
        low, high = ([v + sign * e for v, e in zip(values, errors, strict=True)] for sign in (-1, 1))
        axes.fill_between(found.amplitudes, low, high, color=colour, alpha=0.16, linewidth=0, zorder=2)
        axes.plot(found.amplitudes, values, color=colour, linewidth=2.2, linestyle=dashes, zorder=4)
        ends.append((values[-1], label, colour))
    _label_ends(axes, ends, right=found.amplitudes[-1])


def _estimate(level: NoiseLevel, quantity: str) -> Estimate:
    return level.matching if quantity == "matching" else level.distance


def _label_ends(axes: Axes, ends: Sequence[tuple[float, str, str]], *, right: float) -> None:
    """A line's name at its end, moved apart where lines end close together."""
    low, high = axes.get_ylim()
    gap = 15 / (axes.bbox.height) * (high - low)
    ordered = sorted(ends)
    places = [value for value, _, _ in ordered]
    for _ in range(200):  # a few lines: settles at once
        for index in range(len(places) - 1):
            missing = gap - (places[index + 1] - places[index])
            if missing > 1e-9:
                places[index] -= missing / 2
                places[index + 1] += missing / 2
    for place, (_, label, colour) in zip(places, ordered, strict=True):
        axes.annotate(
            label,
            (right, place),
            (6, 0),
            textcoords="offset points",
            va="center",
            fontsize=SMALL,
            color=colour,
            fontweight="bold",
            annotation_clip=False,
        )


# -- churn -------------------------------------------------------------------------------------------------------------


def _churn_panel(found: Similarity, row: Sequence[Likeness], *, name: str) -> Panel:
    shown = churn_tasks(row)
    bar, space = 15, 30
    return panel(
        f"Churn of {name}",
        height=64 + len(shown) * (space + bar * len(row)),
        draw=lambda figure: _draw_churn(figure, found, row, shown, name=name, bar=bar, space=space),
    )


def churn_tasks(row: Sequence[Likeness], *, limit: int = _MAX_TASKS) -> list[int]:
    """Places of the tasks that are shown, in their order: all, or the first and those with the largest churn."""
    num = len(row[0].churn)
    if num <= limit:
        return list(range(num))
    largest = sorted(range(1, num), key=lambda index: -max(one.churn[index].rate.value for one in row))
    return sorted([0, *largest[: limit - 1]])


def _draw_churn(
    figure: Figure, found: Similarity, row: Sequence[Likeness], shown: Sequence[int], *, name: str, bar: int, space: int
) -> None:
    left = "% of images with another class than the parent's"
    heading(figure, f"Churn: {name}", left=left, right="| separate" if found.control else "")
    axes = axes_at(figure, left=4, right=14, top=44, bottom=20)
    every = [*row, *([found.control] if found.control else [])]
    largest = max(one.churn[index].interval.high for one in every for index in shown)
    # Pixels that a text needs after the longest bar, in points.
    end = 100 * max(largest, 0.01) / (1 - _BAR_TEXT / axes.bbox.width)
    room = end * _BAR_TEXT / axes.bbox.width
    axes.set_xlim(0, end)
    axes.set_xticks([tick for tick in axes.get_xticks() if tick <= min(end, 100)])
    axes.set_ylim(len(shown) * (space + bar * len(row)), 0)
    axes.set_yticks([])
    axes.xaxis.grid(visible=True, color=GRID, linewidth=0.8)
    paper = {"facecolor": PAPER, "linewidth": 0, "pad": 1.0}
    for slot, index in enumerate(shown):
        top = slot * (space + bar * len(row))
        separate = 100 * found.control.churn[index].rate.value if found.control else None
        axes.text(0, top + 16, row[0].churn[index].task, fontsize=TEXT, va="center", bbox=paper)
        for place, (one, colour) in enumerate(zip(row, _ratio_colours(row), strict=True)):
            churn = one.churn[index]
            at = top + space - 4 + bar * (place + 0.5)
            axes.barh(at, 100 * churn.rate.value, height=bar - 4, color=colour, zorder=3)
            ends = [100 * churn.interval.low, 100 * churn.interval.high]
            axes.plot(ends, [at, at], color=INK, linewidth=1.2, zorder=5)
            text = f"{100 * churn.rate.value:.1f}  ({wording.MINUS}{wording.percent(one.ratio_reached)})"
            start = separate if separate is not None and ends[1] < separate < ends[1] + room else ends[1]
            axes.annotate(
                text,
                (start, at),
                (5, 0),
                textcoords="offset points",
                va="center",
                fontsize=SMALL,
                color=colour,
                fontweight="bold",
                bbox=paper,
                zorder=4,
            )
        if separate is not None:
            span = [top + space - 6, top + space - 2 + bar * len(row)]
            axes.plot([separate] * 2, span, color=INK, linewidth=1.6, linestyle=_CONTROL, zorder=6)


# -- features ----------------------------------------------------------------------------------------------------------


def _features_panel(found: Similarity, kinds: Sequence[Sequence[Likeness]]) -> Panel:
    return panel("Features before the last layer", height=270, draw=lambda figure: _draw_features(figure, found, kinds))


def _draw_features(figure: Figure, found: Similarity, kinds: Sequence[Sequence[Likeness]]) -> None:
    several = len({row[0].budget for row in kinds}) > 1
    names = [f"{row[0].method}, {row[0].budget} ep." if several else row[0].method for row in kinds]
    heading(
        figure,
        "Features before the last layer",
        left="linear CKA; 1: the parent's but for rotation and scale",
    )
    # As wide as the longest name, in a wide font, and not more than a third of the figure.
    right_px = min(132, max(78, 14 + 8 * max(map(len, names))))
    axes = axes_at(figure, left=40, right=right_px, top=46, bottom=58)
    kept_axis(axes, largest=max(one.ratio_reached for one in found.populations))
    axes.yaxis.grid(visible=True, color=GRID, linewidth=0.8)
    ends = []
    for row, name, colour in zip(kinds, names, SERIES * len(kinds), strict=False):
        at = [position(one.ratio_reached) for one in row]
        axes.plot(at, [one.cka.value for one in row], "o-", color=colour, linewidth=2.2, markersize=6, zorder=4)
        for x, one in zip(at, row, strict=True):
            error = 2 * (one.cka.standard_error or 0.0)
            axes.plot([x, x], [one.cka.value - error, one.cka.value + error], color=colour, linewidth=1.4, zorder=3)
        ends.append((row[-1].cka.value, name, colour))
    right = axes.get_xlim()[1]
    if found.control is not None:
        cka = found.control.cka
        error = 2 * (cka.standard_error or 0.0)
        axes.fill_between([0, right], cka.value - error, cka.value + error, color=INK, alpha=0.1, linewidth=0, zorder=1)
        axes.plot([0, right], [cka.value] * 2, color=INK, linewidth=1.6, linestyle=_CONTROL, zorder=2)
        ends.append((cka.value, "separate", INK))
    axes.set_ylim(axes.get_ylim()[0] - 0.04, 1.0)
    _label_ends(axes, ends, right=right)
