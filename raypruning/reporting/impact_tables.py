"""What pruning does to each class, as rich tables: headlines first, then how many classes, then which."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from raypruning.analysis.class_impact import ClassImpact, Impact, PopulationImpact, mean_loss
from raypruning.reporting import wording
from raypruning.reporting.impact import Block, blocks, conclusion, headlines, short_name, what_was_tested
from raypruning.reporting.text import wrapped

MARKS = {"lost": "\N{BLACK DOWN-POINTING TRIANGLE}", "gained": "\N{BLACK UP-POINTING TRIANGLE}", "none": " "}
_STYLES = {"lost": "bold red", "gained": "cyan", "none": ""}
_MAX_HEADLINES = 6
_MAX_COMPARISONS = 24
_MAX_BLOCKS = 2
_MAX_ROWS = 20  # of classes in a block
_WORST, _BEST = 10, 5  # shown of more classes than that
_MAX_SIGNIFICANT = 3  # classes at one ratio
_RATIO_WIDTH = 11


class ImpactReport:
    """The whole of it for a terminal: print it with a rich Console."""

    def __init__(self, found: Impact) -> None:
        """Prepare the report."""
        self.found = found

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the parts, each fitted to the width."""
        found, width = self.found, options.max_width
        yield Text.assemble((found.sweep, "bold"), "  ", (f"{found.model} on {found.dataset}, class by class", "dim"))
        lines = headlines(found)
        for line in lines[:_MAX_HEADLINES]:
            yield _text(f"! {line.text}", width=width, style="bold red")
        if len(lines) > _MAX_HEADLINES:
            yield Text(f"  and {len(lines) - _MAX_HEADLINES} more such cases: --json lists them all", style="dim")
        if not lines:
            yield _text(conclusion(found), width=width, style="bold")
        yield Text()
        yield overview_table(found)
        groups = blocks(found)
        for block in groups[:_MAX_BLOCKS]:
            yield Text()
            yield recall_table(found, block, width=width)
            if any(one.lost for one in block):
                yield Text()
                yield worst_table(found, block)
        if len(groups) > _MAX_BLOCKS:
            yield Text()
            more = f"{wording.count(len(groups) - _MAX_BLOCKS, 'more table')} of classes"
            how = "choose with --task and --method, or write them all with --csv FILE"
            yield _text(f"{more}: {how}", width=width, style="dim")
        yield Text()
        for note in what_was_tested(found):
            yield _text(note, width=width, style="dim")


def _text(text: str, *, width: int, style: str) -> Text:
    return Text("\n".join(wrapped(text, width=width)), style=style)


def overview_table(found: Impact) -> RenderableType:
    """A line for each task and population: accuracy, how many classes lost and gained, and the worst one."""
    shown: Sequence[PopulationImpact] = found.populations
    if len(shown) > _MAX_COMPARISONS:
        shown = sorted(shown, key=lambda one: -one.worst_first[0].tested)[:_MAX_COMPARISONS]
    heads = [Text(head, style="dim") for head in ("removed", "accuracy", "lost", "gained", "worst class")]
    groups = [(block, [_overview(found, one) for one in block if one in shown]) for block in blocks(found)]
    rows = [heads, *(row for _, own in groups for row in own)]
    widths = [max(row[column].cell_len for row in rows) for column in range(len(heads))]
    lines = [_line(heads, widths)]
    for block, own in groups:
        if own:
            lines += [Text(_place(block)), *(_line(row, widths) for row in own)]
    notes = [_sum_note(found)]
    if len(shown) < len(found.populations):
        left_out = len(found.populations) - len(shown)
        notes.append(f"{left_out} more, with smaller losses, are left out: --csv FILE holds them all")
    beyond = "" if all(one.is_paired for one in found.populations) else " beyond accuracy"
    return _titled(f"Classes lost and gained, and by how many points{beyond} on average", *lines, *notes)


def _place(block: Block) -> str:
    one = block[0]
    seeds = f", {_seeds(one)}" if one.is_paired else ""
    accuracy = wording.percent(one.accuracy_dense.mean)
    return f"{one.task}, {one.method}, {wording.count(one.budget, 'epoch')}{seeds}; dense accuracy {accuracy}"


def _seeds(one: PopulationImpact) -> str:
    names = wording.listing([f"{seed}" for seed in one.seeds_dense])
    return f"seed {names}" if len(one.seeds_dense) == 1 else f"seeds {names}"


def _line(row: Sequence[Text], widths: Sequence[int]) -> Text:
    """Numbers to the right; the last column is text."""
    line = Text()
    for cell, width in zip(row[:-1], widths, strict=False):
        line.append("  " + " " * (width - cell.cell_len)).append_text(cell)
    return line.append("  ").append_text(row[-1])


def _overview(found: Impact, one: PopulationImpact) -> list[Text]:
    worst, accuracy = one.worst_first[0], one.accuracy_pruned
    spread = "" if accuracy.sd is None else f" ±{100 * accuracy.sd:.1f}"
    after = (f"{_digits(worst.pruned.mean)} {MARKS[worst.verdict]}", _STYLES[worst.verdict])
    return [
        Text(wording.percent(one.ratio_reached)),
        Text(f"{_digits(accuracy.mean)}{spread}"),
        _count(one.lost, style="bold red"),
        _count(one.gained, style="cyan"),
        Text.assemble(f"{short_name(found, worst.label)}  {_digits(worst.dense.mean)} → ", after),
    ]


def _sum_note(found: Impact) -> str:
    """The study found that fewer classes lose than gain, and that these lose more: here it can be seen."""
    lost = [each for one in found.populations for each in one.lost]
    gained = [each for one in found.populations for each in one.gained]
    return f"All together: lost {_summed(lost)}, gained {_summed(gained)}."


def _summed(classes: Sequence[ClassImpact]) -> str:
    mean = mean_loss(classes)
    return "0" if mean is None else f"{len(classes)} by {100 * abs(mean):.1f}"


def _count(classes: Sequence[ClassImpact], *, style: str) -> Text:
    return Text(_summed(classes), style=style if classes else "dim")


def recall_table(found: Impact, block: Block, *, width: int) -> RenderableType:
    """Class x ratio: mean recall in percent, marked where it is significant; the worst at the largest ratio first."""
    last = block[-1]
    order = [one.label for one in last.worst_first]
    left_out = len(order) - _WORST - _BEST if len(order) > _MAX_ROWS else 0
    labels = [*order[:_WORST], *order[-_BEST:]] if left_out else order
    names = [short_name(found, label) for label in labels]
    room = width - max(map(len, ["accuracy", *names])) - 2 * _RATIO_WIDTH
    per_table = max(1, room // _RATIO_WIDTH)
    tables = []
    for start in range(0, len(block), per_table):
        table = _table()
        table.add_column("class", no_wrap=True)
        table.add_column("dense", no_wrap=True, justify="right")
        part = block[start : start + per_table]
        for one in part:
            table.add_column(f"{wording.percent(one.ratio_reached)}  ", no_wrap=True, justify="right")
        accuracies = [f"{_digits(one.accuracy_pruned.mean)}  " for one in part]
        table.add_row("accuracy", _digits(last.accuracy_dense.mean), *accuracies, style="dim")
        by_label = [{each.label: each for each in one.classes} for one in part]
        dense = {each.label: each.dense.mean for each in last.classes}
        for label, name in zip(labels, names, strict=True):
            cells = [_recall(classes[label]) for classes in by_label]
            table.add_row(Text(name), _digits(dense[label]), *cells)
        tables.append(table)
    who = f" of {_seeds(last)}" if last.is_paired else ", means over networks"
    title = f"{last.task}: recall in % under {last.method}, {wording.count(last.budget, 'epoch')}{who}"
    notes = [f"{left_out} classes in between are left out: --csv FILE holds them all"] if left_out else []
    if any(_is_missed(each) and each.pruned.num > 1 for one in block for each in one.classes if each.label in labels):
        notes.append("3\N{MULTIPLICATION SIGN}0: of three of the networks recall is 0")
    return _titled(title, *tables, *notes)


def _recall(one: ClassImpact) -> Text:
    text = _digits(one.pruned.mean)
    if _is_missed(one) and one.pruned.num > 1:
        text = f"{one.pruned.num_zero}\N{MULTIPLICATION SIGN}0  {text}"
    return Text(f"{text} {MARKS[one.verdict]}", style=_STYLES[one.verdict])


def _is_missed(one: ClassImpact) -> bool:
    """Whether it is found by fewer pruned networks than dense ones."""
    return one.pruned.num_zero > one.dense.num_zero


def worst_table(found: Impact, block: Block) -> RenderableType:
    """At each ratio the classes that lost most, with interval, effect and adjusted p-value."""
    is_paired = block[0].is_paired
    confidence = f"{100 * (1 - found.level):.4g} %"
    table = _table()
    table.add_column("removed", no_wrap=True, justify="right")
    table.add_column("class", no_wrap=True)
    table.add_column("recall", no_wrap=True, justify="right")
    table.add_column("lost" if is_paired else "beyond", no_wrap=True, justify="right")
    table.add_column(confidence, no_wrap=True)
    for name in ("images", "p") if is_paired else ("g", "p"):
        table.add_column(name, no_wrap=True, justify="right")
    num_more = 0
    for one in block:
        num_more += max(0, len(one.lost) - _MAX_SIGNIFICANT)
        for index, each in enumerate(one.lost[:_MAX_SIGNIFICANT]):
            table.add_row(
                wording.percent(one.ratio_reached) if index == 0 else "",
                Text(short_name(found, each.label)),
                f"{_digits(each.dense.mean)} → {_digits(each.pruned.mean)}",
                wording.signed_points(each.tested),
                wording.signed_interval(each.interval.low, each.interval.high) if each.interval else "",
                f"{each.num_lost}, {each.num_gained}" if is_paired else _effect(each),
                _p(each.p_adjusted),
            )
    what = "images lost and gained" if is_paired else "points beyond accuracy"
    title = f"{block[0].task}: classes that lost significantly, worst first; {what}"
    notes = [f"{wording.count(num_more, 'more row')}: --csv FILE holds them all"] if num_more else []
    return _titled(title, table, *notes)


def _effect(one: ClassImpact) -> str:
    return "" if one.effect_size is None else f"{one.effect_size:.1f}"


def _p(value: float) -> str:
    return "<.001" if value < 0.001 else f"{value:.3f}"


def _digits(fraction: float) -> str:
    return wording.percent_digits(fraction)


def _table() -> Table:
    return Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, collapse_padding=True)


def _titled(title: str, *parts: RenderableType) -> Group:
    # Not rich's own title, which wraps at the width of its table.
    return Group(
        Text(title, style="bold"), *(Text(part, style="dim") if isinstance(part, str) else part for part in parts)
    )
