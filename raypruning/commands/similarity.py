"""`prune-cli similarity`."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import Annotated

import typer

from raypruning.commands.options import (
    Budgets,
    DataDir,
    Json,
    Methods,
    Ratios,
    Storage,
    SweepName,
    console,
    errors_in_one_line,
    storage_flag,
)
from raypruning.commands.progress import progress


def similarity(
    sweep: SweepName,
    method: Methods = None,
    budget: Budgets = None,
    ratio: Ratios = None,
    noise: Annotated[
        list[float] | None,
        typer.Option(
            help="Noise level, in units of normalised pixels. Repeatable; 0 is always measured. "
            "\\[default: 0.05 to 0.7 in steps of 0.05]"
        ),
    ] = None,
    images: Annotated[int | None, typer.Option(help="Test images, a random part. \\[default: all]")] = None,
    draws: Annotated[int, typer.Option(help="Draws of noise for each image and level.")] = 1,
    data_dir: DataDir = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Measure again what was measured already.")] = False,
    csv: Annotated[Path | None, typer.Option(help="Write every number to this CSV file.")] = None,
    plots: Annotated[Path | None, typer.Option(help="Write the figures as SVG into this folder.")] = None,
    json: Json = False,
    storage: Storage = None,
) -> None:
    """Show how alike pruned networks and their parents answer, beside networks that were trained separately."""
    from raypruning.runtime.signals import StopOnSignal

    with errors_in_one_line(), StopOnSignal():
        from raypruning.app.lost import publish
        from raypruning.app.request import resolve_storage
        from raypruning.app.results import read_record
        from raypruning.app.similarity import SimilarityRequest
        from raypruning.app.similarity import similarity as measure_similarity
        from raypruning.reporting.files import numbered, write_figures, write_text
        from raypruning.reporting.similarity import SimilarityReport, control_hint, similarity_csv, similarity_json
        from raypruning.reporting.similarity_plots import panels
        from raypruning.reporting.wording import count, thousands
        from raypruning.runtime.store import open_store

        address = resolve_storage(storage)
        # Read only at first, so that no folder is made for a storage that is not there.
        read_record(open_store(address, read_only=True), sweep)
        request = SimilarityRequest(
            sweep=sweep,
            methods=method or (),
            budgets=budget or (),
            ratios=ratio or (),
            amplitudes=noise or (),
            images=images,
            draws=draws,
            data_dir=data_dir,
            fresh=fresh,
        )
        store = open_store(address)
        with progress() as tell:

            def watch(done: int, total: int) -> None:
                tell(f"{thousands(done)} of {count(total, 'image')}", done, total)

            found = measure_similarity(store, request, tell=watch)
        written = []
        if csv is not None:
            write_text(csv, lambda: similarity_csv(found))
            written.append(csv)
        if plots is not None:
            written += write_figures(plots, numbered("similarity", panels(found)))
        for path in written:
            typer.echo(f"wrote {path}", err=True)
        for problem in publish(store, sweep):
            typer.echo(problem, err=True)
        flag = storage_flag(address)
        if json:
            typer.echo(json_module.dumps(similarity_json(found, storage_flag=flag), indent=1))
        else:
            console().print(SimilarityReport(found))
            if hint := control_hint(found, storage_flag=flag):
                typer.echo(f"\n{hint}")  # not folded, to be copied
