"""`prune-cli`: flags in, answer out. What each command does is in raypruning.app; nothing heavy is imported here."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import Annotated, Any

import typer

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

app = typer.Typer(
    name="prune-cli",
    help="How far can a network be pruned before it loses more than delta of accuracy, on each task that matters?",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode="rich",
)

EXIT_OPEN = 3


@app.command()
def sweep(
    target: Annotated[str, typer.Argument(help="A sweep's name, a path to a TOML file, or a model's name.")],
    delta: Deltas = None,
    task: Annotated[list[str] | None, typer.Option(help="Task to measure; with nominal. Repeatable.")] = None,
    method: Annotated[
        list[str] | None, typer.Option(help="Pruning method, such as wt or wt:rules=paper. Repeatable.")
    ] = None,
    budget: Annotated[list[int] | None, typer.Option(help="Retraining epochs. Repeatable.")] = None,
    seed: Annotated[list[int] | None, typer.Option(help="Random seed, one parent each. Repeatable.")] = None,
    population: Annotated[
        int | None,
        typer.Option(
            "--population",
            "--seeds",
            min=1,
            help="So many seeds, derived from --seed, each pruned to the same ratios: for impact, pie and similarity.",
        ),
    ] = None,
    ratio: Annotated[
        list[float] | None,
        typer.Option(help="Prune to this ratio, and search for none. Repeatable. \\[with --population: 0.1 to 0.9]"),
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="Dataset in place of the sweep's own.")] = None,
    data_dir: DataDir = None,
    download: Annotated[bool, typer.Option("--download", help="Fetch the dataset if it is missing.")] = False,
    name: Annotated[str | None, typer.Option(help="Name of the sweep. \\[default: the target's]")] = None,
    storage: Storage = None,
    tracking_uri: TrackingUri = None,
    executor: Annotated[str, typer.Option(help="ray, or inline: in this process, for debugging.")] = "ray",
    address: Annotated[str | None, typer.Option(help="A running Ray cluster. \\[default: a local one]")] = None,
    gpus_per_probe: Annotated[float | None, typer.Option(help="GPUs of each probe; may be a fraction.")] = None,
    cpus_per_probe: Annotated[float | None, typer.Option(help="CPUs of each probe.")] = None,
    max_concurrent: Annotated[int | None, typer.Option(min=1, help="Probes at once, at most.")] = None,
    max_probes: Annotated[int | None, typer.Option(min=1, help="Pruned probes in all, at most.")] = None,
    gpu_hours: Annotated[float | None, typer.Option(help="GPU hours that this run may spend.")] = None,
    deadline: Annotated[
        str | None, typer.Option(help="Begin nothing that would end later: 90m, 6h, 2d, or 2027-01-31T08:00.")
    ] = None,
    schedule: Annotated[
        str | None,
        typer.Option(help="When is pruned: one_shot, iterative (--set schedule.steps=10) or gradual."),
    ] = None,
    search: Annotated[
        str | None,
        typer.Option(
            help="How ratios are chosen: bisect, model or grid. \\[default: bisect for up to 4 thresholds a curve, "
            "model for more; along its chain if iterative]"
        ),
    ] = None,
    probes_per_round: Annotated[
        str | None,
        typer.Option(help="Ratios asked for at once on each curve: a number, or auto for as many as have room."),
    ] = None,
    resolution: Annotated[
        float | None, typer.Option(help="Bracket that is narrow enough, as a fraction of what is kept.")
    ] = None,
    budget_search: Annotated[
        bool,
        typer.Option("--budget-search", help="Find the cheapest budget whose potential is near the largest budget's."),
    ] = False,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE for any field, such as recipe.epochs=20. Repeatable.")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget this sweep's results and start over.")] = False,
    log_checkpoints: Annotated[
        str, typer.Option(help="Checkpoints that MLflow keeps: potential, all or none.")
    ] = "potential",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would take; run nothing.")] = False,
    json: Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress; only the answer.")] = False,
) -> None:
    """Find how far a network can be pruned within delta on each task. The same command again continues."""
    from raypruning.runtime.signals import StopOnSignal

    with errors_in_one_line(retype=True), StopOnSignal():
        from raypruning.app.request import SweepRequest, resolve_request

        resolved = resolve_request(
            SweepRequest(
                target=target,
                name=name,
                deltas=delta or (),
                tasks=task or (),
                methods=method or (),
                budgets=budget or (),
                seeds=seed or (),
                population=population,
                ratios=ratio or (),
                dataset=dataset,
                data_dir=data_dir,
                download=download,
                storage=storage,
                tracking_uri=tracking_uri,
                executor=executor,
                address=address,
                gpus_per_probe=gpus_per_probe,
                cpus_per_probe=cpus_per_probe,
                max_concurrent=max_concurrent,
                max_probes=max_probes,
                gpu_hours=gpu_hours,
                deadline=deadline,
                probes_per_round=probes_per_round,
                schedule=schedule,
                search=search,
                resolution=resolution,
                budget_search=budget_search,
                settings=settings or (),
                fresh=fresh,
                log_checkpoints=log_checkpoints,
            )
        )
        if dry_run:
            _print_estimate(resolved, as_json=json)
            return
        _run(resolved, as_json=json, quiet=quiet)


@app.command()
def report(
    sweep: SweepName,
    html: Annotated[Path | None, typer.Option(help="Write the HTML report to this file.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write tables as CSV files into this folder.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write the report as Markdown to this file.")] = None,
    json: Json = False,
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
    from raypruning.app.honest_split import with_honest_split
    from raypruning.app.read import read_sweep
    from raypruning.app.request import resolve_storage
    from raypruning.reporting.files import write_documents
    from raypruning.runtime.store import open_store

    with errors_in_one_line():
        store = open_store(resolve_storage(storage), read_only=True)
        results = read_sweep(store, sweep, deltas=delta or (), all_probes=all_probes)
        if honest_split:
            results = with_honest_split(store, results)
        for path in write_documents(results, html=html, csv=csv, markdown=markdown):
            typer.echo(f"wrote {path}", err=True)
        _print_results(results, as_json=json)


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
) -> None:
    """Show how far a sweep is, whoever runs it."""
    from raypruning.app.request import resolve_storage
    from raypruning.app.status import sweep_status
    from raypruning.runtime.store import open_store

    with errors_in_one_line():
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


def _run(resolved: Any, *, as_json: bool, quiet: bool) -> None:
    """Run a sweep, print its answer and where everything is, exit 0 or 3."""
    from raypruning.app.sweep import run_sweep
    from raypruning.reporting.live import LiveReport

    with LiveReport(console(stderr=True), quiet=quiet) as watcher:
        finished = run_sweep(resolved, watcher=watcher)
    _print_results(finished.results, as_json=as_json)
    for problem in finished.problems:
        typer.echo(problem, err=True)
    if not quiet:
        typer.echo(_next_steps(finished, resolved), err=True)
    if finished.has_open:
        raise typer.Exit(EXIT_OPEN)


def _next_steps(finished: Any, resolved: Any) -> str:
    from raypruning.app.tracking import chart_link
    from raypruning.runtime.store import open_store

    setting, name = resolved.setting, finished.results.spec.name
    charts = chart_link(open_store(setting.storage, read_only=True), [name])
    where = storage_flag(setting.storage)
    lines = [f"\nreport   {finished.report}"]
    if charts and not finished.results.experiment_url:
        lines.append(f"MLflow   prune-cli ui{where}   then open")
    if charts:
        lines.append(f"         {charts}" if len(lines) > 1 else f"MLflow   {charts}")
    lines.append(f"again    prune-cli report {name}{where}")
    return "\n".join(lines)


def _print_results(results: Any, *, as_json: bool) -> None:
    from raypruning.reporting.documents import to_json
    from raypruning.reporting.tables import TerminalReport

    if as_json:
        typer.echo(json_module.dumps(to_json(results), indent=1))
    else:
        console().print(TerminalReport(results))


def _print_estimate(resolved: Any, *, as_json: bool) -> None:
    from rich.filesize import decimal

    from raypruning.app.dry_run import estimate
    from raypruning.reporting.wording import duration

    found = estimate(resolved)
    if as_json:
        typer.echo(json_module.dumps(found._asdict(), indent=1))
        return
    typer.echo(
        f"probes    {found.num_dense} dense, at most {found.num_pruned} pruned; "
        f"{found.num_stored} parents are stored already\n"
        f"epochs    at most {found.num_epochs}\n"
        f"time      at most about {duration(found.seconds)}, {found.num_workers} at once on this machine as it is now\n"
        f"disk      at most about {decimal(found.num_bytes)}"
        + (f", and {decimal(found.num_test_set_bytes)} of changed test sets" if found.num_test_set_bytes else "")
        + "\n"
        f"storage   {found.storage}\n"
        f"MLflow    {found.tracking_uri or 'none'}\n"
        f"Ray's log {found.log}"
    )


if __name__ == "__main__":
    app()
