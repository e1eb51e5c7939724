"""`prune-cli impact`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from raypruning.commands.options import (
    Budgets,
    Json,
    Methods,
    Ratios,
    Storage,
    SweepName,
    Tasks,
    console,
    errors_in_one_line,
)


def impact(
    sweep: SweepName,
    task: Tasks = None,
    method: Methods = None,
    budget: Budgets = None,
    ratio: Ratios = None,
    correction: Annotated[
        str, typer.Option(help="Of p-values, over the classes of a task: bh (Benjamini-Hochberg), holm or none.")
    ] = "bh",
    level: Annotated[float, typer.Option(help="Adjusted p-values up to this are significant.")] = 0.05,
    csv: Annotated[Path | None, typer.Option(help="File to write: a row for each task, ratio and class.")] = None,
    plots: Annotated[Path | None, typer.Option(help="Folder to write figures into, an SVG file each.")] = None,
    json: Json = False,
    storage: Storage = None,
) -> None:
    """Show which classes pay for pruning: recall of each before and after, tested. Runs nothing."""
    from json import dumps

    from raypruning.app.impact import ImpactRequest
    from raypruning.app.impact import impact as impact_of_sweep
    from raypruning.app.request import resolve_storage
    from raypruning.reporting.files import write_figures, write_text
    from raypruning.reporting.impact_documents import impact_csv, impact_json
    from raypruning.reporting.impact_plots import named_figures
    from raypruning.reporting.impact_tables import ImpactReport
    from raypruning.reporting.wording import count
    from raypruning.runtime.store import open_store

    with errors_in_one_line():
        found = impact_of_sweep(
            open_store(resolve_storage(storage), read_only=True),
            ImpactRequest(
                sweep=sweep,
                tasks=task or (),
                methods=method or (),
                budgets=budget or (),
                ratios=ratio or (),
                correction=correction,
                level=level,
            ),
        )
        written = []
        if csv is not None:
            write_text(csv, lambda: impact_csv(found))
            written.append(f"{csv}")
        if plots is not None:
            written.append(f"{count(len(write_figures(plots, named_figures(found))), 'figure')} into {plots}")
        if json:
            typer.echo(dumps(impact_json(found), indent=1))
        else:
            console().print(ImpactReport(found))
        for what in written:
            typer.echo(f"wrote {what}", err=True)
