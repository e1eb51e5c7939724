"""Sweeps as RayJobs of a Kubernetes cluster, through kubectl: whoever submits one need not stay.

A RayJob's name follows from the sweep's. The API server takes no name twice, so that of two who submit one sweep at the
same moment the second finds the first one's job. It is asked by path (`--raw`): only so can a job be deleted on the
condition that it is still the one that was seen.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple
from urllib.parse import urlencode

from raypruning.errors import ResourceError, SpecError
from raypruning.runtime.jobs import Submitted
from raypruning.runtime.rayjob import ROLE, SWEEP, Manifest, check_label, job_name

NAMESPACE = "raypruning"  # of k8s/base
REQUEST_SECONDS = 30  # for one answer of the API server
GONE_SECONDS = 240.0  # until a deleted job and its pods are; they have 100 s to end by themselves
POLL_SECONDS = 2.0
ENDED = ("Complete", "Failed", "ValidationFailed")
DELETING = "Deleting"  # the one state here that is none of the operator's
# Of a container that has printed nothing yet, or whose pod is gone.
_NO_LOGS = ("waiting to start", "not found", "unable to retrieve container logs")
_TEXT: dict[str, Any] = {"encoding": "utf-8", "errors": "replace"}  # what a job prints may be anything


class KubernetesJob(NamedTuple):
    """A RayJob as the API server knows it.

    Attributes:
        id: the RayJob's name.
        state: the operator's, such as Initializing, Running, Suspended (in a queue), Complete; or Deleting.
        exit_code: of the command; None where it is not known.
    """

    id: str
    sweep: str
    namespace: str
    uid: str
    state: str
    message: str
    entrypoint: str
    exit_code: int | None

    @property
    def is_alive(self) -> bool:
        """Whether it waits or runs."""
        return self.state not in (*ENDED, DELETING)


class _Pod(NamedTuple):
    name: str
    has_ended: bool


def rendered(folder: Path) -> str:
    """All objects of an overlay, as YAML. Asks no cluster. Raises SpecError if kubectl cannot render it."""
    # Without a context: some builds of kubectl ask its cluster for a version first, whatever they are to do.
    done = _kubectl("kustomize", str(folder), environment={**os.environ, "KUBECONFIG": os.devnull})
    if done.returncode != 0:
        raise SpecError(f"{folder}: {_line(done.stderr)}")
    return done.stdout


class KubernetesJobs:
    """The sweeps of a namespace, in the cluster of kubectl's current context.

    All methods raise ResourceError, in one line, where kubectl, the cluster, its RayJobs or a permission is missing.
    """

    def __init__(self, namespace: str = NAMESPACE) -> None:
        check_label("--namespace", namespace)
        self.namespace = namespace

    def submit(
        self,
        manifest: Manifest,
        *,
        on_wait: Callable[[str], None] = lambda line: None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> Submitted:
        """Create a sweep's RayJob in place of one that has ended; the one that is at work already, if there is one.

        Args:
            on_wait: is told once if an old job takes its time to go.
        """
        sweep = manifest["metadata"]["annotations"][SWEEP]
        give_up_at = time.monotonic() + GONE_SECONDS
        has_waited = False
        while time.monotonic() < give_up_at:
            known = self._find(sweep)
            if known is None:
                created = self._create(manifest)
                if created is not None:
                    return Submitted(created, is_new=True)
            elif known.is_alive:
                return Submitted(known, is_new=False)
            elif known.state != DELETING:
                self._delete(known)
            else:
                if not has_waited:
                    on_wait(f"waiting for the last pods of {known.id} to go")
                    has_waited = True
                sleep(POLL_SECONDS)
        raise ResourceError(f"{job_name(sweep)} is still being deleted: submit it again when its pods are gone")

    def latest(self, sweep: str) -> KubernetesJob:
        """The job of a sweep. Raises SpecError if there is none."""
        found = self._find(sweep)
        if found is None:
            raise SpecError(f"no job of the sweep {sweep} is in the namespace {self.namespace}")
        return found

    def logs(self, job: KubernetesJob) -> str:
        """All that a job has printed, in all of its attempts."""
        return "".join(line for pod in self._pods(job) for line in self._lines(pod, follow=False))

    def follow(self, job: KubernetesJob, *, sleep: Callable[[float], None] = time.sleep) -> Iterator[str]:
        """What a job prints, until it ends. A retry goes on with the next pod, a lost connection where it was."""
        num_shown: dict[str, int] = {}
        read_to_the_end: set[str] = set()
        while True:
            known = self._find(job.sweep)  # Before its output, so that none of its last words is missed.
            for pod in self._pods(job):
                if pod.name in read_to_the_end:
                    continue
                for number, line in enumerate(self._lines(pod, follow=True), start=1):
                    if number > num_shown.get(pod.name, 0):
                        num_shown[pod.name] = number
                        yield line
                if pod.has_ended:
                    read_to_the_end.add(pod.name)
            if known is None or known.uid != job.uid or not known.is_alive:
                return
            sleep(POLL_SECONDS)

    def cancel(self, job: KubernetesJob) -> None:
        """Delete a job, which ends its command as a signal would: what is finished is kept."""
        self._delete(job)

    def _find(self, sweep: str) -> KubernetesJob | None:
        name = job_name(sweep)
        done = _ask("get", f"{self._rayjobs}/{name}")
        if done.returncode != 0:
            if f'"{name}" not found' in done.stderr:
                return None
            raise self._refusal(done.stderr)
        job = _job_of(json.loads(done.stdout))
        if job.sweep != sweep:
            raise SpecError(
                f"the RayJob {name} in the namespace {self.namespace} is not of the sweep {sweep}: "
                "submit it under another --name"
            )
        return job

    def _create(self, manifest: Manifest) -> KubernetesJob | None:
        """The new job; None if there is one of its name by now."""
        options = urlencode({"fieldManager": "prune-cli", "fieldValidation": "Strict"})
        # A date in an overlay is the text that it was.
        body = json.dumps(manifest, default=str)
        done = _ask("create", f"{self._rayjobs}?{options}", body=body)
        if done.returncode == 0:
            return _job_of(json.loads(done.stdout))
        if "(AlreadyExists)" in done.stderr:
            return None
        raise self._refusal(done.stderr)

    def _delete(self, job: KubernetesJob) -> None:
        """Delete this very job, and not one that took its name since. It stays until the last of its pods is gone."""
        options = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Foreground",
            "preconditions": {"uid": job.uid},
        }
        done = _ask("delete", f"{self._rayjobs}/{job.id}", body=json.dumps(options))
        if done.returncode != 0 and "(Conflict)" not in done.stderr and f'"{job.id}" not found' not in done.stderr:
            raise self._refusal(done.stderr)

    def _pods(self, job: KubernetesJob) -> list[_Pod]:
        """That submitted the job and show what it prints, the oldest first."""
        query = urlencode({"labelSelector": f"batch.kubernetes.io/job-name={job.id}"})
        path = f"/api/v1/namespaces/{self.namespace}/pods?{query}"
        done = _ask("get", path)
        if done.returncode != 0:
            raise self._refusal(done.stderr)
        pods = sorted(json.loads(done.stdout)["items"], key=lambda pod: str(pod["metadata"]["creationTimestamp"]))
        return [
            _Pod(pod["metadata"]["name"], pod.get("status", {}).get("phase") in ("Succeeded", "Failed")) for pod in pods
        ]

    def _lines(self, pod: _Pod, *, follow: bool) -> Iterator[str]:
        words = ["logs", pod.name, "--namespace", self.namespace, "--tail=-1", *(["--follow"] if follow else [])]
        with tempfile.TemporaryFile("w+", **_TEXT) as errors:
            with _started(words, errors=errors) as running:
                assert running.stdout is not None
                has_lines = False
                try:
                    for line in running.stdout:
                        has_lines = True
                        yield line
                except BaseException:  # a signal, or nobody who listens any more
                    running.kill()
                    raise
            errors.seek(0)
            said = errors.read()
        # After some lines it is a connection that broke: whoever follows asks again.
        is_cut = follow and has_lines
        if running.returncode != 0 and not is_cut and not any(one in said for one in _NO_LOGS):
            raise self._refusal(said)

    @property
    def _rayjobs(self) -> str:
        return f"/apis/ray.io/v1/namespaces/{self.namespace}/rayjobs"

    def _refusal(self, said: str) -> ResourceError:
        line = _line(said)
        if "could not find the requested resource" in line:
            return ResourceError("the cluster has no RayJobs: install KubeRay's operator, step 1 of k8s/README.md")
        if f'namespaces "{self.namespace}" not found' in line:
            return ResourceError(
                f"there is no namespace {self.namespace}: make it by step 3 of k8s/README.md, or name another one "
                "with --namespace"
            )
        if re.search(
            r"Unable to connect|connection to the server|context was not found|context .* does not exist", line
        ):
            return ResourceError(
                f"kubectl reaches no cluster: {line}; `kubectl config get-contexts` shows those that it knows"
            )
        return ResourceError(f"the cluster refused: {line}")


def _ask(verb: str, path: str, *, body: str | None = None) -> subprocess.CompletedProcess[str]:
    """A request to the API server, and its answer as JSON."""
    sent = [] if body is None else ["-f", "-"]
    return _kubectl(verb, "--raw", path, *sent, f"--request-timeout={REQUEST_SECONDS}s", body=body or "")


def _kubectl(
    *words: str, body: str = "", environment: Mapping[str, str] = os.environ
) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            ["kubectl", *words], input=body, env=environment, capture_output=True, check=False, **_TEXT
        )
    except OSError as error:
        raise _no_kubectl(error) from error


def _started(words: Sequence[str], *, errors: IO[str]) -> subprocess.Popen[str]:
    pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": errors}
    try:
        return subprocess.Popen(["kubectl", *words], **pipes, **_TEXT)
    except OSError as error:
        raise _no_kubectl(error) from error


def _no_kubectl(error: OSError) -> ResourceError:
    return ResourceError(
        f"--kubernetes needs kubectl on the PATH ({error.strerror}): https://kubernetes.io/docs/tasks/tools"
    )


def _line(said: str) -> str:
    """What kubectl says went wrong, without its notes to itself; where there is nothing else, the last of these."""
    lines = [line.strip() for line in said.splitlines() if line.strip() and not re.match(r"[EIW]\d{4} ", line)]
    lines = lines or re.findall(r'err="(.*)"', said)[-1:]
    return " ".join(lines).removeprefix("Error from server ").removeprefix("error: ")[:300]


def _job_of(found: dict[str, Any]) -> KubernetesJob:
    metadata, status = found["metadata"], found.get("status", {})
    name, labels = metadata["name"], metadata.get("labels") or {}
    # One that was applied by hand has no annotation; its name is the sweep's.
    by_hand = name if labels.get(ROLE) == "sweep" else ""
    message = ": ".join(str(status[key]) for key in ("reason", "message") if status.get(key))
    code = re.search(r"failed with exit code (\d+)", message)
    has_succeeded = status.get("jobStatus") == "SUCCEEDED"
    return KubernetesJob(
        id=name,
        sweep=(metadata.get("annotations") or {}).get(SWEEP, by_hand),
        namespace=metadata["namespace"],
        uid=metadata["uid"],
        state=DELETING if metadata.get("deletionTimestamp") else status.get("jobDeploymentStatus") or "Pending",
        message=message,
        entrypoint=found["spec"].get("entrypoint", ""),
        exit_code=0 if has_succeeded else int(code[1]) if code else None,
    )
