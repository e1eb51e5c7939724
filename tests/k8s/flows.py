"""Who may talk to whom, read out of the NetworkPolicies: as a set of flows that a person can check."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from tests.k8s.rendering import Manifest, of_kind, pods

# Pods that may do without a policy of their own: they talk to nobody, which is what the denial of everything says.
SILENT = {"files"}


class Flow(NamedTuple):
    """One allowed direction. An end outside the namespace is written as it is selected."""

    source: str
    target: str
    ports: str


def flows(manifests: list[Manifest], direction: str) -> set[Flow]:
    """What the rules of one direction, "Ingress" or "Egress", allow."""
    roles = sorted({pod.role for pod in pods(manifests)})
    return set(_flows(manifests, direction, roles))


def complaints(manifests: list[Manifest]) -> list[str]:
    """Pods that no policy is about, policies about no pod, and flows that one end allows and the other does not."""
    roles = sorted({pod.role for pod in pods(manifests)})
    found = []
    policies = of_kind(manifests, "NetworkPolicy")
    if not any(_denies_all(policy["spec"]) for policy in policies):
        found.append("no policy denies everything to every pod")
    special = [policy for policy in policies if policy["spec"]["podSelector"]]
    for role in sorted({*roles} - SILENT):
        if not any(_selects(policy["spec"]["podSelector"], role) for policy in special):
            found.append(f"no policy is about the pods of {role or 'no role'}")
    for policy in special:
        if not any(_selects(policy["spec"]["podSelector"], role) for role in roles):
            found.append(f"the policy {policy['metadata']['name']} is about no pod")
    into, out_of = flows(manifests, "Ingress"), flows(manifests, "Egress")
    for flow in sorted({one for one in into ^ out_of if {one.source, one.target} <= set(roles)}):
        missing = "enter" if flow in out_of else "leave"
        found.append(f"{flow.source} -> {flow.target} at {flow.ports} may not {missing}")
    return found


def _denies_all(spec: Mapping[str, Any]) -> bool:
    is_empty = not spec["podSelector"] and not spec.get("ingress") and not spec.get("egress")
    return is_empty and set(spec["policyTypes"]) == {"Ingress", "Egress"}


def _flows(manifests: list[Manifest], direction: str, roles: list[str]) -> Iterator[Flow]:
    rules, peers = ("ingress", "from") if direction == "Ingress" else ("egress", "to")
    for policy in of_kind(manifests, "NetworkPolicy"):
        spec = policy["spec"]
        assert not spec.get(rules) or direction in spec["policyTypes"], policy["metadata"]["name"]
        for rule in spec.get(rules, []):
            ports = " ".join(_port(one) for one in rule.get("ports", [])) or "all"
            others = [end for peer in rule.get(peers, [{}]) for end in _ends(peer, roles)]
            for role in (one for one in roles if _selects(spec["podSelector"], one)):
                for other in others:
                    yield Flow(other, role, ports) if direction == "Ingress" else Flow(role, other, ports)


def _port(port: Mapping[str, Any]) -> str:
    last = f"-{port['endPort']}" if "endPort" in port else ""
    return f"{port.get('protocol', 'TCP').lower()}/{port['port']}{last}"


def _ends(peer: Mapping[str, Any], roles: list[str]) -> list[str]:
    if "ipBlock" in peer:
        block = peer["ipBlock"]
        return [block["cidr"] + (f" but {len(block['except'])} ranges" if block.get("except") else "")]
    if "namespaceSelector" in peer:
        labels = [*peer["namespaceSelector"].get("matchLabels", {}).values()]
        return ["/".join([*labels, *peer.get("podSelector", {}).get("matchLabels", {}).values()]) or "every namespace"]
    if "podSelector" in peer:
        return [role for role in roles if _selects(peer["podSelector"], role)]
    return ["everywhere"]


def _selects(selector: Mapping[str, Any], role: str) -> bool:
    labels = {"raypruning/role": role}
    if any(labels.get(key) != value for key, value in selector.get("matchLabels", {}).items()):
        return False
    for one in selector.get("matchExpressions", []):
        assert one["operator"] == "In", "another operator is not read here"
        if labels.get(one["key"]) not in one["values"]:
            return False
    return True
