"""Figures of what networks look at: whose pixels convince whom, and what becomes of that with the ratio."""

# M networks, S sources of pixels

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from raypruning.analysis.features import Features, HeatMap, Looker, heat_map, looks, separate_index
from raypruning.core.search.axis import position
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

# Columns that have room for a number each.
MAX_PRUNED = 5
_ROW = 30
_STRONGEST = 0.55  # opacity of a sure cell: ink is read on it, on a light page and on a dark one


def panels(found: Features) -> list[Panel]:
    """The heat map, and the confidences against the ratio where there are several."""
    table = thinned_map(heat_map(found), found.record.networks)
    height = 84 + _ROW * len(table.sources)
    figures = [
        panel(
            "Confidence of each network on the pixels of each other",
            height=height,
            draw=lambda figure: _draw_heat(figure, table),
        )
    ]
    if sum(one.role == "pruned" for one in found.record.networks) > 1:
        figures.append(
            panel("Confidence against what is kept", height=310, draw=lambda figure: _draw_ratios(figure, found))
        )
    return figures


def thinned_map(table: HeatMap, networks: Sequence[Looker]) -> HeatMap:
    """With `MAX_PRUNED` pruned networks at most, evenly over those there are, the first and the last among them."""
    pruned = [index for index, one in enumerate(networks) if one.role == "pruned"]
    if len(pruned) <= MAX_PRUNED:
        return table
    chosen = {pruned[round(at)] for at in np.linspace(0, len(pruned) - 1, MAX_PRUNED)}
    columns = [index for index in range(len(networks)) if index not in pruned or index in chosen]
    rows = [*columns, *range(len(networks), len(table.sources))]
    return HeatMap(
        tuple(table.sources[row] for row in rows),
        tuple(table.judges[column] for column in columns),
        table.mean_SM[np.ix_(rows, columns)],
        table.standard_error_SM[np.ix_(rows, columns)],
    )


def _draw_heat(figure: Figure, table: HeatMap) -> None:
    heading(figure, "Confidence in the true class", left="row: whose pixels; column: who sees them")
    num_rows, num_columns = table.mean_SM.shape
    axes = axes_at(figure, left=88, right=2, top=78, bottom=6)
    axes.spines["bottom"].set_visible(False)
    axes.set_xlim(0, num_columns)
    axes.set_ylim(num_rows, 0)
    axes.xaxis.tick_top()
    axes.set_xticks(np.arange(num_columns) + 0.5, [_column(name, is_narrow=num_columns > 6) for name in table.judges])
    axes.set_yticks(np.arange(num_rows) + 0.5, table.sources)
    axes.tick_params(pad=3)
    # The longest name, `separate`, is 54 px wide.
    axes.tick_params(axis="x", labelsize=SMALL if num_columns <= 5 else 9.5)
    for row in range(num_rows):
        for column in range(num_columns):
            _draw_cell(axes, row, column, float(table.mean_SM[row, column]))


def _column(name: str, *, is_narrow: bool) -> str:
    """On two lines where one has no room."""
    return name.replace(" ", "\n") if is_narrow else name


def _draw_cell(axes: Axes, row: int, column: int, value: float) -> None:
    from matplotlib.patches import Rectangle

    is_own = row == column
    colour = (SERIES[0], _STRONGEST * value)
    axes.add_patch(Rectangle((column, row), 1, 1, facecolor=colour, edgecolor=PAPER, linewidth=2))
    axes.text(
        column + 0.5,
        row + 0.5,
        f"{value:.2f}",
        ha="center",
        va="center",
        fontsize=TEXT,
        fontweight="bold" if is_own else "normal",
    )


def _draw_ratios(figure: Figure, found: Features) -> None:
    every = looks(found)
    heading(figure, "Against what is kept", left="confidence in the true class")
    axes = axes_at(figure, left=34, right=14, top=98, bottom=58)
    kept_axis(axes, largest=max(one.network.ratio_reached for one in every))
    axes.set_ylim(0, 1.03)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])
    axes.yaxis.grid(visible=True, color=GRID, linewidth=0.8)
    ats = [position(one.network.ratio_reached) for one in every]
    parent = float(found.confidence_SMN[0, 0].mean())
    lines = (
        ("pruned network on its own pixels", SERIES[2], [one.own for one in every]),
        ("parent on the pruned network's", SERIES[0], [one.by_parent for one in every]),
        ("pruned network on the parent's", SERIES[1], [one.of_parent for one in every]),
    )
    for place, (name, colour, values) in enumerate(lines):
        means = [one.mean for one in values]
        # Begins with the parent, for which all three are its confidence on its own pixels.
        axes.plot([0, ats[0]], [parent, means[0]], color=colour, linewidth=1.3, alpha=0.3)
        errors = np.nan_to_num([one.standard_error for one in values])
        axes.errorbar(
            ats, means, yerr=errors, color=colour, linewidth=2.2, marker="o", markersize=4.5, elinewidth=1.2, zorder=5
        )
        _draw_name(figure, name, colour, place=place)
    _draw_controls(axes, found)


def _draw_name(figure: Figure, name: str, colour: str, *, place: int) -> None:
    height = figure.get_size_inches()[1] * 72
    at = 1 - (50 + 15 * place) / height
    figure.text(0.002, at, "●", fontsize=SMALL, color=colour, va="center")
    figure.text(0.04, at, name, fontsize=SMALL, va="center")


def _draw_controls(axes: Axes, found: Features) -> None:
    """The parent on pixels of the separate network and on random ones: lines across, since no ratio matters to them."""
    networks = found.record.networks
    separate = separate_index(networks)
    controls: Sequence[tuple[str, int]] = [("random", len(networks))]
    controls = [*controls, ("separate", separate)] if separate is not None else controls
    for name, source in controls:
        value = float(found.confidence_SMN[source, 0].mean())
        axes.axhline(value, color=MUTED, linewidth=1.3, linestyle=(0, (4, 3)), zorder=3)
        axes.annotate(
            f"parent on {name}",
            (0, value),
            (4, 4 if value < 0.9 else -12),
            xycoords=axes.get_yaxis_transform(),
            textcoords="offset points",
            fontsize=SMALL,
            color=INK,
            bbox={"facecolor": PAPER, "linewidth": 0, "pad": 0.5, "alpha": 0.8},
        )
