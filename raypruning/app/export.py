"""Export a pruned network of a sweep: smaller for real, checked against the one that was measured."""

# N images, C channels, H W height and width

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from raypruning.app.read import read_sweep
from raypruning.app.results import read_record
from raypruning.app.stored_networks import stored_network, swept_dataset
from raypruning.core.records import MethodChoice, Potential, Probe, SweepResults
from raypruning.core.spec import expanded
from raypruning.errors import RaypruningError, SpecError, unknown_name_message
from raypruning.folders import check_free, folder_at_once
from raypruning.runtime.store import ObjectStore

if TYPE_CHECKING:
    from torch import Tensor

    from raypruning.compaction.plan import ChannelPlan
    from raypruning.core.records import DataChoice

FORMATS = ("safetensors", "onnx", "torch")
# Of logits: float32 rounding of sums in another order stays far below, a wrong channel far above.
MAX_DIFFERENCE = 1e-4
# Numbers in the images that outputs are compared on: 256 images of 28 px, 33 of 224 px.
_MAX_CHECK_IMAGES, _MIN_CHECK_IMAGES, _MAX_CHECK_VALUES = 256, 32, 5_000_000
_CHECK_BATCH = 32


class ExportMismatchError(RaypruningError):
    """The smaller network computes something else than the network it was made of, so it was not written."""


class ExportRequest(NamedTuple):
    """What to export, and where to.

    Attributes:
        probe: id of a probe, or its beginning; then task, delta, method, budget and seed must be absent.
        task: `nominal` when absent.
        delta: the sweep's own when absent, which must then be one.
        method, budget, seed: narrow the choice; of what is left, the network at the largest potential is taken.
        format: one of `FORMATS`; the others add a file to the safetensors.
        output: folder to write; None names one after the sweep and the probe, in the working folder.
        data_dir: where the images for the check are looked for.
    """

    sweep: str
    probe: str | None = None
    task: str | None = None
    delta: float | None = None
    method: str | None = None
    budget: int | None = None
    seed: int | None = None
    format: str = "safetensors"
    output: Path | None = None
    data_dir: Path | None = None


class Exported(NamedTuple):
    """What was written.

    Attributes:
        files: names in the folder, with their sizes in bytes.
    """

    folder: Path
    files: Mapping[str, int]
    plan: ChannelPlan

    def as_dict(self) -> dict[str, Any]:
        """For JSON: the plan without its layers, which lie in the file."""
        plan = self.plan.model_dump(mode="json", exclude={"layers", "weights_sha256", "format"})
        return {"folder": str(self.folder), "files": dict(self.files), **plan}


def export(store: ObjectStore, request: ExportRequest) -> Exported:
    """Write the network that a request asks for.

    Raises:
        SpecError: the request names something that is not there, or there is nothing to export.
        DataError: the images for the check are missing.
        ResourceError: a package or a folder is missing.
        ExportMismatchError: the outputs of the smaller network differ; nothing was written.
    """
    # What costs no waiting is checked first.
    if request.format not in FORMATS:
        raise SpecError(f"--format is {', '.join(FORMATS)}, got {request.format}")
    chosen = _choose(read_sweep(store, request.sweep), request)
    from raypruning.compaction.portable import check_onnx

    if request.format == "onnx":
        check_onnx()
    folder = request.output or Path(f"{request.sweep}-{chosen.probe.id[:8]}")
    check_free(folder)
    return _write(store, request, chosen, folder)


class _Chosen(NamedTuple):
    probe: Probe
    ratio: float
    potential: Potential | None


def _choose(results: SweepResults, request: ExportRequest) -> _Chosen:
    return _by_id(results, request) if request.probe else _at_potential(results, request)


def _by_id(results: SweepResults, request: ExportRequest) -> _Chosen:
    narrowing = (request.task, request.delta, request.method, request.budget, request.seed)
    if any(value is not None for value in narrowing):
        raise SpecError("--probe names one network: leave out --task, --delta, --method, --budget and --seed")
    wanted = request.probe or ""
    found = [one for one in results.probes if one.probe.id.startswith(wanted)]
    if len({one.probe.id for one in found}) != 1:
        ids = sorted({one.probe.id for one in found})
        which = f"{len(ids)} probes begin with {wanted}" if found else f"no probe has the id {wanted}"
        raise SpecError(f"{which} in the sweep {request.sweep}: prune-cli report {request.sweep} --json lists them")
    (result,) = found[:1]
    if not result.is_done:
        raise SpecError(f"the probe {result.probe.id} failed: there is no network to export")
    return _Chosen(result.probe, result.ratio_reached, None)


def _at_potential(results: SweepResults, request: ExportRequest) -> _Chosen:
    task = request.task or "nominal"
    names = [one.name for one in results.tasks]
    if task not in names:
        raise SpecError(f"{unknown_name_message('task', task, names)} in the sweep {request.sweep}")
    delta = _delta(results, request)
    found = [one for one in results.potentials if one.task == task and one.delta == delta]
    # The parameters of a method may be typed in any order.
    method = request.method and MethodChoice.model_validate(expanded({"methods": [request.method]})["methods"][0]).label
    wants = {"method": method, "budget": request.budget, "seed": request.seed}
    for field, wanted in wants.items():
        if wanted is None:
            continue
        offered = {_named(one, field) for one in found}
        found = [one for one in found if _named(one, field) == wanted]
        if not found:
            raise SpecError(
                f"the sweep {request.sweep} has no {field} {wanted}: it has {', '.join(map(str, sorted(offered)))}"
            )
    known = [one for one in found if one.status != "open" and one.ratio is not None]
    if not known:
        raise SpecError(
            f"every potential that this asks for is open: prune-cli sweep {request.sweep} closes them, "
            "and --probe exports a network without one"
        )
    best = max(known, key=lambda one: one.ratio or 0.0)
    if not best.ratio or best.training is None:
        raise SpecError(
            f"the potential of {best.curve.label} on {task} at delta {delta:g} is 0: no pruned network is within it, "
            "so there is nothing to export"
        )
    (probe,) = {one.probe.id: one.probe for one in results.probes if one.probe.id == best.training}.values()
    return _Chosen(probe, best.ratio, best)


def _named(potential: Potential, field: str) -> Any:
    return getattr(potential.curve, field)


def _delta(results: SweepResults, request: ExportRequest) -> float:
    deltas = results.spec.deltas
    if request.delta is None:
        if len(deltas) > 1:
            raise SpecError(
                f"the sweep {request.sweep} has several deltas: --delta {' or '.join(f'{d:g}' for d in deltas)}"
            )
        return deltas[0]
    if request.delta not in deltas:
        known = ", ".join(f"{delta:g}" for delta in deltas)
        raise SpecError(f"the sweep {request.sweep} was not run at delta {request.delta:g}: it has {known}")
    return request.delta


def _write(store: ObjectStore, request: ExportRequest, chosen: _Chosen, folder: Path) -> Exported:
    import torch

    from raypruning.compaction import files, portable
    from raypruning.compaction.compact import compact, largest_difference, masked_copy
    from raypruning.compaction.latency import measure_latencies
    from raypruning.compaction.plan import ChannelPlan, Channels, Check, Source, without_weights
    from raypruning.compaction.sizes import size_of

    record = read_record(store, request.sweep)
    training, curve = chosen.probe.training, chosen.probe.curve
    setting = _setting(record.spec.plugins, training.data, training.data_fingerprint, request.data_dir)
    original = stored_network(
        store,
        chosen.probe,
        num_classes=setting.num_classes,
        in_channels=setting.in_channels,
        image_size=setting.image_size,
    )
    masks = {name: torch.from_numpy(value.copy()) for name, value in store.masks(training.id).items()}
    batches = list(setting.images_NCHW.split(_CHECK_BATCH))  # type: ignore[no-untyped-call]
    small = compact(original, masks, batches[0])
    masked = masked_copy(original, masks)
    difference, num_images = largest_difference(masked, small.model, batches)
    _refuse(difference, "the smaller network's")
    size = {"in_channels": setting.in_channels, "image_size": setting.image_size}
    before, after = size_of(masked, **size), size_of(small.model, **size)
    latencies = measure_latencies([masked, small.model], batches[0][:1], threads=training.recipe.numerics.threads)
    with folder_at_once(folder) as part:
        differences: dict[str, float] = {}
        if request.format == "onnx":
            differences["onnx_max_difference"] = portable.write_onnx(small.model, batches[0], part / files.ONNX)
        if request.format == "torch":
            differences["torch_max_difference"] = portable.write_torch(small.model, batches[0], part / files.TORCH)
        for name, value in differences.items():
            _refuse(value, f"{name.partition('_')[0]}'s")
        weights = files.weights_bytes(small.model)
        plan = ChannelPlan(
            model=without_weights(training.model),
            num_classes=setting.num_classes,
            **size,
            transform_input=bool(getattr(original, "transform_input", False)),
            mean=setting.mean,
            std=setting.std,
            plugins=record.spec.plugins,
            source=Source(
                sweep=request.sweep,
                probe=training.id,
                method=curve.method,
                ratio=chosen.ratio,
                task=chosen.potential.task if chosen.potential else None,
                delta=chosen.potential.delta if chosen.potential else None,
                budget=curve.budget,
                seed=curve.seed,
            ),
            channels=Channels(
                num_outputs=small.num_outputs,
                num_dead=small.num_dead,
                num_removed=small.num_removed,
                kept=small.kept,
            ),
            check=Check(max_difference=difference, num_images=num_images, **differences),
            before=before,
            after=after,
            latency_before=latencies[0],
            latency_after=latencies[1],
            layers=small.shapes,
            weights_sha256=files.sha256(weights),
        )
        (part / files.WEIGHTS).write_bytes(weights)
        (part / files.PLAN).write_text(_json(plan))
        sizes = {path.name: path.stat().st_size for path in sorted(part.iterdir())}
    return Exported(folder, sizes, plan)


def _json(plan: ChannelPlan) -> str:
    return plan.model_dump_json(indent=1) + "\n"


def _refuse(difference: float, whose: str) -> None:
    if not difference <= MAX_DIFFERENCE:
        raise ExportMismatchError(
            f"{whose} outputs differ by {difference:.2g} from the pruned network's, more than {MAX_DIFFERENCE:g}: "
            "nothing was written"
        )


class _Setting(NamedTuple):
    """What of the dataset is needed: its facts, and normalised test images."""

    num_classes: int
    in_channels: int
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    images_NCHW: Tensor


def _setting(plugins: tuple[str, ...], choice: DataChoice, fingerprint: str, data_dir: Path | None) -> _Setting:
    import torch

    from raypruning.training.images import open_images
    from raypruning.training.inputs import Normalisation

    dataset = swept_dataset(plugins, choice, fingerprint, data_dir=data_dir)
    images = open_images(dataset.split("test"), torch.device("cpu"))
    num = max(
        _MIN_CHECK_IMAGES, min(_MAX_CHECK_IMAGES, _MAX_CHECK_VALUES // (dataset.channels * dataset.image_size**2))
    )
    # Evenly over the test set, which may lie in the order of its classes.
    order = torch.linspace(0, len(images) - 1, min(num, len(images))).long()
    normalise = Normalisation.of(dataset, torch.device("cpu"))
    read = images.read(order, batch_size=_CHECK_BATCH, augmentation="none", seed=0)
    batches = [normalise(pixels_NCHW).contiguous() for pixels_NCHW, _, _ in read]
    return _Setting(
        num_classes=dataset.num_classes,
        in_channels=dataset.channels,
        image_size=dataset.image_size,
        mean=tuple(dataset.mean),
        std=tuple(dataset.std),
        images_NCHW=torch.cat(batches),
    )
