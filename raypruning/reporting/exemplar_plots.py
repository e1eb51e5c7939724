"""What pruned networks forget, as figures: how many images beside what luck makes, and how accurate they are there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from raypruning.analysis.exemplars import Exemplars, PopulationExemplars, accuracy_on_pies
from raypruning.core.search.axis import position
from raypruning.reporting import wording
from raypruning.reporting.drawing import (
    GRID,
    INK,
    SERIES,
    SMALL,
    Panel,
    axes_at,
    heading,
    kept_axis,
    panel,
    series_colours,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Tasks that a page has room for: the first, and those with the most PIEs.
_MAX_TASKS = 6
_LETTERS = 16
_ASIDE = 0.015  # of the width of the axes


def panels(found: Exemplars) -> list[Panel]:
    """The rate of each task beside the null rate; and accuracy on the first task, for its first method and budget."""
    tasks: dict[str, list[PopulationExemplars]] = {}
    for one in found.populations:
        tasks.setdefault(one.task, []).append(one)
    colours = series_colours(list(dict.fromkeys(_line_name(found, one) for one in found.populations)))
    first = next(iter(tasks))
    others = sorted((name for name in tasks if name != first), key=lambda name: -max(one.rate for one in tasks[name]))
    kept = {first, *others[: _MAX_TASKS - 1]}
    drawn = [_rate_panel(found, rows, colours) for name, rows in tasks.items() if name in kept]
    row = [one for one in tasks[first] if (one.method, one.budget) == (tasks[first][0].method, tasks[first][0].budget)]
    return [*drawn, _accuracy_panel(row)]


def _line_name(found: Exemplars, one: PopulationExemplars) -> str:
    several = len({other.budget for other in found.populations}) > 1
    return f"{one.method}, {one.budget} ep." if several else one.method


class _End(NamedTuple):
    """Of a line: its name stands there."""

    height: float
    name: str
    colour: str


# -- how many ----------------------------------------------------------------------------------------------------------


def _rate_panel(found: Exemplars, rows: Sequence[PopulationExemplars], colours: dict[str, str]) -> Panel:
    return panel(
        f"Images forgotten on {rows[0].task}, beside luck",
        height=300,
        draw=lambda figure: _draw_rates(figure, found, rows, colours),
    )


def _draw_rates(figure: Figure, found: Exemplars, rows: Sequence[PopulationExemplars], colours: dict[str, str]) -> None:
    num = rows[0].groups.num_networks
    heading(figure, rows[0].task, left=f"% of images answered otherwise, {num} networks against {num}")
    lines: dict[str, list[PopulationExemplars]] = {}
    for one in rows:
        lines.setdefault(_line_name(found, one), []).append(one)
    axes = axes_at(figure, left=34, right=14 + 7 * max(map(len, [*map(_short, lines), "by luck"])), top=46, bottom=58)
    kept_axis(axes, largest=max(one.ratio_reached for one in rows))
    ends = [_draw_luck(axes, rows[0])]
    for index, (name, row) in enumerate(lines.items()):
        # A little apart, so that no whisker hides another one.
        aside = _ASIDE * (index - (len(lines) - 1) / 2) * axes.get_xlim()[1]
        at = [position(one.ratio_reached) + aside for one in row]
        rates = [100 * one.groups.pruned for one in row]
        axes.plot(at, rates, "o-", color=colours[name], linewidth=2.2, markersize=5.5, zorder=5)
        for x, one in zip(at, row, strict=True):
            if one.groups.excess_interval:
                ends_of = one.groups.excess_interval
                whisker = [100 * max(0.0, one.groups.null + end) for end in (ends_of.low, ends_of.high)]
                axes.plot([x, x], whisker, color=colours[name], linewidth=1.4, zorder=4)
        ends.append(_End(rates[-1], _short(name), colours[name]))
    luck = rows[0].groups.null_interval
    top = max(*(one.groups.pruned for one in rows), rows[0].groups.null, luck.high if luck else 0.0)
    axes.set_ylim(0, max(100 * min(1.0, 1.12 * top), 0.01))
    axes.yaxis.grid(visible=True, color=GRID, linewidth=0.8)
    _name_ends(axes, ends)


def _draw_luck(axes: Axes, one: PopulationExemplars) -> _End:
    groups, right = one.groups, axes.get_xlim()[1]
    if groups.null_interval:
        low, high = 100 * groups.null_interval.low, 100 * groups.null_interval.high
        axes.fill_between([0, right], low, high, color=INK, alpha=0.13, linewidth=0, zorder=1)
    axes.plot([0, right], [100 * groups.null] * 2, color=INK, linewidth=1.5, linestyle=(0, (4, 3)), zorder=2)
    return _End(100 * groups.null, "by luck", INK)


def _short(name: str) -> str:
    return name if len(name) <= _LETTERS else name[: _LETTERS - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _name_ends(axes: Axes, ends: Sequence[_End]) -> None:
    """Names on the right of lines, pushed apart where they would overlap, the lowest no lower than the axis."""
    low, high = axes.get_ylim()
    least = 15 / axes.bbox.height * (high - low)
    height = low - least / 2
    for end in sorted(ends):
        height = max(height + least, end.height)
        axes.annotate(
            end.name,
            (1, min(height, high)),
            (7, 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            va="center",
            fontsize=SMALL,
            color=end.colour,
            fontweight="bold",
            annotation_clip=False,
        )


# -- how accurate ------------------------------------------------------------------------------------------------------


def _accuracy_panel(row: Sequence[PopulationExemplars]) -> Panel:
    return panel(
        f"Accuracy on forgotten images of {row[0].task}", height=300, draw=lambda figure: _draw_accuracy(figure, row)
    )


def _draw_accuracy(figure: Figure, row: Sequence[PopulationExemplars]) -> None:
    one = row[0]
    left = f"accuracy in %, {one.method}, {wording.count(one.budget, 'epoch')}"
    heading(figure, f"PIEs of {one.task}, and the rest", left=left)
    axes = axes_at(figure, left=34, right=120, top=46, bottom=58)
    kept_axis(axes, largest=max(each.ratio_reached for each in row))
    axes.set_ylim(0, 100)
    axes.set_yticks(range(0, 101, 20))
    axes.yaxis.grid(visible=True, color=GRID, linewidth=0.8)
    ends = []
    for index, on in ((1, "the rest"), (0, "PIEs")):
        for side, colour in (("dense", SERIES[0]), ("pruned", SERIES[1])):
            found = [(position(each.ratio_reached), accuracy_on_pies(each)[index]) for each in row]
            shown = [(x, 100 * getattr(accuracy, side)) for x, accuracy in found if accuracy is not None]
            if not shown:
                continue
            at, values = zip(*shown, strict=True)
            style = "o-" if index == 0 else "o--"
            axes.plot(at, values, style, color=colour, linewidth=2.2 if index == 0 else 1.5, markersize=5, zorder=4)
            ends.append(_End(values[-1], f"{side}, {on}", colour))
    _name_ends(axes, ends)
