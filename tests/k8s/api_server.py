"""An API server of RayJobs and their pods, as much of one as kubectl needs; with no operator behind it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.k8s.rendering import Manifest

JOB_OF_POD = "batch.kubernetes.io/job-name"
RESOURCES = {
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": []},
    "/version": {"major": "1", "minor": "32", "gitVersion": "v1.32.4"},
    "/api/v1": {
        "kind": "APIResourceList",
        "groupVersion": "v1",
        "resources": [
            {"name": "pods", "singularName": "pod", "namespaced": True, "kind": "Pod", "verbs": ["get", "list"]},
        ],
    },
}


class Cluster:
    """What the server knows, for a test to look at and to change.

    Attributes:
        jobs: RayJobs by namespace and name.
        printed: what each pod has printed, by its name; None while its container waits to start.
        requests: method and path of each, the oldest first.
        before: called once before the next request of a method; for what somebody else does at that moment.
        num_looks_until_gone: how often a deleted job is seen still.
    """

    def __init__(self) -> None:
        self.namespaces = {"raypruning"}
        self.has_operator = True
        self.is_forbidden = False
        self.jobs: dict[tuple[str, str], Manifest] = {}
        self.pods: list[Manifest] = []
        self.printed: dict[str, str | None] = {}
        self.requests: list[tuple[str, str]] = []
        self.before: dict[str, Callable[[], object]] = {}
        self.num_looks_until_gone = 1
        self._looks: dict[tuple[str, str], int] = {}
        self._num_made = 0

    def add(self, job: Manifest, **status: str) -> Manifest:
        """A RayJob, as somebody else would make it."""
        self._num_made += 1
        metadata = {**job["metadata"], "uid": f"uid-{self._num_made}", "creationTimestamp": "2026-01-01T00:00:00Z"}
        made = {**job, "metadata": metadata, "status": status}
        self.jobs[metadata["namespace"], metadata["name"]] = made
        return made

    def add_pod(self, name: str, *, job: str, text: str | None, phase: str = "Running") -> None:
        """A submitter's pod, later than those that there are."""
        minute = f"{len(self.pods):02}"
        metadata = {"name": name, "namespace": "raypruning", "labels": {JOB_OF_POD: job}}
        metadata["creationTimestamp"] = f"2026-01-01T00:{minute}:00Z"
        spec = {"containers": [{"name": "ray-job-submitter", "image": "raypruning"}]}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": {"phase": phase}}
        self.pods.append(pod)
        self.printed[name] = text

    def answer(self, method: str, url: str, body: str) -> tuple[int, Any]:
        """Status and object, or text, of a request."""
        path, query = urlsplit(url).path, parse_qs(urlsplit(url).query)
        self.requests.append((method, url))
        if method in self.before:
            self.before.pop(method)()
        if path in RESOURCES:
            return 200, RESOURCES[path]
        if self.is_forbidden:
            return refusal(403, "Forbidden", 'rayjobs.ray.io is forbidden: User "jane" cannot do it')
        if found := re.fullmatch(r"/apis/ray\.io/v1/namespaces/([^/]+)/rayjobs/?([^/]*)", path):
            if not self.has_operator:
                return refusal(404, "NotFound", "the server could not find the requested resource")
            return self._of_jobs(method, (found[1], found[2]), json.loads(body or "{}"))
        if found := re.fullmatch(r"/api/v1/namespaces/[^/]+/pods(?:/([^/]+))?(/log)?", path):
            return self._of_pods(found[1], is_log=bool(found[2]), query=query)
        return refusal(404, "NotFound", "the server could not find the requested resource")

    def _of_jobs(self, method: str, key: tuple[str, str], sent: Manifest) -> tuple[int, Any]:
        if method == "POST":
            key = (key[0], sent["metadata"]["name"])
            if key[0] not in self.namespaces:
                return refusal(404, "NotFound", f'namespaces "{key[0]}" not found')
            if key in self.jobs:
                return refusal(409, "AlreadyExists", f'rayjobs.ray.io "{key[1]}" already exists')
            return 201, self.add(sent)
        if key not in self.jobs:
            return refusal(404, "NotFound", f'rayjobs.ray.io "{key[1]}" not found')
        job = self.jobs[key]
        if method == "DELETE":
            wanted, there = sent["preconditions"]["uid"], job["metadata"]["uid"]
            if wanted != there:
                why = f"the UID in the precondition ({wanted}) does not match the UID in record ({there})"
                return refusal(409, "Conflict", f'Operation cannot be fulfilled on rayjobs.ray.io "{key[1]}": {why}')
            job["metadata"]["deletionTimestamp"] = "2026-01-01T01:00:00Z"
            self._looks[key] = self.num_looks_until_gone
            return 200, job
        if key in self._looks:
            self._looks[key] -= 1
            if self._looks[key] < 0:
                del self.jobs[key], self._looks[key]
                return refusal(404, "NotFound", f'rayjobs.ray.io "{key[1]}" not found')
        return 200, job

    def _of_pods(self, name: str | None, *, is_log: bool, query: dict[str, list[str]]) -> tuple[int, Any]:
        if name is None:
            job = query["labelSelector"][0].removeprefix(f"{JOB_OF_POD}=")
            items = [pod for pod in self.pods if pod["metadata"]["labels"][JOB_OF_POD] == job]
            return 200, {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}
        (pod,) = [pod for pod in self.pods if pod["metadata"]["name"] == name]
        if not is_log:
            return 200, pod
        text = self.printed[name]
        if text is None:
            why = f'container "ray-job-submitter" in pod "{name}" is waiting to start: ContainerCreating'
            return refusal(400, "BadRequest", why)
        return 200, text


def refusal(code: int, reason: str, message: str) -> tuple[int, Manifest]:
    """As the API server words one."""
    status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
    return code, {**status, "message": message, "reason": reason, "code": code}


@contextmanager
def served(cluster: Cluster, kubeconfig: Path) -> Iterator[None]:
    """Serve a cluster, and write how kubectl finds it."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            code, found = cluster.answer(self.command, self.path, self._body())
            text = found if isinstance(found, str) else json.dumps(found)
            self.send_response(code)
            self.send_header("Content-Type", "text/plain" if isinstance(found, str) else "application/json")
            self.end_headers()
            self.wfile.write(text.encode())

        def _body(self) -> str:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            chunks = []
            while size := int(self.rfile.readline(), 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(chunks).decode()

        do_GET = do_POST = do_DELETE = answer

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    address = f"http://127.0.0.1:{server.server_address[1]}"
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": {"server": address}}],
        "users": [{"name": "test", "user": {}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "current-context": "test",
    }
    kubeconfig.write_text(json.dumps(config))
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
