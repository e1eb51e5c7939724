"""The images that pruned networks forget, as files: a page to look at, a list, a folder, a subset for a task."""

# N images, C channels, H W height and width

from __future__ import annotations

import io
import json
import os
import shlex
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from raypruning.analysis.exemplars import Exemplars, PopulationExemplars
from raypruning.app.exemplars import ExemplarsRequest, exemplars_of
from raypruning.app.read import read_sweep
from raypruning.app.results import SweepRecord, read_record
from raypruning.app.stored_networks import swept_dataset
from raypruning.core.records import SweepResults, Task
from raypruning.errors import DataError, ResourceError, SpecError
from raypruning.folders import check_free, folder_at_once
from raypruning.runtime.store import ObjectStore
from raypruning.tasks.published.own_folder import folder_name

if TYPE_CHECKING:
    from torch import Tensor

    from raypruning.datasets.base import Dataset
    from raypruning.training.batches import Batch, Images

FORMATS = ("indices", "images", "subset")
PROVENANCE = "provenance.json"
# Rows of votes that a card of the gallery has room for, beside that of the dense networks.
MAX_ROWS = 8
# The side of a picture in the gallery, pixels: larger ones are made smaller, or 200 of them would fill 20 MB.
_MAX_SIDE = 160
# What float32 rounding leaves of a byte divided by 255 and multiplied again stays far below.
_BYTE_TOLERANCE = 1e-3


# -- gallery -----------------------------------------------------------------------------------------------------------


class GalleryRequest(NamedTuple):
    """What to show, and where.

    Attributes:
        chosen: without a task, the first of the sweep; without a budget, the largest, of which a report speaks.
        max_pictures: those of the largest distance are shown.
        data_dir: where the dataset is looked for.
    """

    chosen: ExemplarsRequest
    html: Path
    max_pictures: int = 200
    data_dir: Path | None = None


class WrittenGallery(NamedTuple):
    """What was written: so many pictures, out of so many images that are a PIE of some population."""

    task: str
    num_shown: int
    num_pies: int


def write_gallery(store: ObjectStore, request: GalleryRequest) -> WrittenGallery:
    """Write the page.

    Raises:
        SpecError: the request names something that is not there or not allowed, or there is no PIE.
        DataError: the images are missing here, or are others.
        ResourceError: the page cannot be written.
    """
    from raypruning.reporting.files import write_text
    from raypruning.reporting.gallery import ranked_images, render_gallery

    record, results, found = _found(store, request.chosen)
    if not request.chosen.budgets:
        largest = max(one.budget for one in found.populations)
        found = found._replace(populations=tuple(one for one in found.populations if one.budget == largest))
    if len(found.populations) > MAX_ROWS:
        raise SpecError(
            f"a gallery has room for {MAX_ROWS} methods, budgets and ratios, and this asks for "
            f"{len(found.populations)}: choose some with --method, --budget or --ratio"
        )
    images = ranked_images(found)
    if not len(images):
        raise SpecError(f"no PIE on {found.populations[0].task}: there is nothing to show")
    task = _task(results, found)
    dataset = _dataset(record, data_dir=request.data_dir)
    shown = images[: request.max_pictures]
    pixels = _pixels(dataset, task, np.sort(shown), data_dir=request.data_dir)
    pictures = {position: _png(pixels_CHW, max_side=_MAX_SIDE) for position, pixels_CHW in pixels}
    page = found._replace(class_names=dataset.class_names)
    write_text(request.html, lambda: render_gallery(page, pictures, num_pies=len(images)))
    return WrittenGallery(task.name, len(shown), len(images))


# -- export ------------------------------------------------------------------------------------------------------------


class ExportRequest(NamedTuple):
    """What to export, and where to.

    Attributes:
        chosen: of one task, method, budget and ratio.
        format: one of `FORMATS`.
        non_pie: all images but the PIEs.
    """

    chosen: ExemplarsRequest
    output: Path
    format: str = "indices"
    non_pie: bool = False
    data_dir: Path | None = None


class ExportedExemplars(NamedTuple):
    """What was written, and what to do with it, in words."""

    num_images: int
    text: str


def export_exemplars(store: ObjectStore, request: ExportRequest) -> ExportedExemplars:
    """Write a list or a folder, all of it or nothing.

    Raises:
        SpecError: the request names something that is not there, is not one population, or what it asks for is none.
        DataError: the images are missing here, or are others.
        ResourceError: the place cannot be written.
    """
    if request.format not in FORMATS:
        raise SpecError(f"--format is {', '.join(FORMATS)}, got {request.format}")
    if request.format == "indices" and request.output.exists():
        raise SpecError(f"{request.output} exists: name another with --output")
    check_free(request.output)
    record, results, found = _found(store, request.chosen)
    one = _only(found)
    positions = np.setdiff1d(np.arange(one.num_images), one.pies) if request.non_pie else one.pies
    kind = "image that is no PIE" if request.non_pie else "PIE"
    if not len(positions):
        raise SpecError(f"no {kind} on {one.task} at {one.ratio:g}: there is nothing to export")
    provenance = _provenance(results, found, one, non_pie=request.non_pie)
    num = len(positions)
    what = f"wrote {request.output}: {num} of {one.num_images} images of {one.task}"
    if request.format == "indices":
        _write_at_once(request.output, _list(provenance, positions, as_json=request.output.suffix == ".json"))
        return ExportedExemplars(num, what)
    dataset = _dataset(record, data_dir=request.data_dir)
    num_classes = _write_folder(request, dataset, _task(results, found), one, positions, provenance)
    if request.format == "subset":
        what += _as_task(request.output.absolute(), results, num_classes=num_classes, dataset=dataset)
    return ExportedExemplars(num, what)


def _only(found: Exemplars) -> PopulationExemplars:
    """The one population of a request. Raises SpecError, with what there is to choose from."""
    for field in ("method", "budget", "ratio"):
        offered = list(dict.fromkeys(f"{getattr(one, field)}" for one in found.populations))
        if len(offered) > 1:
            some = f"{', '.join(offered[:-1])} or {offered[-1]}"
            raise SpecError(f"an export is of one {field}: add --{field} {some}")
    (one,) = found.populations
    return one


def _provenance(
    results: SweepResults, found: Exemplars, one: PopulationExemplars, *, non_pie: bool
) -> dict[str, object]:
    task = _task(results, found)
    return {
        "kind": "non_pie" if non_pie else "pie",
        "sweep": found.sweep,
        "storage": found.storage,
        "model": found.model,
        "dataset": found.dataset,
        "data_fingerprint": results.data_fingerprint,
        "task": task.name,
        "task_fingerprint": task.fingerprint,
        "num_images_of_task": one.num_images,
        "method": one.method,
        "budget": one.budget,
        "ratio": one.ratio,
        "ratio_reached": one.ratio_reached,
        "seeds_dense": list(one.seeds_dense),
        "seeds_pruned": list(one.seeds_pruned),
        "ties": found.ties,
    }


def _list(provenance: Mapping[str, object], positions: np.ndarray, *, as_json: bool) -> bytes:
    indices = [int(position) for position in positions]
    if as_json:
        return (json.dumps({**provenance, "indices": indices}, indent=1) + "\n").encode()
    head = [f"# {name}: {json.dumps(value)}" for name, value in provenance.items()]
    return ("\n".join([*head, *map(str, indices)]) + "\n").encode()


def _write_at_once(path: Path, data: bytes) -> None:
    part = path.with_name(f".{path.name}-{uuid.uuid4().hex[:8]}.part")
    try:
        part.write_bytes(data)
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise ResourceError(f"{path}: cannot be written: {error.strerror}") from error


def _write_folder(
    request: ExportRequest,
    dataset: Dataset,
    task: Task,
    one: PopulationExemplars,
    positions: np.ndarray,
    provenance: Mapping[str, object],
) -> int:
    """A folder of pictures for each class, and the provenance. Returns: how many classes there are."""
    is_subset = request.format == "subset"
    folders = [folder_name(dataset.class_names[label]) for label in one.label_N[positions]]
    if is_subset and len(set(folders)) < 2:
        raise SpecError(f"a task has two classes or more, and these images are all of {folders[0]}")
    is_plain = is_subset or request.non_pie
    names = _plain_names(positions) if is_plain else _telling_names(one, dataset)
    with folder_at_once(request.output) as part:
        for folder in set(folders):
            (part / folder).mkdir()
        pixels = _pixels(dataset, task, positions, data_dir=request.data_dir)
        for folder, name, (_, pixels_CHW) in zip(folders, names, pixels, strict=True):
            if is_subset:
                _check_bytes(pixels_CHW, task)
            (part / folder / name).write_bytes(_png(pixels_CHW))
        (part / PROVENANCE).write_text(json.dumps({**provenance, "indices": positions.tolist()}, indent=1) + "\n")
        if is_subset:
            _check_task(part, dataset)
    return len(set(folders))


def _plain_names(positions: np.ndarray) -> list[str]:
    return [f"{position:06}.png" for position in positions]


def _telling_names(one: PopulationExemplars, dataset: Dataset) -> list[str]:
    """Of the PIEs by position: rank by distance, position, and what most networks of both populations answer."""
    dense, pruned = (
        [folder_name(dataset.class_names[label]) for label in one_M] for one_M in (one.dense_mode_M, one.pruned_mode_M)
    )
    names = {
        place: f"{rank:04}_{one.images_M[place]:06}_dense-{dense[place]}_pruned-{pruned[place]}.png"
        for rank, place in enumerate(one.ranked.tolist(), start=1)
    }
    return [names[place] for place in sorted(names)]


def _check_bytes(pixels_CHW: np.ndarray, task: Task) -> None:
    scaled = 255.0 * pixels_CHW
    if np.abs(scaled - np.rint(scaled)).max() > _BYTE_TOLERANCE:
        raise SpecError(
            f"the images of {task.name} are none that a picture can hold exactly, so no subset for a task can be made "
            "of them: --format images writes them as near as can be"
        )


def _check_task(folder: Path, dataset: Dataset) -> None:
    """Raise SpecError unless the folder can be read as a task."""
    from raypruning.tasks.published.own_folder import open_folder

    try:
        open_folder(str(folder), dataset, None)
    except DataError as error:
        reason = str(error).replace(f"{folder} ", "it ")
        raise SpecError(f"the folder could not be read as a task, and was not written: {reason}") from error


def _as_task(folder: Path, results: SweepResults, *, num_classes: int, dataset: Dataset) -> str:
    few = ""
    if num_classes < dataset.num_classes:
        few = f"; of {num_classes} of {dataset.num_classes} classes, so that only the answers of these will count"
    tasks = ("nominal", f"shift/folder/{folder}", f"nominal/folder/{folder}")
    typed = " ".join(f"--task {shlex.quote(task)}" for task in tasks)
    return f"{few}\nuse it in a sweep on {results.spec.data.name}: {typed}"


# -- what both need ----------------------------------------------------------------------------------------------------


def _found(store: ObjectStore, chosen: ExemplarsRequest) -> tuple[SweepRecord, SweepResults, Exemplars]:
    """The exemplars of one task: the first of the sweep, unless one is named."""
    record = read_record(store, chosen.sweep)
    results = read_sweep(store, chosen.sweep)
    tasks = chosen.tasks or [task.name for task in results.tasks][:1]
    found = exemplars_of(store, results, chosen._replace(tasks=tasks))
    names = list(dict.fromkeys(one.task for one in found.populations))
    if len(names) > 1:
        raise SpecError(f"--task must name one task here: {' or '.join(names)}")
    return record, results, found


def _task(results: SweepResults, found: Exemplars) -> Task:
    return next(task for task in results.tasks if task.name == found.populations[0].task)


def _dataset(record: SweepRecord, *, data_dir: Path | None) -> Dataset:
    spec = record.spec
    return swept_dataset(spec.plugins, spec.data, str(record.run["data_fingerprint"]), data_dir=data_dir)


class _Chosen:
    """Some images of a split, in order: what a task does to an image depends on its position in the whole split."""

    seconds_waited = 0.0

    def __init__(self, images: Images, positions: np.ndarray) -> None:
        import torch

        self._images, self._positions = images, torch.from_numpy(np.ascontiguousarray(positions, dtype=np.int64))

    def __len__(self) -> int:
        return len(self._positions)

    def read(self, order: Tensor, **how: Any) -> Iterator[Batch]:
        """See `Images.read`, which gives positions in the whole split as ids."""
        return self._images.read(self._positions[order], **how)


def _pixels(
    dataset: Dataset, task: Task, positions: np.ndarray, *, data_dir: Path | None
) -> Iterator[tuple[int, np.ndarray]]:
    """What the networks saw of some images of a task, before it was normalised: pixels in [0, 1], (C, H, W) float32.

    Raises: DataError: the task has other images here.
    """
    import torch

    from raypruning.app.request import resolve_data_dir
    from raypruning.bench import Bench
    from raypruning.tasks.task import resolve_task
    from raypruning.training.images import open_images
    from raypruning.training.inputs import Normalisation, Source, TaskInputs, batch_size_for

    device = torch.device("cpu")
    definition = resolve_task(task.name)
    examples = Bench("cpu").examples(task, dataset, data_dir=resolve_data_dir(data_dir))
    images = open_images(examples.split if examples else dataset.split("test"), device)
    normalise = Normalisation.of(dataset, device)
    if definition.on_normalised is None:
        # To the bit: what is normalised and put back may be another float.
        normalise = Normalisation(torch.zeros_like(normalise.mean_C11), torch.ones_like(normalise.std_C11))
    inputs = TaskInputs(lambda task, definition: Source(_Chosen(images, positions)), normalise, max_bytes=0)
    place = 0
    for normal_NCHW, _ in inputs.batches(task, definition, batch_size=batch_size_for(dataset, device)):
        pixels_NCHW = (normal_NCHW * normalise.std_C11 + normalise.mean_C11).clamp(0.0, 1.0).numpy()
        for pixels_CHW in pixels_NCHW:
            yield int(positions[place]), pixels_CHW
            place += 1


def _png(pixels_CHW: np.ndarray, *, max_side: int | None = None) -> bytes:
    """A picture of 8 bits, grey or in colours; made smaller where its side is larger than allowed."""
    from PIL import Image

    bytes_CHW = np.rint(255.0 * pixels_CHW).astype(np.uint8)
    image = Image.fromarray(bytes_CHW[0] if len(bytes_CHW) == 1 else np.ascontiguousarray(bytes_CHW.transpose(1, 2, 0)))
    if max_side is not None and image.width > max_side:
        image = image.resize((max_side, max_side), Image.Resampling.LANCZOS)
    data = io.BytesIO()
    image.save(data, "PNG", optimize=True)
    return data.getvalue()
