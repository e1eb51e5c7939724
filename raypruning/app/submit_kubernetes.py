"""Run a sweep as a RayJob on Kubernetes: the command that a person would type there, in the RayJob of an overlay."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import raypruning
from raypruning.app.request import SweepRequest, understand
from raypruning.app.submit import entrypoint_words
from raypruning.app.sweep_files import is_file
from raypruning.errors import SpecError
from raypruning.runtime import rayjob
from raypruning.runtime.kubernetes_jobs import rendered
from raypruning.runtime.rayjob import Manifest

OVERLAYS = Path("k8s", "overlays")
DEFAULT_OVERLAY, QUEUE_OVERLAY = "gpu", "kueue"
NO_REGISTRY = "registry.example.com"  # of images, until somebody writes their own into an overlay


def sweep_rayjob(
    request: SweepRequest,
    words: Sequence[str],
    *,
    overlay: str | None = None,
    namespace: str | None = None,
    queue: str | None = None,
) -> Manifest:
    """The RayJob that runs a sweep. Asks no cluster.

    Args:
        request: what the words say.
        words: of `prune-cli sweep`, the target first.
        overlay: of k8s/overlays, or a folder; by default `gpu`, and `kueue` where there is a queue.
        namespace: by default the overlay's.
        queue: of Kueue.

    Raises:
        SpecError: what the command would refuse on every machine, and what a RayJob could not carry.
        ResourceError: there is no kubectl.
    """
    _refuse_what_no_rayjob_does(request, words)
    for flag, value in (("--namespace", namespace), ("--queue", queue)):
        if value is not None:
            rayjob.check_label(flag, value)
    folder = overlay_folder(overlay or (QUEUE_OVERLAY if queue else DEFAULT_OVERLAY))
    job = rayjob.rayjob_in(rendered(folder), source=str(folder))
    own_namespace = job["metadata"].get("namespace", "default")
    places = _moved(rayjob.places_of(job), old=own_namespace, new=namespace or own_namespace)
    data_dir = request.data_dir or (Path(places["--data-dir"]) if "--data-dir" in places else None)
    spec = understand(replace(request, data_dir=data_dir), data_dir=data_dir).spec
    words = [*words, *_not_typed(places, request, of_the_sweep=spec.resources.model_fields_set)]
    file_text = None
    if is_file(request.target):
        file_text = _text_of(Path(request.target))
        words = [f"{rayjob.FILE_FOLDER}/{rayjob.FILE_NAME}", *words[1:]]
    _check_folders(job, storage=request.storage or places.get("--storage", ""), data_dir=data_dir)
    return rayjob.sweep_rayjob(
        job,
        sweep=spec.name,
        command=rayjob.entrypoint(entrypoint_words(words, name=spec.name)),
        namespace=namespace or own_namespace,
        queue=queue,
        file_text=file_text,
    )


def overlay_folder(overlay: str) -> Path:
    """An overlay by its name, in the current folder's `k8s/` or in that of this checkout; or any folder by its path.

    Raises: SpecError: there is none.
    """
    if "/" in overlay or overlay in (".", ".."):
        known = [Path(overlay)]
    else:
        checkout = Path(raypruning.__file__).parents[1]
        known = [place / OVERLAYS / overlay for place in (Path(), checkout)]
    for folder in known:
        if folder.is_dir():
            return folder
    raise SpecError(
        f"--overlay {overlay}: there is no folder {known[0]}; give the path of an overlay, such as "
        "CHECKOUT/k8s/overlays/gpu, or call this in a checkout of raypruning"
    )


def check_images(job: Manifest) -> None:
    """Raise SpecError if a cluster could pull none of a job's images."""
    if NO_REGISTRY in rayjob.as_yaml(job):
        raise SpecError(
            f"the overlay has images of {NO_REGISTRY}: write your registry into its kustomization.yaml, "
            "step 2 of k8s/README.md"
        )


def _refuse_what_no_rayjob_does(request: SweepRequest, words: Sequence[str]) -> None:
    # First of all: no message after this one can show a password.
    if any(re.search(r"://([^/]*|.*:.*)@", word) for word in words):
        raise SpecError(
            "an address with a password would be readable by all who may see the RayJob: leave user and password out; "
            "those of MLflow come from the Secret mlflow"
        )
    if request.address is not None or request.executor != "ray":
        raise SpecError("the sweep runs on the Ray cluster that its RayJob makes: leave --address and --executor out")
    if request.fresh:
        raise SpecError("--fresh would forget what is finished whenever Kubernetes tries again: take another --name")


def _moved(places: dict[str, str], *, old: str, new: str) -> dict[str, str]:
    """With the services of another namespace: by their short names, which MLflow answers to in any."""
    if old == new or "--tracking-uri" not in places:
        return places
    uri = re.sub(rf"\.{re.escape(old)}\.svc(\.cluster\.local)?(?=[:/]|$)", "", places["--tracking-uri"])
    return {**places, "--tracking-uri": uri}


def _not_typed(places: dict[str, str], request: SweepRequest, *, of_the_sweep: set[str]) -> list[str]:
    """Flags of the overlay's command that neither the person nor the sweep's file has said."""
    fields = {flag: flag.removeprefix("--").replace("-", "_") for flag in places}
    new = [flag for flag, field in fields.items() if getattr(request, field) is None and field not in of_the_sweep]
    return [word for flag in new for word in (flag, places[flag])]


def _text_of(file: Path) -> str:
    text = file.read_text(encoding="utf-8")
    if len(text.encode()) > rayjob.MAX_FILE_BYTES:
        raise SpecError(f"{file}: has more than the {rayjob.MAX_FILE_BYTES} bytes that travel with a RayJob")
    return text


def _check_folders(job: Manifest, *, storage: str, data_dir: Path | None) -> None:
    """Raise SpecError if a storage would end with the cluster, or data lie where no pod looks."""
    volumes = rayjob.volumes_of(job)
    shared = [mount for mount, may_write in volumes.items() if may_write]
    # With a volume for the store, no pod of the overlay has a way to a bucket.
    is_kept = _is_below(storage, shared) if shared else storage.startswith("s3://")
    if not is_kept:
        known = (
            f"below {shared[0]}, or on an overlay with a bucket, such as gpu-spot" if shared else "s3://BUCKET/FOLDER"
        )
        raise SpecError(f"--storage must outlive the cluster: {known}; got {storage or 'none'}")
    if data_dir is not None and not _is_below(str(data_dir), list(volumes)):
        raise SpecError(f"--data-dir must lie in a volume of the overlay: {' or '.join(volumes)}, got {data_dir}")


def _is_below(path: str, mounts: Sequence[str]) -> bool:
    return ".." not in Path(path).parts and any(Path(path).is_relative_to(mount) for mount in mounts)
