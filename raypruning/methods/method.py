"""What a pruning method is: score x scope x granularity, each a function or a word that later methods reuse.

    score        a network -> one number per unit, larger means keep
    scope        scores and a target -> which units stay, over all layers at once or layer by layer
    granularity  what a unit is: a weight, or a filter (an output of a layer, with its bias)

A registered method is a function `name(parameters) -> Method`.
"""

# O out, I in channels; U units of a layer

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from raypruning.errors import SpecError

Granularity = Literal["weight", "filter"]
Masks = dict[str, Tensor]  # parameter name -> bool, True where kept


@dataclass(frozen=True, kw_only=True)
class Network:
    """What a method sees of the network that it prunes. It must leave it as it is.

    Attributes:
        model: in evaluation mode.
        layers: the prunable layers by name, in registration order.
        example_NCHW: one image of zeros, with the shape and on the device that the network takes.
        generator: the method's only source of randomness, on the CPU; seeded by the training, not by the ratio.
    """

    model: nn.Module
    layers: Mapping[str, nn.Module]
    example_NCHW: Tensor
    generator: torch.Generator


class Score(Protocol):
    """Importance of every unit: per layer a tensor of the weight's shape (weights) or one of shape (O,) (filters)."""

    def __call__(self, network: Network, granularity: Granularity) -> dict[str, Tensor]:
        """Finite float scores; larger means keep. Independent of the ratio."""


class Scope(Protocol):
    """Which units stay, so that the network has as nearly as possible the asked fraction removed."""

    def __call__(self, network: Network, scores: Mapping[str, Tensor], num_remove: int) -> Masks:
        """Masks that remove `num_remove` of the network's parameters, exactly where the granularity allows it."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """How what to remove is chosen.

    Attributes:
        source: paper and section.
        version: raised when the same inputs give other masks.
    """

    name: str
    score: Score
    scope: Scope
    granularity: Granularity
    source: str
    version: int = 1


def refuse_parameters(name: str, parameters: Mapping[str, object], *, known: tuple[str, ...] = ()) -> None:
    """Raise SpecError for a parameter that the method does not have."""
    for key in parameters:
        if key not in known:
            has = f"it has {', '.join(known)}" if known else "it has none"
            raise SpecError(f"method {name} has no parameter {key!r}: {has}")
