"""`prune-cli submit`, `logs` and `cancel`: sweeps as jobs of a Ray cluster, or as RayJobs on Kubernetes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from raypruning.commands.options import errors_in_one_line
from raypruning.commands.sweep import request_of, sweep
from raypruning.errors import SpecError

if TYPE_CHECKING:
    from raypruning.runtime.jobs import Jobs, Submitted
    from raypruning.runtime.rayjob import Manifest

JobsAddress = Annotated[
    str | None,
    typer.Option("--address", help="Dashboard of the cluster, such as http://head:8265. Token: RAY_AUTH_TOKEN."),
]
Kubernetes = Annotated[
    bool, typer.Option("--kubernetes", help="A RayJob in the cluster of kubectl's context, in place of --address.")
]
Namespace = Annotated[
    str | None, typer.Option("--namespace", help="With --kubernetes: where the sweep lives. \\[default: raypruning]")
]
# Its flags are those of `sweep`, taken as they are.
PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True}


def submit(
    context: typer.Context,
    target: Annotated[str, typer.Argument(help="As of sweep; all flags of sweep may follow.")],
    address: JobsAddress = None,
    kubernetes: Kubernetes = False,
    namespace: Namespace = None,
    queue: Annotated[
        str | None, typer.Option(help="With --kubernetes: Kueue's LocalQueue that hands out the GPUs.")
    ] = None,
    overlay: Annotated[
        str | None,
        typer.Option(
            help="With --kubernetes: overlay of k8s/overlays, or a folder. \\[default: gpu; with --queue kueue]"
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="With --kubernetes: print the RayJob; ask no cluster.")
    ] = False,
) -> None:
    """Run a sweep on a cluster and come back at once. Submitting it again continues it, and never doubles it."""
    words = [target, *context.args]
    if dry_run and not kubernetes:
        words.append("--dry-run")  # of the sweep, over there
    parameters = _parsed(words)
    with errors_in_one_line():
        _check_place(address, kubernetes=kubernetes, namespace=namespace, queue=queue, overlay=overlay)
        request = request_of(parameters)
        if kubernetes:
            from raypruning.app.submit_kubernetes import sweep_rayjob

            job = sweep_rayjob(request, words, overlay=overlay, namespace=namespace, queue=queue)
            _submit_rayjob(job, dry_run=dry_run)
        else:
            from raypruning.app.submit import submit_sweep

            submitted = submit_sweep(request, words, address=str(address))
            _say(submitted, where=f"--address {address}")


def logs(
    sweep: Annotated[str, typer.Argument(help="Name of a sweep that was submitted.")],
    address: JobsAddress = None,
    kubernetes: Kubernetes = False,
    namespace: Namespace = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job ends.")] = False,
) -> None:
    """Show what a submitted sweep has printed."""
    from raypruning.runtime.signals import StopOnSignal

    with errors_in_one_line(), StopOnSignal():
        jobs = jobs_at(address, kubernetes=kubernetes, namespace=namespace)
        job = jobs.latest(sweep)
        for text in jobs.follow(job) if follow else [jobs.logs(job)]:
            typer.echo(text, nl=False)


def cancel(
    sweep: Annotated[str, typer.Argument(help="Name of a sweep that was submitted.")],
    address: JobsAddress = None,
    kubernetes: Kubernetes = False,
    namespace: Namespace = None,
) -> None:
    """Stop a submitted sweep. What is finished is kept; submitting it again continues it."""
    with errors_in_one_line():
        from raypruning.app.submit import job_line

        jobs = jobs_at(address, kubernetes=kubernetes, namespace=namespace)
        job = jobs.latest(sweep)
        if job.is_alive:
            jobs.cancel(job)
            typer.echo(f"{job.id}: asked to stop")
        else:
            typer.echo(job_line(job))


def jobs_at(address: str | None, *, kubernetes: bool, namespace: str | None) -> Jobs[Any]:
    """The jobs of a Ray cluster, or of a namespace on Kubernetes.

    Raises: SpecError: it must be one of the two.
    """
    _check_place(address, kubernetes=kubernetes, namespace=namespace)
    if kubernetes:
        from raypruning.runtime.kubernetes_jobs import NAMESPACE, KubernetesJobs

        return KubernetesJobs(namespace or NAMESPACE)
    from raypruning.runtime.ray_jobs import RayJobs

    return RayJobs(str(address))


def _check_place(address: str | None, *, kubernetes: bool, **of_kubernetes: str | None) -> None:
    if kubernetes and address is not None:
        raise SpecError("--kubernetes makes a Ray cluster of its own, and --address is that of another: leave one out")
    if kubernetes:
        return
    for name, value in of_kubernetes.items():
        if value is not None:
            raise SpecError(f"--{name} goes with --kubernetes: add that, or leave it out")
    if address is None:
        raise SpecError("where? --address http://head:8265 for a Ray cluster, or --kubernetes")


def _submit_rayjob(rayjob: Manifest, *, dry_run: bool) -> None:
    from raypruning.app.submit_kubernetes import check_images
    from raypruning.runtime.kubernetes_jobs import NAMESPACE, KubernetesJobs
    from raypruning.runtime.rayjob import as_yaml

    if dry_run:
        typer.echo(as_yaml(rayjob), nl=False)
        return
    check_images(rayjob)
    namespace = rayjob["metadata"]["namespace"]
    submitted = KubernetesJobs(namespace).submit(rayjob, on_wait=lambda line: typer.echo(line, err=True))
    _say(submitted, where="--kubernetes" + (f" --namespace {namespace}" if namespace != NAMESPACE else ""))


def _say(submitted: Submitted, *, where: str) -> None:
    """What became of a submission, and what to type next."""
    from raypruning.app.submit import job_line

    job = submitted.job
    typer.echo(job_line(job) if submitted.is_new else f"{job_line(job)} already; nothing was submitted")
    typer.echo(
        f"\nlogs     prune-cli logs {job.sweep} -f {where}\n"
        f"state    prune-cli status {job.sweep} {where}\n"
        f"cancel   prune-cli cancel {job.sweep} {where}",
        err=True,
    )


def _parsed(words: list[str]) -> dict[str, object]:
    """The parameters of `sweep` that these words give; a wrong flag ends the command as it would there."""
    alone = typer.Typer(add_completion=False)
    alone.command()(sweep)
    return dict(typer.main.get_command(alone).make_context("prune-cli sweep", list(words)).params)
