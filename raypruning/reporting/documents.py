"""The report as Markdown, and the results as one JSON object."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from raypruning.core.records import Curve, ExcessError, Potential, ProbeResult, SplitPotential, SweepResults
from raypruning.reporting import budget_choices as choices
from raypruning.reporting import distributions, wording
from raypruning.reporting.answer import (
    Standing,
    answer_context,
    answer_sentence,
    common_ratio,
    controls,
    excesses,
    marked_weakest,
    method_names,
    searched_budgets,
    shifted_tasks,
    standings,
)
from raypruning.reporting.certainty import certified, certified_notes
from raypruning.reporting.corruption_notes import corruption_notes, of_probe
from raypruning.reporting.files import write_text
from raypruning.reporting.honest_split import split_notes, split_rows, split_title
from raypruning.reporting.notes import (
    cost_lines,
    excess_notes,
    images_note,
    marked_amount,
    potential_notes,
    report_warnings,
)
from raypruning.reporting.slopes import slope_notes, slopes

JSON = dict[str, object]


# -- JSON ------------------------------------------------------------------------------------------------------------


def to_json(results: SweepResults) -> JSON:
    """One object for `--json`: sweep, potentials, excess_errors, probes, cost, and what explains and sums them up.

    Potentials, excess errors and probes are flat: the fields of their curve stand beside their own. `sweep` is the
    resolved spec with the answer in words and the places where things lie.
    """
    return {
        "sweep": {
            **results.spec.model_dump(mode="json"),
            "answer": answer_sentence(results),
            "data_fingerprint": results.data_fingerprint,
            "storage": results.storage,
            "tracking_uri": results.tracking_uri,
            "experiment_url": results.experiment_url,
        },
        "potentials": [_flat(one) for one in results.potentials],
        "excess_errors": [_flat(one) for one in results.excess_errors],
        "excess_slopes": [
            {"method": method, "slope": one.value, "num_networks": one.num_points}
            | {"interval": one.interval.model_dump(mode="json") if one.interval else None}
            for method, one in slopes(results).items()
        ],
        "probes": [{**_flat_probe(one), **_corruption_fields(results, one)} for one in results.probes],
        "cost": results.cost.model_dump(mode="json"),
        "distributions": [
            {"delta": delta, "method": method, "tasks": part.name, "num_tasks": len(part.tasks), **one._asdict()}
            for delta in results.spec.deltas
            for method, row in distributions.over(results, delta=delta).items()
            for part, one in zip(distributions.distributions(results), row.values(), strict=True)
        ],
        "honest_split": [_flat(one) for one in results.honest_split],
        "budget_choices": [one.model_dump(mode="json") for one in results.budget_choices],
        "summaries": [one.model_dump(mode="json") for one in results.summaries],
        "tasks": [one.model_dump(mode="json") for one in results.tasks],
        "warnings": report_warnings(results),
        "versions": dict(results.versions),
    }


def _flat(record: Potential | ExcessError | SplitPotential) -> JSON:
    return {**_flat_curve(record.curve), **record.model_dump(mode="json", exclude={"curve"})}


def _flat_curve(curve: Curve) -> JSON:
    return curve.model_dump(mode="json")


def _corruption_fields(results: SweepResults, probe: ProbeResult) -> JSON:
    found = of_probe(results, probe)
    return {"corruption_error": {name: over._asdict() for name, over in found.items()}} if found else {}


def _flat_probe(result: ProbeResult) -> JSON:
    checkpoint = result.checkpoint
    return {
        **_flat_curve(result.probe.curve),
        "training": result.probe.id,
        "start": result.probe.training.start,
        "place": result.probe.place,
        "ratio_asked": result.probe.ratio,
        "ratio_reached": checkpoint.ratio_reached if checkpoint else None,
        "status": result.status,
        "errors": {task: evaluation.error for task, evaluation in result.evaluations.items()},
        "num_wrong": {task: evaluation.num_wrong for task, evaluation in result.evaluations.items()},
        "checkpoint": checkpoint.model_dump(mode="json") if checkpoint else None,
        "seconds": dict(result.seconds),
        "attempts": result.attempts,
        "is_new": result.is_new,
        "failure": result.failure.model_dump(mode="json") if result.failure else None,
    }


# -- several sweeps --------------------------------------------------------------------------------------------------


def write_comparison(sweeps: Sequence[SweepResults], path: Path) -> Path:
    """Write the page that shows sweeps side by side. Returns the path.

    Raises: ResourceError: the path cannot be written.
    """
    from raypruning.reporting.html import render_compare_html

    write_text(path, lambda: render_compare_html(sweeps))
    return path


# -- Markdown --------------------------------------------------------------------------------------------------------


def to_markdown(results: SweepResults, *, deltas: Sequence[float] | None = None) -> str:
    """The report as Markdown: the answer, warnings, and the tables of the terminal.

    Args:
        results: of the sweep.
        deltas: those to show; all of the sweep's by default, and the answer is for the first.
    """
    chosen = tuple(results.spec.deltas if deltas is None else deltas)
    blocks = [f"# {_escaped(results.spec.name)}", _escaped(answer_context(results)) + "."]
    if results.spec.note:
        blocks.append(f"> **{_escaped(results.spec.note)}**")
    blocks.append(_escaped(answer_sentence(results, delta=chosen[0])))
    blocks += [f"> Warning: {_escaped(warning)}" for warning in report_warnings(results)]
    for delta in chosen:
        blocks += _delta_blocks(results, delta)
    blocks += _choice_blocks(results) + _control_blocks(results)
    blocks += ["## Cost", _table(["", ""], cost_lines(results), num_text=2)]
    return "\n\n".join(blocks) + "\n"


def _delta_blocks(results: SweepResults, delta: float) -> list[str]:
    methods = method_names(results)
    if not (methods and results.tasks):
        return []
    shown: list[Standing] = []
    marks_weakest = False
    blocks = []
    for budget in searched_budgets(results):
        rows = standings(results, delta=delta, budget=budget)
        low = {method: marked_weakest(row.values()) for method, row in rows.items()}
        shown += [one for row in rows.values() for one in row.values()]
        marks_weakest |= any(low.values())
        body = [[task.name, *(_potential_text(rows[m][task.name], low[m]) for m in methods)] for task in results.tasks]
        title = f"Potential within {wording.points(delta)}, after {wording.retraining(budget, results.spec.schedule)}"
        blocks += [f"## {title}", _table(["task", *methods], body)]
    blocks += _listed([images_note(results, delta=delta), *potential_notes(shown, marks_weakest=marks_weakest)])
    if over := distributions.rows_of(results, delta=delta):
        body = [[name, of, *texts] for name, of, texts in over]
        blocks += [f"## {distributions.TITLE}", _table(["tasks", "", *methods], body, num_text=2)]
    blocks += _certified_blocks(results, delta) + _excess_blocks(results, delta)
    return blocks + (_split_blocks(results, delta) if results.honest_split else [])


def _certified_blocks(results: SweepResults, delta: float) -> list[str]:
    rows = certified(results, delta=delta)
    if not rows:
        return []
    cells = [[row[task.name] for row in rows.values()] for task in results.tasks]
    body = [
        [task.name, *(f"{one.amount} ({one.spread})" if one.spread else one.amount for one in line)]
        for task, line in zip(results.tasks, cells, strict=True)
    ]
    title = f"Certified to lose no more than {wording.points(delta)}, for every seed"
    return [f"## {title}", _table(["task", *rows], body), *_listed(certified_notes(results, delta=delta))]


def _split_blocks(results: SweepResults, delta: float) -> list[str]:
    rows = split_rows(results, delta=delta)
    body = [
        [task.name, *(f"{one.ratio} {one.loss}" for one in line)]
        for task, line in zip(results.tasks, zip(*rows.values(), strict=True), strict=True)
    ]
    return [f"## {split_title(delta)}", _table(["task", *rows], body), *_listed(split_notes(results, delta=delta))]


def _potential_text(one: Standing, low: Standing | None) -> str:
    return " ".join(filter(None, (marked_amount(one, is_weakest=one == low), one.spread)))


def _excess_blocks(results: SweepResults, delta: float) -> list[str]:
    tasks, found = shifted_tasks(results), excesses(results, delta=delta)
    if not tasks:
        return []
    methods, columns = list(found), [list(row.values()) for row in found.values()]
    body = [
        [task.name, *(" ".join(filter(None, (one.amount, one.spread))) for one in row)]
        for task, row in zip(tasks, zip(*columns, strict=True), strict=True)
    ]
    heads = [" at ".join(filter(None, (m, common_ratio(column)))) for m, column in zip(methods, columns, strict=True)]
    title = f"Excess error in points, at each method's nominal potential within {wording.points(delta)}"
    return [
        f"## {title}",
        _table(["task", *heads], body),
        *_listed(
            [
                *excess_notes(columns, num_seeds=len(results.spec.seeds)),
                *slope_notes(results),
                *corruption_notes(results, delta=delta),
            ]
        ),
    ]


def _choice_blocks(results: SweepResults) -> list[str]:
    rows = choices.choice_rows(results)
    table = _table(choices.HEADS, rows, num_text=2)
    return [f"## {choices.TITLE}", table, *_listed(choices.choice_notes(results))] if rows else []


def _control_blocks(results: SweepResults) -> list[str]:
    found = controls(results)
    if not found:
        return []
    body = [
        [
            one.task,
            wording.count(one.budget, "epoch"),
            wording.percent(one.parent_error),
            f"{wording.percent(one.error)} ({wording.signed_points(one.error - one.parent_error)})",
        ]
        for one in found
    ]
    heads = ["task", "retrained for", "parent's error", "error (change in points)"]
    return ["## Control: the parent, retrained without pruning", _table(heads, body, num_text=2)]


def _listed(notes: Iterable[str]) -> list[str]:
    lines = [f"- {_escaped(note)}" for note in notes if note]
    return ["\n".join(lines)] if lines else []


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, num_text: int = 1) -> str:
    """A Markdown table whose first columns are text and whose others are numbers, right-aligned."""
    rules = [":--" if index < num_text else "--:" for index in range(len(heads))]
    lines = [[_escaped(head) for head in heads], rules, *([_escaped(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _escaped(text: str) -> str:
    """Text that Markdown shows as it is: no table border, no markup, no HTML, one line."""
    for mark in "\\`*_[]<>|#":
        text = text.replace(mark, f"\\{mark}")
    return " ".join(text.split())
