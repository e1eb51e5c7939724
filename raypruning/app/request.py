"""From what a command was given to a validated spec and the place and manner of running it."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

from raypruning import registry
from raypruning.app.deadline import parse_deadline
from raypruning.app.sweep_files import SweepFile, read_target, recipes
from raypruning.core.populations import seeds_of
from raypruning.core.records import SweepSpec
from raypruning.core.spec import MAX_NAME, Raw, build_spec, expanded, merged, with_settings
from raypruning.corruptions.mixes import expand_mixes
from raypruning.errors import DataError, ResourceError, SpecError
from raypruning.models.resolve import check_model
from raypruning.tasks.task import expand_tasks, resolve_task

# Of a population, where nothing names others. Source: the PIE study.
POPULATION_RATIOS = (0.1, 0.3, 0.5, 0.7, 0.9)
DEFAULT_STORAGE = "raypruning-store"
CONNECT_SECONDS = 10.0  # to a cluster's head

LogCheckpoints = Literal["potential", "all", "none"]


@dataclass(frozen=True, kw_only=True)
class SweepRequest:
    """The flags of `prune-cli sweep`, as typed. None and empty mean: as the sweep's file has it."""

    target: str
    name: str | None = None
    deltas: Sequence[float] = ()
    tasks: Sequence[str] = ()
    methods: Sequence[str] = ()
    budgets: Sequence[int] = ()
    seeds: Sequence[int] = ()
    population: int | None = None
    ratios: Sequence[float] = ()
    dataset: str | None = None
    data_dir: Path | None = None
    download: bool = False
    storage: str | None = None
    tracking_uri: str | None = None
    executor: str = "ray"
    address: str | None = None
    gpus_per_probe: float | None = None
    cpus_per_probe: float | None = None
    max_concurrent: int | None = None
    max_probes: int | None = None
    gpu_hours: float | None = None
    deadline: str | None = None
    probes_per_round: str | None = None
    schedule: str | None = None
    search: str | None = None
    resolution: float | None = None
    budget_search: bool = False
    settings: Sequence[str] = ()
    fresh: bool = False
    log_checkpoints: str = "potential"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Where and how a sweep runs: no part of its answer.

    Attributes:
        storage: absolute path or s3 uri.
        tracking_uri: of MLflow; None for no tracking.
        deadline: seconds since the epoch after which nothing should run; None for no end.
        notices: lines a person should read before anything else.
    """

    storage: str
    tracking_uri: str | None
    executor: Literal["ray", "inline"] = "ray"
    address: str | None = None
    max_concurrent: int | None = None
    data_dir: Path | None = None
    download: bool = False
    fresh: bool = False
    log_checkpoints: LogCheckpoints = "potential"
    deadline: float | None = None
    notices: Sequence[str] = field(default_factory=tuple)


class Resolved(NamedTuple):
    """A request, understood."""

    spec: SweepSpec
    setting: Setting


class Understood(NamedTuple):
    """A request as far as it is the same on every machine.

    Attributes:
        notices: lines a person should read before anything else.
        is_auto: whether probes a round are to be taken from the cluster's size; the spec has one.
    """

    spec: SweepSpec
    notices: list[str]
    is_auto: bool


def understand(request: SweepRequest, *, data_dir: Path | None, has_gpu: bool = False) -> Understood:
    """Read the target, lay the flags over it, check every name.

    Args:
        data_dir: where datasets lie; not looked into.
        has_gpu: whether each probe is to have a GPU where nothing says otherwise.

    Raises: SpecError, UnknownNameError: one line.
    """
    file = read_target(request.target)
    raw, notices = _with_quick_recipe(file, request, data_dir=data_dir)
    changes = merged(_changes(request), _of_population(request, raw))
    raw = with_settings(expanded(merged(raw, changes)), request.settings)
    if isinstance(raw.get("tasks"), list) and all(isinstance(task, str) for task in raw["tasks"]):
        # Anything else is for the spec to refuse.
        raw["tasks"] = expand_tasks(raw["tasks"], dataset=_dataset_name(raw))
    if has_gpu and "gpus_per_probe" not in raw.get("resources", {}):
        raw = merged(raw, {"resources": {"gpus_per_probe": 1.0}})
        notices.append(
            "every probe gets a GPU; --gpus-per-probe 0.25 puts four on one, 2 gives each two, 0 leaves GPUs out"
        )
    if request.name:
        raw["name"] = request.name
    elif request.dataset and request.dataset != file.raw.get("dataset"):
        derived = f"{raw.get('name', request.target)}-{request.dataset}"
        raw["name"] = re.sub(r"[^A-Za-z0-9._]+", "-", derived)[:MAX_NAME].rstrip("-")
    raw, is_auto = _without_auto(raw)
    spec = _with_spelt_out_mixes(build_spec(raw, source=file.source, recipes=recipes()))
    registry.import_plugins(spec.plugins)
    check_names(spec)
    if max(spec.deltas) > 0.1:
        notices.append(f"delta {max(spec.deltas):g} allows {max(spec.deltas):.0%} more errors; 0.005 is half a point")
    return Understood(spec, notices, is_auto)


def resolve_request(request: SweepRequest, *, environment: Mapping[str, str] = os.environ) -> Resolved:
    """Understand a request, and see that this machine has what it needs.

    Raises: SpecError, UnknownNameError, DataError, ResourceError: one line each; nothing has been written.
    """
    data_dir = resolve_data_dir(request.data_dir, environment)
    spec, notices, is_auto = understand(request, data_dir=data_dir, has_gpu=request.address is None and _has_gpu())
    storage = resolve_storage(request.storage, environment)
    setting = Setting(
        storage=storage,
        tracking_uri=resolve_tracking_uri(request.tracking_uri, storage=storage, environment=environment),
        executor=_one_of("--executor", request.executor, ("ray", "inline")),
        address=request.address,
        max_concurrent=request.max_concurrent,
        data_dir=data_dir,
        download=request.download,
        fresh=request.fresh,
        log_checkpoints=_one_of("--log-checkpoints", request.log_checkpoints, ("potential", "all", "none")),
        deadline=parse_deadline(request.deadline, now=datetime.now().astimezone()) if request.deadline else None,
        notices=tuple(notices),
    )
    if setting.executor == "inline" and (setting.address or (setting.max_concurrent or 1) > 1):
        raise SpecError(
            "--executor inline runs one probe at a time in this process: leave --address and --max-concurrent out"
        )
    if setting.address is not None:
        _require_cluster(setting.address)
    if spec.resources.gpus_per_probe and setting.address is None:
        _require_gpu(spec.resources.gpus_per_probe)
    if spec.limits.gpu_hours and not spec.resources.gpus_per_probe:
        raise SpecError("--gpu-hours is for probes on GPUs, and these have none: --deadline 6h ends a run by the clock")
    if is_auto:
        from raypruning.app.concurrency import probes_per_round

        found = probes_per_round(spec, storage=storage, address=setting.address, max_concurrent=setting.max_concurrent)
        search = spec.search.model_copy(update={"probes_per_round": found})
        spec = spec.model_copy(update={"search": search})
    return Resolved(spec, setting)


def _without_auto(raw: Raw) -> tuple[Raw, bool]:
    """`raw` with one probe a round where it says `auto`, and whether it does."""
    search = raw.get("search")
    if not isinstance(search, Mapping) or search.get("probes_per_round") != "auto":
        return raw, False
    return merged(raw, {"search": {"probes_per_round": 1}}), True


def _with_spelt_out_mixes(spec: SweepSpec) -> SweepSpec:
    """The same training has the same identity, however its corruptions were named. Raises UnknownNameError."""
    if not spec.recipe.train_corruptions:
        return spec
    recipe = spec.recipe.model_copy(update={"train_corruptions": expand_mixes(spec.recipe.train_corruptions)})
    return spec.model_copy(update={"recipe": recipe})


def check_names(spec: SweepSpec) -> None:
    """Every name of a spec must be known, with parameters it takes. Imports no torch for built-in names."""
    check_model(spec.model.name)
    for method in spec.methods:
        registry.methods.check(method.name)
        if method.parameters:  # Only then, since it imports torch.
            from raypruning.methods.prune import resolve_method

            resolve_method(method)
    registry.datasets.check(spec.data.name)
    for task in spec.tasks:
        definition = resolve_task(task)
        if not definition.fits(spec.data.name):
            raise SpecError(f"the task {task} is for {definition.is_for}, not for {spec.data.name}")
        if definition.nominal not in spec.tasks:
            raise SpecError(
                f"the task {task} is compared with {definition.nominal}, which is not among the tasks: "
                f"add --task {definition.nominal}"
            )


def _dataset_name(raw: Raw) -> str:
    """As far as it is there."""
    data = raw.get("data")
    return str(data.get("name", "")) if isinstance(data, Mapping) else ""


def resolve_storage(storage: str | None, environment: Mapping[str, str] = os.environ) -> str:
    """The storage asked for, of the environment, or a folder here; local ones as absolute paths."""
    chosen = storage or environment.get("RAYPRUNING_STORAGE") or DEFAULT_STORAGE
    return chosen if "://" in chosen else str(Path(chosen).expanduser().resolve())


def resolve_tracking_uri(
    tracking_uri: str | None, *, storage: str, environment: Mapping[str, str] = os.environ
) -> str | None:
    """The tracking uri asked for, of the environment, or SQLite in the storage; None for "none"."""
    chosen = tracking_uri or environment.get("MLFLOW_TRACKING_URI")
    if chosen == "none":
        return None
    if chosen:
        return chosen
    # SQLite needs a file system: beside an object store it lies in the working folder.
    folder = Path(DEFAULT_STORAGE).resolve() if "://" in storage else Path(storage)
    return f"sqlite:///{folder}/mlflow.db"


def resolve_data_dir(data_dir: Path | None, environment: Mapping[str, str] = os.environ) -> Path | None:
    """The folder asked for, or of the environment; None where neither says. Raises DataError if it is not there."""
    configured = str(data_dir) if data_dir else environment.get("RAYPRUNING_DATA_DIR")
    if not configured:
        return None
    path = Path(configured).expanduser().resolve()
    if not path.is_dir():
        where = "--data-dir" if data_dir else "RAYPRUNING_DATA_DIR"
        raise DataError(f"{where}: there is no folder {path}")
    return path


def _with_quick_recipe(file: SweepFile, request: SweepRequest, *, data_dir: Path | None) -> tuple[Raw, list[str]]:
    """A sweep with a `quick` table uses it when no data was configured at all; never when data is just missing."""
    raw = {key: value for key, value in file.raw.items() if key != "quick"}
    quick = file.raw.get("quick")
    if quick is not None and not isinstance(quick, Mapping):
        raise SpecError(f"{file.source}: quick must be a table of what differs without a data directory, got {quick!r}")
    if quick is None or data_dir is not None or request.dataset or request.download:
        return raw, []
    changed = merged(raw, quick)
    for table in ("recipe", "data"):  # A quick recipe is another recipe, not the old one with changes.
        if table in quick:
            changed[table] = quick[table]
    changed["name"] = f"{raw['name']}-quick"
    notice = changed.get("note", "")
    return changed, [notice] if notice else []


def _changes(request: SweepRequest) -> Raw:
    """Flags as changes to a sweep's tables."""
    changes: Raw = {}
    for field_name in ("deltas", "tasks", "methods", "budgets", "seeds"):
        if values := getattr(request, field_name):
            changes[field_name] = list(values)
    if request.dataset:
        changes["dataset"] = request.dataset
    tables: dict[str, Raw] = {
        "schedule": {"kind": request.schedule},
        "search": {
            "strategy": request.search,
            "resolution": request.resolution,
            "probes_per_round": _number_or_text(request.probes_per_round),
            "budget_search": request.budget_search or None,
        },
        "resources": {"gpus_per_probe": request.gpus_per_probe, "cpus_per_probe": request.cpus_per_probe},
        "limits": {"max_probes": request.max_probes, "gpu_hours": request.gpu_hours},
    }
    for table, values in tables.items():
        given = {key: value for key, value in values.items() if value is not None}
        if given:
            changes[table] = given
    return changes


def _of_population(request: SweepRequest, raw: Mapping[str, Any]) -> Raw:
    """Seeds of a population, and the ratios that all of them are pruned to: a search would take each its own."""
    changes: Raw = {}
    if request.population is not None:
        if len(request.seeds) > 1:
            raise SpecError("--population derives its seeds from one master seed: give --seed once, or leave it out")
        changes["seeds"] = list(seeds_of(request.population, master=next(iter(request.seeds), 0)))
    expects_ratios = (
        request.population is not None and request.search in (None, "grid") and not _has_ratios(request, raw)
    )
    ratios = list(request.ratios) or (list(POPULATION_RATIOS) if expects_ratios else [])
    if ratios:
        if request.search not in (None, "grid"):
            raise SpecError(f"--ratio names the ratios, and --search {request.search} looks for them: leave one out")
        if request.schedule == "iterative" or expanded(raw).get("schedule", {}).get("kind") == "iterative":
            raise SpecError("--ratio is for networks pruned once: a chain has --set 'schedule.ratios=[0.5, 0.9]'")
        changes["search"] = {"strategy": "grid", "ratios": sorted(set(ratios))}
    return changes


def _has_ratios(request: SweepRequest, raw: Mapping[str, Any]) -> bool:
    """Whether the sweep names the same ratios for every seed by itself."""
    if request.schedule == "iterative" or expanded(raw).get("schedule", {}).get("kind") == "iterative":
        return True
    search = raw.get("search", {})
    return isinstance(search, Mapping) and (bool(search.get("ratios")) or search.get("strategy") == "grid")


def _number_or_text(text: str | None) -> int | str | None:
    return int(text) if text is not None and text.isdecimal() else text


def _has_gpu() -> bool:
    """Whether torch can use a GPU here. Imports torch only on a machine that has a driver for one."""
    if not Path("/dev/nvidiactl").exists():
        return False
    import torch

    return torch.cuda.is_available()


def _require_cluster(address: str) -> None:
    """Raise ResourceError if nothing listens at a host:port. Ray itself would try for ever."""
    if address == "auto":
        return  # Ray knows at once whether there is one.
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        raise SpecError(f"--address must be HOST:PORT of a cluster's head, ray://HOST:PORT or auto, got {address}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise ResourceError(f"--address {address}: no Ray cluster answers there: {error}") from error


def _require_gpu(num: float) -> None:
    import torch

    if not torch.cuda.is_available():
        raise ResourceError(
            f"each probe was to have {num:g} GPUs, and torch finds none on this machine; "
            "leave --gpus-per-probe out to run on CPUs"
        )


def _one_of(flag: str, value: str, allowed: Sequence[str]) -> Any:
    if value not in allowed:
        raise SpecError(f"{flag} must be one of {', '.join(allowed)}, got {value}")
    return value
