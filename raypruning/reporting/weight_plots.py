"""Figures of what a prune leaves of each layer: weights and unit norms of a ratio, layers' ratios, history.

Every figure is drawn once and kept in two forms: as the SVG of a page, and as PNG for whatever shows no SVG.
"""

# B bins

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from raypruning.analysis.weights import (
    CurveWeights,
    Histogram,
    LayerWeights,
    NetworkWeights,
    norm_histograms,
    weight_histograms,
)
from raypruning.core.records import Epoch
from raypruning.core.search.axis import position
from raypruning.reporting import wording
from raypruning.reporting.drawing import (
    GRID,
    INK,
    MUTED,
    PAPER,
    SERIES,
    SMALL,
    WIDTH,
    Panel,
    axes_at,
    heading,
    kept_axis,
    kept_ticks,
    panel,
    thinned,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PNG_SCALE = 2  # pixels of a PNG for each of a page
_TOP, _BOTTOM = 44, 30  # heights of the heading and of the legend
_PLOT, _LINE, _TICKS = 80, 15, 33  # heights in a row of layers: axes, a line of text above, numbers below
_SHORT_NAME = 8  # letters that leave room for more on their line
_FLOOR = 0.7  # where a logarithmic axis of counts begins: a bin of one stands above it
_HEADING_LETTERS = 46  # that fit into a bold line
_LINES = 8  # colours told apart
_STEPS = (1, 2, 5, 10)  # between ticks

Kind = Literal["weights", "unit_norms"]


class Drawing(NamedTuple):
    """A figure as SVG, which follows the page's colours, and as PNG on white."""

    panel: Panel
    png: bytes


def drawing(title: str, *, height: int, draw: Callable[[Figure], None]) -> Drawing:
    """Draw a figure, in both forms. The same drawing gives the same bytes."""
    pictures: list[bytes] = []

    def twice(figure: Figure) -> None:
        draw(figure)
        pictures.append(_png(figure))

    return Drawing(panel(title, height=height, draw=twice), pictures[0])


def _png(figure: Figure) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    dpi = figure.dpi
    figure.set_dpi(PNG_SCALE * dpi)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    drawn = Image.fromarray(np.asarray(canvas.buffer_rgba()))
    figure.set_dpi(dpi)
    paper = Image.new("RGBA", drawn.size, PAPER)
    data = io.BytesIO()
    Image.alpha_composite(paper, drawn).convert("RGB").save(data, "PNG")
    return data.getvalue()


# -- weights and unit norms of a ratio -------------------------------------------------------------------------------


class _Counted(NamedTuple):
    """A layer over all networks of a curve, the parent first, in bins that all share."""

    layers: list[LayerWeights]
    histograms: list[Histogram]

    @property
    def highest(self) -> int:
        """The fullest bin of all."""
        return max((int(one.counts_B.max()) for one in self.histograms if len(one.counts_B)), default=0)


def histogram_drawings(
    one: CurveWeights, kind: Kind, *, shown: Sequence[int], task: str, colour: str = SERIES[0]
) -> list[Drawing]:
    """A figure for each ratio, the parent's 0 first: what is kept of each layer, before the outline of the parent.

    Axes are the same at all ratios, so that figures can be compared and animated.

    Args:
        one: the networks of a curve.
        kind: `weights`: of single weights, counts on a logarithmic axis; `unit_norms`: of units that are not dead.
        shown: places of the layers to draw.
        task: whose error stands in the heading.
        colour: of the method.
    """
    of = {"weights": weight_histograms, "unit_norms": norm_histograms}[kind]
    counted = [_Counted(layers, of(layers)) for layers in (one.layer(index) for index in shown)]
    height = _TOP + _row_height(counted) * ((len(shown) + 1) // 2) + _BOTTOM
    return [
        drawing(
            f"{KIND_TITLES[kind]}, {one.curve.label}, {_removed(network)}",
            height=height,
            draw=lambda figure, at=at, network=network: _draw_ratio(
                figure, one, network, counted, at=at, kind=kind, task=task, colour=colour
            ),
        )
        for at, network in enumerate(one.all_networks)
    ]


def _num_lines(counted: Sequence[_Counted]) -> int:
    """Above each plot: a name and what is left of the layer stand on one line if names are short."""
    return 1 if all(len(one.layers[0].name) <= _SHORT_NAME for one in counted) else 2


def _row_height(counted: Sequence[_Counted]) -> int:
    return _LINE * _num_lines(counted) + _PLOT + _TICKS


KIND_TITLES = {"weights": "Surviving weights", "unit_norms": "Norms of units"}
_COUNTS = {"weights": "weights per bin, logarithmic", "unit_norms": "units per bin"}
_VALUES = {"weights": "value of a weight", "unit_norms": "L2 norm of a unit's weights"}


def _draw_ratio(
    figure: Figure,
    one: CurveWeights,
    network: NetworkWeights,
    counted: Sequence[_Counted],
    *,
    at: int,
    kind: Kind,
    task: str,
    colour: str,
) -> None:
    name = _cut_end(f"{_removed(network)}: {one.curve.label}", _HEADING_LETTERS)
    heading(figure, name, left=_COUNTS[kind], right=_error_text(network, task))
    width, height = figure.get_size_inches() * 72
    cell, row_height, num_lines = width / 2, _row_height(counted), _num_lines(counted)
    for place, of in enumerate(counted):
        row, column = divmod(place, 2)
        axes = axes_at(
            figure,
            left=column * cell + 32,
            right=width - (column + 1) * cell + 8,
            top=_TOP + row * row_height + _LINE * num_lines + 10,
            bottom=height - _TOP - (row + 1) * row_height + _TICKS - 10,
        )
        _draw_layer(axes, of, at=at, kind=kind, colour=colour)
        layer = of.layers[at]
        _above(axes, 0.0, num_lines, _cut(layer.name, 19), color=INK, fontweight="bold")
        _above(axes, float(num_lines == 1), 1, _state(layer, kind), color=MUTED)
    _draw_legend(figure, kind=kind, colour=colour)


def _draw_layer(axes: Axes, of: _Counted, *, at: int, kind: Kind, colour: str) -> None:
    kept, dense = of.histograms[at], of.histograms[0]
    is_log = kind == "weights"
    floor = _FLOOR if is_log else 0.0
    if is_log:
        axes.set_yscale("log")
    top = max(of.highest, 1)
    axes.set_ylim(floor, top * 2.0 if is_log else top * 1.15)
    edges = dense.edges
    if len(edges) > 1:
        axes.set_xlim(edges[0], edges[-1])
        filled = {"baseline": floor, "fill": True, "facecolor": colour, "edgecolor": "none", "alpha": 0.75}
        axes.stairs(np.maximum(kept.counts_B, floor), edges, zorder=3, **filled)
        axes.stairs(np.maximum(dense.counts_B, floor), edges, baseline=None, color=INK, linewidth=0.8, zorder=4)
    _count_ticks(axes, is_log=is_log)
    _value_ticks(axes)


def _state(layer: LayerWeights, kind: Kind) -> str:
    if not layer.num_kept:
        return "all removed"
    if kind == "weights":
        return f"{wording.percent(1.0 - layer.ratio)} kept"
    return f"{layer.num_dead} of {layer.num_units} dead" if layer.num_dead else wording.count(layer.num_units, "unit")


def _above(axes: Axes, x: float, line: int, text: str, **style: Any) -> None:
    """A text above axes, at their left (x is 0) or right end, on a line counted from below."""
    where = {"xycoords": "axes fraction", "textcoords": "offset points", "fontsize": SMALL}
    axes.annotate(text, (x, 1.0), (0, 7 + _LINE * (line - 1)), ha="right" if x else "left", **where, **style)


def _count_ticks(axes: Axes, *, is_log: bool) -> None:
    from matplotlib.ticker import MaxNLocator

    top = axes.get_ylim()[1]
    if is_log:
        powers = [10.0**power for power in range(12) if 10.0**power <= top]
        ticks = powers[:: -(-len(powers) // 4)]  # four at most
    else:
        ticks = [
            float(tick) for tick in MaxNLocator(3, integer=True, steps=_STEPS).tick_values(0, top) if 0 <= tick <= top
        ]
    axes.set_yticks(ticks, [wording.magnitude(tick).replace(" ", "") for tick in ticks])
    axes.minorticks_off()
    axes.tick_params(axis="y", pad=3)
    axes.yaxis.grid(visible=True, color=GRID, linewidth=0.8)


def _value_ticks(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    low, high = axes.get_xlim()
    ticks = [float(tick) for tick in MaxNLocator(4, steps=_STEPS).tick_values(low, high) if low <= tick <= high]
    axes.set_xticks(ticks, [f"{tick:g}".replace("-", wording.MINUS) for tick in ticks])
    axes.tick_params(axis="x", pad=3)


def _draw_legend(figure: Figure, *, kind: Kind, colour: str) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Rectangle

    width, height = figure.get_size_inches() * 72
    y = 10 / height
    box = Rectangle((0.002, y - 4.5 / height), 13 / width, 9 / height, facecolor=colour, alpha=0.75, linewidth=0)
    figure.add_artist(box)
    style = {"fontsize": SMALL, "color": MUTED, "va": "center"}
    figure.text(19 / width, y, "kept", **style)
    figure.add_artist(Line2D([60 / width, 78 / width], [y, y], color=INK, linewidth=1.2))
    figure.text(84 / width, y, "dense parent", **style)
    figure.text(0.998, y, f"across: {_VALUES[kind]}", ha="right", **style)


def _removed(network: NetworkWeights) -> str:
    is_dense = network.result.probe.curve.is_dense
    return "Dense parent" if is_dense else f"{wording.percent(network.ratio)} removed"


def _error_text(network: NetworkWeights, task: str) -> str:
    return f"error on {task} {wording.percent(network.result.evaluations[task].error)}"


def _cut(text: str, letters: int) -> str:
    return text if len(text) <= letters else "\N{HORIZONTAL ELLIPSIS}" + text[1 - letters :]


# -- ratios of layers ------------------------------------------------------------------------------------------------


def layer_ratio_drawing(one: CurveWeights) -> Drawing:
    """What is kept of each layer against what is kept of the network: above the dashed line, layers are cut more.

    With many layers, those cut most and least at the largest ratio have a colour and a name, the others are thin.
    A cross at the top edge: nothing is left of the layer.
    """
    return drawing(f"Ratio of each layer, {one.curve.label}", height=320, draw=lambda figure: _draw_ratios(figure, one))


def _draw_ratios(figure: Figure, one: CurveWeights) -> None:
    heading(
        figure,
        _cut_end(one.curve.label, _HEADING_LETTERS),
        left="% of the layer's weights kept",
        right="dashed: the network",
    )
    names = [layer.name for layer in one.parent.layers]
    letters = min(16, max(map(len, names)))
    axes = axes_at(figure, left=40, right=max(60.0, 12 + 7.2 * letters), top=46, bottom=58)
    xs = [position(network.ratio) for network in one.all_networks]
    lines = [[layer.ratio for layer in one.layer(index)] for index in range(len(names))]
    highest = max([*xs, *(position(ratio) for line in lines for ratio in line if ratio < 1.0)])
    kept_axis(axes, largest=one.networks[-1].ratio)
    axes.set_ylim(0, max(highest * 1.06, position(0.5)))
    _kept_y_ticks(axes)
    end = axes.get_xlim()[1]
    axes.plot([0, end], [0, end], color=MUTED, linewidth=1, linestyle=(0, (4, 3)), zorder=2)
    colours = _layer_colours([line[-1] for line in lines])
    top = axes.get_ylim()[1]
    heights = [[top if ratio >= 1.0 else position(ratio) for ratio in line] for line in lines]
    for index, ys in enumerate(heights):
        colour = colours.get(index)
        _draw_layer_line(axes, xs, ys, colour=colour)
        gone = [(x, y) for x, y, ratio in zip(xs, ys, lines[index], strict=True) if ratio >= 1.0]
        for x, y in gone:
            axes.plot([x], [y], "x", color=colour or MUTED, markersize=8, markeredgewidth=2, clip_on=False, zorder=7)
    _end_labels(axes, xs[-1], [(heights[at][-1], names[at], colour) for at, colour in colours.items()], letters=letters)


def _draw_layer_line(axes: Axes, xs: Sequence[float], ys: Sequence[float], *, colour: str | None) -> None:
    """With its networks as points; faint without a colour."""
    if colour is None:
        axes.plot(xs, ys, color=MUTED, linewidth=0.7, alpha=0.5, zorder=3)
        return
    axes.plot(xs, ys, color=colour, linewidth=2.0, zorder=5)
    axes.plot(xs[1:], ys[1:], "o", color=colour, markersize=4.5, markeredgewidth=0, clip_on=False, zorder=6)


def _cut_end(text: str, letters: int) -> str:
    return text if len(text) <= letters else text[: letters - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _kept_y_ticks(axes: Axes) -> None:
    ticks = thinned(
        kept_ticks(axes.get_ylim()[1]), at=lambda kept: axes.transData.transform((0, position(1 - kept)))[1], gap=16
    )
    axes.set_yticks([position(1 - kept) for kept in ticks], [f"{100 * kept:g}" for kept in ticks])
    axes.yaxis.grid(visible=True, color=GRID, linewidth=0.8)


def _layer_colours(ratios: Sequence[float]) -> dict[int, str]:
    """A colour for every layer where they are few; else for those that are cut most and least."""
    order = sorted(range(len(ratios)), key=lambda index: (ratios[index], index))
    half = _LINES // 2
    chosen = order if len(order) <= _LINES else [*order[:half], *order[-half:]]
    return {index: SERIES[place] for place, index in enumerate(sorted(chosen))}


def _end_labels(axes: Axes, x: float, labels: Sequence[tuple[float, str, str]], *, letters: int) -> None:
    """Names beside the ends of lines, in their colours, moved apart where they would overlap."""
    gap = 14.0
    down, up = (axes.transAxes.transform((0, end))[1] for end in (0, 1))
    wanted = sorted((axes.transData.transform((x, y))[1], name, colour) for y, name, colour in labels)
    heights = [height for height, _, _ in wanted]
    for index in range(1, len(heights)):
        heights[index] = max(heights[index], heights[index - 1] + gap)
    # Back into the axes, from the top down.
    for index in reversed(range(len(heights))):
        above = heights[index + 1] - gap if index + 1 < len(heights) else max(up, down + gap * (len(heights) - 1))
        heights[index] = min(heights[index], above)
    edge = axes.transAxes.transform((1, 0))[0]
    for height, (_, name, colour) in zip(heights, wanted, strict=True):
        at = axes.transAxes.inverted().transform((edge + 8, height))
        axes.text(*at, _cut(name, letters), transform=axes.transAxes, color=colour, fontsize=SMALL, va="center")


# -- history ---------------------------------------------------------------------------------------------------------


class _Measure(NamedTuple):
    """A number of each epoch; `what` says its unit."""

    name: str
    what: str
    is_log: bool
    of: Callable[[Epoch], float | None]


_MEASURES = (
    _Measure("Training loss", "cross-entropy in nats, logarithmic", True, lambda epoch: epoch.train_loss),
    _Measure("Validation loss", "cross-entropy in nats, logarithmic", True, lambda epoch: epoch.validation_loss),
    _Measure("Validation error", "% of the validation images", False, lambda epoch: _percent(epoch.validation_error)),
)


def _percent(error: float | None) -> float | None:
    return None if error is None else 100.0 * error


def history_drawings(one: CurveWeights, *, colour: str = SERIES[0]) -> list[Drawing]:
    """Loss and error after each epoch, of the parent on the left, of the retrained networks on the right.

    The larger the ratio, the stronger a line. What no training of the curve recorded has no figure.
    """
    return [
        drawing(
            f"{measure.name}, {one.curve.label}",
            height=250,
            draw=lambda figure, measure=measure: _draw_history(figure, one, measure, colour=colour),
        )
        for measure in _MEASURES
        if any(_points(network, measure)[0] for network in one.all_networks)
    ]


def _points(network: NetworkWeights, measure: _Measure) -> tuple[list[int], list[float]]:
    """Epochs and values, of those that have one."""
    history = network.result.result.history if network.result.result else ()
    found = [(epoch.epoch, value) for epoch in history for value in [measure.of(epoch)] if value is not None]
    return [epoch for epoch, _ in found], [value for _, value in found]


def _draw_history(figure: Figure, one: CurveWeights, measure: _Measure, *, colour: str) -> None:
    heading(figure, measure.name, left=measure.what)
    parent = _points(one.parent, measure)
    retrained = [_points(network, measure) for network in one.networks]
    values = [*parent[1], *(value for _, found in retrained for value in found)]
    if not any(epochs for epochs, _ in retrained):
        axes = axes_at(figure, left=40, right=14, top=46, bottom=40)
        _history_axes(axes, [parent], values, name="parent", is_log=measure.is_log)
        _draw_line(axes, parent, color=INK, alpha=1.0)
        return
    split = 0.45 * (WIDTH - 40 - 62)
    left = axes_at(figure, left=40, right=WIDTH - 40 - split, top=46, bottom=40)
    right = axes_at(figure, left=40 + split + 12, right=62, top=46, bottom=40)
    _history_axes(left, [parent], values, name="parent", is_log=measure.is_log)
    _history_axes(right, retrained, values, name="retrained", is_log=measure.is_log)
    right.tick_params(axis="y", labelleft=False)
    _draw_line(left, parent, color=INK, alpha=1.0)
    labels = []
    for place, (network, points) in enumerate(zip(one.networks, retrained, strict=True), start=1):
        alpha = 0.3 + 0.7 * place / len(one.networks)
        _draw_line(right, points, color=colour, alpha=alpha)
        if points[0]:
            labels.append((points[1][-1], wording.percent(network.ratio), colour))
    _end_labels(right, right.get_xlim()[1], labels, letters=9)


def _draw_line(axes: Axes, points: tuple[list[int], list[float]], *, color: str, alpha: float) -> None:
    mark = "o" if len(points[0]) <= 12 else None
    axes.plot(*points, marker=mark, color=color, alpha=alpha, linewidth=1.8, markersize=4, markeredgewidth=0)


def _history_axes(
    axes: Axes, lines: Sequence[tuple[list[int], list[float]]], values: Sequence[float], *, name: str, is_log: bool
) -> None:
    """Axes as long as their longest line, and as high as all values need."""
    from matplotlib.ticker import MaxNLocator

    last = max((epoch for epochs, _ in lines for epoch in epochs), default=1)
    axes.set_xlim(0.5, last + 0.5)
    ticks = [tick for tick in MaxNLocator(4, integer=True, steps=_STEPS).tick_values(1, last) if 1 <= tick <= last]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xlabel(f"epoch, {name}", fontsize=SMALL, color=MUTED, labelpad=4)
    positive = [value for value in values if value > 0.0]
    if is_log and positive:
        low, high = min(positive) / 1.15, max(positive) * 1.15
        axes.set_yscale("log")
        axes.set_ylim(low, high)
        ticks = _log_ticks(low, high)
        axes.minorticks_off()
    else:
        axes.set_ylim(0.0, max(values) * 1.08 or 1.0)
        ticks = [
            float(tick)
            for tick in MaxNLocator(5, steps=_STEPS).tick_values(0, axes.get_ylim()[1])
            if tick <= axes.get_ylim()[1]
        ]
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.yaxis.grid(visible=True, color=GRID, linewidth=0.8)


def _log_ticks(low: float, high: float) -> list[float]:
    """Some four to six ticks, from powers of ten down to what a narrow range needs."""
    for steps in ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)):
        every = [step * 10.0**power for power in range(-9, 10) for step in steps]
        ticks = [round(tick, 12) for tick in every if low <= tick <= high]
        if len(ticks) >= 4:
            break
    return ticks[:: max(1, -(-len(ticks) // 6))]
