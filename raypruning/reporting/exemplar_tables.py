"""What pruned networks forget, as rich tables: how many, beside what luck makes, how they overlap, how accurate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from raypruning.analysis.exemplars import NUM_SAMPLES, Evaluated, Exemplars, PopulationExemplars, evaluated, overlap
from raypruning.core.records import Interval
from raypruning.reporting import wording
from raypruning.reporting.exemplars import Block, blocks, conclusion, is_mostly_tied, notes

_STYLES = {"more": "bold red", "same": "", "fewer": "cyan", "unknown": ""}
_MAX_BLOCKS = 12
_MAX_OVERLAP_TASKS = 2
_MAX_OVERLAP = 8  # populations that fit a line


class FindReport:
    """The answer of `find` for a terminal: print it with a rich Console."""

    def __init__(self, found: Exemplars) -> None:
        """Prepare the report."""
        self._found = found

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the parts."""
        found = self._found
        yield _heading(found, "images that pruned networks forget")
        yield Text(conclusion(found))
        for title, rows in _titled_blocks(found):
            yield Text()
            yield Text(title, style="bold")
            yield _find_table(rows)
        yield from _more(found)
        for rows in list(_by_task(found).values())[:_MAX_OVERLAP_TASKS]:
            if len(rows) > 1:
                yield Text()
                yield from _overlap(rows[:_MAX_OVERLAP])
        yield Text()
        yield from (Text(line, style="dim") for line in notes(found))


class EvaluateReport:
    """The answer of `evaluate` for a terminal."""

    def __init__(self, found: Exemplars) -> None:
        """Prepare the report."""
        self._found = found

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the parts."""
        found = self._found
        yield _heading(found, "accuracy on images that pruned networks forget, in %")
        for title, rows in _titled_blocks(found):
            yield Text()
            yield Text(title, style="bold")
            yield _evaluate_table([evaluated(one) for one in rows])
        yield from _more(found)
        yield Text()
        for line in (
            "Means over all networks of a side. random ones: as many images as there are PIEs, in brackets 95 % of "
            f"{NUM_SAMPLES} samples. where luck differs: images that dense networks of other seeds answer otherwise.",
            "Images that networks differ on are hard whoever differs: so hold PIEs against those where luck differs, "
            "and not against random ones alone, as the study did.",
        ):
            yield Text(line, style="dim")


def _heading(found: Exemplars, what: str) -> Text:
    return Text.assemble((found.sweep, "bold"), "  ", (f"{found.model} on {found.dataset}, {what}", "dim"))


def _by_task(found: Exemplars) -> dict[str, list[PopulationExemplars]]:
    tasks: dict[str, list[PopulationExemplars]] = {}
    for one in found.populations:
        tasks.setdefault(one.task, []).append(one)
    return tasks


def _titled_blocks(found: Exemplars) -> Iterator[tuple[str, Block]]:
    for block in blocks(found)[:_MAX_BLOCKS]:
        one = block[0]
        networks = f"{len(one.seeds_dense)} dense and {len(one.seeds_pruned)} pruned networks"
        where = f"{one.task}, {one.method}, {wording.count(one.budget, 'epoch')}"
        yield f"{where}: {networks}, % of {wording.count(one.num_images, 'image')}", block


def _more(found: Exemplars) -> Iterator[Text]:
    left = len(blocks(found)) - _MAX_BLOCKS
    if left > 0:
        yield Text()
        yield Text(f"{wording.count(left, 'more table')}: choose with --task and --method, or use --json", style="dim")


def _table(*heads: str) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, collapse_padding=True)
    for head in heads:
        table.add_column(head, no_wrap=True, justify="right")
    return table


def _find_table(block: Block) -> Table:
    num = block[0].groups.num_networks
    table = _table("removed", "PIEs", "%", "right", "tied", f"{num} against {num}", "luck", "beyond luck")
    for one in block:
        groups = one.groups
        excess = groups.excess_interval
        table.add_row(
            wording.percent(one.ratio_reached),
            wording.thousands(one.num_pies),
            _digits(one.rate),
            wording.thousands(one.pruned_correct_count),
            Text(wording.thousands(one.num_tied), style="bold yellow" if is_mostly_tied(one) else ""),
            _digits(groups.pruned),
            _with_interval(groups.null, groups.null_interval),
            Text(
                wording.signed_points(groups.excess)
                + (f" ({wording.signed_interval(excess.low, excess.high)})" if excess else ""),
                style=_STYLES[groups.verdict],
            ),
        )
    return table


def _overlap(rows: Sequence[PopulationExemplars]) -> Iterator[Text | Table]:
    yield Text(f"{rows[0].task}: PIEs in common, % of those of either", style="bold")
    with_budget = len({one.budget for one in rows}) > 1
    table = _table("", *(f"{index}" for index in range(2, len(rows) + 1)))
    table.columns[0].justify = "left"
    for index, one in enumerate(rows):
        shares = [overlap(one, other) if place > index else None for place, other in enumerate(rows) if place]
        budget = f", {wording.count(one.budget, 'epoch')}" if with_budget else ""
        name = f"{index + 1}  {one.method}{budget}, {wording.percent(one.ratio_reached)} removed"
        table.add_row(Text(name), *("" if share is None else f"{100 * share:.0f}" for share in shares))
    yield table


def _evaluate_table(rows: Sequence[Evaluated]) -> Table:
    table = _table("removed", "PIEs", "networks", "on PIEs", "on the rest", "on random ones", "where luck differs")
    for row in rows:
        for side in ("dense", "pruned"):
            luck = getattr(row.population.groups, f"{side}_accuracy")
            first = [wording.percent(row.population.ratio_reached), wording.thousands(row.population.num_pies)]
            table.add_row(
                *(first if side == "dense" else ("", "")),
                side,
                *("" if part is None else _digits(getattr(part, side)) for part in (row.pies, row.rest)),
                _with_interval(getattr(row.random, side), getattr(row.random, f"{side}_interval"))
                if row.random
                else "",
                "" if luck is None else _digits(luck),
            )
    return table


def _with_interval(value: float, ends: Interval | None) -> str:
    return _digits(value) + (f" ({wording.interval(ends.low, ends.high)})" if ends else "")


def _digits(fraction: float) -> str:
    return wording.percent_digits(fraction)
