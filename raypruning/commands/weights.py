"""`prune-cli weights`."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import Annotated

import typer

from raypruning.commands.options import Json, Methods, Ratios, Storage, SweepName, console, errors_in_one_line


def weights(
    sweep: SweepName,
    method: Methods = None,
    budget: Annotated[
        list[int] | None, typer.Option(help="Retraining epochs. Repeatable. \\[default: the largest]")
    ] = None,
    seed: Annotated[list[int] | None, typer.Option(help="Random seed. Repeatable. \\[default: the first]")] = None,
    ratio: Ratios = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder to write, new or empty. \\[default: SWEEP-weights]")
    ] = None,
    json: Json = False,
    storage: Storage = None,
) -> None:
    """Show what pruning leaves of each layer: histograms, unit norms, ratios, history, animations. Runs nothing."""
    from raypruning.app.lost import publish_files
    from raypruning.app.request import resolve_storage
    from raypruning.app.weights import WeightsRequest, write_weights
    from raypruning.reporting.weights import WeightsReport, numbers, weights_json
    from raypruning.runtime.store import open_store

    with errors_in_one_line():
        store = open_store(resolve_storage(storage), read_only=True)
        with console(stderr=True).status("reading") as status:
            written = write_weights(
                store,
                WeightsRequest(
                    sweep=sweep,
                    methods=method or (),
                    budgets=budget or (),
                    seeds=seed or (),
                    ratios=ratio or (),
                    output=output,
                ),
                on_step=status.update,
            )
        for problem in publish_files(store, sweep, written.folder, numbers(written.found), name="weights"):
            typer.echo(problem, err=True)
        if json:
            answer = weights_json(written.found, folder=str(written.folder), files=written.files)
            typer.echo(json_module.dumps(answer, indent=1))
        else:
            screen = console()
            screen.print(WeightsReport(written.found))
            # Not wrapped, to be copied.
            typer.echo(f"\n{len(written.files)} files in {written.folder}; begin with {written.folder / 'index.html'}")
