"""The report as one HTML page that needs nothing else: no network, no other file; it works without scripts."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from markupsafe import Markup, escape

from raypruning.core.records import SweepResults
from raypruning.core.search.axis import position
from raypruning.core.spec import to_toml
from raypruning.reporting import budget_choices as choices
from raypruning.reporting import distributions, plots, wording
from raypruning.reporting.answer import (
    Standing,
    answer_context,
    answer_sentence,
    answer_sentences,
    common_ratio,
    controls,
    excesses,
    largest_budget,
    marked_weakest,
    method_names,
    searched_budgets,
    shifted_tasks,
    standings,
)
from raypruning.reporting.certainty import certified, certified_notes
from raypruning.reporting.comparison import compared_deltas, compared_rows, spec_differences, sweep_labels
from raypruning.reporting.comparison_plots import comparison_panels
from raypruning.reporting.corruption_notes import corruption_notes
from raypruning.reporting.drawing import DARK, LIGHT, Panel, css_colour, series_colours
from raypruning.reporting.notes import (
    cost_lines,
    excess_notes,
    images_note,
    marked_amount,
    potential_notes,
    probe_label,
    report_warnings,
)
from raypruning.reporting.pages import environment
from raypruning.reporting.probe_table import failure_text, probe_heads, probe_row, web_address
from raypruning.reporting.severity_plots import severity_panels
from raypruning.reporting.slopes import slope_notes


class Head(NamedTuple):
    """Of a column. `colour` is that of a method, as in the figures; `scope` stands below the text."""

    text: str
    colour: str = ""
    scope: str = ""


class Cell(NamedTuple):
    """A number, what stands below it, and how it is set off. `heat` is in [0, 1]."""

    amount: str
    spread: str = ""
    heat: str = "0"
    is_weakest: bool = False
    is_open: bool = False


class Row(NamedTuple):
    """A line of a table."""

    name: str
    cells: Sequence[Cell]


class Table(NamedTuple):
    """A table and what explains it."""

    heads: Sequence[Head]
    rows: Sequence[Row]
    notes: Sequence[str] = ()
    kind: str = ""


class Figure(NamedTuple):
    """A panel, marked as safe to be put into the page."""

    title: str
    svg: Markup


class Section(NamedTuple):
    """What the page says of one delta."""

    points: str
    table: Table
    bars: Sequence[Figure]
    certified: Table | None
    over: Table | None
    excess: Table | None
    budgets: Sequence[Figure]


class Command(NamedTuple):
    """Something to type next."""

    why: str
    text: str


def render_html(results: SweepResults, *, lost_page: str = "") -> str:
    """The whole report as one page. The same results give the same bytes.

    Args:
        lost_page: address of the page "what was lost", as seen from this one; no link if empty.
    """
    spec = results.spec
    colours = _colours(results)
    delta = spec.deltas[0]
    found_controls = controls(results)
    smaller = searched_budgets(results)[1:]
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            light=LIGHT,
            dark=DARK,
            name=spec.name,
            note=spec.note,
            context=answer_context(results),
            answer=answer_sentences(results),
            epochs=wording.retraining(largest_budget(results), results.spec.schedule),
            experiment_url=web_address(results.experiment_url),
            lost_page=lost_page,
            warnings=report_warnings(results),
            deltas=[_section(results, one) for one in spec.deltas],
            series=[{"name": name, "colour": colour} for name, colour in colours.items()],
            smaller_budgets=[
                {"epochs": wording.retraining(budget, results.spec.schedule), "dashes": dashes}
                for budget, dashes in zip(smaller, ("5 2", "2 1.6", *["1 1.4"] * len(smaller)), strict=False)
            ],
            num_seeds=len(spec.seeds),
            errors=_figures(plots.error_panels(results, delta=delta)),
            excess=_figures(plots.excess_panels(results, delta=delta)),
            severities=_figures(severity_panels(results, delta=delta)),
            has_shifted=bool(shifted_tasks(results)),
            choices=_choices_table(results),
            choices_title=choices.TITLE,
            has_controls=bool(found_controls),
            controls=_control_table(results),
            cost=cost_lines(results),
            probe_heads=probe_heads(results),
            probes=[probe_row(results, probe) for probe in results.probes],
            failures=[(probe_label(p), failure_text(p)) for p in results.probes if not p.is_done],
            commands=_commands(results),
            provenance=_provenance(results),
            spec=Markup(escape(to_toml(spec))),
        )
    )


def render_compare_html(sweeps: Sequence[SweepResults]) -> str:
    """Two or more sweeps side by side as one page: answers, potentials, what differs between the specs, cost."""
    labels = sweep_labels(sweeps)
    colours = {label: css_colour(colour) for label, colour in series_colours(labels).items()}
    return (
        environment()
        .get_template("compare.html.j2")
        .render(
            light=LIGHT,
            dark=DARK,
            labels=labels,
            series=[{"name": name, "colour": colour} for name, colour in colours.items()],
            answers=[
                {"label": label, "answer": answer_sentence(one), "context": answer_context(one), "note": one.spec.note}
                for label, one in zip(labels, sweeps, strict=True)
            ],
            deltas=[_compared_section(sweeps, colours, delta) for delta in compared_deltas(sweeps)],
            differences=_differences_table(labels, sweeps),
            cost=_cost_table(labels, sweeps),
        )
    )


def _colours(results: SweepResults) -> dict[str, str]:
    return {name: css_colour(colour) for name, colour in series_colours(method_names(results)).items()}


def _figures(panels: Iterable[Panel]) -> list[Figure]:
    # Safe: matplotlib escapes the texts it is given, and we escape the title.
    return [Figure(panel.title, Markup(panel.svg)) for panel in panels]


# -- tables ----------------------------------------------------------------------------------------------------------


def _section(results: SweepResults, delta: float) -> Section:
    return Section(
        points=wording.points(delta),
        table=_potential_table(results, delta),
        bars=_figures(plots.potential_panels(results, delta=delta)),
        certified=_certified_table(results, delta),
        over=_distributions_table(results, delta),
        excess=_excess_table(results, delta),
        budgets=_figures(plots.budget_panels(results, delta=delta)),
    )


def _potential_table(results: SweepResults, delta: float) -> Table:
    rows = standings(results, delta=delta)
    shown = [one for row in rows.values() for one in row.values()]
    top = max((position(one.ratio) for one in shown if one.ratio is not None), default=0.0)
    low = {method: marked_weakest(row.values()) for method, row in rows.items()}
    return Table(
        heads=[Head(method, colour) for method, colour in _colours(results).items()],
        rows=[
            Row(
                task.name,
                [potential_cell(row[task.name], weakest=low[method], top=top) for method, row in rows.items()],
            )
            for task in results.tasks
        ],
        notes=[line for line in (images_note(results, delta=delta), *potential_notes(shown)) if line],
    )


def _certified_table(results: SweepResults, delta: float) -> Table | None:
    found = certified(results, delta=delta)
    if not found:
        return None
    top = max((position(one.ratio) for row in found.values() for one in row.values() if one.ratio), default=0.0)
    colours = _colours(results)
    rows = [
        Row(
            task.name,
            [
                Cell(one.amount, one.spread, f"{position(one.ratio) / top if one.ratio else 0.0:.3f}")
                for one in (row[task.name] for row in found.values())
            ],
        )
        for task in results.tasks
    ]
    return Table([Head(method, colours[method]) for method in found], rows, certified_notes(results, delta=delta))


def _distributions_table(results: SweepResults, delta: float) -> Table | None:
    rows = [
        Row(": ".join(filter(None, (name, of))), [Cell(text) for text in texts])
        for name, of, texts in distributions.rows_of(results, delta=delta)
    ]
    return Table([Head("tasks"), *(Head(*pair) for pair in _colours(results).items())], rows) if rows else None


def potential_cell(one: Standing, *, weakest: Standing | None, top: float) -> Cell:
    """A cell shaded by how far along the axis of ratios it lies; `top` is the furthest position of the table."""
    heat = position(one.ratio) / top if one.ratio is not None and top > 0 else 0.0
    return Cell(marked_amount(one, is_weakest=False), one.spread, f"{heat:.3f}", one == weakest, one.status == "open")


def _excess_table(results: SweepResults, delta: float) -> Table | None:
    tasks, found = shifted_tasks(results), excesses(results, delta=delta)
    if not (tasks and found):
        return None
    methods, columns = list(found), [list(row.values()) for row in found.values()]
    colours = _colours(results)
    heads = [
        Head(method, colours[method], scope=f"at {ratio}" if ratio else "")
        for method, column in zip(methods, columns, strict=True)
        for ratio in [common_ratio(column)]
    ]
    rows = [
        Row(task.name, [Cell(one.amount, one.spread) for one in row])
        for task, row in zip(tasks, zip(*columns, strict=True), strict=True)
    ]
    notes = [
        *excess_notes(columns, num_seeds=len(results.spec.seeds)),
        *slope_notes(results),
        *corruption_notes(results, delta=delta),
    ]
    return Table([Head("task"), *heads], rows, notes, "excess")


def _choices_table(results: SweepResults) -> Table | None:
    rows = [Row(name, [Cell(text) for text in texts]) for name, *texts in choices.choice_rows(results)]
    return Table([Head(head) for head in choices.HEADS], rows, choices.choice_notes(results)) if rows else None


def _control_table(results: SweepResults) -> Table:
    found = controls(results)
    budgets = sorted({one.budget for one in found})
    heads = [Head("task"), Head("parent"), *(Head(f"+ {wording.count(budget, 'epoch')}") for budget in budgets)]
    rows = []
    for task in results.tasks:
        row = {one.budget: one for one in found if one.task == task.name}
        if not row:
            continue
        parent_error = next(iter(row.values())).parent_error
        cells = [
            Cell(f"{wording.percent(row[b].error)} ({wording.signed_points(row[b].error - parent_error)})")
            if b in row
            else Cell("")
            for b in budgets
        ]
        rows.append(Row(task.name, [Cell(wording.percent(parent_error)), *cells]))
    return Table(heads, rows, ["In brackets, the change in points."])


# -- several sweeps --------------------------------------------------------------------------------------------------


class ComparedSection(NamedTuple):
    """What the page of several sweeps says of one delta."""

    points: str
    table: Table
    bars: Sequence[Figure]


def _compared_section(sweeps: Sequence[SweepResults], colours: Mapping[str, str], delta: float) -> ComparedSection:
    rows = compared_rows(sweeps, delta=delta)
    shown = [one for row in rows for one in row.standings if one is not None]
    top = max((position(one.ratio) for one in shown if one.ratio is not None), default=0.0)
    heads = [
        Head(label, colours[label], scope=f"after {wording.retraining(largest_budget(one), one.spec.schedule)}")
        for label, one in zip(colours, sweeps, strict=True)
    ]
    body = []
    for row in rows:
        cells = [potential_cell(one, weakest=None, top=top) if one else Cell("–") for one in row.standings]
        body.append(Row(f"{row.method} on {row.task}", [*cells, Cell(row.change)] if len(sweeps) == 2 else cells))
    heads += [Head("change", scope="in points")] if len(sweeps) == 2 else []
    table = Table(heads, body, potential_notes(shown))
    return ComparedSection(wording.points(delta), table, _figures(comparison_panels(list(colours), rows)))


def _differences_table(labels: Sequence[str], sweeps: Sequence[SweepResults]) -> Table:
    rows = [Row(one.field, [Cell(value) for value in one.values]) for one in spec_differences(sweeps)]
    return Table([Head("field"), *map(Head, labels)], rows, kind="texts")


def _cost_table(labels: Sequence[str], sweeps: Sequence[SweepResults]) -> Table:
    costs = [dict(cost_lines(one)) for one in sweeps]
    names = dict.fromkeys(name for cost in costs for name in cost)
    rows = [Row(name, [Cell(cost.get(name, "")) for cost in costs]) for name in names]
    return Table([Head(""), *map(Head, labels)], rows, kind="texts")


# -- where it comes from ---------------------------------------------------------------------------------------------


def _commands(results: SweepResults) -> list[Command]:
    name = shlex.quote(results.spec.name)
    is_open = any(one.status == "open" for one in results.potentials)
    again = (
        "Go on where it stopped: what is measured is not measured again." if is_open else "Run it again or extend it."
    )
    return [
        Command(again, f"prune-cli sweep {name}"),
        Command(
            "Use every probe that the store has, not only those of this search.",
            f"prune-cli report {name} --all-probes",
        ),
        Command("Look at the runs in MLflow.", "prune-cli ui"),
    ]


def _provenance(results: SweepResults) -> list[tuple[str, str]]:
    done = [p.result for p in results.probes if p.result]
    devices = sorted({one.provenance.device for one in done})
    commits = sorted({one.provenance.git_commit for one in done} - {""})
    versions = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    items = [
        ("storage", results.storage),
        ("MLflow", results.tracking_uri),
        ("data", f"{results.spec.data.name}, fingerprint {results.data_fingerprint[:16]}"),
        ("trained on", wording.listing(devices)),
        ("code", wording.listing(commits)),
        ("versions", versions),
    ]
    return [(name, value) for name, value in items if value]
