"""What a pruning method is: score x scope x granularity, each of which can be exchanged for another.

    score        a network -> one number per unit, larger means keep
    granularity  what a unit is: a weight, a filter, an input channel, ...
    scope        the units' scores -> the order in which units go, over all layers or fairly between them
    rules        how the order is followed until the ratio is reached, and what goes along with a unit

A registered method is a function `name(parameters) -> Method`; `axes.method` makes one of a score alone.
"""

# N images, C channels, H W height and width, O out, I in channels; U units of a layer

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from raypruning.models.layers import prunable_layers

Masks = dict[str, Tensor]  # parameter name -> bool, True where kept
Scores = Mapping[str, Tensor]
Rules = Literal["corrected", "plain", "paper"]
# In place of a pixel's class where it has none, as torch's losses have it.
UNCOUNTED = -100


class Samples(NamedTuple):
    """Images that a score may look at, as the network takes them, on its device, with their labels.

    Attributes:
        labels_N: one for each image, (N,); for segmentation one for each pixel, (N, H, W), UNCOUNTED where it has none.
    """

    images_NCHW: Tensor
    labels_N: Tensor


@dataclass(frozen=True, kw_only=True)
class Network:
    """What a method sees of the network that it prunes. It must leave it as it is.

    Attributes:
        model: in evaluation mode. What an earlier prune removed is 0 in it.
        layers: the prunable layers that the method may touch, by name, in registration order.
        example_NCHW: one image of zeros, with the shape and on the device that the network takes.
        generator: the method's only source of randomness, on the CPU; seeded by the training, not by the ratio.
        granularity: what is to be scored.
        alive: what an earlier prune left, by parameter name; a parameter that is not in it is whole.
        samples: images with labels, for a method that asked for them.
        images_at_once: of the samples; None for as many as fit.
    """

    model: nn.Module
    layers: Mapping[str, nn.Module]
    example_NCHW: Tensor
    generator: torch.Generator
    granularity: Granularity
    alive: Mapping[str, Tensor] = field(default_factory=dict)
    samples: Samples | None = None
    images_at_once: int | None = None

    @functools.cached_property
    def all_layers(self) -> Mapping[str, nn.Module]:
        """The prunable layers of the whole network, skipped ones included."""
        return prunable_layers(self.model)

    def weight(self, layer: str) -> Tensor:
        """A layer's weight in float32, without gradient."""
        weight = self.layers[layer].weight
        assert isinstance(weight, Tensor)
        return weight.detach().float()


class Score(Protocol):
    """Importance of every unit: per layer a tensor of the shape that the granularity asks for; see `Granularity`."""

    def __call__(self, network: Network) -> dict[str, Tensor]:
        """Finite float scores, larger means keep, of all layers in order. Independent of the ratio."""


class Units(NamedTuple):
    """The units of one layer.

    Attributes:
        scores_U: larger means keep; -inf where nothing is left to remove.
        is_kept_whole: nothing of this layer may go.
    """

    scores_U: Tensor
    is_kept_whole: bool = False


@dataclass(frozen=True, kw_only=True)
class Granularity:
    """What a unit is.

    Attributes:
        name: weight, filter (an output of a layer), channel (an input of a layer), unit (an output of a linear layer),
            n_m (the lowest weight of every group of M), block.
        score_by: what a score has a number for: every `weight`, every `filter` (O,) or every `channel` (I,).
        units: network, layer and its score -> the layer's units.
        mask: which units stay (U,), the score and the weight -> which weights stay, of the weight's shape.
        is_structured: whole channels go, and so does what has lost its purpose with them.
    """

    name: str
    score_by: Literal["weight", "filter", "channel"]
    units: Callable[[Network, str, Tensor], Units]
    mask: Callable[[Tensor, Tensor, Tensor], Tensor]
    is_structured: bool = False


class Scope(Protocol):
    """In which order units go."""

    def __call__(self, network: Network, units: Mapping[str, Units]) -> dict[str, Tensor]:
        """Per layer the time (U,) at which each unit goes, comparable between layers; inf for never.

        Within a layer the order is that of the scores, lowest first.
        """


@dataclass(frozen=True, kw_only=True)
class Method:
    """How what to remove is chosen.

    Attributes:
        name: with its parameters, for messages.
        rules: `corrected` reaches the asked ratio, and takes along what a removed channel leaves without purpose;
            `plain` removes the units alone; `paper` does as the code of Lost in Pruning does.
        paper_allocation: of the rules `paper`, None under others; see `paper_rules`.
        needs_samples: whether the score, or the rules, look at images.
        num_samples: of these; None takes as many as the theory of SiPP and PFP asks for.
        skip: names of layers that are kept whole.
        source: paper and section.
        version: recorded with every network it pruned. No part of an identity: a method whose masks have changed needs
            another name, lest old networks be taken for new ones.
    """

    name: str
    score: Score
    scope: Scope
    granularity: Granularity
    source: str
    rules: Rules = "corrected"
    paper_allocation: Callable[..., Masks] | None = None
    needs_samples: bool = False
    num_samples: int | None = None
    skip: tuple[str, ...] = ()
    version: int = 1
