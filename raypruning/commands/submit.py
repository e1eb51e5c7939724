"""`prune-cli submit`, `logs` and `cancel`: sweeps as jobs of a Ray cluster."""

from __future__ import annotations

from typing import Annotated

import typer

from raypruning.commands.options import errors_in_one_line
from raypruning.commands.sweep import request_of, sweep

JobsAddress = Annotated[
    str, typer.Option("--address", help="Dashboard of the cluster, such as http://head:8265. Token: RAY_AUTH_TOKEN.")
]
# Its flags are those of `sweep`, taken as they are.
PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True}


def submit(
    context: typer.Context,
    target: Annotated[str, typer.Argument(help="As of sweep; all flags of sweep may follow.")],
    address: JobsAddress,
) -> None:
    """Run a sweep on a Ray cluster and come back at once. Submitting it again continues it, and never doubles it."""
    words = [target, *context.args]
    parameters = _parsed(words)
    with errors_in_one_line():
        from raypruning.app.submit import job_line, submit_sweep

        submitted = submit_sweep(request_of(parameters), words, address=address)
        job = submitted.job
        typer.echo(job_line(job) if submitted.is_new else f"{job_line(job)} already; nothing was submitted")
        typer.echo(
            f"\nlogs     prune-cli logs {job.sweep} -f --address {address}\n"
            f"state    prune-cli status {job.sweep} --address {address}\n"
            f"cancel   prune-cli cancel {job.sweep} --address {address}",
            err=True,
        )


def logs(
    sweep: Annotated[str, typer.Argument(help="Name of a sweep that was submitted.")],
    address: JobsAddress,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job ends.")] = False,
) -> None:
    """Show what a submitted sweep has printed."""
    from raypruning.runtime.signals import StopOnSignal

    with errors_in_one_line(), StopOnSignal():
        from raypruning.runtime.ray_jobs import RayJobs

        jobs = RayJobs(address)
        job = jobs.latest(sweep)
        for text in jobs.follow(job) if follow else [jobs.logs(job)]:
            typer.echo(text, nl=False)


def cancel(
    sweep: Annotated[str, typer.Argument(help="Name of a sweep that was submitted.")], address: JobsAddress
) -> None:
    """Stop a submitted sweep. What is finished is kept; submitting it again continues it."""
    with errors_in_one_line():
        from raypruning.app.submit import job_line
        from raypruning.runtime.ray_jobs import RayJobs

        jobs = RayJobs(address)
        job = jobs.latest(sweep)
        if job.is_alive:
            jobs.cancel(job)
            typer.echo(f"{job.id}: asked to stop")
        else:
            typer.echo(job_line(job))


def _parsed(words: list[str]) -> dict[str, object]:
    """The parameters of `sweep` that these words give; a wrong flag ends the command as it would there."""
    alone = typer.Typer(add_completion=False)
    alone.command()(sweep)
    return dict(typer.main.get_command(alone).make_context("prune-cli sweep", list(words)).params)
