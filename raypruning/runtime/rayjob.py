"""The RayJob of a sweep, as an object: pure, out of the RayJob of an overlay in `k8s/`.

The overlay says how a sweep runs there, and its command where: what a person did not type is taken from it.
"""

from __future__ import annotations

import copy
import hashlib
import re
import shlex
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from raypruning.errors import SpecError

Manifest = dict[str, Any]  # one object, as YAML has it

SWEEP = "raypruning/sweep"  # annotation of a RayJob: the sweep's name, which need not be one of Kubernetes'
ROLE = "raypruning/role"  # label of all that belongs to a sweep
QUEUE = "kueue.x-k8s.io/queue-name"
FILE = "raypruning/sweep-file"  # annotation of the head's pod: the sweep's own TOML file
FILE_FOLDER, FILE_NAME = "/sweep", "sweep.toml"
MAX_FILE_BYTES = 200_000  # Kubernetes takes 256 KiB of annotations in all

MAX_NAME = 47  # what the operator appends must fit into 63
_HASH = 8  # hexadecimal digits
# Two shells read a command, the submitter's and the head's. To these characters neither does anything.
_SAFE = re.compile(r"[A-Za-z0-9./:_=@,+-]")

# Flags that say where a sweep runs and with what: an overlay knows them, whoever types a sweep need not.
PLACES = ("--storage", "--tracking-uri", "--data-dir", "--gpus-per-probe", "--cpus-per-probe", "--max-concurrent")


def job_name(sweep: str) -> str:
    """The name of a sweep's RayJob: the sweep's own where Kubernetes takes it, else one that is as good as unique.

    A name that had to change ends with a hash of the sweep's, and so does one that looks as if it had been changed:
    otherwise two sweeps could meet.
    """
    plain = re.sub(r"[^a-z0-9]+", "-", sweep.lower()).strip("-")
    if plain == sweep and sweep[:1].isalpha() and len(sweep) <= MAX_NAME and not re.search(r"-[0-9a-f]{8}$", sweep):
        return sweep
    if not plain[:1].isalpha():
        plain = f"sweep-{plain}"
    digest = hashlib.sha256(sweep.encode()).hexdigest()[:_HASH]
    return f"{plain[: MAX_NAME - _HASH - 1].rstrip('-')}-{digest}"


def check_label(flag: str, value: str) -> None:
    """Raise SpecError if Kubernetes has no namespace and no queue of that name: it must be a DNS-1123 label."""
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", value):
        raise SpecError(f"{flag} must be at most 63 lower-case letters, digits and dashes, got {value!r}")


def rayjob_in(text: str, *, source: str) -> Manifest:
    """The only RayJob of a rendering. Raises SpecError if it has none or several, or one without a cluster."""
    import yaml

    try:
        objects = list(yaml.safe_load_all(text))
    except yaml.YAMLError as error:
        raise SpecError(f"{source}: is no YAML: {' '.join(str(error).split())[:200]}") from error
    found = [one for one in objects if isinstance(one, dict) and one.get("kind") == "RayJob"]
    if len(found) != 1:
        raise SpecError(f"{source}: a sweep is one RayJob, and this renders {len(found)}")
    if "rayClusterSpec" not in found[0].get("spec", {}):
        raise SpecError(f"{source}: its RayJob has no rayClusterSpec, and a sweep needs a cluster of its own")
    return found[0]


def as_yaml(manifest: Manifest) -> str:
    """An object as YAML that every reader understands alike."""
    import yaml

    class Dumper(yaml.SafeDumper):  # type: ignore[misc]
        def ignore_aliases(self, data: Any) -> bool:
            return True

    def text(dumper: Any, value: str) -> Any:
        # YAML 1.1 and 1.2 differ in what is a number or a truth: 1e3, 0o7, y. Quoted, it is text to both.
        is_doubtful = len(value) == 1 or re.match(r"[-+.\d~]", value) or not value.replace("\n", "").isprintable()
        style = '"' if is_doubtful else "|" if "\n" in value else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    Dumper.add_representer(str, text)
    return str(yaml.dump(manifest, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=10**6))


def places_of(job: Manifest) -> dict[str, str]:
    """What a RayJob's own command says of where it runs, by flag."""
    words = shlex.split(job["spec"].get("entrypoint", ""))
    given = {flag: value for flag, _, value in (word.partition("=") for word in words)} | dict(pairwise(words))
    return {flag: given[flag] for flag in PLACES if flag in given}


def entrypoint(words: Sequence[str]) -> str:
    """Words as the command of a RayJob.

    Raises: SpecError: a word that would arrive as another one. What it says is not repeated: it may be a secret.
    """
    for before, word in zip(("", *words), words, strict=False):
        odd = sorted({character for character in word if not _SAFE.fullmatch(character)})
        if odd or not word:
            flag = (
                word.partition("=")[0] if word.startswith("-") else before if before.startswith("-") else "the target"
            )
            what = f"{' '.join(map(repr, odd))} does" if odd else "an empty word does"
            raise SpecError(
                f"{flag}: {what} not survive the two shells that read a RayJob's command: "
                "write a TOML file of your own with it and submit that; the file travels along"
            )
    return " ".join(words)


def volumes_of(job: Manifest) -> dict[str, bool]:
    """Folders of the head that outlive it, and whether a sweep may write to them."""
    spec = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    claims = {one["name"] for one in spec.get("volumes", []) if "persistentVolumeClaim" in one}
    mounts = [one for one in spec["containers"][0].get("volumeMounts", []) if one["name"] in claims]
    return {one["mountPath"]: not one.get("readOnly", False) for one in mounts}


def sweep_rayjob(
    job: Manifest,
    *,
    sweep: str,
    command: str,
    namespace: str,
    queue: str | None = None,
    file_text: str | None = None,
) -> Manifest:
    """The RayJob of a sweep: that of an overlay with the sweep's name and command.

    Args:
        queue: of Kueue. Raises SpecError if the job could never be admitted.
        file_text: the sweep's own file. It lies in the RayJob itself, so that there is no second object to be made,
            found and deleted with it, and the head sees it as `FILE_FOLDER/FILE_NAME`.
    """
    job = copy.deepcopy(job)
    metadata, cluster = job["metadata"], job["spec"]["rayClusterSpec"]
    metadata["name"], metadata["namespace"] = job_name(sweep), namespace
    metadata.setdefault("annotations", {})[SWEEP] = sweep
    metadata.setdefault("labels", {})[ROLE] = "sweep"
    job["spec"]["entrypoint"] = command
    if queue is not None:
        if cluster.get("enableInTreeAutoscaling"):
            raise SpecError("--queue: Kueue admits a fixed number of workers, and this overlay scales them: use kueue")
        metadata["labels"][QUEUE] = queue
    if file_text is not None:
        _add_file(cluster["headGroupSpec"]["template"], file_text)
    return job


def _add_file(template: Manifest, text: str) -> None:
    template.setdefault("metadata", {}).setdefault("annotations", {})[FILE] = text
    item: Mapping[str, Any] = {"path": FILE_NAME, "fieldRef": {"fieldPath": f"metadata.annotations['{FILE}']"}}
    template["spec"].setdefault("volumes", []).append({"name": "sweep", "downwardAPI": {"items": [item]}})
    mounts = template["spec"]["containers"][0].setdefault("volumeMounts", [])
    mounts.append({"name": "sweep", "mountPath": FILE_FOLDER, "readOnly": True})
