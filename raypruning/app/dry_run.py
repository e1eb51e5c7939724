"""What a sweep would take, before it starts: probes at most, time, disk, and where things would go."""

from __future__ import annotations

from typing import NamedTuple

from raypruning.app.concurrency import local_room
from raypruning.app.preflight import check_methods
from raypruning.app.request import Resolved
from raypruning.app.sweep import log_path, make_plan, open_data
from raypruning.app.task_sets import missing_bytes
from raypruning.core.bounds import max_pruned_epochs, max_pruned_probes
from raypruning.core.plan import Plan
from raypruning.runtime.mlflow_tracker import without_password
from raypruning.runtime.store import ObjectStore, open_store


class Estimate(NamedTuple):
    """Bounds for the whole sweep, and what of it is stored already.

    Attributes:
        seconds: wall time with `num_workers` at once, from a second of the real work on this machine.
        num_bytes: weights, masks and predictions.
        num_test_set_bytes: changed test sets that this machine lacks, in its cache.
    """

    num_dense: int
    num_pruned: int
    num_stored: int
    num_epochs: int
    num_workers: int
    seconds: float
    num_bytes: int
    num_test_set_bytes: int
    storage: str
    tracking_uri: str | None
    log: str


def estimate(resolved: Resolved) -> Estimate:
    """Bounds from the plan and a short measurement. Writes nothing.

    Raises: SpecError: what the sweep itself would refuse.
    """
    from raypruning.training.speed import measure_speed

    spec, setting = resolved
    dataset = open_data(spec, setting)
    plan = make_plan(spec, setting, dataset)
    check_methods(plan, dataset)
    num_train, num_tested = len(dataset.split("train")), sum(task.num_examples for task in plan.tasks)
    dense = [probe for seed in spec.seeds for probe in (plan.parent(seed), *plan.controls(seed))]
    num_dense, num_pruned = len(dense), max_pruned_probes(plan)
    snapshots = {training.id for probe in dense for training in plan.snapshots(probe)}
    dense_epochs = sum(probe.training.epochs for probe in dense if probe.id not in snapshots)
    # Rewinding needs the beginning of each parent's training once more.
    dense_epochs += len(spec.seeds) * (spec.schedule.rewind_epochs or 0)
    num_epochs = dense_epochs + max_pruned_epochs(plan)

    import torch

    from raypruning.bench import build_network

    device = torch.device("cuda" if spec.resources.gpus_per_probe else "cpu")
    model = build_network(spec.model, dataset)
    speed = measure_speed(
        model,
        spec.recipe,
        kind=dataset.kind,
        shape_CHW=(dataset.channels, dataset.image_size, dataset.image_size),
        num_classes=dataset.num_classes,
        device=device,
    )
    num_workers = _num_workers(resolved)
    if plan.links:  # One link after another: at most one of each curve is retrained at a time.
        num_workers = min(num_workers, len(plan.curves))
    work = num_epochs * num_train * speed.train + (num_dense + num_pruned) * num_tested * speed.evaluate
    num_params = sum(value.numel() for value in model.state_dict().values())
    # Weights in float32, a bit for each weight's mask, and five bytes and a label for each prediction.
    num_bytes = (num_dense + num_pruned) * (num_params * (4 + 1 / 8) + num_tested * 7)
    return Estimate(
        num_dense=num_dense,
        num_pruned=num_pruned,
        num_stored=_num_stored(plan, setting.storage),
        num_epochs=num_epochs,
        num_workers=num_workers,
        # As if the workers of a probe lost nothing to each other.
        seconds=work / num_workers / spec.resources.num_workers,
        num_bytes=round(num_bytes),
        num_test_set_bytes=missing_bytes(dataset, spec.tasks),
        storage=setting.storage,
        tracking_uri=without_password(setting.tracking_uri or "") or None,
        log=str(log_path(setting, spec.name)),
    )


def _num_stored(plan: Plan, storage: str) -> int:
    store: ObjectStore = open_store(storage, read_only=True)
    return sum(store.training(plan.parent(seed).id) is not None for seed in plan.spec.seeds)


def _num_workers(resolved: Resolved) -> int:
    import os

    spec, setting = resolved
    if setting.executor == "inline":
        return 1
    room = local_room(spec.resources)
    return max(1, min(setting.max_concurrent or room, room, os.cpu_count() or 1))
