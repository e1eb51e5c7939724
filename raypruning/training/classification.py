"""Labels of images: cross-entropy to train, the fraction that is wrong to measure, five bytes an image to keep."""

# N images, B of a batch, C classes

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from raypruning.training.answers import Answers
from raypruning.training.inputs import at_least_float32, autocast
from raypruning.training.objective import Inputs

ALL_CLASSES = Answers()


class _Answered(NamedTuple):
    """Of the images of a batch."""

    predicted_B: Tensor
    log_probability_B: Tensor  # of the true class, or of all that are right
    is_top5_B: Tensor


class Classification:
    """See `objective.Objective`; truth are labels (B,), logits (B, C)."""

    def loss(self, outputs: Tensor | tuple[Tensor, ...], truth: Tensor, *, label_smoothing: float) -> Tensor:
        """See Objective."""
        assert isinstance(outputs, Tensor)
        return nn.functional.cross_entropy(at_least_float32(outputs), truth, label_smoothing=label_smoothing)

    def num_terms(self, truth: Tensor) -> Tensor:
        """See Objective: images."""
        return truth.new_full((), len(truth), dtype=torch.float32)

    def tally(self) -> ClassificationTally:
        """See Objective."""
        return ClassificationTally()

    def predict(
        self, model: nn.Module, inputs: Inputs, *, precision: str, answers: Answers | None = None
    ) -> dict[str, np.ndarray]:
        """See Objective. Ties between logits go to the lower class.

        Returns: `predicted` uint16 (N,), where any right class counts as the label; `log_probability` float16 (N,), of
            all right classes together; `is_top5` bool (N,), whether a right class is among the five highest; `label`
            uint16 (N,).
        """
        model.eval()
        found, labels = [], []
        with torch.inference_mode():
            for images_BCHW, labels_B in inputs:
                with autocast(labels_B.device, precision):
                    logits_BC = model(images_BCHW).float()
                found.append(_answered(logits_BC, labels_B, answers or ALL_CLASSES))
                labels.append(labels_B)
        predicted, log_probability, is_top5 = (torch.cat(parts).cpu().numpy() for parts in zip(*found, strict=True))
        return {
            "predicted": predicted.astype(np.uint16),
            "log_probability": log_probability.astype(np.float16),
            "is_top5": is_top5,
            "label": torch.cat(labels).cpu().numpy().astype(np.uint16),
        }


def _answered(logits_BC: Tensor, labels_B: Tensor, answers: Answers) -> _Answered:
    logits_BC = answers.restrict(logits_BC)
    log_probability_BC = logits_BC.log_softmax(1)
    predicted_B = logits_BC.argmax(1)
    best_B = labels_B  # the right class that the network thinks most likely
    log_probability_B = log_probability_BC.gather(1, labels_B[:, None])[:, 0]
    if answers.also_right:
        is_right_BC = answers.right(labels_B, num_classes=logits_BC.shape[1])
        best_B = logits_BC.masked_fill(~is_right_BC, -torch.inf).argmax(1)
        log_probability_B = log_probability_BC.masked_fill(~is_right_BC, -torch.inf).logsumexp(1)
        is_right_B = is_right_BC.gather(1, predicted_B[:, None])[:, 0]
        predicted_B = torch.where(is_right_B, labels_B, predicted_B)
    best_logit_B1 = logits_BC.gather(1, best_B[:, None])
    is_lower_class_BC = torch.arange(logits_BC.shape[1], device=logits_BC.device) < best_B[:, None]
    is_before_BC = (logits_BC > best_logit_B1) | ((logits_BC == best_logit_B1) & is_lower_class_BC)
    # float16 ends at -65504.
    return _Answered(predicted_B, log_probability_B.clamp(min=-6e4), is_before_BC.sum(1) < 5)


class ClassificationTally:
    """See `objective.Tally`."""

    def __init__(self) -> None:
        # Tensors, so that a GPU is not waited for.
        self._loss: Tensor | float = 0.0
        self._wrong: Tensor | int = 0
        self._num = 0

    def add(self, logits: Tensor, truth: Tensor) -> None:
        """See Tally."""
        self._loss = self._loss + nn.functional.cross_entropy(logits, truth, reduction="sum")
        self._wrong = self._wrong + (logits.argmax(1) != truth).sum()
        self._num += len(truth)

    def sums(self) -> np.ndarray:
        """See Tally: loss, images that are wrong, images."""
        return np.array([float(self._loss), float(self._wrong), self._num])

    def result(self, sums_S: np.ndarray) -> tuple[float, float]:
        """See Tally."""
        loss, wrong, num = sums_S.tolist()
        return loss / num, wrong / num
