"""What all figures share: size, colours, axes, and how a matplotlib figure becomes an SVG for a page.

Colours are CSS variables with a fallback (`var(--series-1, #0072b2)`), so that a page can change them in the dark; text
is text, in the font of the page. One unit is one pixel at a panel's natural width.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Sequence
from html import escape
from typing import TYPE_CHECKING, NamedTuple

from raypruning.core.search.axis import position
from raypruning.reporting import wording
from raypruning.reporting.answer import Standing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 380
TEXT = 12.5
SMALL = 11.5

INK, MUTED, GRID, PAPER = "#16181d", "#666b76", "#e3e5e9", "#ffffff"
# Okabe and Ito (2008), told apart by the colour-blind; without yellow and black, and two more for long sweeps.
SERIES = ("#0072b2", "#d55e00", "#009e73", "#c2639b", "#b8860b", "#56b4e9", "#7a5195", "#6f7d3c")
# The same on a dark page, light enough to be read there.
DARK = {
    "--ink": "#e8eaee",
    "--muted": "#9aa1ad",
    "--grid": "#2e333c",
    "--paper": "#15181d",
    **{
        f"--series-{index}": colour
        for index, colour in enumerate(
            ("#4ea8e0", "#ff8a4c", "#2fc79a", "#e58fc0", "#e0b040", "#8fd0f5", "#b48bd0", "#aebb74"), start=1
        )
    },
}
LIGHT = {
    "--ink": INK,
    "--muted": MUTED,
    "--grid": GRID,
    "--paper": PAPER,
    **{f"--series-{index}": colour for index, colour in enumerate(SERIES, start=1)},
}
_CSS_COLOURS = {colour: f"var({variable}, {colour})" for variable, colour in LIGHT.items()}

_WIDE_KEPT_TICKS = (1, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 5e-3, 2e-3, 1e-3, 5e-4, 2e-4, 1e-4)
_NARROW_KEPT_TICKS = (1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)
_POINT_TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50)


class Panel(NamedTuple):
    """One figure: what it shows in words, and its SVG."""

    title: str
    svg: str


def series_colours(names: Sequence[str]) -> dict[str, str]:
    """A colour for each name by its place, the same in every figure. They repeat after eight."""
    return {name: SERIES[index % len(SERIES)] for index, name in enumerate(names)}


def css_colour(colour: str) -> str:
    """A colour of ours as CSS that follows the page, such as `var(--ink, #16181d)`."""
    return _CSS_COLOURS[colour]


def panel(title: str, *, height: int, draw: Callable[[Figure], None]) -> Panel:
    """A figure of our width, drawn by `draw`, as SVG. The same drawing gives the same bytes.

    Side effect: matplotlib's settings are changed while it draws, and put back.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    settings = {
        "svg.fonttype": "none",
        "svg.hashsalt": title,  # ids differ between the figures of a page, and not between runs
        "text.parse_math": False,  # a $ in a name is a $
        "font.family": "DejaVu Sans",  # comes with matplotlib, wider than the fonts of most pages: nothing will overlap
        "font.size": TEXT,
        "text.color": INK,
        "axes.linewidth": 0.8,
        "lines.solid_capstyle": "round",
        "path.simplify": False,
    }
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        # The page's fonts draw the text. That ours has no glyph for a letter of a name concerns nobody.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=(WIDTH / 72, height / 72), dpi=72)
        figure.patch.set_visible(False)
        draw(figure)
        text = io.StringIO()
        FigureCanvasSVG(figure).print_svg(text, metadata={"Date": None})
    return Panel(title, _for_page(text.getvalue(), title))


def standalone(drawn: Panel) -> str:
    """The SVG of a figure that stands on no page: with a font, a ground, and colours for the dark."""
    dark = "".join(f"{name}: {colour}; " for name, colour in DARK.items())
    style = (
        f"<style>svg{{font-family: system-ui, sans-serif; background: {PAPER}}}"
        f"@media (prefers-color-scheme: dark){{svg{{{dark}background: {DARK['--paper']}}}}}</style>"
    )
    end = drawn.svg.index(">") + 1
    return f"{drawn.svg[:end]}{style}{drawn.svg[end:]}\n"


def _for_page(svg: str, title: str) -> str:
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r"<!--.*?-->", "", body, flags=re.DOTALL)
    body = re.sub(r'<g id="[^"]*"', "<g", body)  # matplotlib counts from 1 in every figure; ids must differ in a page
    body = re.sub(r"font-family: [^;\"]*;? ?", "", body)
    body = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", body, flags=re.DOTALL)  # it would style the whole page
    body = re.sub(r"(fill|stroke): (#[0-9a-f]{6})", lambda m: f"{m[1]}: {_CSS_COLOURS.get(m[2], m[2])}", body)
    body = re.sub(r"\s*\n\s*", "\n", body)
    view = re.search(r'viewBox="([^"]*)"', body)
    assert view is not None  # matplotlib writes one
    head = (
        f'<svg class="plot" role="img" aria-label="{escape(title)}" style="stroke-linejoin: round" viewBox="{view[1]}" '
        'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">'
    )
    return head + body[body.index(">") + 1 :].strip()


# -- axes ------------------------------------------------------------------------------------------------------------


def axes_at(figure: Figure, *, left: float, right: float, top: float, bottom: float) -> Axes:
    """Axes with margins in pixels, a bottom line only."""
    width, height = figure.get_size_inches() * 72
    axes = figure.add_axes((left / width, bottom / height, 1 - (left + right) / width, 1 - (top + bottom) / height))
    axes.patch.set_visible(False)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(MUTED)
    axes.tick_params(colors=MUTED, labelcolor=MUTED, labelsize=SMALL, length=0, pad=5)
    axes.set_axisbelow(True)
    return axes


def heading(figure: Figure, text: str, *, left: str = "", right: str = "") -> None:
    """A title on the first line; what the axes below it show on the second."""
    height = figure.get_size_inches()[1] * 72
    figure.text(0.002, 1 - 11 / height, text, fontsize=13.5, fontweight="bold", va="center")
    figure.text(0.002, 1 - 32 / height, left, fontsize=SMALL, color=MUTED, va="center")
    figure.text(0.998, 1 - 32 / height, right, fontsize=SMALL, color=MUTED, va="center", ha="right")


def kept_axis(axes: Axes, *, largest: float, is_flush: bool = False) -> None:
    """The axis of ratios, from everything kept on the left to beyond the largest ratio on the right.

    Args:
        axes: to be set up.
        largest: ratio that must fit.
        is_flush: whether the axes begin at the edge of the figure, so that nothing may stand out on the left.
    """
    end = max(position(largest) * 1.03, position(0.5))
    axes.set_xlim(0, end)
    ticks = thinned(kept_ticks(end), at=lambda kept: axes.transData.transform((position(1 - kept), 0))[0], gap=38)
    axes.set_xticks([position(1 - kept) for kept in ticks], [f"{100 * kept:g}" for kept in ticks])
    axes.xaxis.grid(visible=True, color=GRID, linewidth=0.8)
    below = {"xycoords": axes.get_xaxis_transform(), "textcoords": "offset points", "fontsize": SMALL, "color": MUTED}
    for kept, label in zip(ticks, axes.get_xticklabels(), strict=True):
        side = "left" if is_flush and kept == 1 else "center"
        label.set_horizontalalignment(side)
        # A text of its own: the second line of a tick would be centred by the widths of another font.
        axes.annotate(_removed(kept), (position(1 - kept), 0), (0, -30), ha=side, **below)
    axes.annotate("% of the parameters kept; below it, removed", (0, 0), (0, -48), **below)


def kept_ticks(end: float) -> list[float]:
    """Fractions kept that get a tick on an axis that ends at a position."""
    ticks = _NARROW_KEPT_TICKS if end < position(0.75) else _WIDE_KEPT_TICKS
    return [kept for kept in ticks if position(1 - kept) <= end + 1e-9]


def _removed(kept: float) -> str:
    removed = round(100 - 100 * kept, 6)
    return f"{wording.MINUS}{removed:g}" if removed else "0"


def thinned(ticks: Sequence[float], *, at: Callable[[float], float], gap: float) -> list[float]:
    """The ticks that have room, in order; the earlier of two that have not, so the most important come first.

    Args:
        ticks: most important first.
        at: where a tick is, in pixels.
        gap: pixels that any two must be apart.
    """
    taken: list[float] = []
    for tick in ticks:
        if all(abs(at(tick) - at(other)) >= gap for other in taken):
            taken.append(tick)
    return taken


def points_axis(axes: Axes, *, low: float, high: float, linear: float) -> None:
    """The vertical axis of points, linear up to about `linear` and logarithmic beyond, so that a threshold can be seen.

    Args:
        axes: to be set up.
        low, high: points that must fit.
        linear: in points; usually delta.
    """
    axes.set_yscale("asinh", linear_width=linear)
    axes.set_ylim(min(low * 1.15, -1.2 * linear), max(high * 1.25, 4 * linear))
    bottom, top = axes.get_ylim()
    around = [linear * step for step in (1, 2, 4)] if linear not in _POINT_TICKS else []
    sizes = [size for size in sorted({*around, *_POINT_TICKS}) if size >= linear * 0.999]
    # Zero and the threshold first; then from the outside in, since what is near zero lies close together.
    wanted = [0.0, linear, *(sign * size for size in reversed(sizes) for sign in (1, -1))]
    inside = [tick for tick in wanted if bottom <= tick <= top]
    ticks = sorted(thinned(inside, at=lambda tick: axes.transData.transform((0, tick))[1], gap=14))
    axes.set_yticks(ticks, [signed(tick) for tick in ticks])
    axes.yaxis.grid(visible=True, color=GRID, linewidth=0.8)
    axes.minorticks_off()


def signed(points: float) -> str:
    """Such as `+0.5` or `−2`: a tick, as short as can be."""
    return "0" if points == 0 else ("+" if points > 0 else wording.MINUS) + f"{abs(points):g}"


def draw_bar(axes: Axes, one: Standing, *, at: float, height: float, colour: str) -> None:
    """A potential as a bar: whiskers when it is known, an arrow when it is a lower bound, hollow when it is open."""
    end = position(one.ratio or 0.0)
    face = PAPER if one.status == "open" else colour
    axes.barh(at, end, height=height, facecolor=face, edgecolor=colour, linewidth=1.2, zorder=3)
    if one.status != "known":
        axes.plot([end], [at], ">", color=colour, markersize=9, clip_on=False, zorder=5)
    elif one.low is not None and one.high is not None:
        ends = [position(max(0.0, one.low)), position(one.high)]
        axes.plot(ends, [at] * 2, color=INK, linewidth=1.4, zorder=4, marker="|", markersize=7)
