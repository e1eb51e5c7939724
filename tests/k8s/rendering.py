"""What lies in k8s/, as objects: rendered by kubectl, and the base also without it."""

from __future__ import annotations

import copy
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

Manifest = dict[str, Any]  # one object, as YAML has it
Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where libyaml is

ROOT = Path(__file__).parents[2]
K8S = ROOT / "k8s"
KUBECTL = shutil.which("kubectl")
OVERLAYS = sorted(path.parent.name for path in (K8S / "overlays").glob("*/kustomization.yaml"))
PLACES = ["base", *(f"overlays/{name}" for name in OVERLAYS)]


class Pod(NamedTuple):
    """What will run as a pod: a template with where it stands, and whatever the operator adds to it."""

    name: str
    role: str
    spec: Mapping[str, Any]
    containers: list[tuple[str, Mapping[str, Any]]]


def documents(path: Path) -> list[Manifest]:
    """All objects of a file."""
    return [one for one in yaml.load_all(path.read_text(), Loader=Loader) if one]


@cache
def _rendered(place: str) -> tuple[Manifest, ...]:
    done = subprocess.run([str(KUBECTL), "kustomize", str(K8S / place)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return tuple(yaml.load_all(done.stdout, Loader=Loader))


def rendered(place: str) -> list[Manifest]:
    """The objects of `base` or of an overlay, to be changed at will."""
    return copy.deepcopy(list(_rendered(place)))


def base_by_hand() -> list[Manifest]:
    """The base without kubectl: its files, its namespace and its images. Of the labels it lacks those on everything."""
    return copy.deepcopy(list(_base_by_hand()))


@cache
def _base_by_hand() -> tuple[Manifest, ...]:
    (kustomization,) = documents(K8S / "base" / "kustomization.yaml")
    found = [one for name in kustomization["resources"] for one in documents(K8S / "base" / name)]
    tags = {image["name"]: image["newTag"] for image in kustomization["images"]}
    for one in found:
        if one["kind"] != "Namespace":
            one["metadata"]["namespace"] = kustomization["namespace"]
        for pod in pods([one]):
            for _, container in pod.containers:
                if container.get("image") in tags:
                    container["image"] += f":{tags[container['image']]}"  # type: ignore[index]
    # Anchors in the files make one object of two places; what is changed in one must not change in the other.
    return tuple(yaml.load(yaml.dump(one, Dumper=_WithoutAnchors), Loader=Loader) for one in found)


class _WithoutAnchors(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def of_kind(manifests: list[Manifest], kind: str) -> list[Manifest]:
    """Those of a kind."""
    return [one for one in manifests if one["kind"] == kind]


def the(manifests: list[Manifest], kind: str, name: str) -> Manifest:
    """The one of a kind and name."""
    (found,) = [one for one in of_kind(manifests, kind) if one["metadata"]["name"] == name]
    return found


def rayjob(manifests: list[Manifest]) -> Manifest:
    """The only RayJob."""
    (found,) = of_kind(manifests, "RayJob")
    return found


def pods(manifests: list[Manifest]) -> Iterator[Pod]:
    """Every pod that the objects lead to, with the autoscaler, which the operator adds to a head."""
    for one in manifests:
        name = f"{one['kind']}/{one['metadata']['name']}"
        if one["kind"] == "Pod":
            yield _pod(name, one)
        elif one["kind"] in ("Deployment", "StatefulSet", "DaemonSet", "Job"):
            yield _pod(name, one["spec"]["template"])
        elif one["kind"] == "RayJob":
            yield from _pods_of_rayjob(name, one["spec"])


def _pods_of_rayjob(name: str, spec: Mapping[str, Any]) -> Iterator[Pod]:
    if "submitterPodTemplate" in spec:
        yield _pod(f"{name} submitter", spec["submitterPodTemplate"])
    cluster = spec.get("rayClusterSpec")
    if cluster is None:
        return
    head = _pod(f"{name} head", cluster["headGroupSpec"]["template"])
    if cluster.get("enableInTreeAutoscaling"):
        head.containers.append(("autoscaler", cluster.get("autoscalerOptions", {})))
    yield head
    for group in cluster.get("workerGroupSpecs", []):
        yield _pod(f"{name} {group['groupName']}", group["template"])


def _pod(name: str, template: Mapping[str, Any]) -> Pod:
    spec = template["spec"]
    containers = [(one["name"], one) for one in (*spec.get("initContainers", []), *spec.get("containers", []))]
    return Pod(name, template.get("metadata", {}).get("labels", {}).get("raypruning/role", ""), spec, containers)
