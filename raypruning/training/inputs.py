"""A network's per-image predictions on a task, and the error that follows from them."""

# N images, C classes or channels, H W height and width

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from raypruning.core.records import Task
from raypruning.datasets.base import Dataset
from raypruning.tasks.task import TaskDefinition
from raypruning.training.images import Images


class Predictions(NamedTuple):
    """What is stored for each image: about 5 bytes."""

    predicted_N: np.ndarray  # uint16
    log_probability_N: np.ndarray  # float16, of the true class
    is_top5_N: np.ndarray  # bool
    labels_N: np.ndarray  # uint16

    def arrays(self) -> dict[str, np.ndarray]:
        """By the names they are stored under."""
        return {
            "predicted": self.predicted_N,
            "log_probability": self.log_probability_N,
            "is_top5": self.is_top5_N,
            "label": self.labels_N,
        }

    @property
    def loss(self) -> float:
        """Mean cross-entropy, of the stored log-probabilities."""
        return -float(self.log_probability_N.astype(np.float64).mean())

    @property
    def num_wrong(self) -> int:
        """Images whose predicted class is not the true one."""
        return int((self.predicted_N != self.labels_N).sum())


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


class TaskImages:
    """The inputs of tasks, made once and kept while they fit, since every probe of a worker reads the same ones.

    Args:
        images: the nominal test set.
        max_bytes: of inputs that are kept.
        changed: a task's test set as it lies on disk, for tasks that change bytes; None where none does.
    """

    def __init__(
        self,
        images: Images,
        normalise: Normalisation,
        *,
        max_bytes: int,
        changed: Callable[[Task, TaskDefinition], Images] | None = None,
    ) -> None:
        self._images = images
        self._normalise = normalise
        self._max_bytes = max_bytes
        self._changed = changed
        self._kept: OrderedDict[tuple[str, int], list[Tensor]] = OrderedDict()

    @property
    def labels_N(self) -> Tensor:
        """True classes, on the device."""
        return self._images.labels_N

    def batches(self, task: Task, definition: TaskDefinition, *, batch_size: int) -> Iterator[Tensor]:
        """Normalised images of a task in the order of the test set."""
        key = (task.fingerprint, batch_size)
        if key in self._kept:
            self._kept.move_to_end(key)
            yield from self._kept[key]
            return
        made: list[Tensor] | None = []
        for batch in self._read(task, definition, batch_size=batch_size):
            if made is not None:
                made.append(batch)
                made = made if _num_bytes(made) <= self._max_bytes else None
            yield batch
        if made is not None:
            self._kept[key] = made
            while sum(map(_num_bytes, self._kept.values())) > self._max_bytes:
                self._kept.popitem(last=False)

    def _read(self, task: Task, definition: TaskDefinition, *, batch_size: int) -> Iterator[Tensor]:
        order = torch.arange(len(self._images))
        images, change_bytes = self._images, definition.on_bytes
        if change_bytes is not None and self._changed is not None:
            images, change_bytes = self._changed(task, definition), None
        for pixels_NCHW, _, ids_N in images.read(order, batch_size=batch_size, augmentation="none", seed=0):
            if change_bytes is not None:
                # Exact: what is read are bytes divided by 255.
                bytes_NCHW = (pixels_NCHW * 255.0).round_().to(torch.uint8)
                pixels_NCHW = change_bytes(bytes_NCHW, ids_N).to(torch.float32).div_(255.0)
            changed = definition.on_pixels(pixels_NCHW, ids_N) if definition.on_pixels else pixels_NCHW
            normal = self._normalise(changed)
            if definition.on_normalised:
                normal = definition.on_normalised(normal, ids_N).contiguous(memory_format=torch.channels_last)
            yield normal


def predict(model: nn.Module, batches: Iterator[Tensor], labels_N: Tensor, *, precision: str) -> Predictions:
    """Predictions for every image, in order. Ties between logits go to the lower class."""
    model.eval()
    predicted, log_probability, is_top5 = [], [], []
    start = 0
    with torch.inference_mode(), autocast(labels_N.device, precision):
        for images in batches:
            logits_NC = model(images).float()
            true_N1 = labels_N[start : start + len(images), None]
            start += len(images)
            log_probability_NC = logits_NC.log_softmax(1)
            predicted.append(logits_NC.argmax(1))
            # float16 ends at -65504.
            log_probability.append(log_probability_NC.gather(1, true_N1)[:, 0].clamp(min=-6e4))
            of_true_N1 = logits_NC.gather(1, true_N1)
            is_lower_class_NC = torch.arange(logits_NC.shape[1], device=logits_NC.device) < true_N1
            is_before_NC = (logits_NC > of_true_N1) | ((logits_NC == of_true_N1) & is_lower_class_NC)
            is_top5.append(is_before_NC.sum(1) < 5)
    return Predictions(
        predicted_N=torch.cat(predicted).cpu().numpy().astype(np.uint16),
        log_probability_N=torch.cat(log_probability).cpu().numpy().astype(np.float16),
        is_top5_N=torch.cat(is_top5).cpu().numpy(),
        labels_N=labels_N.cpu().numpy().astype(np.uint16),
    )


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """bfloat16 where a recipe asks for it; parent and pruned network alike."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


def batch_size_for(dataset: Dataset, device: torch.device) -> int:
    """Images at once in an evaluation: a batch that stays in a core's cache on a CPU, one that fills a GPU."""
    values = dataset.channels * dataset.image_size**2
    return max(8, min(500, 400_000 // values)) if device.type == "cpu" else max(64, min(10_000, 30_000_000 // values))


def _num_bytes(batches: list[Tensor]) -> int:
    return sum(batch.numel() * batch.element_size() for batch in batches)
