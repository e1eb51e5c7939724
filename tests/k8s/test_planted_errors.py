"""What the rules of tests/k8s are worth: for each of them an error is planted, and found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.k8s import crd, flows, operator_rules, own_rules
from tests.k8s.flows import Flow
from tests.k8s.quantities import amount
from tests.k8s.rendering import Manifest, base_by_hand, of_kind, pods, rayjob, the

kubernetes_validate = pytest.importorskip("kubernetes_validate")

NEWEST = "1.37"

needs_crds = pytest.mark.skipif(not crd.is_there(), reason=crd.WHY_SKIPPED)


# -- the operator's rules

Change = Callable[[Manifest], Any]


def cluster(job: Manifest) -> Manifest:
    return job["spec"]["rayClusterSpec"]


def head(job: Manifest) -> Manifest:
    return cluster(job)["headGroupSpec"]


def worker(job: Manifest) -> Manifest:
    return cluster(job)["workerGroupSpecs"][0]


def set_environment(job: Manifest, name: str) -> None:
    head(job)["template"]["spec"]["containers"][0]["env"].append({"name": name, "value": "true"})


def queue(job: Manifest, **options: Any) -> None:
    """As for Kueue, but for what is then changed."""
    job["metadata"]["labels"][operator_rules.QUEUE] = "sweeps"
    cluster(job)["enableInTreeAutoscaling"] = False
    del cluster(job)["autoscalerOptions"]
    worker(job).update(replicas=4, minReplicas=4, maxReplicas=4, **options)


REFUSED: list[tuple[str, Change, str]] = [
    ("long name", lambda j: j["metadata"].update(name="a" * 48), "48 characters"),
    ("name of a digit", lambda j: j["metadata"].update(name="101-resnet"), "no DNS-1035 label"),
    ("name in capitals", lambda j: j["metadata"].update(name="ResNet"), "no DNS-1035 label"),
    ("no cluster", lambda j: j["spec"].pop("rayClusterSpec"), "neither rayClusterSpec nor"),
    ("selector of nothing", lambda j: j["spec"].update(clusterSelector={"a": "b"}), "without ray.io/cluster"),
    ("ttl alone", lambda j: j["spec"].update(shutdownAfterJobFinishes=False), "ttlSecondsAfterFinished needs"),
    ("negative ttl", lambda j: j["spec"].update(ttlSecondsAfterFinished=-1), "ttlSecondsAfterFinished is negative"),
    ("negative retries", lambda j: j["spec"].update(backoffLimit=-1), "backoffLimit is negative"),
    ("no time", lambda j: j["spec"].update(activeDeadlineSeconds=0), "activeDeadlineSeconds must be positive"),
    ("no time before", lambda j: j["spec"].update(preRunningDeadlineSeconds=0), "preRunningDeadlineSeconds must be"),
    (
        "suspended, kept",
        lambda j: j["spec"].update(suspend=True, shutdownAfterJobFinishes=False),
        "suspend needs shutdownAfterJobFinishes",
    ),
    (
        "suspended elsewhere",
        lambda j: j["spec"].update(suspend=True, clusterSelector={"ray.io/cluster": "a"}),
        "suspend does not go with clusterSelector",
    ),
    (
        "retries elsewhere",
        lambda j: j["spec"].update(clusterSelector={"ray.io/cluster": "a"}),
        "backoffLimit does not go with clusterSelector",
    ),
    ("retries by hand", lambda j: j["spec"].update(submissionMode="InteractiveMode"), "go with InteractiveMode"),
    ("sidecar and pod", lambda j: j["spec"].update(submissionMode="SidecarMode"), "not go with submitterPodTemplate"),
    ("sidecar and retries", lambda j: j["spec"].update(submissionMode="SidecarMode"), "not go with submitterConfig"),
    (
        "sidecar that restarts",
        lambda j: (
            j["spec"].update(submissionMode="SidecarMode"),
            head(j)["template"]["spec"].update(restartPolicy="Always"),
        ),
        "SidecarMode needs restartPolicy Never",
    ),
    ("broken runtime env", lambda j: j["spec"].update(runtimeEnvYAML="a: [b"), "runtimeEnvYAML is no YAML"),
    ("runtime env of words", lambda j: j["spec"].update(runtimeEnvYAML="words"), "runtimeEnvYAML is no mapping"),
    ("no container", lambda j: worker(j)["template"]["spec"].update(containers=[]), "workers has no container"),
    ("resources twice", lambda j: head(j).update(resources={"CPU": "1"}), "head has num-cpus in rayStartParams"),
    ("labels of ray", lambda j: worker(j)["rayStartParams"].update(labels="a=b"), "workers has labels"),
    ("no minimum", lambda j: worker(j).pop("minReplicas"), "no minReplicas"),
    ("too many", lambda j: worker(j).update(replicas=99), "minReplicas <= replicas <= maxReplicas"),
    ("restarting head", lambda j: head(j)["template"]["spec"].update(restartPolicy="Always"), "head has restartPolicy"),
    (
        "restarting worker",
        lambda j: worker(j)["template"]["spec"].update(restartPolicy="OnFailure"),
        "workers has restartPolicy OnFailure",
    ),
    ("suspended group", lambda j: worker(j).update(suspend=True), "workers is suspended"),
    ("version twice", lambda j: set_environment(j, "RAY_enable_autoscaler_v2"), "are both set"),
    (
        "switched without scaling",
        lambda j: (cluster(j).update(enableInTreeAutoscaling=False), set_environment(j, "RAY_enable_autoscaler_v2")),
        "RAY_enable_autoscaler_v2 is set, and",
    ),
    ("idle options", lambda j: cluster(j).update(enableInTreeAutoscaling=False), "do nothing"),
    ("redis in secret", lambda j: set_environment(j, "RAY_REDIS_ADDRESS"), "without gcsFaultToleranceOptions"),
    ("redis user", lambda j: set_environment(j, "REDIS_USERNAME"), "a user name of Redis"),
    (
        "redis password",
        lambda j: (cluster(j).update(gcsFaultToleranceOptions={}), set_environment(j, "REDIS_PASSWORD")),
        "REDIS_PASSWORD belongs into",
    ),
    (
        "redis twice",
        lambda j: (cluster(j).update(gcsFaultToleranceOptions={}), set_environment(j, "RAY_REDIS_ADDRESS")),
        "RAY_REDIS_ADDRESS belongs into",
    ),
    (
        "redis by flag",
        lambda j: (
            cluster(j).update(gcsFaultToleranceOptions={}),
            head(j)["rayStartParams"].update({"redis-password": "a"}),
        ),
        "redis-password belongs into",
    ),
    (
        "redis by annotation",
        lambda j: (
            cluster(j).update(gcsFaultToleranceOptions={}),
            j["metadata"].update(annotations={"ray.io/ft-enabled": "true"}),
        ),
        "the annotation ray.io/ft-enabled",
    ),
    ("rocksdb", lambda j: cluster(j).update(gcsFaultToleranceOptions={"backend": "rocksdb"}), "rocksdb backend"),
    ("no ray version", lambda j: cluster(j).pop("rayVersion"), "needs a rayVersion, got None"),
    ("old ray", lambda j: cluster(j).update(rayVersion="2.51.1"), "needs Ray 2.52, got 2.51.1"),
    ("kubernetes tokens", lambda j: cluster(j)["authOptions"].update(enableK8sTokenAuth=True), "not for a RayJob"),
    ("gated policy", lambda j: cluster(j).update(networkPolicy={}), "networkPolicy is off in the operator"),
    ("gated tls", lambda j: cluster(j).update(tlsOptions={}), "tlsOptions is off in the operator"),
    ("queued, scaling", lambda j: (queue(j), cluster(j).update(enableInTreeAutoscaling=True)), "Kueue admits a fixed"),
    ("queued, growing", lambda j: queue(j) or worker(j).update(maxReplicas=8), "one number of replicas"),
    (
        "queued, kept",
        lambda j: (queue(j), j["spec"].update(shutdownAfterJobFinishes=False)),
        "Kueue needs shutdownAfterJobFinishes",
    ),
    (
        "queued, elsewhere",
        lambda j: (queue(j), j["spec"].update(clusterSelector={"ray.io/cluster": "a"})),
        "Kueue needs a cluster of the job's own",
    ),
    (
        "queued, many groups",
        lambda j: (queue(j), cluster(j).update(workerGroupSpecs=[worker(j)] * 8)),
        "7 worker groups at most",
    ),
    (
        "queued, uncounted",
        lambda j: (queue(j), worker(j)["template"]["spec"]["containers"][0]["resources"].pop("requests")),
        "has no requests, by which Kueue counts",
    ),
]


@pytest.mark.parametrize(("change", "expected"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_planted_error_that_the_operator_would_refuse_is_found(change: Change, expected: str):
    job = rayjob(base_by_hand())
    change(job)
    found = operator_rules.complaints(job)
    assert any(expected in complaint for complaint in found), found


def test_every_rule_of_the_operator_has_an_error_planted_for_it():
    jobs = []
    for _, change, _ in REFUSED:
        jobs.append(rayjob(base_by_hand()))
        change(jobs[-1])
    silent = [rule.__name__ for rule in operator_rules.RULES if not any(any(rule(job)) for job in jobs)]
    assert silent == []


def test_job_for_kueue_without_an_error_passes():
    job = rayjob(base_by_hand())
    queue(job)
    assert operator_rules.complaints(job) == []


# -- our own rules


def container(manifests: list[Manifest], role: str = "worker") -> Manifest:
    (pod,) = [one for one in pods(manifests) if one.role == role]
    return pod.containers[-1][1] if role != "head" else pod.containers[0][1]  # type: ignore[return-value]


def pod_spec(manifests: list[Manifest], role: str = "worker") -> Manifest:
    (pod,) = [one for one in pods(manifests) if one.role == role]
    return pod.spec  # type: ignore[return-value]


def volume(manifests: list[Manifest], role: str, name: str) -> Manifest:
    (found,) = [one for one in pod_spec(manifests, role)["volumes"] if one["name"] == name]
    return found


def unmount(manifests: list[Manifest], role: str, path: str) -> None:
    mounts = container(manifests, role)["volumeMounts"]
    mounts.remove(next(one for one in mounts if one["mountPath"] == path))


def settings(manifests: list[Manifest], name: str) -> Manifest:
    return the(manifests, "ConfigMap", name)["data"]


def quota(manifests: list[Manifest]) -> Manifest:
    return the(manifests, "ResourceQuota", "raypruning")["spec"]["hard"]


Changes = Callable[[list[Manifest]], Any]
BROKEN: list[tuple[str, Changes, str]] = [
    ("escalation", lambda m: container(m)["securityContext"].pop("allowPrivilegeEscalation"), "gain privileges"),
    ("privileged", lambda m: container(m)["securityContext"].update(privileged=True), "gain privileges"),
    ("capabilities", lambda m: container(m)["securityContext"].pop("capabilities"), "keeps capabilities"),
    (
        "added capability",
        lambda m: container(m)["securityContext"]["capabilities"].update(add=["NET_ADMIN"]),
        "keeps capabilities",
    ),
    (
        "writable",
        lambda m: container(m, "mlflow")["securityContext"].pop("readOnlyRootFilesystem"),
        "write to its root",
    ),
    ("root container", lambda m: container(m)["securityContext"].update(runAsUser=0), "runs as root"),
    (
        "open autoscaler",
        lambda m: cluster(rayjob(m))["autoscalerOptions"].pop("securityContext"),
        "autoscaler may gain privileges",
    ),
    ("open init", lambda m: pod_spec(m, "mlflow")["initContainers"][0].pop("securityContext"), "db-upgrade may gain"),
    ("root pod", lambda m: pod_spec(m, "submitter")["securityContext"].pop("runAsNonRoot"), "may run as root"),
    ("no seccomp", lambda m: pod_spec(m)["securityContext"].pop("seccompProfile"), "no seccomp profile"),
    ("host network", lambda m: pod_spec(m).update(hostNetwork=True), "has hostNetwork"),
    ("host path", lambda m: volume(m, "worker", "cache").update(hostPath={"path": "/x"}), "mounts hostPath /x"),
    ("host port", lambda m: container(m, "postgres")["ports"][0].update(hostPort=5432), "has a hostPort"),
    ("token", lambda m: pod_spec(m).pop("automountServiceAccountToken"), "mounts an API token"),
    ("links", lambda m: pod_spec(m, "mlflow").pop("enableServiceLinks"), "MLFLOW_PORT"),
    ("account", lambda m: pod_spec(m, "postgres").pop("serviceAccountName"), "service account raypruning"),
    (
        "token in the head",
        lambda m: container(m, "head")["volumeMounts"].append({"name": "api-token", "mountPath": "/token"}),
        "ray-head holds an API token",
    ),
    (
        "autoscaler without a token",
        lambda m: cluster(rayjob(m))["autoscalerOptions"]["volumeMounts"].pop(),
        "without which it scales nothing",
    ),
    (
        "account with tokens",
        lambda m: of_kind(m, "ServiceAccount")[0].pop("automountServiceAccountToken"),
        "ServiceAccount/raypruning mounts",
    ),
    ("latest", lambda m: container(m).update(image="raypruning:latest"), "not pinned"),
    ("no tag", lambda m: container(m).update(image="registry:5000/raypruning"), "not pinned"),
    ("pulled again", lambda m: container(m).update(imagePullPolicy="Always"), "pulled once"),
    ("no limits", lambda m: container(m, "mlflow")["resources"].pop("limits"), "no limits of cpu and memory"),
    ("no request", lambda m: container(m)["resources"]["requests"].pop("memory"), "no requests of memory"),
    ("boundless", lambda m: volume(m, "worker", "tmp").update(emptyDir={}), "tmp has no sizeLimit"),
    ("shm on disk", lambda m: volume(m, "worker", "shm")["emptyDir"].pop("medium"), "no /dev/shm in memory"),
    ("large shm", lambda m: volume(m, "head", "shm")["emptyDir"].update(sizeLimit="7Gi"), "half of the memory"),
    ("small shm", lambda m: volume(m, "head", "shm")["emptyDir"].update(sizeLimit="1Mi"), "does not fit /dev/shm"),
    ("many workers", lambda m: worker(rayjob(m)).update(maxReplicas=16), "of requests.cpu, and all together"),
    ("GPUs", lambda m: container(m)["resources"]["requests"].update({"nvidia.com/gpu": "1"}), "nvidia.com/gpu, and"),
    ("no quota", lambda m: quota(m).pop("limits.memory"), "does not bound limits.memory"),
    ("few pods", lambda m: quota(m).update(pods="10"), "the quota has 10 pods, and there may be 13"),
    ("home", lambda m: unmount(m, "worker", "/home/raypruning"), "cannot write to /home/raypruning"),
    ("no home", lambda m: settings(m, "sweep").pop("HOME"), "has no HOME"),
    ("tmp", lambda m: unmount(m, "mlflow", "/tmp"), "cannot write to /tmp"),
    ("cache", lambda m: unmount(m, "head", "/cache"), "cannot write to /cache"),
    ("no claim", lambda m: m.remove(the(m, "PersistentVolumeClaim", "storage")), "there is no claim storage"),
    (
        "writable data",
        lambda m: volume(m, "worker", "data")["persistentVolumeClaim"].pop("readOnly"),
        "could write to the data",
    ),
    (
        "no volume",
        lambda m: container(m)["volumeMounts"].append({"name": "x", "mountPath": "/x"}),
        "there is no volume x",
    ),
    ("idle volume", lambda m: pod_spec(m)["volumes"].append({"name": "x", "emptyDir": {}}), "nothing mounts"),
    ("no settings", lambda m: m.remove(the(m, "ConfigMap", "s3")), "there is no s3"),
    ("no auth file", lambda m: m.remove(the(m, "ConfigMap", "mlflow")), "there is no ConfigMap mlflow"),
    (
        "unmade secret",
        lambda m: container(m, "postgres")["env"][2]["valueFrom"]["secretKeyRef"].update(key="x"),
        "no Secret postgres with x",
    ),
    (
        "secret",
        lambda m: m.append({"kind": "Secret", "metadata": {"name": "s3", "namespace": "raypruning"}, "data": {}}),
        "Secret/s3 is in a manifest",
    ),
    ("secret setting", lambda m: settings(m, "s3").update(AWS_SECRET_ACCESS_KEY="x"), "holds AWS_SECRET_ACCESS_KEY"),
    (
        "password in a file",
        lambda m: settings(m, "mlflow").update({"a.ini": "admin_password = x\n"}),
        "ConfigMap/mlflow holds a.ini",
    ),
    (
        "password in words",
        lambda m: container(m, "head")["env"].append({"name": "MLFLOW_TRACKING_TOKEN", "value": "x"}),
        "MLFLOW_TRACKING_TOKEN written out",
    ),
    (
        "password in an address",
        lambda m: container(m, "mlflow")["args"].append("--registry-store-uri=postgresql://a:b@c/d"),
        "password in an address",
    ),
    ("node port", lambda m: the(m, "Service", "mlflow")["spec"].update(type="NodePort"), "is NodePort"),
    ("balancer", lambda m: the(m, "Service", "mlflow")["spec"].update(type="LoadBalancer"), "is LoadBalancer"),
    ("ingress", lambda m: m.append({"kind": "Ingress", "metadata": {"name": "x"}}), "Ingress/x opens a door"),
    ("open head", lambda m: head(rayjob(m)).update(serviceType="LoadBalancer"), "opens its head"),
    ("no ray token", lambda m: cluster(rayjob(m)).pop("authOptions"), "asks for no token"),
    ("baseline", lambda m: the(m, "Namespace", "raypruning")["metadata"].pop("labels"), "restricted pod security"),
    (
        "elsewhere",
        lambda m: the(m, "Service", "mlflow")["metadata"].update(namespace="default"),
        "not in the namespace",
    ),
    ("spot head", lambda m: pod_spec(m, "head").pop("affinity"), "head may land on a spot node"),
]


@pytest.mark.parametrize(("change", "expected"), [row[1:] for row in BROKEN], ids=[row[0] for row in BROKEN])
def test_planted_error_against_our_own_rules_is_found(change: Changes, expected: str):
    manifests = base_by_hand()
    change(manifests)
    found = own_rules.complaints(manifests)
    assert any(expected in complaint for complaint in found), found


def test_every_rule_of_ours_has_an_error_planted_for_it():
    renderings = []
    for _, change, _ in BROKEN:
        renderings.append(base_by_hand())
        change(renderings[-1])
    silent = [rule.__name__ for rule in own_rules.RULES if not any(any(rule(one)) for one in renderings)]
    assert silent == []


def policy(manifests: list[Manifest], name: str) -> Manifest:
    return the(manifests, "NetworkPolicy", name)["spec"]


UNGUARDED: list[tuple[str, Changes, str]] = [
    ("no denial", lambda m: m.remove(the(m, "NetworkPolicy", "default-deny")), "no policy denies everything"),
    ("half a denial", lambda m: policy(m, "default-deny").update(policyTypes=["Ingress"]), "no policy denies"),
    ("denial with a hole", lambda m: policy(m, "default-deny").update(egress=[{}]), "no policy denies everything"),
    ("unknown pod", lambda m: m.remove(the(m, "NetworkPolicy", "postgres")), "no policy is about the pods of postgres"),
    (
        "unknown policy",
        lambda m: policy(m, "postgres")["podSelector"]["matchLabels"].update({"raypruning/role": "mysql"}),
        "the policy postgres is about no pod",
    ),
    ("one way out", lambda m: policy(m, "mlflow").pop("ingress"), "head -> mlflow at tcp/5000 may not enter"),
    ("one way in", lambda m: policy(m, "submitter").pop("egress"), "submitter -> head at tcp/8265 may not leave"),
    (
        "other port",
        lambda m: policy(m, "postgres")["ingress"][0]["ports"][0].update(port=5433),
        "mlflow -> postgres at tcp/5432 may not enter",
    ),
]


@pytest.mark.parametrize(("change", "expected"), [row[1:] for row in UNGUARDED], ids=[row[0] for row in UNGUARDED])
def test_planted_gap_between_network_policies_is_found(change: Changes, expected: str):
    manifests = base_by_hand()
    change(manifests)
    found = flows.complaints(manifests)
    assert any(expected in complaint for complaint in found), found


def test_open_network_policies_show_as_flows():
    manifests = base_by_hand()
    policy(manifests, "mlflow")["ingress"].append({})
    policy(manifests, "head")["ingress"][0]["from"].append({"namespaceSelector": {}})
    found = flows.flows(manifests, "Ingress")
    assert Flow("everywhere", "mlflow", "all") in found
    assert Flow("every namespace", "head", "tcp/8265") in found


# -- schemas


@needs_crds
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda j: j["spec"].update(backOffLimit=3), "'backOffLimit' was unexpected"),
        (lambda j: j["spec"].update(ttlSecondsAfterFinished="1h"), "spec.ttlSecondsAfterFinished: '1h' is not of type"),
        (lambda j: head(j)["rayStartParams"].update({"num-cpus": 0}), "rayStartParams.num-cpus: 0 is not of type"),
        (lambda j: worker(j).pop("template"), "'template' is a required property"),
        (lambda j: cluster(j)["autoscalerOptions"].update(version="v3"), "'v3' is not one of"),
        (lambda j: worker(j)["template"]["spec"]["volumes"][0].update(emptydir={}), "'emptydir' was unexpected"),
    ],
    ids=["field", "type", "number for a text", "missing", "choice", "deep field"],
)
def test_planted_error_against_the_resource_schema_is_found(change: Change, expected: str):
    job = rayjob(base_by_hand())
    change(job)
    found = crd.complaints(job)
    assert any(expected in complaint for complaint in found), found


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda m: the(m, "Service", "mlflow")["spec"].update(ports="5000"), "Service"),
        (lambda m: the(m, "Deployment", "mlflow")["spec"]["template"]["spec"].update(nodeName=1), "Deployment"),
        (lambda m: the(m, "NetworkPolicy", "head")["spec"].update(policytypes=[]), "NetworkPolicy"),
        (lambda m: the(m, "LimitRange", "raypruning")["spec"]["limits"][0].pop("type"), "LimitRange"),
    ],
    ids=["type", "number for a text", "field", "missing"],
)
def test_planted_error_against_the_schemas_of_kubernetes_is_found(change: Changes, kind: str):
    manifests = base_by_hand()
    change(manifests)
    with pytest.raises(kubernetes_validate.ValidationError):
        for one in of_kind(manifests, kind):
            kubernetes_validate.validate(one, NEWEST, strict=True)


# -- quantities


@pytest.mark.parametrize(
    ("quantity", "expected"),
    [("500m", 0.5), ("2", 2), (3, 3), ("1.5", 1.5), ("2Gi", 2 * 1024**3), ("3Ti", 3 * 1024**4), ("1k", 1000)],
)
def test_quantity_is_the_number_that_kubernetes_takes_it_for(quantity: str | int, expected: float):
    assert amount(quantity) == expected


@pytest.mark.parametrize("quantity", ["", "2GB", "1 Gi", "Gi", "--1", "1e3x"])
def test_quantity_that_is_none_is_refused(quantity: str):
    with pytest.raises(ValueError, match="is no quantity"):
        amount(quantity)
