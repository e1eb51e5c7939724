"""`prune-cli`: flags in, answer out. What each command does is in raypruning.app; nothing heavy is imported here."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import Annotated

import typer

from raypruning.commands import features, impact, pie, similarity, submit, sweep, weights
from raypruning.commands.options import (
    AllProbes,
    DataDir,
    Deltas,
    Json,
    Storage,
    SweepName,
    TrackingUri,
    console,
    errors_in_one_line,
    storage_flag,
)
from raypruning.commands.sweep import print_results
from raypruning.errors import EXIT_OPEN

app = typer.Typer(
    name="prune-cli",
    help="How far can a network be pruned before it loses more than delta of accuracy, on each task that matters?",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode="rich",
)

app.command()(sweep.sweep)
app.command(context_settings=submit.PASSED_ON)(submit.submit)
app.command()(submit.logs)
app.command()(submit.cancel)


@app.command()
def report(
    sweep: SweepName,
    html: Annotated[Path | None, typer.Option(help="Write the HTML report to this file.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write tables as CSV files into this folder.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write the report as Markdown to this file.")] = None,
    json: Json = False,
    lost: Annotated[Path | None, typer.Option(help="Write the page of what was lost to this file.")] = None,
    delta: Deltas = None,
    all_probes: AllProbes = False,
    honest_split: Annotated[
        bool,
        typer.Option(
            "--honest-split",
            help="Also choose potentials on one half of the test images and report them on the other.",
        ),
    ] = False,
    storage: Storage = None,
) -> None:
    """Show the answer of a sweep again, also at other deltas. Runs nothing."""
    from raypruning.app.read import read_sweep
    from raypruning.app.request import resolve_storage
    from raypruning.reporting.files import write_documents
    from raypruning.runtime.store import open_store

    with errors_in_one_line():
        store = open_store(resolve_storage(storage), read_only=True)
        results = read_sweep(store, sweep, deltas=delta or (), all_probes=all_probes)
        if honest_split:
            from raypruning.app.honest_split import with_honest_split

            results = with_honest_split(store, results)
        for path in write_documents(results, html=html, csv=csv, markdown=markdown):
            typer.echo(f"wrote {path}", err=True)
        if lost is not None:
            from raypruning.app.lost import write_lost_page

            typer.echo(f"wrote {write_lost_page(store, results, lost)}", err=True)
        print_results(results, as_json=json)


@app.command()
def compare(
    sweeps: Annotated[list[str], typer.Argument(help="Names of two or more sweeps that were run.")],
    html: Annotated[Path | None, typer.Option(help="Write the page to this file.")] = None,
    delta: Deltas = None,
    storage: Storage = None,
) -> None:
    """Show sweeps side by side."""
    from raypruning.app.read import read_sweep
    from raypruning.app.request import resolve_storage
    from raypruning.app.tracking import chart_link
    from raypruning.errors import SpecError
    from raypruning.reporting.documents import write_comparison
    from raypruning.reporting.tables import ComparisonReport
    from raypruning.runtime.store import open_store

    with errors_in_one_line():
        if len(set(sweeps)) < 2:
            raise SpecError("compare needs the names of two or more sweeps: prune-cli compare A B")
        store = open_store(resolve_storage(storage), read_only=True)
        results = [read_sweep(store, sweep, deltas=delta or ()) for sweep in sweeps]
        if html is not None:
            write_comparison(results, html)
            typer.echo(f"wrote {html}", err=True)
        console().print(ComparisonReport(results))
        charts = chart_link(store, sweeps)
        if charts:
            typer.echo(f"MLflow   {charts}", err=True)


@app.command("list")
def list_(
    kind: Annotated[str, typer.Argument(help="models, methods, datasets, tasks, sweeps or runs.")],
    dataset: Annotated[str | None, typer.Argument(help="With tasks: every task of this dataset.")] = None,
    storage: Storage = None,
) -> None:
    """List what there is, or the sweeps that were run."""
    from raypruning.app.catalogue import entries
    from raypruning.app.request import resolve_storage

    with errors_in_one_line():
        found = entries(kind, storage=resolve_storage(storage), dataset=dataset)
        width = max((len(entry.name) for entry in found), default=0)
        for entry in found:
            typer.echo(f"{entry.name:<{width}}  {entry.note}".rstrip())


@app.command()
def tasks(
    dataset: Annotated[str | None, typer.Argument(help="Dataset whose changed test sets are meant.")] = None,
    task: Annotated[
        list[str] | None, typer.Option(help="Task or pattern, such as 'corruption/*/3'. Repeatable.")
    ] = None,
    build: Annotated[bool, typer.Option("--build", help="Make the sets that are missing.")] = False,
    clear: Annotated[bool, typer.Option("--clear", help="Delete the sets.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Show the corrupted test sets that lie on this machine's disk; build them ahead of a sweep, or clear them."""
    from raypruning.app.task_sets import build_sets, clear_sets, list_sets

    with errors_in_one_line():
        if build:
            for line in build_sets(dataset, patterns=task or (), clear=clear, data_dir=data_dir):
                typer.echo(line, err=True)
        elif clear:
            typer.echo(clear_sets(dataset, patterns=task or ()))
            return
        typer.echo(list_sets(dataset, patterns=task or ()))


@app.command()
def status(
    sweep: Annotated[str, typer.Argument(help="Name of a sweep.")],
    json: Json = False,
    storage: Storage = None,
    address: Annotated[
        str | None, typer.Option(help="Dashboard of a Ray cluster: show the sweep's job there instead.")
    ] = None,
    kubernetes: submit.Kubernetes = False,
    namespace: submit.Namespace = None,
) -> None:
    """Show how far a sweep is, whoever runs it."""
    from raypruning.app.request import resolve_storage
    from raypruning.app.status import sweep_status
    from raypruning.runtime.store import open_store

    with errors_in_one_line():
        if kubernetes or address is not None or namespace is not None:
            from raypruning.app.submit import job_line

            job = submit.jobs_at(address, kubernetes=kubernetes, namespace=namespace).latest(sweep)
            typer.echo(json_module.dumps(job._asdict(), indent=1) if json else job_line(job))
            return
        found = sweep_status(open_store(resolve_storage(storage), read_only=True), sweep)
        typer.echo(json_module.dumps(found.as_dict(), indent=1) if json else found.as_text())


@app.command()
def track(
    sweep: SweepName,
    tracking_uri: TrackingUri = None,
    log_checkpoints: Annotated[
        str, typer.Option(help="Checkpoints that MLflow keeps: potential, all or none.")
    ] = "potential",
    storage: Storage = None,
) -> None:
    """Write a sweep to MLflow from the store: after an outage, or into another MLflow."""
    from raypruning.app.request import resolve_storage
    from raypruning.app.tracking import track_from_store
    from raypruning.runtime.store import open_store

    with errors_in_one_line():
        store = open_store(resolve_storage(storage), read_only=True)
        problems = track_from_store(store, sweep, tracking_uri=tracking_uri, log_checkpoints=log_checkpoints)
        for problem in problems:
            typer.echo(problem, err=True)
        raise typer.Exit(1 if problems else 0)


@app.command()
def ui(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on this machine.")] = 5000,
    tracking_uri: TrackingUri = None,
    storage: Storage = None,
) -> None:
    """Open MLflow's pages on this machine: http://127.0.0.1:PORT. Ctrl-C ends it."""
    from raypruning.app.tracking import serve_ui

    with errors_in_one_line():
        raise typer.Exit(serve_ui(storage=storage, tracking_uri=tracking_uri, port=port))


@app.command()
def export(
    sweep: SweepName,
    task: Annotated[str | None, typer.Option(help="Task whose potential decides. \\[default: nominal]")] = None,
    delta: Annotated[
        float | None, typer.Option(help="Accuracy that may be lost, one of the sweep's. \\[default: its only one]")
    ] = None,
    method: Annotated[
        str | None, typer.Option(help="Pruning method. \\[default: the one with the largest potential]")
    ] = None,
    budget: Annotated[int | None, typer.Option(help="Retraining epochs. \\[default: as for the method]")] = None,
    seed: Annotated[int | None, typer.Option(help="Random seed. \\[default: as for the method]")] = None,
    probe: Annotated[
        str | None, typer.Option(help="Id of a network, or its beginning, in place of one at a potential.")
    ] = None,
    format_: Annotated[
        str, typer.Option("--format", help="safetensors; onnx or torch add a file for other programs.")
    ] = "safetensors",
    output: Annotated[
        Path | None, typer.Option(help="Folder to write; must be new or empty. \\[default: SWEEP-PROBE]")
    ] = None,
    data_dir: DataDir = None,
    json: Json = False,
    storage: Storage = None,
) -> None:
    """Write a pruned network as a smaller one with equal outputs, and show what that saves."""
    from raypruning.app.export import ExportRequest
    from raypruning.app.export import export as export_network
    from raypruning.app.export_text import export_text
    from raypruning.app.request import resolve_storage
    from raypruning.runtime.store import open_store

    with errors_in_one_line():
        exported = export_network(
            open_store(resolve_storage(storage), read_only=True),
            ExportRequest(
                sweep=sweep,
                probe=probe,
                task=task,
                delta=delta,
                method=method,
                budget=budget,
                seed=seed,
                format=format_,
                output=output,
                data_dir=data_dir,
            ),
        )
        typer.echo(json_module.dumps(exported.as_dict(), indent=1) if json else export_text(exported))


@app.command()
def recommend(
    sweep: SweepName,
    delta: Annotated[
        float | None, typer.Option(help="Accuracy that may be lost, any fraction. \\[default: the sweep's only one]")
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option(help="Task or pattern that must keep delta. Repeatable. \\[default: all of the sweep's]"),
    ] = None,
    confidence: Annotated[float, typer.Option(help="How sure, over all tasks at once, from 0.5 to 1.")] = 0.95,
    method: Annotated[
        list[str] | None, typer.Option(help="Pruning method to choose among. Repeatable. \\[default: all]")
    ] = None,
    budget: Annotated[
        list[int] | None, typer.Option(help="Retraining epochs to choose among. Repeatable. \\[default: all]")
    ] = None,
    seed: Annotated[
        list[int] | None, typer.Option(help="Random seed to choose among. Repeatable. \\[default: all]")
    ] = None,
    json: Json = False,
    storage: Storage = None,
) -> None:
    """Name the network to ship: the smallest that is proven to stay within delta on every task. Runs nothing."""
    from raypruning.app.recommend import RecommendRequest
    from raypruning.app.recommend import recommend as recommend_network
    from raypruning.app.request import resolve_storage
    from raypruning.reporting.recommendation import recommendation_json, recommendation_text
    from raypruning.runtime.store import open_store

    with errors_in_one_line():
        found = recommend_network(
            open_store(resolve_storage(storage), read_only=True),
            RecommendRequest(
                sweep=sweep,
                delta=delta,
                tasks=task or (),
                confidence=confidence,
                methods=method or (),
                budgets=budget or (),
                seeds=seed or (),
            ),
        )
        flag = storage_flag(resolve_storage(storage))
        if json:
            typer.echo(json_module.dumps(recommendation_json(found, storage_flag=flag), indent=1))
        else:
            typer.echo(recommendation_text(found, storage_flag=flag))
        if found.chosen is None:
            raise typer.Exit(EXIT_OPEN)


app.command()(impact.impact)
app.add_typer(pie.app, name="pie")
app.command()(similarity.similarity)
app.command()(features.features)
app.command()(weights.weights)


@app.command()
def clean(
    keep: Annotated[
        str, typer.Option(help="asked: all that a sweep asked for; potential: parents and networks at a potential.")
    ] = "asked",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be deleted; delete nothing.")] = False,
    storage: Storage = None,
) -> None:
    """Free disk: delete stored networks that no sweep needs, and what crashes left behind."""
    from rich.filesize import decimal

    from raypruning.app.cleaning import clean as clean_store
    from raypruning.app.request import resolve_storage
    from raypruning.errors import SpecError
    from raypruning.reporting.wording import count
    from raypruning.runtime.store import open_store

    with errors_in_one_line():
        if keep not in ("asked", "potential"):
            raise SpecError(f"--keep must be asked or potential, got {keep}")
        done = clean_store(open_store(resolve_storage(storage)), keep=keep, dry_run=dry_run)
        verb = "would delete" if dry_run else "deleted"
        typer.echo(f"{verb} {count(len(done.trainings), 'stored network')}, {decimal(done.num_bytes)}")


if __name__ == "__main__":
    app()
