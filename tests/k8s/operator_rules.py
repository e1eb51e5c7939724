"""What KubeRay 1.7 refuses in a RayJob though its schema allows it, and what Kueue asks of one.

Every rule gives one line for each thing that is wrong.
Source: the checks that the operator runs before it acts on an object; Kueue's page on RayJobs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import yaml

from tests.k8s.rendering import Manifest, pods

Rule = Callable[[Manifest], Iterator[str]]

MAX_NAME = 47  # what the operator appends must fit into 63
QUEUE = "kueue.x-k8s.io/queue-name"
MAX_KUEUE_GROUPS = 7  # pod sets of a workload: eight, with the head
# Of spec.rayClusterSpec; switched off unless the operator is started with a feature gate.
GATED = ("networkPolicy", "tlsOptions", "historyServerOptions")
FIRST_WITH_TOKENS = (2, 52)


def name_is_short_and_a_label(job: Manifest) -> Iterator[str]:
    name = job["metadata"]["name"]
    if len(name) > MAX_NAME:
        yield f"the name {name} has {len(name)} characters, {MAX_NAME} at most"
    if not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name):
        yield f"the name {name} is no DNS-1035 label: lower case, digits and dashes, a letter first"


def a_cluster_is_made_or_selected(job: Manifest) -> Iterator[str]:
    selector = job["spec"].get("clusterSelector")
    if not selector and "rayClusterSpec" not in job["spec"]:
        yield "neither rayClusterSpec nor clusterSelector"
    if selector and not selector.get("ray.io/cluster"):
        yield "clusterSelector without ray.io/cluster"


def times_and_retries_make_sense(job: Manifest) -> Iterator[str]:
    spec = job["spec"]
    for name in ("ttlSecondsAfterFinished", "backoffLimit"):
        if spec.get(name, 0) < 0:
            yield f"{name} is negative"
    for name in ("activeDeadlineSeconds", "preRunningDeadlineSeconds"):
        if spec.get(name, 1) <= 0:
            yield f"{name} must be positive"
    if spec.get("ttlSecondsAfterFinished", 0) > 0 and not spec.get("shutdownAfterJobFinishes"):
        yield "ttlSecondsAfterFinished needs shutdownAfterJobFinishes"


def suspending_gives_the_cluster_back(job: Manifest) -> Iterator[str]:
    spec = job["spec"]
    if spec.get("suspend"):
        if not spec.get("shutdownAfterJobFinishes"):
            yield "suspend needs shutdownAfterJobFinishes"
        if spec.get("clusterSelector"):
            yield "suspend does not go with clusterSelector"


def retries_need_a_cluster_of_their_own(job: Manifest) -> Iterator[str]:
    spec = job["spec"]
    if spec.get("backoffLimit", 0) > 0:
        if spec.get("clusterSelector"):
            yield "backoffLimit does not go with clusterSelector"
        if spec.get("submissionMode") == "InteractiveMode":
            yield "backoffLimit does not go with InteractiveMode"


def a_sidecar_submits_alone(job: Manifest) -> Iterator[str]:
    spec = job["spec"]
    if spec.get("submissionMode") != "SidecarMode":
        return
    for name in ("submitterPodTemplate", "submitterConfig", "clusterSelector"):
        if name in spec:
            yield f"SidecarMode does not go with {name}"
    policy = _head(job).get("template", {}).get("spec", {}).get("restartPolicy", "Never")
    if policy != "Never":
        yield f"SidecarMode needs restartPolicy Never of the head, not {policy}"


def runtime_env_is_yaml(job: Manifest) -> Iterator[str]:
    try:
        found = yaml.safe_load(job["spec"].get("runtimeEnvYAML", "{}"))
    except yaml.YAMLError:
        yield "runtimeEnvYAML is no YAML"
    else:
        if not isinstance(found, dict):
            yield "runtimeEnvYAML is no mapping"


def every_group_has_a_container(job: Manifest) -> Iterator[str]:
    for name, group in _groups(job):
        if not group["template"]["spec"].get("containers"):
            yield f"{name} has no container"


def resources_of_a_group_are_said_once(job: Manifest) -> Iterator[str]:
    for name, group in _groups(job):
        started_with = group.get("rayStartParams", {})
        twice = [one for one in ("num-cpus", "num-gpus", "memory", "resources") if started_with.get(one)]
        if twice and group.get("resources"):
            yield f"{name} has {', '.join(twice)} in rayStartParams and resources of its own"
        if "labels" in started_with:
            yield f"{name} has labels in rayStartParams, which belong to the group"


def numbers_of_workers_are_ordered(job: Manifest) -> Iterator[str]:
    for name, group in _groups(job)[1:]:
        if "minReplicas" not in group or "maxReplicas" not in group:
            yield f"{name} has no minReplicas or no maxReplicas"
        elif not group["minReplicas"] <= group.get("replicas", group["minReplicas"]) <= group["maxReplicas"]:
            yield f"{name} has not minReplicas <= replicas <= maxReplicas"


def autoscaling_is_consistent(job: Manifest) -> Iterator[str]:
    cluster = job["spec"].get("rayClusterSpec", {})
    is_scaling = bool(cluster.get("enableInTreeAutoscaling"))
    options = cluster.get("autoscalerOptions", {})
    switched = _environment(job).get("RAY_enable_autoscaler_v2")
    if is_scaling and "version" in options and switched is not None:
        yield "autoscalerOptions.version and the head's RAY_enable_autoscaler_v2 are both set"
    if not is_scaling and switched in ("1", "true"):
        yield "RAY_enable_autoscaler_v2 is set, and enableInTreeAutoscaling is not"
    if not is_scaling and options:
        yield "autoscalerOptions without enableInTreeAutoscaling do nothing"
    for name, group in _groups(job):
        if is_scaling and group.get("suspend"):
            yield f"{name} is suspended, which does not go with an autoscaler"
        policy = group["template"]["spec"].get("restartPolicy", "Never")
        if is_scaling and options.get("version") == "v2" and policy != "Never":
            yield f"{name} has restartPolicy {policy}: Never or none with the autoscaler v2"


def redis_is_named_in_one_place(job: Manifest) -> Iterator[str]:
    cluster, environment = job["spec"].get("rayClusterSpec", {}), _environment(job)
    started_with = _head(job).get("rayStartParams", {})
    if "gcsFaultToleranceOptions" not in cluster:
        if "RAY_REDIS_ADDRESS" in environment:
            yield "RAY_REDIS_ADDRESS without gcsFaultToleranceOptions"
    else:
        for name in ("RAY_REDIS_ADDRESS", "REDIS_PASSWORD"):
            if name in environment:
                yield f"{name} belongs into gcsFaultToleranceOptions"
        if started_with.get("redis-password"):
            yield "redis-password belongs into gcsFaultToleranceOptions"
        for name in ("ray.io/ft-enabled", "ray.io/external-storage-namespace"):
            if job["metadata"].get("annotations", {}).get(name):
                yield f"the annotation {name} belongs into gcsFaultToleranceOptions"
    if started_with.get("redis-username") or "REDIS_USERNAME" in environment:
        yield "a user name of Redis belongs into gcsFaultToleranceOptions"


def a_token_needs_a_ray_that_knows_it(job: Manifest) -> Iterator[str]:
    cluster = job["spec"].get("rayClusterSpec", {})
    auth = cluster.get("authOptions", {})
    if auth.get("enableK8sTokenAuth"):
        yield "enableK8sTokenAuth is not for a RayJob"
    if auth.get("mode") == "token":
        found = re.match(r"(\d+)\.(\d+)\.\d+", str(cluster.get("rayVersion", "")))
        if found is None:
            yield f"authOptions.mode token needs a rayVersion, got {cluster.get('rayVersion')!r}"
        elif (int(found[1]), int(found[2])) < FIRST_WITH_TOKENS:
            yield f"authOptions.mode token needs Ray 2.52, got {cluster['rayVersion']}"


def nothing_waits_for_a_feature_gate(job: Manifest) -> Iterator[str]:
    cluster = job["spec"].get("rayClusterSpec", {})
    for name in GATED:
        if name in cluster:
            yield f"{name} is off in the operator unless its feature gate is set"
    if cluster.get("gcsFaultToleranceOptions", {}).get("backend") == "rocksdb":
        yield "the rocksdb backend is off in the operator unless its feature gate is set"


def kueue_can_admit_it(job: Manifest) -> Iterator[str]:
    spec = job["spec"]
    if QUEUE not in job["metadata"].get("labels", {}):
        return
    if not spec.get("shutdownAfterJobFinishes"):
        yield "Kueue needs shutdownAfterJobFinishes"
    if spec.get("clusterSelector"):
        yield "Kueue needs a cluster of the job's own"
    cluster = spec.get("rayClusterSpec", {})
    if cluster.get("enableInTreeAutoscaling"):
        yield "Kueue admits a fixed size: enableInTreeAutoscaling must be false"
    if len(cluster.get("workerGroupSpecs", [])) > MAX_KUEUE_GROUPS:
        yield f"Kueue takes {MAX_KUEUE_GROUPS} worker groups at most"
    for name, group in _groups(job)[1:]:
        if len({group.get(one) for one in ("minReplicas", "replicas", "maxReplicas")}) > 1:
            yield f"{name} must have one number of replicas for Kueue"
    for pod in pods([job]):
        for name, container in pod.containers:
            if not {"cpu", "memory"} <= container.get("resources", {}).get("requests", {}).keys():
                yield f"{pod.name} {name} has no requests, by which Kueue counts"


RULES: tuple[Rule, ...] = (
    name_is_short_and_a_label,
    a_cluster_is_made_or_selected,
    times_and_retries_make_sense,
    suspending_gives_the_cluster_back,
    retries_need_a_cluster_of_their_own,
    a_sidecar_submits_alone,
    runtime_env_is_yaml,
    every_group_has_a_container,
    resources_of_a_group_are_said_once,
    numbers_of_workers_are_ordered,
    autoscaling_is_consistent,
    redis_is_named_in_one_place,
    a_token_needs_a_ray_that_knows_it,
    nothing_waits_for_a_feature_gate,
    kueue_can_admit_it,
)


def complaints(job: Manifest) -> list[str]:
    """All that the rules say of a RayJob."""
    return [complaint for rule in RULES for complaint in rule(job)]


def _head(job: Manifest) -> Mapping[str, Any]:
    return job["spec"].get("rayClusterSpec", {}).get("headGroupSpec", {})


def _groups(job: Manifest) -> list[tuple[str, Mapping[str, Any]]]:
    """The head, if there is one, and the worker groups."""
    cluster = job["spec"].get("rayClusterSpec")
    if cluster is None:
        return []
    return [("head", cluster["headGroupSpec"])] + [(one["groupName"], one) for one in cluster["workerGroupSpecs"]]


def _environment(job: Manifest) -> dict[str, str]:
    """Of the head's first container, which is Ray's."""
    containers = _head(job).get("template", {}).get("spec", {}).get("containers", [])
    return {one["name"]: one.get("value", "") for one in (containers[0].get("env", []) if containers else [])}
