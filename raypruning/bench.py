"""What a process of a probe works with: device, data, and how networks are built, trained and measured there."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from raypruning.core.identity import derive_seed
from raypruning.core.ports import ProbeJob
from raypruning.core.records import DataChoice, ModelChoice, Task, Training
from raypruning.datasets.base import Dataset, ImageArrays, SplitName
from raypruning.datasets.resolve import open_dataset
from raypruning.errors import DataError, OutOfMemoryError, ResourceError
from raypruning.models.resolve import build_model
from raypruning.tasks import task_store
from raypruning.tasks.examples import Examples
from raypruning.tasks.task import TaskDefinition, open_task, resolve_task
from raypruning.training.answers import Answers
from raypruning.training.batches import Images
from raypruning.training.data_parallel import Group
from raypruning.training.images import open_changed, open_images
from raypruning.training.inputs import Normalisation, Source, TaskInputs, batch_size_for
from raypruning.training.loop import Setting
from raypruning.training.memory import try_step
from raypruning.training.objective import objective_of
from raypruning.training.streaming import Decoders

# Inputs of tasks that a worker keeps between probes. Four noise levels on CIFAR-10 are 0.5 GB.
MAX_KEPT_BYTES = 1 << 30


class Bench:
    """What a worker keeps from one probe to the next: the data, on its device. Nothing of it changes a result.

    Args:
        num_decoders: processes that decode images which are streamed; 0 for threads of this one.
    """

    def __init__(self, device: str, *, num_decoders: int = 0) -> None:
        self._device_name = device
        self._decoders = Decoders(num_decoders) if num_decoders else None
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
            self._images[key] = open_images(dataset.split(split), self.device, decoders=self._decoders)
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
            return Source(open_images(examples.split, self.device, decoders=self._decoders))
        split = dataset.split("test")
        if definition.on_bytes is None or not isinstance(split, ImageArrays):
            return Source(self.images(dataset, "test"))
        images = task_store.open_set(
            dataset, task=task.name, fingerprint=task.fingerprint, change=definition.on_bytes, device=self.device
        )
        return Source(open_changed(split.labels_N, images, self.device), is_changed=True)


def build_network(model: ModelChoice, dataset: Dataset) -> nn.Module:
    """A freshly initialised network for a dataset's images, from torch's global generator."""
    return build_model(
        model.name,
        num_classes=dataset.num_classes,
        in_channels=dataset.channels,
        image_size=dataset.image_size,
        options=model.options,
    )


def fresh_network(training: Training, dataset: Dataset, device: torch.device) -> nn.Module:
    """The network that a training from scratch begins with, on the device."""
    torch.manual_seed(derive_seed(training.seed, "init"))
    return build_network(training.model, dataset).to(device=device, memory_format=torch.channels_last)


def setting_of(
    training: Training, job: ProbeJob, bench: Bench, dataset: Dataset, group: Group, **fields: Any
) -> Setting:
    """What a training runs under, on this process of the group.

    Args:
        fields: of `Setting`: what only rank 0 knows.
    """
    recipe = training.recipe
    return Setting(
        objective=objective_of(dataset.kind),
        recipe=recipe,
        epochs=training.epochs,
        stop_epochs=training.stop_epochs,
        seed=training.seed,
        is_retraining=training.start is not None,
        train=bench.images(dataset, "train"),
        validation=bench.images(dataset, "validation"),
        normalise=Normalisation.of(dataset, bench.device),
        augmentation=dataset.augmentation if recipe.augmentation == "default" else recipe.augmentation,
        eval_batch_size=batch_size_for(dataset, bench.device),
        device=bench.device,
        group=group,
        images_at_once=job.resources.images_at_once,
        **fields,
    )


def check_memory(model: nn.Module, setting: Setting, dataset: Dataset) -> None:
    """On a GPU, find out whether there is memory for a training before it begins."""
    if setting.device.type == "cuda":
        shape = (dataset.channels, dataset.image_size, dataset.image_size)
        try_step(model, setting, kind=dataset.kind, shape_CHW=shape, num_classes=dataset.num_classes)


def predictions_of(
    model: nn.Module, task: Task, job: ProbeJob, bench: Bench, dataset: Dataset, group: Group
) -> Mapping[str, np.ndarray]:
    """A network's answers on this process's share of a task; empty where it has none."""
    data_dir = data_dir_of(job)
    batch_size = batch_size_for(dataset, bench.device)
    if not group.share.of_batches(task.num_examples, batch_size=batch_size):
        return {}
    examples = bench.examples(task, dataset, data_dir=data_dir)
    inputs = bench.inputs(dataset, data_dir=data_dir)
    return objective_of(task.metric).predict(
        model,
        inputs.batches(task, resolve_task(task.name), batch_size=batch_size, share=group.share),
        precision=job.probe.training.recipe.numerics.precision,
        answers=Answers.of(examples) if examples else None,
    )


def _open(choice: DataChoice, *, job: ProbeJob) -> Dataset:
    return open_dataset(choice, data_dir=data_dir_of(job), download=job.download)


def data_dir_of(job: ProbeJob) -> Path | None:
    """Where the job's datasets lie."""
    return Path(job.data_dir) if job.data_dir else None


def _device(name: str) -> torch.device:
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ResourceError("a GPU was asked for, and torch finds none on this machine")
    return torch.device(name)


@contextmanager
def out_of_memory_as_ours(job: ProbeJob) -> Iterator[None]:
    """Whatever says that there is no memory left, as the error that asks for another try."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise _out_of_memory(job) from error
    except RuntimeError as error:
        # A CPU without memory says so in a plain RuntimeError.
        if "not enough memory" in str(error) or "can't allocate memory" in str(error):
            raise _out_of_memory(job) from error
        raise


def _out_of_memory(job: ProbeJob) -> OutOfMemoryError:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    training, resources = job.probe.training, job.resources
    where = f" in {resources.gpus_per_worker:g} of a GPU" if 0 < resources.gpus_per_worker < 1 else ""
    at_once = resources.images_at_once or -(-training.recipe.batch_size // resources.num_workers)
    return OutOfMemoryError(
        f"no memory left for {training.model.name} with {at_once} images at once{where}: add "
        f"--set resources.images_at_once={max(1, at_once // 2)}, raise --gpus-per-probe or lower --max-concurrent"
    )
