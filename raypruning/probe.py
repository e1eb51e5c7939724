"""One probe in one process: train or retrain what is not stored yet, measure what is not measured yet. Knows no Ray."""

# C channels, H W height and width

from __future__ import annotations

import functools
import math
import os
import platform
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from raypruning import registry
from raypruning.analysis.metrics import metric_of
from raypruning.core.identity import derive_seed, rewind_point
from raypruning.core.ports import ProbeJob, ProbeOutcome, Store
from raypruning.core.records import (
    Checkpoint,
    DataChoice,
    Evaluation,
    Failure,
    ModelChoice,
    Provenance,
    Task,
    Training,
    TrainingResult,
)
from raypruning.datasets.base import Dataset, ImageArrays, SplitName
from raypruning.datasets.resolve import open_dataset
from raypruning.errors import (
    DataError,
    OutOfMemoryError,
    RaypruningError,
    ResourceError,
    StoreError,
    TrainingError,
)
from raypruning.methods.accounting import count_left
from raypruning.methods.method import Masks, Method
from raypruning.methods.prune import apply_masks
from raypruning.models.layers import prunable_layers
from raypruning.models.resolve import build_model
from raypruning.models.weights import load_weights
from raypruning.tasks import task_store
from raypruning.tasks.examples import Examples
from raypruning.tasks.task import TaskDefinition, open_task, resolve_task
from raypruning.training.answers import Answers
from raypruning.training.images import Images, open_changed, open_images
from raypruning.training.inputs import Normalisation, Source, TaskInputs, batch_size_for
from raypruning.training.loop import ResumeState, Setting, Trained, train
from raypruning.training.masker import Masker, make_masker, prune
from raypruning.training.objective import objective_of

# Inputs of tasks that a worker keeps between probes. Four noise levels on CIFAR-10 are 0.5 GB.
MAX_KEPT_BYTES = 1 << 30


class Bench:
    """What a worker keeps from one probe to the next: the data, on its device. Nothing of it changes a result."""

    def __init__(self, device: str) -> None:
        self._device_name = device
        self._datasets: dict[str, Dataset] = {}
        self._images: dict[tuple[str, str], Images] = {}
        self._inputs: dict[str, TaskInputs] = {}
        self._examples: dict[tuple[str, str], Examples | None] = {}

    @functools.cached_property
    def device(self) -> torch.device:
        """The device. Raises ResourceError where there is none."""
        return _device(self._device_name)

    def dataset(self, job: ProbeJob) -> Dataset:
        """The job's dataset, opened once. Raises DataError, also when the images are not those the job was made for."""
        choice = job.probe.training.data
        key = choice.model_dump_json()
        if key not in self._datasets:
            self._datasets[key] = _open(choice, job=job)
        found, asked = self._datasets[key].fingerprint, job.probe.training.data_fingerprint
        if found != asked:
            raise DataError(f"{choice.name} on this machine has the fingerprint {found}, the sweep has {asked}")
        return self._datasets[key]

    def images(self, dataset: Dataset, split: SplitName) -> Images:
        """A split on the device."""
        key = (dataset.fingerprint, split)
        if key not in self._images:
            self._images[key] = open_images(dataset.split(split), self.device)
        return self._images[key]

    def examples(self, task: Task, dataset: Dataset, *, data_dir: Path | None) -> Examples | None:
        """Images of a task's own, opened once; None for the dataset's. Raises DataError where it is another task here.

        Two machines may have other images, or other frost pictures, under one name.
        """
        key = (task.fingerprint, dataset.fingerprint)
        if key not in self._examples:
            here, examples = open_task(task.name, dataset, data_dir=data_dir)
            if here.fingerprint != task.fingerprint:
                what = f"{dict(here.corruption)}, not {dict(task.corruption)}"
                if here.corruption == task.corruption:
                    what = f"{here.num_examples} images with the fingerprint {here.fingerprint}, not {task.fingerprint}"
                raise DataError(f"the task {task.name} is another one on this machine: {what}")
            self._examples[key] = examples
        return self._examples[key]

    def inputs(self, dataset: Dataset, *, data_dir: Path | None) -> TaskInputs:
        """The inputs of the dataset's tasks."""
        if dataset.fingerprint not in self._inputs:
            self._inputs[dataset.fingerprint] = TaskInputs(
                functools.partial(self._source, dataset, data_dir),
                Normalisation.of(dataset, self.device),
                max_bytes=MAX_KEPT_BYTES,
            )
        return self._inputs[dataset.fingerprint]

    def _source(self, dataset: Dataset, data_dir: Path | None, task: Task, definition: TaskDefinition) -> Source:
        examples = self.examples(task, dataset, data_dir=data_dir)
        if examples is not None:
            return Source(open_images(examples.split, self.device))
        split = dataset.split("test")
        if definition.on_bytes is None or not isinstance(split, ImageArrays):
            return Source(self.images(dataset, "test"))
        images = task_store.open_set(
            dataset, task=task.name, fingerprint=task.fingerprint, change=definition.on_bytes, device=self.device
        )
        return Source(open_changed(split.labels_N, images, self.device), is_changed=True)


def run_probe(job: ProbeJob, store: Store, bench: Bench) -> ProbeOutcome:
    """Bring the store to where it holds the job's training and its evaluations.

    Side effect: commits to the store. Seconds are wall time by phase: load, train, prune, evaluate, save.
    Returns: an outcome; an error of ours, or a device without memory, is a failure in it and not an exception.
    """
    timer = _Timer()
    training = job.probe.training
    was_trained = False
    failure: Failure | None = None
    try:
        registry.import_plugins(job.plugins)
        torch.set_num_threads(training.recipe.numerics.threads)
        dataset = bench.dataset(job)
        with _out_of_memory_as_ours(training):
            result = store.training(training.id)
            if result is None:
                model = _train(training, job, store, bench, dataset, timer)
                was_trained = True
            else:
                with timer("load"):
                    model = _load(training, store, dataset, bench.device)
            for task in job.tasks:
                if store.evaluation(training.id, task.fingerprint) is None:
                    _evaluate(model, task, job, store, bench, dataset, timer)
    except RaypruningError as error:
        failure = Failure(kind=type(error).__name__, message=str(error), is_retriable=error.is_retriable)
    return ProbeOutcome(training=training.id, failure=failure, seconds=timer.seconds, was_trained=was_trained)


def _train(training: Training, job: ProbeJob, store: Store, bench: Bench, dataset: Dataset, timer: _Timer) -> nn.Module:
    """Train and commit: the job's own training, or one that it needs."""
    recipe = training.recipe
    with timer("load"):
        model = _build(training, dataset, bench.device)
        alive: Masks = {}
        if training.start is not None:
            _load_weights(model, store, training.start)
            alive = {name: torch.from_numpy(mask.copy()) for name, mask in store.masks(training.start).items()}
        train_images = bench.images(dataset, "train")
        validation_images = bench.images(dataset, "validation")
        masker = _masker(training, model, dataset, bench)
    with timer("prune"):
        pruned = prune(model, training.mask, training.gradual, masker, alive=alive)
    if training.rewind_epochs is not None:
        _rewind(model, training, job, store, bench, dataset, timer)
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
                provenance=_provenance(training, bench.device, method=method, snapshot_of=snapshot_of),
            )
            store.commit_training(result, weights=_arrays(weights), masks=_arrays(trained.masks))

    setting = Setting(
        objective=objective_of(dataset.kind),
        recipe=recipe,
        epochs=training.epochs,
        stop_epochs=training.stop_epochs,
        seed=training.seed,
        is_retraining=training.start is not None,
        train=train_images,
        validation=validation_images,
        normalise=Normalisation.of(dataset, bench.device),
        augmentation=dataset.augmentation if recipe.augmentation == "default" else recipe.augmentation,
        eval_batch_size=batch_size_for(dataset, bench.device),
        device=bench.device,
        growth=pruned.growth,
        penalised=frozenset(f"{name}.weight" for name in prunable_layers(model)),
        save=lambda state: store.save_resume_state(training.id, state.values, state.arrays),
        save_seconds=job.save_seconds,
        snapshot=lambda one: commit(shorter[len(one.trained.history)], one.weights, one.trained),
        snapshot_epochs=frozenset(shorter),
    )
    found = store.resume_state(training.id)
    with timer("train"):
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


def _rewind(
    model: nn.Module,
    training: Training,
    job: ProbeJob,
    store: Store,
    bench: Bench,
    dataset: Dataset,
    timer: _Timer,
) -> None:
    """Put all weights and buffers back to those of the dense training after `rewind_epochs` epochs.

    That network is a training of its own, which is made and kept if the store lacks it. Two workers that make it at the
    same time write the same.
    """
    point = rewind_point(training)
    if store.training(point.id) is None:
        own = _Timer()
        _train(point, job, store, bench, dataset, own)
        timer.add(own.seconds)
    with timer("load"):
        _load_weights(model, store, point.id)


def _evaluate(
    model: nn.Module, task: Task, job: ProbeJob, store: Store, bench: Bench, dataset: Dataset, timer: _Timer
) -> None:
    training = job.probe.training
    begin = time.perf_counter()
    metric = metric_of(task.metric)
    data_dir = _data_dir(job)
    with timer("evaluate"):
        examples = bench.examples(task, dataset, data_dir=data_dir)
        predictions = objective_of(task.metric).predict(
            model,
            bench.inputs(dataset, data_dir=data_dir).batches(
                task, resolve_task(task.name), batch_size=batch_size_for(dataset, bench.device)
            ),
            precision=training.recipe.numerics.precision,
            answers=Answers.of(examples) if examples else None,
        )
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
        error_top5=None if is_top5_N is None or dataset.num_classes <= 5 else float(1.0 - is_top5_N.mean()),
        predictions="",
        sha256="",
        seconds=time.perf_counter() - begin,
    )
    with timer("save"):
        store.commit_evaluation(evaluation, predictions=predictions)


def build_network(model: ModelChoice, dataset: Dataset) -> nn.Module:
    """A freshly initialised network for a dataset's images, from torch's global generator."""
    return build_model(
        model.name,
        num_classes=dataset.num_classes,
        in_channels=dataset.channels,
        image_size=dataset.image_size,
        options=model.options,
    )


def _build(training: Training, dataset: Dataset, device: torch.device) -> nn.Module:
    torch.manual_seed(derive_seed(training.seed, "init"))
    return build_network(training.model, dataset).to(device=device, memory_format=torch.channels_last)


def _load(training: Training, store: Store, dataset: Dataset, device: torch.device) -> nn.Module:
    model = _build(training, dataset, device)
    _load_weights(model, store, training.id)
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


def _open(choice: DataChoice, *, job: ProbeJob) -> Dataset:
    return open_dataset(choice, data_dir=_data_dir(job), download=job.download)


def _data_dir(job: ProbeJob) -> Path | None:
    return Path(job.data_dir) if job.data_dir else None


def _device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise ResourceError("a GPU was asked for, and torch finds none on this machine")
    return torch.device(name)


def _provenance(
    training: Training, device: torch.device, *, method: Method | None, snapshot_of: str | None
) -> Provenance:
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
        threads=training.recipe.numerics.threads,
        host=platform.node(),
        git_commit=os.environ.get("RAYPRUNING_GIT_COMMIT", ""),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        snapshot_of=snapshot_of,
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


@contextmanager
def _out_of_memory_as_ours(training: Training) -> Iterator[None]:
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise _out_of_memory(training) from error
    except RuntimeError as error:
        # A CPU without memory says so in a plain RuntimeError.
        if "not enough memory" in str(error) or "can't allocate memory" in str(error):
            raise _out_of_memory(training) from error
        raise


def _out_of_memory(training: Training) -> OutOfMemoryError:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return OutOfMemoryError(
        f"no memory left for {training.model.name} at batch size {training.recipe.batch_size}: lower "
        "recipe.batch_size, raise --gpus-per-probe or lower --max-concurrent"
    )
