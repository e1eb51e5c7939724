"""Channels that belong together: what one layer gives and all layers that read it, wherever it flows unmixed.

A channel goes from the layers that make it, through activations, norms, additions, concatenations and flattening, to
the layers that mix it with others. It can only be taken out of all of them at once.
"""

# C channels of a norm, O out, I in channels of a layer

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

Layer = nn.Conv2d | nn.Linear
Norm = nn.BatchNorm1d | nn.BatchNorm2d

# Why a channel that carries nothing is kept all the same.
OUTPUT = "an output of the network"
IMAGE = "of the images, or not on the way to the output"
STATISTICS = "in the statistics of a norm over channels (LayerNorm, GroupNorm)"
ATTENTION = "in an attention, whose heads share channels"
OTHER = "read by a kind of module that is not shrunk"
TIED = "of weights that several layers share"
UNKNOWN = "where it flows is not understood"
RIGID = "the network computes with fixed numbers of channels there"
BORDERS = "a constant that zero padding cuts off at the borders"
NOT_CONSTANT = "its value is not the same everywhere and for every image"
GROUPS = "groups of a convolution must stay equally large"
LAST = "the last channel of its layer"
ALIVE = "its channel lives on in other layers that are added to it"


@dataclass(frozen=True)
class Channels:
    """Which channel each row, column and norm entry of a network belongs to.

    Attributes:
        num: channels in all, numbered from 0.
        outputs: by layer, the channel of each output, shape (O,).
        inputs: by layer, the channel of each input, shape (I,).
        norms: by batch norm, the channel of each entry, shape (C,).
        kept: channels that must stay, with the reason.
    """

    num: int
    outputs: Mapping[str, Tensor]
    inputs: Mapping[str, Tensor]
    norms: Mapping[str, Tensor]
    kept: Mapping[int, str]

    def keeping(self, more: Mapping[int, str]) -> Channels:
        """With more channels that must stay. The first reason given holds."""
        return Channels(self.num, self.outputs, self.inputs, self.norms, {**more, **self.kept})

    @property
    def is_kept_Q(self) -> Tensor:
        """True for channels that must stay, shape (num,)."""
        found = torch.zeros(self.num, dtype=torch.bool)
        found[list(self.kept)] = True
        return found

    def without(self, is_removed_Q: Tensor) -> Channels:
        """Of the network that is left when some channels are gone; channels keep their numbers."""
        outputs, inputs, norms = (
            {name: ids[~is_removed_Q[ids]] for name, ids in side.items()}
            for side in (self.outputs, self.inputs, self.norms)
        )
        return Channels(self.num, outputs, inputs, norms, self.kept)


def layers_of(model: nn.Module) -> dict[str, Layer]:
    """All linear layers and two-dimensional convolutions by module name, whatever their groups."""
    return {name: module for name, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)}


def norms_of(model: nn.Module) -> dict[str, Norm]:
    """The batch norms by module name: those treat each channel alone."""
    return {
        name: module for name, module in model.named_modules() if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)
    }


def num_groups(layer: Layer) -> int:
    """Groups of a convolution; 1 for a linear layer."""
    return layer.groups if isinstance(layer, nn.Conv2d) else 1


def is_depthwise(layer: Layer) -> bool:
    """Whether each output is made of one input alone, so that both are one channel."""
    return isinstance(layer, nn.Conv2d) and layer.groups == layer.in_channels == layer.out_channels > 1


def num_outputs(layer: Layer) -> int:
    """Output channels or units."""
    return layer.weight.shape[0]


def num_inputs(layer: Layer) -> int:
    """Input channels or units, of all groups together."""
    return layer.weight.shape[1] * num_groups(layer)


def tied(model: nn.Module) -> dict[str, str]:
    """Names of layers and norms that share a parameter with another module: taking from one would take from both."""
    owners: dict[int, list[str]] = {}
    for name, module in model.named_modules():
        for parameter in module.parameters(recurse=False):
            owners.setdefault(id(parameter), []).append(name)
    return {name: TIED for names in owners.values() if len(names) > 1 for name in names}


class Connections:
    """Collects which rows and columns are one channel, then numbers the channels."""

    def __init__(self, model: nn.Module) -> None:
        self._first: dict[tuple[str, str], int] = {}
        self._num = 0
        self._sides: dict[tuple[str, str], int] = {}
        for name, layer in layers_of(model).items():
            self._add(name, "out", num_outputs(layer))
            self._add(name, "in", num_inputs(layer))
        for name, norm in norms_of(model).items():
            self._add(name, "norm", norm.num_features)
        self._edges: list[np.ndarray] = []
        self._kept: list[tuple[np.ndarray, str]] = []
        self._is_seen = np.zeros(self._num, dtype=bool)

    def _add(self, name: str, side: str, size: int) -> None:
        self._first[name, side], self._sides[name, side] = self._num, size
        self._num += size

    def places(self, name: str, side: str, indices: np.ndarray) -> np.ndarray:
        """Numbers of rows (`out`), columns (`in`) or entries of a norm (`norm`).

        Raises:
            ValueError: an index that the module does not have.
        """
        if len(indices) and not 0 <= indices.min() <= indices.max() < self._sides[name, side]:
            raise ValueError(f"{name} has no {side} {indices.max()}")
        return indices + self._first[name, side]

    def all_places(self, name: str, side: str) -> np.ndarray:
        """Numbers of all of a side."""
        return self.places(name, side, np.arange(self._sides[name, side]))

    def join(self, first: np.ndarray, second: np.ndarray) -> None:
        """Places that are one channel, pair by pair."""
        self._edges.append(np.stack([first, second]))
        self._is_seen[first] = self._is_seen[second] = True

    def keep(self, places: np.ndarray, reason: str) -> None:
        """The channels of these places must stay."""
        self._kept.append((places, reason))

    def has_seen(self, name: str) -> bool:
        """Whether every output of a layer was joined to something, itself at least."""
        return bool(self._is_seen[self.all_places(name, "out")].all())

    def channels(self) -> Channels:
        """The channels; what was never joined to anything must stay."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        pairs = np.concatenate(self._edges, axis=1) if self._edges else np.zeros((2, 0), dtype=np.int64)
        graph = coo_array((np.ones(pairs.shape[1], dtype=np.int8), (pairs[0], pairs[1])), shape=(self._num, self._num))
        num, ids = connected_components(graph, directed=False)
        kept: dict[int, str] = {}
        for places, reason in self._kept:
            for channel in ids[places]:
                kept.setdefault(int(channel), reason)
        for channel in ids[~self._is_seen]:
            kept.setdefault(int(channel), IMAGE)
        sides: dict[str, dict[str, Tensor]] = {"out": {}, "in": {}, "norm": {}}
        for (name, side), first in self._first.items():
            sides[side][name] = torch.from_numpy(ids[first : first + self._sides[name, side]].astype(np.int64))
        return Channels(int(num), sides["out"], sides["in"], sides["norm"], kept)


def nothing_understood(model: nn.Module) -> Channels:
    """Every channel must stay: for a network whose graph cannot be built."""
    connections = Connections(model)
    for name, side in connections._first:
        connections.keep(connections.all_places(name, side), UNKNOWN)
    return connections.channels()
