"""The inputs of tasks: images of a test set, changed as the task says and normalised, batch by batch."""

# N images, C channels, H W height and width

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from raypruning.core.records import Task
from raypruning.datasets.base import Dataset
from raypruning.tasks.task import TaskDefinition
from raypruning.training.batches import Images, classes_of_masks, masks_of_classes
from raypruning.training.data_parallel import WHOLE, Share

# Normalised images, and what is true of them: see `batches.Batch`.
Input = tuple[Tensor, Tensor]


class Normalisation(NamedTuple):
    """Mean and standard deviation per channel, of pixels in [0, 1]."""

    mean_C11: Tensor
    std_C11: Tensor

    @classmethod
    def of(cls, dataset: Dataset, device: torch.device) -> Normalisation:
        """A dataset's own."""
        mean, std = (torch.tensor(values, device=device).view(-1, 1, 1) for values in (dataset.mean, dataset.std))
        return cls(mean, std)

    def __call__(self, pixels_NCHW: Tensor) -> Tensor:
        """Normalised, in the memory layout that convolutions are fastest in."""
        normal = (pixels_NCHW - self.mean_C11) / self.std_C11
        return normal.contiguous(memory_format=torch.channels_last)


class Source(NamedTuple):
    """Where a task's images come from.

    Attributes:
        is_changed: whether what the task does to bytes is done already.
    """

    images: Images
    is_changed: bool = False


class TaskInputs:
    """The inputs of tasks, made once and kept while they fit, since every probe of a worker reads the same ones.

    Args:
        open_source: a task's images.
        max_bytes: of inputs that are kept.
    """

    def __init__(
        self, open_source: Callable[[Task, TaskDefinition], Source], normalise: Normalisation, *, max_bytes: int
    ) -> None:
        self._open_source = open_source
        self._normalise = normalise
        self._max_bytes = max_bytes
        self._kept: OrderedDict[tuple[str, int, Share], list[Input]] = OrderedDict()

    def batches(
        self, task: Task, definition: TaskDefinition, *, batch_size: int, share: Share = WHOLE
    ) -> Iterator[Input]:
        """The inputs of a task in the order of its images; a worker's share is some of the batches."""
        key = (task.fingerprint, batch_size, share)
        if key in self._kept:
            self._kept.move_to_end(key)
            yield from self._kept[key]
            return
        made: list[Input] | None = []
        for batch in self._read(task, definition, batch_size=batch_size, share=share):
            if made is not None:
                made.append(batch)
                made = made if _num_bytes(made) <= self._max_bytes else None
            yield batch
        if made is not None:
            self._kept[key] = made
            while sum(map(_num_bytes, self._kept.values())) > self._max_bytes:
                self._kept.popitem(last=False)

    def _read(self, task: Task, definition: TaskDefinition, *, batch_size: int, share: Share) -> Iterator[Input]:
        images, is_changed = self._open_source(task, definition)
        change_bytes = None if is_changed else definition.on_bytes
        mine = share.of_batches(len(images), batch_size=batch_size)
        order = torch.arange(mine.start, mine.stop)
        for pixels_NCHW, truth, ids_N in images.read(order, batch_size=batch_size, augmentation="none", seed=0):
            if change_bytes is not None:
                # Exact: what is read are bytes divided by 255.
                bytes_NCHW = (pixels_NCHW * 255.0).round_().to(torch.uint8)
                pixels_NCHW = change_bytes(bytes_NCHW, ids_N).to(torch.float32).div_(255.0)
            changed = definition.on_pixels(pixels_NCHW, ids_N) if definition.on_pixels else pixels_NCHW
            normal = self._normalise(changed)
            if definition.on_normalised:
                normal = definition.on_normalised(normal, ids_N).contiguous(memory_format=torch.channels_last)
            if definition.on_masks and truth.ndim == 3:
                truth = classes_of_masks(definition.on_masks(masks_of_classes(truth), ids_N))
            yield normal, truth


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """bfloat16 where a recipe asks for it; parent and pruned network alike."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


def at_least_float32(outputs: Tensor) -> Tensor:
    """Outputs to compute a loss of: float32 for bfloat16; those of a network in float64 stay as they are."""
    return outputs.to(torch.promote_types(outputs.dtype, torch.float32))


def batch_size_for(dataset: Dataset, device: torch.device) -> int:
    """Images at once in an evaluation: a batch that stays in a core's cache on a CPU, one that fills a GPU."""
    values = dataset.channels * dataset.image_size**2
    return max(8, min(500, 400_000 // values)) if device.type == "cpu" else max(64, min(10_000, 30_000_000 // values))


def _num_bytes(batches: list[Input]) -> int:
    return sum(images.nbytes + truth.nbytes for images, truth in batches)
