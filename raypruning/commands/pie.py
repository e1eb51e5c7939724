"""`prune-cli pie`: find, evaluate, show and export the images that pruned networks forget."""

from __future__ import annotations

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
    Tasks,
    console,
    errors_in_one_line,
)

app = typer.Typer(
    name="pie",
    help="Images that pruned networks forget (PIEs): find, evaluate, show and export them.",
    no_args_is_help=True,
)

Ties = Annotated[
    str,
    typer.Option(
        help="An image with two most common answers: undecided, never a PIE; largest, the larger class counts."
    ),
]
OneTask = Annotated[str | None, typer.Option("--task", help="Task whose pictures are meant. \\[default: the first]")]


@app.command()
def find(
    sweep: SweepName,
    task: Tasks = None,
    method: Methods = None,
    budget: Budgets = None,
    ratio: Ratios = None,
    ties: Ties = "undecided",
    csv: Annotated[Path | None, typer.Option(help="File to write: a row for each PIE, with all votes.")] = None,
    all_images: Annotated[bool, typer.Option("--all-images", help="In the file, a row for each image.")] = False,
    json: Json = False,
    storage: Storage = None,
) -> None:
    """Count the images that most pruned networks answer otherwise than most dense ones, beside luck. Runs nothing."""
    from json import dumps

    from raypruning.app.exemplars import ExemplarsRequest, exemplars
    from raypruning.app.request import resolve_storage
    from raypruning.errors import SpecError
    from raypruning.reporting.exemplar_tables import FindReport
    from raypruning.reporting.exemplars import exemplars_csv, exemplars_json
    from raypruning.reporting.files import write_text
    from raypruning.runtime.store import open_store

    with errors_in_one_line():
        if all_images and csv is None:
            raise SpecError("--all-images is about the file: add --csv FILE")
        found = exemplars(
            open_store(resolve_storage(storage), read_only=True),
            ExemplarsRequest(sweep, task or (), method or (), budget or (), ratio or (), ties),
        )
        if csv is not None:
            write_text(csv, lambda: exemplars_csv(found, all_images=all_images))
        if json:
            typer.echo(dumps(exemplars_json(found), indent=1))
        else:
            console().print(FindReport(found))
        if csv is not None:
            typer.echo(f"wrote {csv}", err=True)


@app.command()
def evaluate(
    sweep: SweepName,
    task: Tasks = None,
    method: Methods = None,
    budget: Budgets = None,
    ratio: Ratios = None,
    ties: Ties = "undecided",
    json: Json = False,
    storage: Storage = None,
) -> None:
    """Show the accuracy of dense and pruned networks on PIEs, on the rest, and on random images. Runs nothing."""
    from json import dumps

    from raypruning.app.exemplars import ExemplarsRequest, exemplars
    from raypruning.app.request import resolve_storage
    from raypruning.reporting.exemplar_tables import EvaluateReport
    from raypruning.reporting.exemplars import evaluated_json
    from raypruning.runtime.store import open_store

    with errors_in_one_line():
        found = exemplars(
            open_store(resolve_storage(storage), read_only=True),
            ExemplarsRequest(sweep, task or (), method or (), budget or (), ratio or (), ties),
        )
        if json:
            typer.echo(dumps(evaluated_json(found), indent=1))
        else:
            console().print(EvaluateReport(found))


@app.command()
def gallery(
    sweep: SweepName,
    html: Annotated[Path, typer.Option(help="File to write: one page that needs nothing else.")],
    task: OneTask = None,
    method: Methods = None,
    budget: Annotated[
        list[int] | None, typer.Option("--budget", help="Retraining epochs. Repeatable. \\[default: the largest]")
    ] = None,
    ratio: Ratios = None,
    ties: Ties = "undecided",
    max_pictures: Annotated[
        int, typer.Option("--max", min=1, help="Pictures at most: those that networks differ on most.")
    ] = 200,
    data_dir: DataDir = None,
    storage: Storage = None,
) -> None:
    """Write a page of the PIEs of a task: pictures, true, dense and pruned labels, and all votes."""
    from raypruning.app.exemplar_files import GalleryRequest, write_gallery
    from raypruning.app.exemplars import ExemplarsRequest
    from raypruning.app.request import resolve_storage
    from raypruning.reporting.wording import count
    from raypruning.runtime.store import open_store

    with errors_in_one_line():
        written = write_gallery(
            open_store(resolve_storage(storage), read_only=True),
            GalleryRequest(
                chosen=ExemplarsRequest(sweep, [task] if task else (), method or (), budget or (), ratio or (), ties),
                html=html,
                max_pictures=max_pictures,
                data_dir=data_dir,
            ),
        )
        typer.echo(f"wrote {html}: {written.num_shown} of {count(written.num_pies, 'PIE')} of {written.task}")


@app.command()
def export(
    sweep: SweepName,
    output: Annotated[Path, typer.Option(help="Place to write: a new file of indices, or a new or empty folder.")],
    format_: Annotated[
        str,
        typer.Option(
            "--format",
            help="indices: a list (JSON if it ends in .json); images: pictures to look through; "
            "subset: pictures as the networks saw them, for a task.",
        ),
    ] = "indices",
    non_pie: Annotated[bool, typer.Option("--non-pie", help="All images but the PIEs.")] = False,
    task: OneTask = None,
    method: Methods = None,
    budget: Budgets = None,
    ratio: Ratios = None,
    ties: Ties = "undecided",
    data_dir: DataDir = None,
    storage: Storage = None,
) -> None:
    """Write the PIEs of one task and ratio, for other programs or as a task of a sweep."""
    from raypruning.app.exemplar_files import ExportRequest, export_exemplars
    from raypruning.app.exemplars import ExemplarsRequest
    from raypruning.app.request import resolve_storage
    from raypruning.runtime.store import open_store

    with errors_in_one_line():
        written = export_exemplars(
            open_store(resolve_storage(storage), read_only=True),
            ExportRequest(
                chosen=ExemplarsRequest(sweep, [task] if task else (), method or (), budget or (), ratio or (), ties),
                output=output,
                format=format_,
                non_pie=non_pie,
                data_dir=data_dir,
            ),
        )
        typer.echo(written.text)
