"""The answer of a sweep as rich tables, for a terminal of any width, with colour or without.

All text goes into `Text`, never into markup, so that a name with brackets in it shows as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from raypruning.core.records import SweepResults
from raypruning.reporting import budget_choices as choices
from raypruning.reporting import distributions, wording
from raypruning.reporting.answer import (
    Excess,
    Standing,
    answer_context,
    answer_sentence,
    common_ratio,
    controls,
    excesses,
    largest_budget,
    marked_weakest,
    method_names,
    nominal_tasks,
    searched_budgets,
    shifted_tasks,
    standings,
    weakest,
)
from raypruning.reporting.certainty import certified_line, resolution_note
from raypruning.reporting.comparison import (
    Difference,
    compared_deltas,
    compared_rows,
    spec_differences,
    sweep_labels,
)
from raypruning.reporting.corruption_notes import corruption_notes
from raypruning.reporting.documents import to_json, to_markdown
from raypruning.reporting.honest_split import split_notes, split_rows, split_title
from raypruning.reporting.notes import (
    cost_lines,
    excess_notes,
    images_note,
    marked_amount,
    potential_notes,
    report_warnings,
)
from raypruning.reporting.slopes import slope_notes

__all__ = ["ComparisonReport", "TerminalReport", "to_json", "to_markdown"]


class TerminalReport:
    """The whole report of a sweep for a terminal: print it with a rich Console.

    Tables are broken into groups of methods, and intervals go onto a line of their own, where the console is narrow.
    """

    def __init__(self, results: SweepResults, *, deltas: Sequence[float] | None = None) -> None:
        """Prepare the report.

        Args:
            results: of the sweep.
            deltas: those to show; all of the sweep's by default.
        """
        self.results = results
        self.deltas = tuple(results.spec.deltas if deltas is None else deltas)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the parts, each fitted to the width."""
        results = self.results
        yield heading_text(results, deltas=self.deltas)
        for warning in report_warnings(results):
            yield Text.assemble(("Warning: ", "bold yellow"), warning)
        for delta in self.deltas:
            if not (results.tasks and method_names(results)):
                continue
            yield Text()
            yield potentials_table(results, delta=delta, width=options.max_width)
            if distributions.distributions(results):
                yield Text()
                yield distributions_table(results, delta=delta, width=options.max_width)
            if len(results.spec.budgets) > 1:
                yield Text()
                yield budgets_table(results, delta=delta, width=options.max_width)
            if shifted_tasks(results):
                yield Text()
                yield excess_table(results, delta=delta, width=options.max_width)
            if results.honest_split:
                yield Text()
                yield split_table(results, delta=delta, width=options.max_width)
        if results.budget_choices:
            yield Text()
            yield choices_table(results)
        if controls(results):
            yield Text()
            yield controls_table(results)
        yield Text()
        yield cost_table(results)


def heading_text(results: SweepResults, *, deltas: Sequence[float] | None = None) -> Text:
    """Name, what was measured, and the answer in words for the first delta."""
    delta = (tuple(deltas) if deltas else results.spec.deltas)[0]
    lines = Text.assemble((results.spec.name, "bold"), "  ", (answer_context(results), "dim"))
    if results.spec.note:
        lines.append(f"\n{results.spec.note}", style="bold yellow")
    return lines.append("\n").append(answer_sentence(results, delta=delta))


def potentials_table(results: SweepResults, *, delta: float, width: int) -> RenderableType:
    """Task x method: the potential at the largest budget, with interval and marks, and what the marks mean.

    Args:
        results: of the sweep.
        delta: one of the sweep's.
        width: characters a line may have.
    """
    rows = standings(results, delta=delta)
    shown = [one for row in rows.values() for one in row.values()]
    low = {method: marked_weakest(row.values()) for method, row in rows.items()}
    columns = {
        method: [_potential_cell(one, is_weakest=one == low[method]) for one in row.values()]
        for method, row in rows.items()
    }
    title = (
        f"Potential: the most that can be removed within {wording.points(delta)}, "
        f"after {wording.retraining(largest_budget(results), results.spec.schedule)}"
    )
    table = _fitted(title, first=[("task", [task.name for task in results.tasks])], columns=columns, width=width)
    notes = [
        images_note(results, delta=delta),
        *potential_notes(shown, marks_weakest=any(low.values())),
        certified_line(results, delta=delta),
        resolution_note(results, delta=delta),
    ]
    return Group(table, *(Text(line, style="dim") for line in notes if line))


def _potential_cell(one: Standing, *, is_weakest: bool) -> Cell:
    style = "bold red" if is_weakest else {"known": "bold", "at_top": "bold", "open": "yellow"}[one.status]
    return Cell(Text(marked_amount(one, is_weakest=is_weakest), style=style), Text(one.spread, style="dim"))


def distributions_table(results: SweepResults, *, delta: float, width: int) -> RenderableType:
    """Distribution x method: the average and the smallest potential over tasks that training saw, and over others."""
    rows = distributions.rows_of(results, delta=delta)
    columns = {
        method: [Cell(Text(texts[index], style="bold"), Text()) for _, _, texts in rows]
        for index, method in enumerate(method_names(results))
    }
    first = [("tasks", [name for name, _, _ in rows]), ("potential", [of for _, of, _ in rows])]
    return _fitted(f"{distributions.TITLE}, within {wording.points(delta)}", first=first, columns=columns, width=width)


def budgets_table(results: SweepResults, *, delta: float, width: int) -> RenderableType:
    """Budget x method: the potential on the weakest task and on the nominal ones, largest budget first."""
    first: list[tuple[str, list[str]]] = [("retraining", []), ("on", [])]
    columns: dict[str, list[Cell]] = {method: [] for method in method_names(results)}
    nominal = [task.name for task in nominal_tasks(results)] if len(results.tasks) > 1 else []
    for budget in searched_budgets(results):
        rows = standings(results, delta=delta, budget=budget)
        for index, scope in enumerate(["every task", *nominal]):
            first[0][1].append("" if index else wording.count(budget, "epoch"))
            first[1][1].append(scope)
            for method, row in rows.items():
                one = row[scope] if index else weakest(row.values()) or _unknown(row.values())
                columns[method].append(Cell(Text(one.amount, style="bold"), Text()))
    title = f"Potential by budget, within {wording.points(delta)}"
    return _fitted(title, first=first, columns=columns, width=width)


def _unknown(row: Iterable[Standing]) -> Standing:
    """The first that is open or was not searched, so that there is no weakest."""
    return next(one for one in row if one.ratio is None)


def choices_table(results: SweepResults) -> RenderableType:
    """Method and seed x the cheapest budget that is enough."""
    table = _table()
    for index, head in enumerate(choices.HEADS):
        table.add_column(head, justify="left" if index == 0 else "right")
    for row in choices.choice_rows(results):
        table.add_row(*map(Text, row))
    notes = [Text(line, style="dim") for line in choices.choice_notes(results)]
    return Group(_titled(choices.TITLE, table), *notes)


def excess_table(results: SweepResults, *, delta: float, width: int) -> RenderableType:
    """Shifted task x method: the difference in excess error at the ratio of the method's nominal potential."""
    cells = {method: list(row.values()) for method, row in excesses(results, delta=delta).items()}
    nominal = [task.name for task in nominal_tasks(results)]
    columns = {
        " at ".join(filter(None, (method, common_ratio(column)))): [_excess_cell(one) for one in column]
        for method, column in cells.items()
    }
    title = f"Excess error: points lost beyond those on {wording.listing(nominal)}, at each method's potential there"
    table = _fitted(
        title, first=[("task", [task.name for task in shifted_tasks(results)])], columns=columns, width=width
    )
    notes = [
        *excess_notes(cells.values(), num_seeds=len(results.spec.seeds)),
        *slope_notes(results),
        *corruption_notes(results, delta=delta),
    ]
    return Group(table, *(Text(line, style="dim") for line in notes))


def _excess_cell(one: Excess) -> Cell:
    is_clear = one.low is not None and one.low > 0
    style = "yellow" if one.value is None else ("bold red" if is_clear else "bold")
    return Cell(Text(one.amount, style=style), Text(one.spread, style="dim"))


def split_table(results: SweepResults, *, delta: float, width: int) -> RenderableType:
    """Task x method: the potential chosen on one half of the images, and what is lost on the other."""
    columns = {
        method: [Cell(Text(one.ratio, style="bold"), Text(one.loss, style="dim")) for one in cells]
        for method, cells in split_rows(results, delta=delta).items()
    }
    first: Head = [("task", [task.name for task in results.tasks])]
    table = _fitted(split_title(delta), first=first, columns=columns, width=width)
    return Group(table, *(Text(line, style="dim") for line in split_notes(results, delta=delta)))


def controls_table(results: SweepResults) -> RenderableType:
    """Task x budget: the error of the parent, and of the parent retrained without pruning."""
    table = _table()
    table.add_column("task", no_wrap=True)
    table.add_column("parent", justify="right")
    found = controls(results)
    budgets = sorted({one.budget for one in found})
    for budget in budgets:
        table.add_column(f"+ {wording.count(budget, 'epoch')}", justify="right", no_wrap=True)
    for task in results.tasks:
        row = {one.budget: one for one in found if one.task == task.name}
        if row:
            parent = next(iter(row.values())).parent_error
            texts = [_control_text(row[budget].error, parent) if budget in row else "" for budget in budgets]
            table.add_row(Text(task.name), wording.percent(parent), *texts)
    return _titled("Control: error of the parent, retrained without pruning (change in points)", table)


def _control_text(error: float, parent: float) -> str:
    return f"{wording.percent(error)}  ({wording.signed_points(error - parent)})"


def cost_table(results: SweepResults) -> RenderableType:
    """What the sweep took, two columns."""
    table = _table()
    table.show_header = False
    table.add_column("what", style="dim", no_wrap=True)
    table.add_column("how much")
    for name, value in cost_lines(results):
        table.add_row(Text(name), Text(value))
    return _titled("Cost", table)


# -- several sweeps --------------------------------------------------------------------------------------------------


class ComparisonReport:
    """Two or more sweeps side by side for a terminal: print it with a rich Console."""

    def __init__(self, sweeps: Sequence[SweepResults]) -> None:
        """Prepare the comparison. With two sweeps, a column says what changes from the first to the second."""
        self.sweeps = tuple(sweeps)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield each sweep's answer, a table per delta, and what differs between the specs."""
        for label, results in zip(sweep_labels(self.sweeps), self.sweeps, strict=True):
            yield Text.assemble((label, "bold"), "  ", (answer_context(results), "dim"), "\n", answer_sentence(results))
        for delta in compared_deltas(self.sweeps):
            yield Text()
            yield comparison_table(self.sweeps, delta=delta, width=options.max_width)
        differences = spec_differences(self.sweeps)
        if differences:
            yield Text()
            yield _differences_table(sweep_labels(self.sweeps), differences)


def comparison_table(sweeps: Sequence[SweepResults], *, delta: float, width: int) -> RenderableType:
    """Method and task x sweep: potentials, each at the largest budget of its sweep."""
    rows = compared_rows(sweeps, delta=delta)
    methods = [
        row.method if index == 0 or rows[index - 1].method != row.method else "" for index, row in enumerate(rows)
    ]
    columns = {
        label: [_compared_cell(row.standings[index]) for row in rows]
        for index, label in enumerate(sweep_labels(sweeps))
    }
    if len(sweeps) == 2:
        columns["change"] = [Cell(Text(row.change), Text()) for row in rows]
    title = f"Potential within {wording.points(delta)}, at the largest budget of each sweep"
    table = _fitted(
        title, first=[("method", methods), ("task", [row.task for row in rows])], columns=columns, width=width
    )
    shown = [one for row in rows for one in row.standings if one is not None]
    return Group(table, *(Text(line, style="dim") for line in potential_notes(shown)))


def _compared_cell(one: Standing | None) -> Cell:
    return Cell(Text("–", style="dim"), Text()) if one is None else _potential_cell(one, is_weakest=False)


def _differences_table(labels: Sequence[str], differences: Sequence[Difference]) -> RenderableType:
    table = _table()
    table.add_column("field", style="dim")
    for label in labels:
        table.add_column(Text(label), overflow="fold")
    for row in differences:
        table.add_row(Text(row.field), *map(Text, row.values))
    return _titled("What differs between the sweeps", table)


# -- fitting ---------------------------------------------------------------------------------------------------------


class Cell(NamedTuple):
    """A number and its interval, which goes beside or below it."""

    amount: Text
    spread: Text


Head = list[tuple[str, list[str]]]  # the columns that say what a row is


def _fitted(title: str, *, first: Head, columns: dict[str, list[Cell]], width: int) -> RenderableType:
    """One table if it fits; else intervals below their numbers; else several tables with some of the columns each."""
    beside = _filled(first, columns, is_beside=True)
    if _width(beside) <= width:
        return _titled(title, beside)
    names = list(columns)
    parts: list[RenderableType] = []
    while names:
        taken = _num_fitting(names, first=first, columns=columns, width=width)
        parts.append(_filled(first, {name: columns[name] for name in names[:taken]}, is_beside=False))
        names = names[taken:]
    return _titled(title, *parts)


def _num_fitting(names: list[str], *, first: Head, columns: dict[str, list[Cell]], width: int) -> int:
    """How many of the next columns fit, at least one."""
    for taken in range(len(names), 1, -1):
        if _width(_filled(first, {name: columns[name] for name in names[:taken]}, is_beside=False)) <= width:
            return taken
    return 1


def _filled(first: Head, columns: dict[str, list[Cell]], *, is_beside: bool) -> Table:
    table = _table()
    for name, _ in first:
        table.add_column(name, no_wrap=True)
    bodies: list[list[Text]] = []
    for name, column in columns.items():
        table.add_column(Text(name), no_wrap=True, justify="right")
        bodies.append([cell.amount if is_beside else _stacked(cell) for cell in column])
        if is_beside and any(cell.spread.plain for cell in column):
            table.add_column("", no_wrap=True)
            bodies.append([cell.spread for cell in column])
    for index in range(len(first[0][1])):
        table.add_row(*(Text(texts[index]) for _, texts in first), *(body[index] for body in bodies))
    return table


def _stacked(cell: Cell) -> Text:
    return Text("\n").join([cell.amount, cell.spread]) if cell.spread.plain else cell.amount


def _table() -> Table:
    return Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, collapse_padding=True)


def _titled(title: str, *tables: RenderableType) -> Group:
    # Not rich's own title, which wraps at the width of its table.
    return Group(Text(title, style="bold"), *tables)


def _width(table: Table) -> int:
    """Characters a line of the table takes when nothing wraps."""
    console = Console(width=10_000)
    return Measurement.get(console, console.options, table).maximum
