"""What kubectl says, in one line of ours. Every text here is one that a kubectl has written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from raypruning.errors import ResourceError, SpecError
from raypruning.runtime.kubernetes_jobs import KubernetesJob, KubernetesJobs, rendered

JOB = KubernetesJob("night", "night", "raypruning", "uid-1", "Running", "", "", None)
NOTE = (
    'E1127 21:36:25.241298    6978 memcache.go:265] "Unhandled Error" err="couldn\'t get current server API group '
    'list: dial tcp 127.0.0.1:8080: connect: connection refused"\n'
)


@pytest.fixture
def kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A kubectl that prints some text, complains and fails; pods it lists first."""

    def install(*, complaint: str = "", output: str = "", pods: tuple[str, ...] = ()) -> None:
        items = [{"metadata": {"name": pod, "creationTimestamp": ""}, "status": {"phase": "Running"}} for pod in pods]
        for name, text in (("complaint", complaint), ("output", output), ("pods", json.dumps({"items": items}))):
            (tmp_path / name).write_text(text)
        program = tmp_path / "kubectl"
        program.write_text(
            "#!/bin/sh\n"
            f'case "$*" in */pods*) exec /bin/cat {tmp_path}/pods;; esac\n'
            f"/bin/cat {tmp_path}/output\n/bin/cat {tmp_path}/complaint >&2\nexit 1\n"
        )
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))

    return install


@pytest.mark.parametrize(
    ("complaint", "says"),
    [
        (
            f"{NOTE * 5}The connection to the server localhost:8080 was refused - did you specify the right host?\n",
            "kubectl reaches no cluster: The connection to the server localhost:8080 was refused",
        ),
        ("Unable to connect to the server: EOF\n", "kubectl reaches no cluster: Unable to connect to the server: EOF;"),
        (
            "Error in configuration: context was not found for specified context: gone\n",
            "kubectl reaches no cluster: Error in configuration: context was not found for specified context: gone;",
        ),
        (
            "Error from server (NotFound): the server could not find the requested resource\n",
            "the cluster has no RayJobs: install KubeRay's operator, step 1 of k8s/README.md",
        ),
        (
            'Error from server (Forbidden): rayjobs.ray.io "night" is forbidden: User "jane" cannot get resource\n',
            'the cluster refused: (Forbidden): rayjobs.ray.io "night" is forbidden: User "jane" cannot get resource',
        ),
        (
            "error: You must be logged in to the server (Unauthorized)\n",
            "the cluster refused: You must be logged in to the server (Unauthorized)",
        ),
    ],
)
def test_complaint_of_kubectl_is_one_line_that_says_what_to_do(complaint: str, says: str, kubectl):
    kubectl(complaint=complaint)
    with pytest.raises(ResourceError) as raised:
        KubernetesJobs().latest("night")
    assert str(raised.value).startswith(says)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "complaint",
    [
        "error: unable to find one of 'kustomization.yaml', 'kustomization.yml' or 'Kustomization' in directory 'x'\n",
        'E1127 21:48:12.254264   119 run.go:72] "command failed" err="unable to find one of \'kustomization.yaml\'"\n',
    ],
)
def test_overlay_that_does_not_render_is_named_with_the_reason(complaint: str, kubectl):
    kubectl(complaint=complaint)
    with pytest.raises(SpecError, match=r"^k8s/mine: unable to find one of 'kustomization\.yaml'"):
        rendered(Path("k8s/mine"))


def test_logs_that_break_off_are_no_whole_logs(kubectl):
    kubectl(output="one\n", complaint="error: unexpected EOF\n", pods=("night-1",))
    with pytest.raises(ResourceError, match="the cluster refused: unexpected EOF"):
        KubernetesJobs().logs(JOB)


@pytest.mark.parametrize(
    "complaint",
    [
        'Error from server (BadRequest): container "s" in pod "night-1" is waiting to start: ContainerCreating\n',
        'Error from server (NotFound): pods "night-1" not found\n',
    ],
)
def test_pod_that_has_printed_nothing_or_is_gone_has_no_logs(complaint: str, kubectl):
    kubectl(complaint=complaint, pods=("night-1",))
    assert KubernetesJobs().logs(JOB) == ""


def test_program_that_is_no_program_is_no_kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "kubectl").write_text("")
    for call in (lambda: KubernetesJobs().latest("night"), lambda: rendered(Path("k8s/mine"))):
        with pytest.raises(ResourceError, match="--kubernetes needs kubectl on the PATH"):
            call()
