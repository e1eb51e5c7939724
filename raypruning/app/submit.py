"""Run a sweep as a job of a Ray cluster: the command that a person would type there, sent from here."""

from __future__ import annotations

import shlex
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from raypruning.app.request import SweepRequest, understand
from raypruning.app.sweep_files import is_file
from raypruning.errors import EXIT_OPEN, SpecError
from raypruning.runtime.jobs import Job, Submitted
from raypruning.runtime.ray_jobs import RayJobs

_ENDINGS = {0: "finished", 2: "ended with a mistake in its input", EXIT_OPEN: "finished with open potentials"}


def submit_sweep(request: SweepRequest, words: Sequence[str], *, address: str) -> Submitted:
    """Begin a sweep on a cluster, or continue it there; the job that is at work on it, if there is one.

    Args:
        request: what the words say.
        words: of `prune-cli sweep`, the target first.

    Raises:
        SpecError: what the command would refuse on every machine, and a storage that ends with the cluster.
        ResourceError: the cluster does not answer, or refuses.
    """
    if request.address is not None or request.executor != "ray":
        raise SpecError("the job runs on the Ray cluster that it is sent to: leave --executor out")
    if request.storage is None:
        raise SpecError(
            "a submitted sweep needs a --storage that outlives the cluster: s3://BUCKET/FOLDER, or a shared folder"
        )
    name = understand(request, data_dir=request.data_dir).spec.name
    with ExitStack() as stack:
        folder = None
        if is_file(request.target):
            # A sweep's own file travels with the job.
            file = Path(request.target)
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="raypruning-")))
            shutil.copy(file, folder / file.name)
            words = [file.name, *words[1:]]
        return RayJobs(address).submit(name, entrypoint(words, name=name), folder=folder)


def entrypoint(words: Sequence[str], *, name: str) -> str:
    """The command on the cluster, for one shell."""
    return shlex.join(entrypoint_words(words, name=name))


def entrypoint_words(words: Sequence[str], *, name: str) -> list[str]:
    """The command on the cluster. The name is spelt out: there it might follow from other data."""
    named = () if "--name" in words else ("--name", name)
    return ["prune-cli", "sweep", *words, *named, "--address", "auto"]


def job_line(job: Job) -> str:
    """How a job stands, in a line."""
    if job.is_alive:
        return f"{job.id}: {job.state.lower()}"
    if job.exit_code in _ENDINGS:
        return f"{job.id}: {_ENDINGS[job.exit_code]}"
    reason = f": {' '.join(job.message.split())[:300]}" if job.message else ""
    return f"{job.id}: {job.state.lower()}{reason}"
