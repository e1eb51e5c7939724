"""One probe in one process: train or retrain what is not stored yet, measure what is not measured yet. Knows no Ray."""

# C channels, H W height and width

from __future__ import annotations

import math
import os
import platform
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import torch
from torch import Tensor, nn

from raypruning import registry
from raypruning.analysis.metrics import metric_of
from raypruning.bench import Bench, check_memory, fresh_network, out_of_memory_as_ours, predictions_of, setting_of
from raypruning.core.identity import rewind_point
from raypruning.core.ports import ProbeJob, ProbeOutcome, Store
from raypruning.core.records import (
    Checkpoint,
    Evaluation,
    Failure,
    Provenance,
    Task,
    Training,
    TrainingResult,
)
from raypruning.datasets.base import Dataset
from raypruning.errors import (
    RaypruningError,
    StoreError,
    TrainingError,
)
from raypruning.methods.accounting import count_left
from raypruning.methods.method import Masks, Method
from raypruning.methods.prune import apply_masks
from raypruning.models.layers import prunable_layers
from raypruning.models.weights import load_weights
from raypruning.training.data_parallel import ALONE, Group
from raypruning.training.inputs import Normalisation, batch_size_for
from raypruning.training.loop import ResumeState, Trained, train
from raypruning.training.masker import Masker, make_masker, prune
from raypruning.training.memory import keep_to_share


@dataclass(frozen=True, kw_only=True)
class _Run:
    """What all of a probe's work is done with."""

    job: ProbeJob
    store: Store
    bench: Bench
    dataset: Dataset
    group: Group
    timer: _Timer


def run_probe(job: ProbeJob, store: Store, bench: Bench, group: Group = ALONE) -> ProbeOutcome:
    """Bring the store to where it holds the job's training and its evaluations.

    Side effect: commits to the store. Seconds are wall time by phase: load, train, prune, evaluate, save.

    Args:
        group: of workers that `assist` this one, which is its rank 0.

    Returns: an outcome; an error of ours, or a device without memory, is a failure in it and not an exception.
    """
    timer = _Timer()
    training = job.probe.training
    was_trained = False
    failure: Failure | None = None
    try:
        registry.import_plugins(job.plugins)
        torch.set_num_threads(training.recipe.numerics.threads)
        keep_to_share(bench.device, job.resources.gpus_per_worker)
        run = _Run(job=job, store=store, bench=bench, dataset=bench.dataset(job), group=group, timer=timer)
        with out_of_memory_as_ours(job):
            if store.training(training.id) is None:
                model = _train(training, run)
                was_trained = True
            else:
                with timer("load"):
                    model = _load(training, run)
            for task in job.tasks:
                if store.evaluation(training.id, task.fingerprint) is None:
                    _evaluate(model, task, run)
            # Not after an error: the others may then wait for something else, and are ended by whoever started them.
            group.tell({"do": "end"})
    except RaypruningError as error:
        failure = Failure(kind=type(error).__name__, message=str(error), is_retriable=error.is_retriable)
    return ProbeOutcome(training=training.id, failure=failure, seconds=timer.seconds, was_trained=was_trained)


def _train(training: Training, run: _Run) -> nn.Module:
    """Train and commit: the job's own training, or one that it needs."""
    job, store, bench, dataset, timer = run.job, run.store, run.bench, run.dataset, run.timer
    with timer("load"):
        model = fresh_network(training, dataset, bench.device)
        alive: Masks = {}
        if training.start is not None:
            _load_weights(model, store, training.start)
            alive = {name: torch.from_numpy(mask.copy()) for name, mask in store.masks(training.start).items()}
        bench.images(dataset, "train")
        masker = _masker(training, model, dataset, bench)
    with timer("prune"):
        pruned = prune(model, training.mask, training.gradual, masker, alive=alive)
    if training.rewind_epochs is not None:
        _rewind(model, training, run)
        apply_masks(model, pruned.removed)
    shorter = _snapshots(training, job, store)

    def commit(done: Training, weights: Mapping[str, Tensor], trained: Trained) -> None:
        # Within the phase of training for a snapshot, whose seconds are then those that it took up to here.
        with timer("save"):
            method = masker.method if masker else None
            snapshot_of = training.id if done.id != training.id else None
            result = TrainingResult(
                training=done,
                checkpoint=_checkpoint(done, model, trained.masks, dataset),
                history=trained.history,
                seconds=timer.seconds,
                data_wait=trained.data_wait,
                provenance=_provenance(run, method=method, snapshot_of=snapshot_of),
            )
            store.commit_training(result, weights=_arrays(weights), masks=_arrays(trained.masks))

    setting = setting_of(
        training,
        job,
        bench,
        dataset,
        run.group,
        growth=pruned.growth,
        penalised=frozenset(f"{name}.weight" for name in prunable_layers(model)),
        save=lambda state: store.save_resume_state(training.id, state.values, state.arrays),
        save_seconds=job.save_seconds,
        snapshot=lambda one: commit(shorter[len(one.trained.history)], one.weights, one.trained),
        snapshot_epochs=frozenset(shorter),
    )
    found = store.resume_state(training.id)
    with timer("train"):
        run.group.tell({"do": "train", "training": training.model_dump(mode="json")})
        check_memory(model, setting, dataset)
        trained = train(model, pruned.enforced, setting, resume=ResumeState(*found) if found else None)
    commit(training, model.state_dict(), trained)
    return model


def _snapshots(training: Training, job: ProbeJob, store: Store) -> dict[int, Training]:
    """By epochs, trainings to be kept on the way that the store lacks; none where it is not the job's own training."""
    if training.id != job.probe.training.id:
        return {}
    return {one.epochs: one for one in job.snapshots if store.training(one.id) is None}


def _arrays(tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    return {name: value.detach().cpu().contiguous().numpy() for name, value in tensors.items()}


def _rewind(model: nn.Module, training: Training, run: _Run) -> None:
    """Put all weights and buffers back to those of the dense training after `rewind_epochs` epochs.

    That network is a training of its own, which is made and kept if the store lacks it. Two workers that make it at the
    same time write the same.
    """
    point = rewind_point(training)
    if run.store.training(point.id) is None:
        own = _Timer()
        _train(point, replace(run, timer=own))
        run.timer.add(own.seconds)
    with run.timer("load"):
        _load_weights(model, run.store, point.id)


def _evaluate(model: nn.Module, task: Task, run: _Run) -> None:
    training = run.job.probe.training
    begin = time.perf_counter()
    metric = metric_of(task.metric)
    with run.timer("evaluate"):
        run.group.tell({"do": "evaluate", "task": task.model_dump(mode="json")})
        mine = predictions_of(model, task, run.job, run.bench, run.dataset, run.group)
        parts = [part for part in run.group.collect(mine) if part]
        predictions = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        loss = metric.loss(predictions)
        if math.isnan(loss):
            raise TrainingError(f"the network's outputs on {task.name} are not numbers")
    is_top5_N = predictions.get("is_top5")
    evaluation = Evaluation(
        training=training.id,
        task=task.name,
        task_fingerprint=task.fingerprint,
        error=metric.error_of(predictions),
        num_examples=task.num_examples,
        num_wrong=metric.num_wrong(predictions),
        loss=loss,
        error_top5=None if is_top5_N is None or run.dataset.num_classes <= 5 else float(1.0 - is_top5_N.mean()),
        predictions="",
        sha256="",
        seconds=time.perf_counter() - begin,
    )
    with run.timer("save"):
        run.store.commit_evaluation(evaluation, predictions=predictions)


def _load(training: Training, run: _Run) -> nn.Module:
    """The stored network, on all workers."""
    model = fresh_network(training, run.dataset, run.bench.device)
    _load_weights(model, run.store, training.id)
    if not run.group.is_alone:
        run.group.tell({"do": "load", "training": training.model_dump(mode="json")})
        run.group.tell_arrays(_arrays(model.state_dict()))
    return model


def _load_weights(model: nn.Module, store: Store, training_id: str) -> None:
    weights = {name: torch.from_numpy(value.copy()) for name, value in store.weights(training_id).items()}
    try:
        load_weights(model, weights)
    except RuntimeError as error:
        raise StoreError(f"the weights of {training_id} do not fit the model: {str(error).splitlines()[0]}") from error


def _masker(training: Training, model: nn.Module, dataset: Dataset, bench: Bench) -> Masker | None:
    """What chooses the masks of a training, with the images it looks at: those of validation if there are any."""
    if training.mask is None:
        return None
    validation = bench.images(dataset, "validation")
    return make_masker(
        training.mask,
        model,
        example_NCHW=_example(dataset).to(bench.device),
        images=validation if len(validation) else bench.images(dataset, "train"),
        share=0.5 if len(validation) else 1.0,
        normalise=Normalisation.of(dataset, bench.device),
        batch_size=batch_size_for(dataset, bench.device),
        seed=training.seed,
    )


def _example(dataset: Dataset) -> Tensor:
    return torch.zeros(1, dataset.channels, dataset.image_size, dataset.image_size)


def _checkpoint(training: Training, model: nn.Module, masks: Mapping[str, Tensor], dataset: Dataset) -> Checkpoint:
    left = count_left(model, masks, _example(dataset).to(next(model.parameters()).device))
    return Checkpoint(
        uri="",
        sha256="",
        num_bytes=0,
        ratio_asked=training.mask.ratio if training.mask else 0.0,
        ratio_reached=(left.num_params - left.num_nonzero) / left.num_params,
        num_nonzero=left.num_nonzero,
        num_params=left.num_params,
        num_prunable=sum(layer.weight.numel() for layer in prunable_layers(model).values()),
        macs=left.macs,
        macs_dense=left.macs_dense,
        macs_on_paths=left.macs_on_paths,
        dead_layers=left.dead_layers,
    )


def _provenance(run: _Run, *, method: Method | None, snapshot_of: str | None) -> Provenance:
    recipe, device, resources = run.job.probe.training.recipe, run.bench.device, run.job.resources
    versions = {"python": platform.python_version()}
    for package in ("raypruning", "torch", "numpy"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    if method is not None:
        versions[f"method {method.name}"] = str(method.version)
    return Provenance(
        versions=versions,
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        threads=recipe.numerics.threads,
        host=platform.node(),
        git_commit=os.environ.get("RAYPRUNING_GIT_COMMIT", ""),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        snapshot_of=snapshot_of,
        workers=run.group.share.size,
        gpu_share=resources.gpus_per_worker,
    )


class _Timer:
    """Wall seconds by phase. A phase within another one counts for itself alone."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._phase: str | None = None
        self._began = 0.0

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        outer = self._enter(phase)
        try:
            yield
        finally:
            self._enter(outer)

    def _enter(self, phase: str | None) -> str | None:
        """Count what has passed for the phase that ends, and return that phase."""
        now = time.perf_counter()
        ended = self._phase
        if ended is not None:
            self.add({ended: now - self._began})
        self._phase, self._began = phase, now
        return ended

    def add(self, seconds: Mapping[str, float]) -> None:
        """Count what another timer has seen."""
        for phase, more in seconds.items():
            self.seconds[phase] = self.seconds.get(phase, 0.0) + more
