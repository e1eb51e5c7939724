"""What a network answers with: the logits of its head or heads, and the layers that give them.

A network with several heads offers what `HasHeads` asks for; any other has one head, its last prunable layer. What
prunes looks at all heads: an auxiliary one serves training alone, yet is pruned like the rest.
"""

# N images, C channels or classes, H W height and width

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from raypruning.models.layers import prunable_layers

# Of an auxiliary head's loss beside the main one's. Source: Lost in Pruning's code, as torchvision's own training.
AUXILIARY_WEIGHT = 0.5


@runtime_checkable
class HasHeads(Protocol):
    """A network whose logits come from several layers.

    Attributes:
        logit_layers: names of the prunable layers whose outputs are classes.
    """

    logit_layers: tuple[str, ...]

    def all_logits(self, images_NCHW: Tensor) -> tuple[Tensor, ...]:
        """The logits of every head, the main one first, in training mode and out of it."""


def all_logits(model: nn.Module, images_NCHW: Tensor) -> tuple[Tensor, ...]:
    """The logits of every head of any network, the main one first."""
    return model.all_logits(images_NCHW) if isinstance(model, HasHeads) else (model(images_NCHW),)


def logit_layers(model: nn.Module) -> tuple[str, ...]:
    """Names of the layers whose outputs are classes."""
    return model.logit_layers if isinstance(model, HasHeads) else (next(reversed(prunable_layers(model))),)
