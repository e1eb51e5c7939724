"""The manifests of k8s/: they render, fit every schema and rule at hand, and say what the command and the code say.

Nothing here asks an API server. A rule that finds nothing proves little, so for each of them an error is planted.
"""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Callable

import pytest
import yaml

from tests import test_docs as docs
from tests.k8s import crd, flows, operator_rules, own_rules
from tests.k8s.flows import Flow
from tests.k8s.quantities import amount
from tests.k8s.rendering import (
    K8S,
    KUBECTL,
    OVERLAYS,
    PLACES,
    ROOT,
    Manifest,
    base_by_hand,
    documents,
    of_kind,
    pods,
    rayjob,
    rendered,
    the,
)

kubernetes_validate = pytest.importorskip("kubernetes_validate")

KUBERNETES = ("1.32", "1.37")  # the oldest that is still served, and the newest whose schemas are at hand
README = K8S / "README.md"
DOCKERFILE = K8S / "Dockerfile"

needs_kubectl = pytest.mark.skipif(KUBECTL is None, reason="no kubectl: k8s/ is checked only as far as files go")
needs_crds = pytest.mark.skipif(not crd.is_there(), reason=crd.WHY_SKIPPED)
every_place = pytest.mark.parametrize("place", PLACES)


# -- rendered


def test_overlays_are_the_ones_that_the_readme_describes():
    assert OVERLAYS == ["gpu", "gpu-spot", "kueue", "local", "local-mnist"]
    assert all(f"overlays/{name}" in README.read_text() for name in OVERLAYS)


@needs_kubectl
def test_base_put_together_by_hand_is_what_kubectl_renders():
    def plain(manifests: list[Manifest]) -> dict[str, Manifest]:
        for one in manifests:
            labels = one["metadata"].get("labels", {})
            labels.pop("app.kubernetes.io/part-of", None)
            if not labels:
                one["metadata"].pop("labels", None)
        return {f"{one['kind']}/{one['metadata']['name']}": one for one in manifests}

    assert plain(rendered("base")) == plain(base_by_hand())


@needs_kubectl
@every_place
@pytest.mark.parametrize("version", KUBERNETES)
def test_objects_fit_the_schemas_of_kubernetes(place: str, version: str):
    for one in rendered(place):
        if one["kind"] != "RayJob":
            kubernetes_validate.validate(one, version, strict=True)


@needs_kubectl
@needs_crds
@every_place
def test_rayjob_fits_the_schema_of_its_resource(place: str):
    assert crd.complaints(rayjob(rendered(place))) == []


@needs_kubectl
@every_place
def test_rayjob_is_one_that_the_operator_takes(place: str):
    assert operator_rules.complaints(rayjob(rendered(place))) == []


@needs_kubectl
@every_place
def test_objects_keep_our_own_rules(place: str):
    assert own_rules.complaints(rendered(place)) == []


@needs_kubectl
@every_place
def test_network_policies_cover_every_pod_and_agree_at_both_ends(place: str):
    assert flows.complaints(rendered(place)) == []


def test_base_keeps_all_rules_without_kubectl_too():
    base = base_by_hand()
    assert operator_rules.complaints(rayjob(base)) == []
    assert own_rules.complaints(base) == []
    assert flows.complaints(base) == []


# -- what talks to what

RAY = "tcp/1024-65535"
IN_ALL = {
    *(Flow(source, target, RAY) for source in ("head", "worker") for target in ("head", "worker")),
    Flow("submitter", "head", "tcp/8265"),
    Flow("head", "mlflow", "tcp/5000"),
    Flow("mlflow", "postgres", "tcp/5432"),
}
ANY_S3 = "0.0.0.0/0 but 5 ranges"
OUT_OF_ALL = {
    *IN_ALL,
    *(Flow(role, "kube-system/kube-dns", "udp/53 tcp/53") for role in ("submitter", "head", "worker", "mlflow")),
}
TO_THE_API = {Flow("head", cidr, "tcp/443 tcp/6443") for cidr in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")}
TO_MINIO = {Flow("mlflow", "minio", "tcp/9000")}


@needs_kubectl
@pytest.mark.parametrize(
    ("place", "more_in", "more_out"),
    [
        ("base", set(), TO_THE_API | {Flow("mlflow", ANY_S3, "tcp/443")}),
        ("overlays/gpu", set(), TO_THE_API | {Flow("mlflow", ANY_S3, "tcp/443")}),
        (
            "overlays/gpu-spot",
            set(),
            TO_THE_API
            | {Flow(role, ANY_S3, "tcp/443") for role in ("mlflow", "head", "worker", "files")}
            | {Flow("files", "kube-system/kube-dns", "udp/53 tcp/53")},
        ),
        ("overlays/kueue", set(), {Flow("mlflow", ANY_S3, "tcp/443")}),
        ("overlays/local", TO_MINIO, TO_THE_API | TO_MINIO),
    ],
)
def test_flows_are_exactly_these(place: str, more_in: set[Flow], more_out: set[Flow]):
    operator = Flow("kuberay-system/kuberay-operator", "head", "tcp/8265")
    assert flows.flows(rendered(place), "Ingress") == IN_ALL | {operator} | more_in
    assert flows.flows(rendered(place), "Egress") == OUT_OF_ALL | more_out


def test_metadata_service_of_the_nodes_is_never_reached():
    (policy,) = [one for one in of_kind(base_by_hand(), "NetworkPolicy") if one["metadata"]["name"] == "s3"]
    (rule,) = policy["spec"]["egress"]
    assert "169.254.0.0/16" in rule["to"][0]["ipBlock"]["except"]


# -- the command in the manifest is the command that a person types


def entrypoint(place: str) -> list[str]:
    job = rayjob(base_by_hand() if place == "base" else rendered(place))
    program, *words = shlex.split(job["spec"]["entrypoint"])
    assert program == "prune-cli"
    return words


def flag(words: list[str], name: str) -> str | None:
    return words[words.index(name) + 1] if name in words else None


def test_command_of_the_base_is_the_one_that_the_readme_explains():
    assert " ".join(["prune-cli", *entrypoint("base")]) == (
        "prune-cli sweep resnet101 --delta 0.005 --address auto --storage /storage "
        "--tracking-uri http://mlflow.raypruning.svc:5000 --data-dir /data"
    )


@needs_kubectl
@every_place
def test_command_parses_and_survives_two_shells(place: str):
    docs.parse(entrypoint(place))
    text = rayjob(rendered(place))["spec"]["entrypoint"]
    # The submitter's shell and that of the job's driver both read it, unquoted.
    assert re.fullmatch(r"[A-Za-z0-9 ./:_=@,-]+", text), text
    assert flag(entrypoint(place), "--address") == "auto"


@needs_kubectl
@every_place
def test_command_names_a_tracking_server_that_listens_and_lets_it_in(place: str):
    manifests = rendered(place)
    address = re.fullmatch(r"http://([a-z]+)\.([a-z]+)\.svc:(\d+)", str(flag(entrypoint(place), "--tracking-uri")))
    assert address is not None
    service = the(manifests, "Service", address[1])
    assert service["metadata"]["namespace"] == address[2]
    assert service["spec"]["ports"][0]["port"] == int(address[3])
    (server,) = the(manifests, "Deployment", "mlflow")["spec"]["template"]["spec"]["containers"]
    arguments = dict(one.removeprefix("--").partition("=")[::2] for one in server["args"])
    assert address[0].removeprefix("http://") in arguments["allowed-hosts"].split(",")
    assert "*" not in arguments["allowed-hosts"].split(",")
    assert arguments["port"] == str(server["ports"][0]["containerPort"]) == address[3]
    assert arguments["app-name"] == "basic-auth"


@needs_kubectl
@every_place
def test_command_names_folders_that_every_ray_node_mounts(place: str):
    words = entrypoint(place)
    storage = str(flag(words, "--storage"))
    ray_pods = [pod for pod in pods(rendered(place)) if pod.role in ("head", "worker")]
    assert len(ray_pods) == 2
    for pod in ray_pods:
        ray = dict(pod.containers)[f"ray-{pod.role}"]
        mounts = {one["mountPath"]: one.get("readOnly", False) for one in ray["volumeMounts"]}
        if storage.startswith("s3://"):
            names = {one[kind]["name"] for one in ray["envFrom"] for kind in one}
            assert [list(one) for one in ray["envFrom"]].count(["secretRef"]) == 1
            assert "s3" in names
            assert "/storage" not in mounts
        else:
            assert mounts[storage] is False
        assert mounts[flag(words, "--data-dir") or "/data"] is True


@needs_kubectl
@every_place
def test_command_asks_for_no_more_than_a_worker_has(place: str):
    words = entrypoint(place)
    (worker,) = [pod for pod in pods(rendered(place)) if pod.role == "worker"]
    limits = worker.containers[0][1]["resources"]["limits"]
    assert float(flag(words, "--cpus-per-probe") or 1) <= amount(limits["cpu"])
    assert float(flag(words, "--gpus-per-probe") or 0) == amount(limits.get("nvidia.com/gpu", 0))
    (group,) = rayjob(rendered(place))["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    assert int(flag(words, "--max-concurrent") or group["maxReplicas"]) == group["maxReplicas"]


@needs_kubectl
@every_place
def test_sweep_continues_and_ends_and_never_begins_with_no_worker(place: str):
    spec = rayjob(rendered(place))["spec"]
    assert "--fresh" not in spec["entrypoint"]
    assert spec["backoffLimit"] > 0
    assert spec["shutdownAfterJobFinishes"] is True
    assert spec["ttlSecondsAfterFinished"] > 0
    assert spec["activeDeadlineSeconds"] > 0
    cluster = spec["rayClusterSpec"]
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    # A cluster without a single CPU for probes is refused by the command before any autoscaler hears of it.
    assert all(group["replicas"] >= 1 for group in cluster["workerGroupSpecs"])
    for pod in pods(rendered(place)):
        if pod.role in ("head", "worker"):
            assert pod.spec["terminationGracePeriodSeconds"] == 100


@needs_kubectl
@every_place
def test_pod_for_files_is_off_and_reaches_the_volumes_by_the_same_names(place: str):
    files = the(rendered(place), "Deployment", "files")["spec"]
    assert files["replicas"] == 0
    (container,) = files["template"]["spec"]["containers"]
    mounts = {one["mountPath"] for one in container["volumeMounts"]}
    assert "/data" in mounts
    assert ("/storage" in mounts) == (flag(entrypoint(place), "--storage") == "/storage")


@needs_kubectl
def test_workers_are_on_spot_nodes_in_one_overlay_alone():
    found = {
        place: own_rules.spot_nodes_only(pod)
        for place in PLACES
        for pod in pods(rendered(place))
        if pod.role == "worker"
    }
    assert [place for place, is_spot in found.items() if is_spot] == ["overlays/gpu-spot"]


@needs_kubectl
def test_fixed_size_overlay_has_no_trace_of_an_autoscaler():
    text = yaml.dump(rendered("overlays/kueue"))
    assert not re.search(r"autoscalerOptions|autoscaler-tmp|api-token|serviceAccountToken:", text)


# -- versions


def constraints() -> dict[str, str]:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line]
    return dict(line.partition("==")[::2] for line in lines)


@needs_kubectl
@every_place
def test_versions_are_those_of_the_constraints(place: str):
    manifests = rendered(place)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert rayjob(manifests)["spec"]["rayClusterSpec"]["rayVersion"] == constraints()["ray"]
    images = {container["image"] for pod in pods(manifests) for _, container in pod.containers if "image" in container}
    tags = dict(image.rpartition("/")[2].partition(":")[::2] for image in images)
    assert tags["raypruning"].removesuffix("-gpu") == project["version"]
    assert tags["raypruning-mlflow"] == constraints()["mlflow"]


def test_dockerfile_takes_every_version_from_the_constraints():
    text = DOCKERFILE.read_text().replace("\\\n", " ")
    installs = re.findall(r"pip install ([^&\n]*)", text)
    assert len(installs) == 4
    assert all("-c constraints.txt" in one for one in installs)
    words = " ".join(installs).replace("-c constraints.txt", "")
    assert "==" not in words, "a version of its own"
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert "cluster" in extra
    server = {re.split(r"[><=]", one)[0] for one in extra["tracking-server"]}
    assert server == set(installs[0].removeprefix("-c constraints.txt").split())


def test_dockerfile_is_pinned_runs_as_nobody_and_names_no_registry():
    text = DOCKERFILE.read_text()
    assert re.search(r"^ARG PYTHON=python:3\.11-slim", text, re.MULTILINE)
    assert all(base in ("${PYTHON}", "builder", "runtime") for base in re.findall(r"^FROM (\S+)", text, re.MULTILINE))
    users = re.findall(r"^(?:FROM .* AS (\w+)|USER (\S+))", text, re.MULTILINE)
    assert users[-1] == ("", "1000:1000"), "the last word is no root's"
    assert "useradd --uid 1000" in text
    copied = {word for line in re.findall(r"^COPY (?!--from)(.*)$", text, re.MULTILINE) for word in line.split()[:-1]}
    assert all((ROOT / word).exists() for word in copied)
    allowed = {line[1:] for line in (K8S / "Dockerfile.dockerignore").read_text().splitlines() if line[0] == "!"}
    assert copied == allowed


def test_tags_of_the_commands_that_build_are_the_manifests():
    tags = set(re.findall(r"-t (raypruning[a-z-]*:[\w.-]+)", DOCKERFILE.read_text() + README.read_text()))
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert {tag.removesuffix("-gpu") for tag in tags} == {
        f"raypruning:{version}",
        f"raypruning-mlflow:{constraints()['mlflow']}",
    }


# -- secrets


def test_no_file_here_holds_or_makes_a_secret():
    for path in K8S.rglob("*.yaml"):
        text = path.read_text()
        assert not re.search(r"^\s*(secretGenerator|stringData):", text, re.MULTILINE), path
        # JSON patches are lists of operations, and no objects.
        assert [one for one in documents(path) if isinstance(one, dict) and one.get("kind") == "Secret"] == [], path


def test_readme_makes_every_secret_that_a_manifest_names():
    made: dict[str, set[str]] = {}
    for block in docs.code_blocks(README.read_text()):
        for line in block.replace("\\\n", " ").splitlines():
            found = re.search(r"create secret generic (\w[\w-]*)", line)
            if found:
                made.setdefault(found[1], set()).update(re.findall(r"--from-literal=([\w-]+)=", line))
    assert made == own_rules.SECRETS


# -- the README


@pytest.mark.parametrize(
    "check",
    [
        docs.test_links_of_a_document_resolve,
        docs.test_commands_of_a_document_parse,
        docs.test_commands_within_sentences_name_what_exists,
    ],
)
def test_readme_is_as_true_as_the_other_documents(check: Callable[..., None]):
    check(README)


def test_commands_that_the_readme_runs_in_a_pod_parse():
    found = re.findall(r"-- prune-cli ([^`\n]+)", README.read_text())
    assert len(found) >= 3
    for words in found:
        docs.parse(shlex.split(words))


def test_readme_names_files_that_are_there():
    named = set(re.findall(r"k8s/[\w./-]+", README.read_text()))
    assert named
    assert [name for name in named if not (ROOT / name.rstrip("./")).exists()] == []
