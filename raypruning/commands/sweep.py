"""`prune-cli sweep`, and what a finished one prints."""

from __future__ import annotations

import json as json_module
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raypruning.commands.options import (
    DataDir,
    Deltas,
    Json,
    Storage,
    TrackingUri,
    console,
    errors_in_one_line,
    storage_flag,
)
from raypruning.errors import EXIT_OPEN

if TYPE_CHECKING:
    from raypruning.app.request import SweepRequest

# Options that may be repeated, and what the request calls all of their values.
FIELD_OF = {
    "delta": "deltas",
    "task": "tasks",
    "method": "methods",
    "budget": "budgets",
    "seed": "seeds",
    "ratio": "ratios",
    "settings": "settings",
}
OF_PRINTING = {"dry_run", "json", "quiet"}


def sweep(
    context: typer.Context,
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
    gpus_per_probe: Annotated[
        float | None, typer.Option(help="GPUs of each probe: a fraction shares one, several share a probe.")
    ] = None,
    cpus_per_probe: Annotated[
        float | None, typer.Option(help="CPUs of each probe; more than one decode images.")
    ] = None,
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
        from raypruning.app.request import resolve_request

        resolved = resolve_request(request_of(context.params))
        if dry_run:
            _print_estimate(resolved, as_json=json)
            return
        _run(resolved, as_json=json, quiet=quiet)


def request_of(parameters: Mapping[str, Any]) -> SweepRequest:
    """What was typed, by the names of the parameters above; those that only say what is printed are left out."""
    from raypruning.app.request import SweepRequest

    fields = {FIELD_OF.get(name, name): value for name, value in parameters.items() if name not in OF_PRINTING}
    fields |= {name: fields[name] or () for name in FIELD_OF.values()}
    if fields["data_dir"] is not None:
        fields["data_dir"] = Path(fields["data_dir"])
    return SweepRequest(**fields)


def _run(resolved: Any, *, as_json: bool, quiet: bool) -> None:
    """Run a sweep, print its answer and where everything is, exit 0 or 3."""
    from raypruning.app.sweep import run_sweep
    from raypruning.reporting.live import LiveReport

    with LiveReport(console(stderr=True), quiet=quiet) as watcher:
        finished = run_sweep(resolved, watcher=watcher)
    print_results(finished.results, as_json=as_json)
    for problem in finished.problems:
        typer.echo(problem, err=True)
    if not quiet:
        typer.echo(_next_steps(finished, resolved), err=True)
    if finished.has_open:
        raise typer.Exit(EXIT_OPEN)


def _next_steps(finished: Any, resolved: Any) -> str:
    from raypruning.app.lost import PAGE_FILE, REPORT_FILE
    from raypruning.app.tracking import chart_link
    from raypruning.runtime.store import open_store

    setting, name = resolved.setting, finished.results.spec.name
    charts = chart_link(open_store(setting.storage, read_only=True), [name])
    where = storage_flag(setting.storage)
    lines = [f"\nreport   {finished.report}", f"lost     {finished.report.removesuffix(REPORT_FILE)}{PAGE_FILE}"]
    if charts and not finished.results.experiment_url:
        lines.append(f"MLflow   prune-cli ui{where}   then open")
    if charts:
        lines.append(f"         {charts}" if lines[-1].startswith("MLflow") else f"MLflow   {charts}")
    lines.append(f"again    prune-cli report {name}{where}")
    return "\n".join(lines)


def print_results(results: Any, *, as_json: bool) -> None:
    """The answer, to standard output."""
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
