"""The channel plan: all that rebuilds a smaller network, as JSON that a person can read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import nn

from raypruning import registry
from raypruning.compaction.latency import Latency
from raypruning.compaction.shapes import LayerShape, reshape
from raypruning.compaction.sizes import Size
from raypruning.core.records import ModelChoice, Record
from raypruning.models.resolve import build_model


class Source(Record):
    """Where an exported network comes from; task, delta and method only say how it was chosen."""

    sweep: str
    probe: str
    method: str
    ratio: float
    task: str | None = None
    delta: float | None = None
    budget: int
    seed: int


class Check(Record):
    """How the smaller network compares with the original under its masks.

    Attributes:
        max_difference: largest absolute difference of their logits.
        num_images: real images that it was measured on.
        onnx_max_difference, torch_max_difference: the same of the files for these, None where there are none.
    """

    max_difference: float
    num_images: int
    onnx_max_difference: float | None = None
    torch_max_difference: float | None = None


class Channels(Record):
    """Filters and units of all layers together. See `compact.Compacted`."""

    num_outputs: int
    num_dead: int
    num_removed: int
    kept: Mapping[str, int]


class ChannelPlan(Record):
    """How to build a smaller network, and what is known of it.

    Attributes:
        model: what it is made of; without the options that only gave it its first weights.
        num_classes, in_channels, image_size: that the original was built for.
        transform_input: of torchvision's Inception networks with published weights.
        mean, std: per channel; images in [0, 1] have them taken off and divided by before they go in.
        plugins: modules to import because they register the model.
        layers: those that differ from the original's, by name.
        weights_sha256: of the weights file.
    """

    format: Literal[1] = 1
    model: ModelChoice
    num_classes: int
    in_channels: int
    image_size: int
    transform_input: bool = False
    mean: tuple[float, ...]
    std: tuple[float, ...]
    plugins: tuple[str, ...] = ()
    source: Source
    channels: Channels
    check: Check
    before: Size
    after: Size
    latency_before: Latency | None = None
    latency_after: Latency | None = None
    layers: Mapping[str, LayerShape]
    weights_sha256: str


def rebuild(plan: ChannelPlan) -> nn.Module:
    """The network of a plan, in evaluation mode, with weights that mean nothing yet.

    Raises:
        UnknownNameError: no such model here.
        SpecError: an option it does not take, a plugin that cannot be imported, or that only the plan names.
        ValueError: the plan is of another version of the model.
    """
    registry.import_stored_plugins(plan.plugins, where="the exported network")
    model = build_bare(
        plan.model, num_classes=plan.num_classes, in_channels=plan.in_channels, image_size=plan.image_size
    )
    if plan.transform_input:
        set_transform_input(model)
    return reshape(model, plan.layers)


def build_bare(choice: ModelChoice, *, num_classes: int, in_channels: int, image_size: int) -> nn.Module:
    """The network of a choice in evaluation mode, without gradients; leaves torch's random numbers alone."""
    with torch.random.fork_rng(devices=[]):
        model = build_model(
            choice.name,
            num_classes=num_classes,
            in_channels=in_channels,
            image_size=image_size,
            options=without_weights(choice).options,
        )
    return model.eval().requires_grad_(False)


def set_transform_input(model: nn.Module) -> None:
    """Let torchvision's Inception networks take ImageNet's normalisation, as their published weights need."""
    object.__setattr__(model, "transform_input", True)


def without_weights(choice: ModelChoice) -> ModelChoice:
    """The choice without `weights`, an option that says where the first weights come from."""
    return ModelChoice(
        name=choice.name, options={key: value for key, value in choice.options.items() if key != "weights"}
    )
