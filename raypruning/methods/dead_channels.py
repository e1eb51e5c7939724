"""Which channels can carry nothing, because everything that feeds them was removed. No data is needed.

The network is run once on ones with every kept weight replaced by 1 and every removed one by 0, each result clamped
to 0 or 1: a channel is 0 at the end exactly when no path of kept weights leads to it. Skip connections, concatenation
and flattening need no rules of their own. A normalisation passes zero on: the constant it would add to a removed
channel goes with the channel.

Source: the data-free walk of all paths is that of SynFlow (Tanaka et al. 2020), here with booleans.
"""

# N images, C channels, O out, I in channels

from __future__ import annotations

import copy
from collections.abc import Mapping
from types import TracebackType
from typing import NamedTuple

import torch
from torch import Tensor, nn

from raypruning.models.layers import prunable_layers

_NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)


class Dead(NamedTuple):
    """By layer name, True where the input channel carries nothing.

    Attributes:
        inputs: of prunable layers, shape (I,).
        norms: of batch norms, shape (C,).
    """

    inputs: dict[str, Tensor]
    norms: dict[str, Tensor]


class PathWalker:
    """A boolean copy of a network, to be asked about several sets of masks. Use it as a context manager.

    Masks are those of weights and biases of prunable layers; what they leave out is kept whole.
    """

    def __init__(self, model: nn.Module, example_NCHW: Tensor) -> None:
        self._model = copy.deepcopy(model).eval()
        self._ones_NCHW = torch.ones_like(example_NCHW)
        self._layers = prunable_layers(self._model)
        self._seen: dict[str, Tensor] = {}
        self._hooks: list[torch.utils.hooks.RemovableHandle] = []

    def __enter__(self) -> PathWalker:
        norms = {name: module for name, module in self._model.named_modules() if isinstance(module, _NORMS)}
        for name, module in [*self._layers.items(), *norms.items()]:
            self._hooks.append(module.register_forward_pre_hook(self._recorder(name)))
        with torch.no_grad():
            for parameter in self._model.parameters():
                parameter.fill_(1.0)
        for module in self._model.modules():
            if isinstance(module, _NORMS):
                # Whatever a norm does to its input, nothing comes out where nothing goes in.
                self._hooks.append(module.register_forward_hook(lambda _m, inputs, _out: inputs[0]))
            elif next(module.parameters(recurse=False), None) is not None:
                self._hooks.append(module.register_forward_hook(_clamp))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for hook in self._hooks:
            hook.remove()

    @torch.no_grad()
    def dead(self, masks: Mapping[str, Tensor]) -> Dead:
        """The dead inputs under `masks`."""
        parameters = dict(self._model.named_parameters())
        for name, mask in masks.items():
            parameters[name].copy_(mask)
        self._seen.clear()
        self._model(self._ones_NCHW)
        inputs = {name: ~self._seen[name] for name in self._layers if name in self._seen}
        norms = {
            name: ~self._seen[name]
            for name, module in self._model.named_modules()
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and name in self._seen
        }
        return Dead(inputs, norms)

    def _recorder(self, name: str):
        def record(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            x = inputs[0]
            # Channels stand second in images, last in tokens and vectors.
            axis = 1 if x.ndim == 4 and not isinstance(module, nn.Linear | nn.LayerNorm) else -1
            alive_C = (x > 0).movedim(axis, 0).flatten(1).any(1)
            known = self._seen.get(name)
            self._seen[name] = alive_C if known is None else known | alive_C

        return record


def _clamp(_module: nn.Module, _inputs: tuple[Tensor, ...], output: object) -> object:
    return (output > 0).to(output.dtype) if isinstance(output, Tensor) else output
