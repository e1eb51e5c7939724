"""Which weights of each layer are not zero: found once, then kept up to date with what is zeroed."""

# O out, I in channels of a layer, G groups, M values of a kernel, Q channels of the whole network

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from raypruning.compaction.channels import Channels, Layer, is_depthwise, layers_of, num_groups


class Usage:
    """Of one layer. Its weights are zeroed through this and no other way.

    Attributes:
        is_live_O: outputs with a weight other than zero.
        is_read_I: inputs with a weight other than zero.
    """

    def __init__(self, layer: Layer) -> None:
        self.layer = layer
        # numpy, whose comparisons and `any` of bytes are many times faster than torch's.
        weight = layer.weight.numpy()
        self._is_set_GOX = (weight != 0).reshape(num_groups(layer), -1, weight[0].size)
        self.is_live_O, self.is_read_I = self._find_live(), self._find_read()

    def stop_reading(self, which_I: Tensor) -> None:
        """Zero the weights of some inputs."""
        layer = self.layer
        stays_GX = ~which_I.view(num_groups(layer), 1, -1).repeat_interleave(layer.weight[0, 0].numel(), 2)
        layer.weight.view(self._is_set_GOX.shape).mul_(stays_GX.to(layer.weight.dtype))
        self._is_set_GOX &= stays_GX.numpy()
        self.is_live_O, self.is_read_I = self._find_live(), self.is_read_I & ~which_I

    def stop_making(self, which_O: Tensor) -> bool:
        """Zero the weights and the bias of some outputs. Returns whether any weight was not zero."""
        if self.layer.bias is not None:
            self.layer.bias[which_O] = 0.0
        fresh_O = which_O & self.is_live_O
        if not fresh_O.any():
            return False
        self.layer.weight[fresh_O] = 0.0
        self._is_set_GOX.reshape(len(fresh_O), -1)[fresh_O.numpy()] = False
        self.is_live_O, self.is_read_I = self.is_live_O & ~which_O, self._find_read()
        return True

    def set_column(self, index: int, kernel: Tensor) -> None:
        """Other weights for one input of a layer without groups."""
        self.layer.weight[:, index] = kernel
        self._is_set_GOX = (self.layer.weight.numpy() != 0).reshape(self._is_set_GOX.shape)
        self.is_live_O, self.is_read_I = self._find_live(), self._find_read()

    def _find_live(self) -> Tensor:
        return torch.from_numpy(self._is_set_GOX.any(2).ravel())

    def _find_read(self) -> Tensor:
        num_values = self.layer.weight[0, 0].numel()
        return torch.from_numpy(self._is_set_GOX.any(1).reshape(-1, num_values).any(1))


def usages_of(model: nn.Module) -> dict[str, Usage]:
    """By layer name; without depthwise convolutions, whose outputs are their inputs."""
    return {name: Usage(layer) for name, layer in layers_of(model).items() if not is_depthwise(layer)}


def read_channels(usages: Mapping[str, Usage], channels: Channels) -> Tensor:
    """Channels that some layer reads, shape (Q,)."""
    found = torch.zeros(channels.num, dtype=torch.bool)
    for name, usage in usages.items():
        found[channels.inputs[name][usage.is_read_I]] = True
    return found


def live_channels(usages: Mapping[str, Usage], channels: Channels) -> Tensor:
    """Channels that some layer makes with a weight other than zero, shape (Q,)."""
    found = torch.zeros(channels.num, dtype=torch.bool)
    for name, usage in usages.items():
        found[channels.outputs[name][usage.is_live_O]] = True
    return found
