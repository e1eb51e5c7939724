"""Figures of several sweeps side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from raypruning.reporting.answer import Standing
from raypruning.reporting.comparison import ComparedRow
from raypruning.reporting.drawing import (
    INK,
    PAPER,
    TEXT,
    Panel,
    axes_at,
    draw_bar,
    heading,
    kept_axis,
    panel,
    series_colours,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LINE_PIXELS = 20


def comparison_panels(labels: Sequence[str], rows: Sequence[ComparedRow]) -> list[Panel]:
    """One panel per method: for each task a bar per sweep, in the colour of the sweep.

    Args:
        labels: of the sweeps.
        rows: with one standing per sweep.
    """
    known = [one for row in rows for one in row.standings if one is not None and one.ratio is not None]
    if not known:
        return []
    largest = max(end for one in known for end in (one.ratio, one.high) if end is not None)
    panels = []
    for method in dict.fromkeys(row.method for row in rows):
        own = [row for row in rows if row.method == method]
        num_lines = len(own) * (len(labels) + 1.3)
        panels.append(
            panel(
                f"Potential of {method} in each sweep",
                height=round(78 + LINE_PIXELS * num_lines),
                draw=lambda figure, method=method, own=own, num_lines=num_lines: _draw(
                    figure, method, own, labels=labels, num_lines=num_lines, largest=largest
                ),
            )
        )
    return panels


def _draw(
    figure: Figure,
    method: str,
    rows: Sequence[ComparedRow],
    *,
    labels: Sequence[str],
    num_lines: float,
    largest: float,
) -> None:
    heading(figure, method)
    # Room on the right for a number behind the longest bar.
    axes = axes_at(figure, left=4, right=72, top=24, bottom=54)
    kept_axis(axes, largest=largest, is_flush=True)
    axes.set_ylim(num_lines, 0)
    axes.set_yticks([])
    colours = series_colours(labels)
    at = 0.0
    for row in rows:
        axes.text(
            0, at + 0.6, row.task, fontsize=TEXT, va="center", bbox={"facecolor": PAPER, "linewidth": 0, "pad": 1}
        )
        for index, (label, one) in enumerate(zip(labels, row.standings, strict=True), start=1):
            line = at + index + 0.4
            if one is not None and one.ratio is not None:
                draw_bar(axes, one, at=line, height=0.6, colour=colours[label])
            right = axes.get_xlim()[1]
            axes.annotate(
                _amount(one), (right, line), (70, 0), textcoords="offset points", ha="right", va="center", color=INK
            )
        at += len(labels) + 1.3


def _amount(one: Standing | None) -> str:
    return "–" if one is None else one.amount
