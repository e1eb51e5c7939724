"""What a network costs: each count with one definition, the same for the original and the smaller one."""

from __future__ import annotations

import zlib

import torch
from torch import nn

from raypruning.core.records import Record
from raypruning.models.layers import count_macs, count_parameters, layer_positions, prunable_layers

_ZIP_LEVEL = 6


class Size(Record):
    """Counts of a network whose removed weights are 0.

    Attributes:
        parameters: numbers in weights, biases and norms, zeros included; running means are none.
        nonzeros: of the parameters, those other than 0.
        macs: multiply-adds for one image as the network computes it, zeros included.
        effective_macs: the same without those of zero weights of prunable layers: non-zeros * positions, plus the rest.
        bytes_dense: of all parameters and buffers as they lie in the weights file: 4 for a float32.
        bytes_sparse: the same with each parameter tensor as a bit per number and its non-zeros; buffers dense.
        bytes_zipped: the content of the weights file after zlib, level 6.
    """

    parameters: int
    nonzeros: int
    macs: int
    effective_macs: int
    bytes_dense: int
    bytes_sparse: int
    bytes_zipped: int


@torch.no_grad()
def size_of(model: nn.Module, *, in_channels: int, image_size: int) -> Size:
    """The size of a network for images of so many channels and pixels. The model is left as it is."""
    macs = count_macs(model, in_channels, image_size)
    positions = layer_positions(model, in_channels, image_size)
    parameters = dict(model.named_parameters())
    idle = sum(_num_zeros(parameters[f"{name}.weight"]) * positions[name] for name in prunable_layers(model))
    state = model.state_dict()
    dense = sum(value.numel() * value.element_size() for value in state.values())
    sparse = dense
    for parameter in model.parameters():
        sparse += (parameter.numel() + 7) // 8 - _num_zeros(parameter) * parameter.element_size()
    return Size(
        parameters=count_parameters(model),
        nonzeros=sum(parameter.numel() - _num_zeros(parameter) for parameter in model.parameters()),
        macs=macs,
        effective_macs=macs - idle,
        bytes_dense=dense,
        bytes_sparse=sparse,
        bytes_zipped=_zipped(state),
    )


def _num_zeros(values: torch.Tensor) -> int:
    return values.numel() - int(values.count_nonzero())


def _zipped(state: dict[str, torch.Tensor]) -> int:
    compressor = zlib.compressobj(_ZIP_LEVEL)
    num = 0
    for value in state.values():
        num += len(compressor.compress(value.detach().cpu().contiguous().numpy().tobytes()))
    return num + len(compressor.flush())
