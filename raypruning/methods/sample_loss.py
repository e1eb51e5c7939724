"""The loss of a network on samples: cross-entropy of all its heads, for labels of images and for labels of pixels."""

# B images of a batch, C classes, H W height and width

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from raypruning.methods.method import UNCOUNTED
from raypruning.models.heads import AUXILIARY_WEIGHT, all_logits


def summed_loss(model: nn.Module, images_BCHW: Tensor, labels_B: Tensor) -> Tensor:
    """The sum over images of an image's loss: that of its label, or the mean over its pixels that count.

    So no image weighs more than another for having fewer pixels without a class; one that has no others weighs nothing.
    """

    def of(logits: Tensor, labels: Tensor) -> Tensor:
        losses = cross_entropy(logits.float(), labels, ignore_index=UNCOUNTED, reduction="none")
        if labels.ndim == 1:
            return losses.sum()
        num_counted_B = (labels != UNCOUNTED).sum((1, 2)).clamp(min=1)
        return (losses.sum((1, 2)) / num_counted_B).sum()

    return _of_all_heads(model, images_BCHW, labels_B, of)


def mean_loss(model: nn.Module, images_BCHW: Tensor, labels_B: Tensor) -> Tensor:
    """The mean over all labels of a batch, those of pixels that count taken together; 0 where none counts."""

    def of(logits: Tensor, labels: Tensor) -> Tensor:
        if bool((labels == UNCOUNTED).all()):
            return logits.sum() * 0.0  # torch says 0 / 0
        return cross_entropy(logits, labels, ignore_index=UNCOUNTED)

    return _of_all_heads(model, images_BCHW, labels_B, of)


def _of_all_heads(
    model: nn.Module, images_BCHW: Tensor, labels_B: Tensor, of: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    main, *auxiliary = all_logits(model, images_BCHW)
    loss = of(main, labels_B)
    for logits in auxiliary:
        loss = loss + AUXILIARY_WEIGHT * of(logits, labels_B)
    return loss
