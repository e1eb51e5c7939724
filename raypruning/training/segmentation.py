"""Labels of pixels: cross-entropy with an auxiliary head to train, mean intersection over union to measure.

Counts of pixels are kept of each image, so that the measure, which is no mean over images, can be had of any of them.

Source: Lost in Pruning, appendix, for the loss; Everingham et al. 2010 (PASCAL VOC) for the measure.
"""

# N images, B of a batch, C classes, H W height and width, P pixels of a batch

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from raypruning.analysis.metrics import metric_of
from raypruning.methods.method import UNCOUNTED
from raypruning.models.heads import AUXILIARY_WEIGHT
from raypruning.training.answers import Answers
from raypruning.training.inputs import at_least_float32, autocast
from raypruning.training.objective import Inputs


class Segmentation:
    """See `objective.Objective`; truth are classes of pixels (B, H, W), UNCOUNTED for none; logits (B, C, H, W)."""

    def loss(self, outputs: Tensor | tuple[Tensor, ...], truth: Tensor, *, label_smoothing: float) -> Tensor:
        """See Objective: mean over the pixels that count, and half of the same of an auxiliary head."""
        main, *auxiliary = (outputs,) if isinstance(outputs, Tensor) else outputs

        def of(logits_BCHW: Tensor) -> Tensor:
            # A batch without any pixel that counts teaches nothing, where torch would say 0 / 0.
            total = nn.functional.cross_entropy(
                at_least_float32(logits_BCHW),
                truth,
                ignore_index=UNCOUNTED,
                label_smoothing=label_smoothing,
                reduction="sum",
            )
            return total / (truth != UNCOUNTED).sum().clamp(min=1)

        return of(main) + AUXILIARY_WEIGHT * sum(of(logits) for logits in auxiliary)

    def num_terms(self, truth: Tensor) -> Tensor:
        """See Objective: pixels that count."""
        return (truth != UNCOUNTED).sum().float()

    def tally(self) -> SegmentationTally:
        """See Objective."""
        return SegmentationTally()

    def predict(
        self, model: nn.Module, inputs: Inputs, *, precision: str, answers: Answers | None = None
    ) -> dict[str, np.ndarray]:
        """See Objective. Ties between logits go to the lower class.

        Returns: numbers of pixels by class, uint32 (N, C): `both` predicted and true, `predicted`, `true`; only pixels
            that count. `loss` float32 (N,): mean cross-entropy of an image's pixels.
        """
        assert answers is None or answers == Answers(), "pixels have one right class of all"
        model.eval()
        counts, losses = [], []
        with torch.inference_mode():
            for images_BCHW, truth_BHW in inputs:
                with autocast(truth_BHW.device, precision):
                    logits_BCHW = model(images_BCHW).float()
                counts.append(_pixel_counts(logits_BCHW, truth_BHW).cpu())
                losses.append(_losses(logits_BCHW, truth_BHW).cpu())
        both, predicted, true = torch.cat(counts, dim=1).numpy().astype(np.uint32)
        return {"both": both, "predicted": predicted, "true": true, "loss": torch.cat(losses).numpy()}


def _pixel_counts(logits_BCHW: Tensor, truth_BHW: Tensor) -> Tensor:
    """Predicted and true, predicted, true: int64 (3, B, C)."""
    num_images, num_classes = logits_BCHW.shape[:2]
    predicted_BHW = logits_BCHW.argmax(1)
    counts_BHW = truth_BHW != UNCOUNTED
    first_B11 = torch.arange(num_images, device=truth_BHW.device).view(-1, 1, 1) * num_classes

    def count(classes_BHW: Tensor, which_BHW: Tensor) -> Tensor:
        flat_P = (first_B11 + classes_BHW)[which_BHW]
        return torch.bincount(flat_P, minlength=num_images * num_classes).view(num_images, num_classes)

    return torch.stack(
        [
            count(truth_BHW, counts_BHW & (predicted_BHW == truth_BHW)),
            count(predicted_BHW, counts_BHW),
            count(truth_BHW, counts_BHW),
        ]
    )


def _losses(logits_BCHW: Tensor, truth_BHW: Tensor) -> Tensor:
    loss_BHW = nn.functional.cross_entropy(logits_BCHW, truth_BHW, ignore_index=UNCOUNTED, reduction="none")
    return loss_BHW.sum((1, 2)) / (truth_BHW != UNCOUNTED).sum((1, 2)).clamp(min=1)


class SegmentationTally:
    """See `objective.Tally`."""

    def __init__(self) -> None:
        self._sums: Tensor | None = None
        self._loss: list[Tensor] = []

    def add(self, logits: Tensor, truth: Tensor) -> None:
        """See Tally."""
        sums_3C = _pixel_counts(logits, truth).sum(1)
        self._sums = sums_3C if self._sums is None else self._sums + sums_3C
        self._loss.append(_losses(logits, truth))

    def sums(self) -> np.ndarray:
        """See Tally: counts of pixels (3C), loss, images."""
        assert self._sums is not None
        loss_N = torch.cat(self._loss).cpu().double()
        return np.array([*self._sums.flatten().tolist(), float(loss_N.sum()), len(loss_N)])

    def result(self, sums_S: np.ndarray) -> tuple[float, float]:
        """See Tally."""
        *counts, loss, num = sums_S.tolist()
        return loss / num, float(metric_of("segmentation").error(np.array(counts), int(num)))
