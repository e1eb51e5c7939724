"""What a network learns, and what is kept of its answers: for labels of images, and for labels of pixels."""

# B images of a batch

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from raypruning.core.records import Kind
from raypruning.training.answers import Answers

# Normalised images and what is true of them.
Inputs = Iterable[tuple[Tensor, Tensor]]


class Tally(Protocol):
    """Loss and error of a network, summed up batch by batch."""

    def add(self, logits: Tensor, truth: Tensor) -> None:
        """One more batch."""

    def sums(self) -> np.ndarray:
        """Of all batches, of which there is one at least: float64 (S,). Those of two tallies add up."""

    def result(self, sums_S: np.ndarray) -> tuple[float, float]:
        """Mean cross-entropy and error, of sums."""


class Objective(Protocol):
    """How a network's outputs are trained and measured."""

    def loss(self, outputs: Tensor | tuple[Tensor, ...], truth: Tensor, *, label_smoothing: float) -> Tensor:
        """What a training step lowers: mean over the batch."""

    def num_terms(self, truth: Tensor) -> Tensor:
        """How many terms that mean is of: a batch in parts has the mean of their losses, weighted by these."""

    def tally(self) -> Tally:
        """A new one."""

    def predict(
        self, model: nn.Module, inputs: Inputs, *, precision: str, answers: Answers | None = None
    ) -> Mapping[str, np.ndarray]:
        """What is stored of each image's answer, in order; `analysis.metrics` makes an error of it.

        Args:
            precision: of the recipe.
            answers: which classes count, and which are right; None for the usual.
        """


def any_truth(kind: Kind, images_BCHW: Tensor, *, num_classes: int) -> Tensor:
    """Something that could be true of images, to try a network with."""
    num, _, height, width = images_BCHW.shape
    shape = (num,) if kind == "classification" else (num, height, width)
    return torch.randint(num_classes, shape, device=images_BCHW.device)


def objective_of(kind: Kind) -> Objective:
    """The objective for a kind of data."""
    from raypruning.training.classification import Classification
    from raypruning.training.segmentation import Segmentation

    return Classification() if kind == "classification" else Segmentation()
