"""Which of a network's classes count as answers, and which are right, where a task does not take all as they are."""

# N images, C classes

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from raypruning.tasks.examples import Examples


class Answers(NamedTuple):
    """Rules of a task.

    Attributes:
        classes: the only ones that count; None for all.
        also_right: label -> further classes that are right for it.
    """

    classes: tuple[int, ...] | None = None
    also_right: Mapping[int, tuple[int, ...]] = {}

    @classmethod
    def of(cls, examples: Examples) -> Answers:
        """Those of a task with images of its own."""
        return cls(examples.classes, examples.also_right)

    def restrict(self, logits_NC: Tensor) -> Tensor:
        """Logits of the classes that count; -inf for the others."""
        if self.classes is None:
            return logits_NC
        counts_C = torch.zeros(logits_NC.shape[1], dtype=torch.bool, device=logits_NC.device)
        counts_C[list(self.classes)] = True
        return logits_NC.masked_fill(~counts_C, -torch.inf)

    def right(self, labels_N: Tensor, *, num_classes: int) -> Tensor:
        """Whether each class is right for each image, bool (N, C)."""
        is_right_CC = torch.eye(num_classes, dtype=torch.bool, device=labels_N.device)
        for label, others in self.also_right.items():
            is_right_CC[label, list(others)] = True
        return is_right_CC[labels_N]
