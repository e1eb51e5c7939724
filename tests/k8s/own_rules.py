"""What we ask of every manifest of ours: locked containers, bounded resources, pinned images, no open doors.

Every rule takes all objects of a rendering and gives one line for each thing that is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from itertools import chain
from typing import Any

from tests.k8s.quantities import amount
from tests.k8s.rendering import Manifest, Pod, of_kind, pods, rayjob

Rule = Callable[[list[Manifest]], Iterator[str]]

NAMESPACE = "raypruning"
# Made by the commands of k8s/README.md, or by the cluster.
SECRETS = {
    "mlflow": {"admin-password", "flask-secret-key"},
    "postgres": {"password"},
    "s3": {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"},
}
OF_THE_CLUSTER = {"kube-root-ca.crt"}
RAY_ROLES = ("head", "worker")
SPOT = {
    "cloud.google.com/gke-spot",
    "eks.amazonaws.com/capacityType",
    "karpenter.sh/capacity-type",
    "kubernetes.azure.com/scalesetpriority",
}
TOKEN_FOLDER = "/var/run/secrets/kubernetes.io/serviceaccount"
_SECRET_NAME = re.compile(r"PASSWORD|SECRET|TOKEN|_KEY(_ID)?$", re.IGNORECASE)
_PASSWORD_IN_ADDRESS = re.compile(r"\w+://[^/\s:@]*:[^/\s@]+@")


# -- containers


def containers_are_locked(manifests: list[Manifest]) -> Iterator[str]:
    for pod, name, container in _containers(manifests):
        security = container.get("securityContext", {})
        if security.get("allowPrivilegeEscalation") is not False or security.get("privileged"):
            yield f"{pod.name} {name} may gain privileges"
        if security.get("capabilities") != {"drop": ["ALL"]}:
            yield f"{pod.name} {name} keeps capabilities"
        if security.get("readOnlyRootFilesystem") is not True:
            yield f"{pod.name} {name} can write to its root"
        if security.get("runAsUser", 1) == 0 or security.get("runAsNonRoot") is False:
            yield f"{pod.name} {name} runs as root"


def pods_are_nobody_and_nowhere(manifests: list[Manifest]) -> Iterator[str]:
    for pod in pods(manifests):
        security = pod.spec.get("securityContext", {})
        if security.get("runAsNonRoot") is not True or not security.get("runAsUser"):
            yield f"{pod.name} may run as root"
        if security.get("seccompProfile") != {"type": "RuntimeDefault"}:
            yield f"{pod.name} has no seccomp profile RuntimeDefault"
        for name in ("hostNetwork", "hostPID", "hostIPC"):
            if pod.spec.get(name):
                yield f"{pod.name} has {name}"
        for volume in pod.spec.get("volumes", []):
            if "hostPath" in volume:
                yield f"{pod.name} mounts hostPath {volume['hostPath'].get('path')}"
        for name, container in pod.containers:
            if any("hostPort" in port for port in container.get("ports", [])):
                yield f"{pod.name} {name} has a hostPort"


def pods_hold_no_api_token(manifests: list[Manifest]) -> Iterator[str]:
    """Only the autoscaler calls the Kubernetes API; its neighbour runs what a job says."""
    for pod in pods(manifests):
        if pod.spec.get("automountServiceAccountToken") is not False:
            yield f"{pod.name} mounts an API token"
        if pod.spec.get("enableServiceLinks") is not False:
            yield f"{pod.name} has variables of services, such as MLFLOW_PORT, which MLflow reads as its own"
        is_scaled_head = "autoscaler" in dict(pod.containers)
        if not is_scaled_head and pod.spec.get("serviceAccountName") != "raypruning":
            yield f"{pod.name} does not run as the service account raypruning"
        projected = {one["name"] for one in pod.spec.get("volumes", []) if "projected" in one}
        for name, container in pod.containers:
            holds = any(one["name"] in projected for one in container.get("volumeMounts", []))
            if holds and name != "autoscaler":
                yield f"{pod.name} {name} holds an API token"
            if name == "autoscaler" and TOKEN_FOLDER not in _mounts(container):
                yield f"{pod.name} autoscaler has no API token, without which it scales nothing"
    for one in of_kind(manifests, "ServiceAccount"):
        if one.get("automountServiceAccountToken") is not False:
            yield f"ServiceAccount/{one['metadata']['name']} mounts API tokens"


def images_are_pinned(manifests: list[Manifest]) -> Iterator[str]:
    for pod, name, container in _containers(manifests):
        image = container.get("image")
        if image is None and name == "autoscaler":
            continue  # the head's
        _, _, tag = str(image).rpartition("/")[2].partition(":")
        if "@sha256:" not in str(image) and (not re.search(r"\d", tag) or "latest" in tag):
            yield f"{pod.name} {name}: the image {image} is not pinned to a version"
        if container.get("imagePullPolicy") != "IfNotPresent":
            yield f"{pod.name} {name}: a pinned image is pulled once: imagePullPolicy IfNotPresent"


# -- resources


def resources_are_bounded(manifests: list[Manifest]) -> Iterator[str]:
    for pod, name, container in _containers(manifests):
        for kind in ("requests", "limits"):
            if missing := {"cpu", "memory"} - container.get("resources", {}).get(kind, {}).keys():
                yield f"{pod.name} {name} has no {kind} of {' and '.join(sorted(missing))}"
        for volume in pod.spec.get("volumes", []):
            if "emptyDir" in volume and "sizeLimit" not in volume["emptyDir"]:
                yield f"{pod.name}: the volume {volume['name']} has no sizeLimit"


def memory_holds_what_lies_in_it(manifests: list[Manifest]) -> Iterator[str]:
    """Files in /dev/shm count as memory of the container, and Ray's object store lies there."""
    for pod in pods(manifests):
        if pod.role not in RAY_ROLES:
            continue
        name, container = pod.containers[0]
        shm = _volume_at(pod, container, "/dev/shm").get("emptyDir", {})
        if shm.get("medium") != "Memory":
            yield f"{pod.name} {name} has no /dev/shm in memory"
            continue
        if amount(shm["sizeLimit"]) * 2 > amount(container["resources"]["limits"]["memory"]):
            yield f"{pod.name} {name}: /dev/shm takes more than half of the memory"
        store = _start_params(manifests, pod).get("object-store-memory")
        if store is None or amount(store) > amount(shm["sizeLimit"]):
            yield f"{pod.name}: object-store-memory {store} does not fit /dev/shm"


def quota_has_room_for_all(manifests: list[Manifest]) -> Iterator[str]:
    """With as many workers as the autoscaler may ask for, and the submitter."""
    (quota,) = of_kind(manifests, "ResourceQuota")
    hard = quota["spec"]["hard"]
    for key in ("requests.cpu", "requests.memory", "limits.cpu", "limits.memory", "requests.nvidia.com/gpu"):
        kind, _, resource = key.partition(".")
        wanted = sum((_replicas(manifests, pod) * _of_pod(pod, kind, resource) for pod in pods(manifests)), Fraction())
        if key not in hard:
            yield f"the quota does not bound {key}"
        elif wanted > amount(hard[key]):
            yield f"the quota has {hard[key]} of {key}, and all together may want {float(wanted):g}"
    num_pods = sum(_replicas(manifests, pod) for pod in pods(manifests))
    if num_pods > amount(hard.get("pods", 0)):
        yield f"the quota has {hard.get('pods')} pods, and there may be {num_pods}"


# -- volumes and what is referred to


def folders_that_are_written_can_be(manifests: list[Manifest]) -> Iterator[str]:
    """The root is read-only: HOME and /tmp must be volumes."""
    settings = {one["metadata"]["name"]: one.get("data", {}) for one in of_kind(manifests, "ConfigMap")}
    for pod, name, container in _containers(manifests):
        writable = [path for path, mount in _mounts(container).items() if not mount.get("readOnly")]
        needed = {"/tmp"}
        values = {one["name"]: one.get("value") for one in container.get("env", [])}
        for source in container.get("envFrom", []):
            values = {**settings.get(source.get("configMapRef", {}).get("name"), {}), **values}
        needed |= {value for key in ("HOME", "RAYPRUNING_CACHE_DIR") if (value := values.get(key))}
        if pod.role in (*RAY_ROLES, "submitter", "files") and not values.get("HOME"):
            yield f"{pod.name} {name} has no HOME, where Ray writes"
        for folder in sorted(needed):
            if not any(folder == one or folder.startswith(f"{one}/") for one in writable):
                yield f"{pod.name} {name} cannot write to {folder}"


def volumes_are_there_and_data_is_read_only(manifests: list[Manifest]) -> Iterator[str]:
    claims = {one["metadata"]["name"] for one in of_kind(manifests, "PersistentVolumeClaim")}
    for one in of_kind(manifests, "StatefulSet"):
        claims |= {claim["metadata"]["name"] for claim in one["spec"].get("volumeClaimTemplates", [])}
    for pod in pods(manifests):
        volumes = {one["name"]: one for one in pod.spec.get("volumes", [])}
        for volume in volumes.values():
            claim = volume.get("persistentVolumeClaim", {})
            if claim and claim["claimName"] not in claims:
                yield f"{pod.name}: there is no claim {claim['claimName']}"
            if claim.get("claimName") == "data" and pod.role in RAY_ROLES and not claim.get("readOnly"):
                yield f"{pod.name} could write to the data"
        used = set()
        for name, container in pod.containers:
            for mount in container.get("volumeMounts", []):
                used.add(mount["name"])
                if mount["name"] not in volumes.keys() | claims:
                    yield f"{pod.name} {name}: there is no volume {mount['name']}"
        for name in sorted(volumes.keys() - used):
            yield f"{pod.name}: nothing mounts the volume {name}"


def references_lead_somewhere(manifests: list[Manifest]) -> Iterator[str]:
    settings = {one["metadata"]["name"]: one.get("data", {}) for one in of_kind(manifests, "ConfigMap")}
    for pod, name, container in _containers(manifests):
        for source in container.get("envFrom", []):
            wanted = (source.get("configMapRef") or source["secretRef"])["name"]
            if wanted not in (settings if "configMapRef" in source else SECRETS):
                yield f"{pod.name} {name}: there is no {wanted} to take variables from"
        for variable in container.get("env", []):
            key = variable.get("valueFrom", {}).get("secretKeyRef")
            if key and key["key"] not in SECRETS.get(key["name"], ()):
                yield f"{pod.name} {name}: no Secret {key['name']} with {key['key']} is made by the README"
    for pod in pods(manifests):
        for volume in pod.spec.get("volumes", []):
            maps = [volume.get("configMap", {}), *(one.get("configMap", {}) for one in _sources(volume))]
            for one in maps:
                if one and one["name"] not in settings.keys() | OF_THE_CLUSTER:
                    yield f"{pod.name}: there is no ConfigMap {one['name']}"


def secrets_are_only_referred_to(manifests: list[Manifest]) -> Iterator[str]:
    for one in of_kind(manifests, "Secret"):
        yield f"Secret/{one['metadata']['name']} is in a manifest"
    for one in of_kind(manifests, "ConfigMap"):
        for key, value in one.get("data", {}).items():
            if _SECRET_NAME.search(key) or re.search(r"(?im)^\s*\w*(password|secret)\w*\s*[=:]\s*\S", value):
                yield f"ConfigMap/{one['metadata']['name']} holds {key}"
    for pod, name, container in _containers(manifests):
        for variable in container.get("env", []):
            if _SECRET_NAME.search(variable["name"]) and "value" in variable:
                yield f"{pod.name} {name} has the value of {variable['name']} written out"
    for one in manifests:
        for text in _texts(one):
            if _PASSWORD_IN_ADDRESS.search(text):
                yield f"{one['kind']}/{one['metadata']['name']} has a password in an address"


# -- where things are


def nothing_is_open_to_the_outside(manifests: list[Manifest]) -> Iterator[str]:
    for one in manifests:
        name = f"{one['kind']}/{one['metadata']['name']}"
        if one["kind"] in ("Ingress", "Gateway", "HTTPRoute"):
            yield f"{name} opens a door"
        spec = one.get("spec", {})
        if one["kind"] == "Service" and (spec.get("type", "ClusterIP") != "ClusterIP" or spec.get("externalIPs")):
            yield f"{name} is {spec.get('type')}, not ClusterIP"
        if one["kind"] == "RayJob":
            head = spec["rayClusterSpec"]["headGroupSpec"]
            if head.get("serviceType", "ClusterIP") != "ClusterIP" or head.get("enableIngress"):
                yield f"{name} opens its head"
            if spec["rayClusterSpec"].get("authOptions", {}).get("mode") != "token":
                yield f"{name} asks for no token"


def namespace_is_restricted(manifests: list[Manifest]) -> Iterator[str]:
    (namespace,) = of_kind(manifests, "Namespace")
    if namespace["metadata"].get("labels", {}).get("pod-security.kubernetes.io/enforce") != "restricted":
        yield "the namespace does not enforce the restricted pod security standard"
    for one in manifests:
        if one["kind"] != "Namespace" and one["metadata"].get("namespace") != NAMESPACE:
            yield f"{one['kind']}/{one['metadata']['name']} is not in the namespace {NAMESPACE}"


def what_must_last_avoids_spot_nodes(manifests: list[Manifest]) -> Iterator[str]:
    for pod in pods(manifests):
        if pod.role not in ("head", "mlflow", "postgres"):
            continue
        terms = _node_terms(pod)
        if not terms or any(_keys(term, "NotIn") < SPOT for term in terms):
            yield f"{pod.name} may land on a spot node"


RULES: tuple[Rule, ...] = (
    containers_are_locked,
    pods_are_nobody_and_nowhere,
    pods_hold_no_api_token,
    images_are_pinned,
    resources_are_bounded,
    memory_holds_what_lies_in_it,
    quota_has_room_for_all,
    folders_that_are_written_can_be,
    volumes_are_there_and_data_is_read_only,
    references_lead_somewhere,
    secrets_are_only_referred_to,
    nothing_is_open_to_the_outside,
    namespace_is_restricted,
    what_must_last_avoids_spot_nodes,
)


def complaints(manifests: list[Manifest]) -> list[str]:
    """All that the rules say of a rendering."""
    return [complaint for rule in RULES for complaint in rule(manifests)]


def spot_nodes_only(pod: Pod) -> bool:
    """Whether a pod runs on spot nodes alone, by the label of whichever cloud."""
    terms = _node_terms(pod)
    return set(chain.from_iterable(_keys(term, "In") for term in terms)) == SPOT


def _containers(manifests: list[Manifest]) -> Iterator[tuple[Pod, str, Mapping[str, Any]]]:
    for pod in pods(manifests):
        for name, container in pod.containers:
            yield pod, name, container


def _mounts(container: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {one["mountPath"]: one for one in container.get("volumeMounts", [])}


def _volume_at(pod: Pod, container: Mapping[str, Any], path: str) -> Mapping[str, Any]:
    wanted = _mounts(container).get(path, {}).get("name")
    return next((one for one in pod.spec.get("volumes", []) if one["name"] == wanted), {})


def _sources(volume: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return volume.get("projected", {}).get("sources", [])


def _groups(manifests: list[Manifest]) -> dict[str, Mapping[str, Any]]:
    """Head and worker groups by the last word of their pods' names."""
    cluster = rayjob(manifests)["spec"]["rayClusterSpec"]
    return {"head": cluster["headGroupSpec"], **{one["groupName"]: one for one in cluster["workerGroupSpecs"]}}


def _start_params(manifests: list[Manifest], pod: Pod) -> Mapping[str, str]:
    return _groups(manifests)[pod.name.split()[-1]].get("rayStartParams", {})


def _replicas(manifests: list[Manifest], pod: Pod) -> int:
    """Copies at most: of workers what the autoscaler may ask for, of all others one."""
    return _groups(manifests)[pod.name.split()[-1]]["maxReplicas"] if pod.role == "worker" else 1


def _of_pod(pod: Pod, kind: str, resource: str) -> Fraction:
    """What a pod takes of a quota: the sum of its containers, or its largest init container."""
    starting = {one["name"] for one in pod.spec.get("initContainers", [])}
    amounts = {name: amount(one.get("resources", {}).get(kind, {}).get(resource, 0)) for name, one in pod.containers}
    first = max((amounts[name] for name in starting), default=Fraction())
    return max(first, sum((value for name, value in amounts.items() if name not in starting), Fraction()))


def _node_terms(pod: Pod) -> list[Mapping[str, Any]]:
    affinity = pod.spec.get("affinity", {}).get("nodeAffinity", {})
    return affinity.get("requiredDuringSchedulingIgnoredDuringExecution", {}).get("nodeSelectorTerms", [])


def _keys(term: Mapping[str, Any], operator: str) -> set[str]:
    return {one["key"] for one in term.get("matchExpressions", []) if one["operator"] == operator}


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from chain.from_iterable(map(_texts, value.values()))
    elif isinstance(value, list):
        yield from chain.from_iterable(map(_texts, value))
