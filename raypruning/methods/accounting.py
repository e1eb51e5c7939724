"""What masks leave of a network: each count with one definition."""

# C channels, O out, I in channels

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from raypruning.methods.paths import PathWalker
from raypruning.methods.ranking import num_true
from raypruning.methods.selection import num_removed
from raypruning.models.layers import count_macs, layer_positions, prunable_layers


class Left(NamedTuple):
    """Counts of a network under masks; the mask's zeros count, not weights that are 0 by chance.

    Attributes:
        num_params: numbers in weights, biases and norms.
        num_nonzero: of these, those that the masks leave.
        macs_dense: multiply-adds for one image.
        macs: of these, those with a weight that the masks leave. Layers that are never pruned count whole.
        macs_on_paths: of these, those with a weight that lies on a path from the image to the answer; what is on none
            could be computed once and for all.
        dead_layers: prunable layers without any weight on such a path.
    """

    num_params: int
    num_nonzero: int
    macs_dense: int
    macs: int
    macs_on_paths: int
    dead_layers: tuple[str, ...]


def count_left(model: nn.Module, masks: Mapping[str, Tensor], example_NCHW: Tensor) -> Left:
    """Count what is left. Leaves the model as it is; masks may be on any device."""
    _, channels, _, size = example_NCHW.shape
    masks = {name: mask.cpu() for name, mask in masks.items()}
    layers = prunable_layers(model)
    positions = layer_positions(model, channels, size)
    macs_dense = count_macs(model, channels, size)
    num_params = sum(parameter.numel() for parameter in model.parameters())
    kept = {name: masks.get(f"{name}.weight") for name in layers}
    removed = {name: 0 if mask is None else mask.numel() - num_true(mask) for name, mask in kept.items()}
    idle, dead_layers = dict(removed), []
    if masks:
        # A bias is no path from the image: what hangs on biases alone is the same for every image.
        biases = {
            f"{name}.bias": torch.zeros_like(module.bias, dtype=torch.bool)
            for name, module in model.named_modules()
            if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None
        }
        with PathWalker(model, example_NCHW) as walker:
            dead = walker.dead({**masks, **biases})
        for name, dead_I in dead.inputs.items():
            mask = kept[name]
            mask = torch.ones(layers[name].weight.shape, dtype=torch.bool) if mask is None else mask.clone()
            mask[:, dead_I] = False
            mask[dead.outputs[name]] = False
            idle[name] = mask.numel() - num_true(mask)
            if idle[name] == mask.numel():
                dead_layers.append(name)
    return Left(
        num_params=num_params,
        num_nonzero=num_params - num_removed(masks),
        macs_dense=macs_dense,
        macs=macs_dense - sum(num * positions[name] for name, num in removed.items()),
        macs_on_paths=macs_dense - sum(num * positions[name] for name, num in idle.items()),
        dead_layers=tuple(dead_layers),
    )
