"""Objects against the schema of their custom resource, strictly: a field that the schema does not have is an error.

An API server would drop such a field in silence, or refuse it, depending on how it is asked.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator

from tests.k8s.rendering import ROOT, Loader, Manifest

FOLDER = Path(os.environ.get("KUBERAY_CRD_DIR", ROOT.parent / "shared" / "kuberay-crds"))
WHY_SKIPPED = f"no CRD of KubeRay in {FOLDER}: set KUBERAY_CRD_DIR to a folder with ray.io_rayjobs.yaml"


def is_there() -> bool:
    """Whether the schemas are at hand."""
    return (FOLDER / "ray.io_rayjobs.yaml").is_file()


@cache
def validator(plural: str, version: str = "v1") -> Draft202012Validator:
    """For the objects of one resource, such as rayjobs."""
    text = (FOLDER / f"ray.io_{plural}.yaml").read_text()
    crd = yaml.load(text, Loader=Loader)
    (schema,) = [one["schema"]["openAPIV3Schema"] for one in crd["spec"]["versions"] if one["name"] == version]
    return Draft202012Validator(_strict(schema))


def complaints(manifest: Manifest) -> list[str]:
    """What is wrong with a RayJob, one line each, with the path to it."""
    found = validator("rayjobs").iter_errors(manifest)
    return sorted(f"{'.'.join(map(str, error.absolute_path))}: {error.message}" for error in found)


def _strict(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    changed = {key: _strict(value) for key, value in schema.items()}
    is_open = "additionalProperties" in schema or schema.get("x-kubernetes-preserve-unknown-fields")
    # `properties` may also be the name of a field, whose value is then a schema with a type of its own.
    if schema.get("type") == "object" and isinstance(schema.get("properties"), dict) and not is_open:
        changed["additionalProperties"] = False
    return changed
