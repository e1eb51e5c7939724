"""Which weights lie on no path from the images to the answer, because everything before or after them was removed.

The network is run once on ones with every kept weight replaced by 1 and every removed one by 0, each result clamped to
0 or 1: a channel is 0 at the end exactly when no path of kept weights leads to it. Backwards, the gradient of a channel
to which one leads is 0 exactly when none leads from it. Skip connections, concatenation and flattening need no rules of
their own. A normalisation passes zero on: the constant it would add to a removed channel goes with the channel. The
answer is that of all heads (see `models.heads`).

`presence` computes so that nothing cancels, and takes what it does not know to be alive. What counts as dead although
no weight is removed is not understood, and counts as alive whatever the masks.

Source: the data-free walk of all paths is that of SynFlow (Tanaka et al. 2020), here with booleans.
"""

# N images, C channels, O out, I in channels

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import NamedTuple

import torch
from torch import Tensor, nn

from raypruning.methods.presence import OneOrZero, Presence, unseen
from raypruning.models.heads import all_logits
from raypruning.models.layers import prunable_layers

_NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)


class Dead(NamedTuple):
    """By layer name, True where nothing arrives or nothing is read.

    Attributes:
        inputs: of prunable layers, shape (I,): nothing arrives.
        outputs: of prunable layers, shape (O,): nobody reads it.
        norms: of batch norms, shape (C,): nothing arrives or nobody reads it.
    """

    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    norms: dict[str, Tensor]


class PathWalker:
    """A boolean copy of a network, to be asked about several sets of masks. Use it as a context manager.

    Masks are those of weights and biases of prunable layers; what they leave out is kept whole. A layer whose weight
    is used without calling it (as torch's attention does) is taken to be alive, and the outputs of one that no image
    goes into (as in Swin V2, which computes the bias of its attention from positions) are taken to be read. A layer or
    norm that shares a parameter with another module is alive, for what removes it here removes it there.
    """

    def __init__(self, model: nn.Module, example_NCHW: Tensor) -> None:
        self._model = copy.deepcopy(model).eval().requires_grad_(False)
        self._ones_NCHW = torch.ones_like(example_NCHW).requires_grad_()
        self._layers = prunable_layers(self._model)
        self._norms = {
            name: module
            for name, module in self._model.named_modules()
            if isinstance(module, nn.modules.batchnorm._BatchNorm)
        }
        owners = Counter(id(own) for module in self._model.modules() for own in module.parameters(recurse=False))
        self._shared = {
            name
            for name, module in {**self._layers, **self._norms}.items()
            if any(owners[id(own)] > 1 for own in module.parameters(recurse=False))
        }
        self._arrives: dict[str, Tensor] = {}
        self._is_read: dict[str, Tensor] = {}
        self._unmasked: Dead | None = None
        self._hooks: list[torch.utils.hooks.RemovableHandle] = []

    def __enter__(self) -> PathWalker:
        for module in self._model.modules():
            if isinstance(module, _NORMS):
                # Whatever a norm does to its input, nothing comes out where nothing goes in.
                self._hooks.append(module.register_forward_hook(lambda _m, inputs, _out: OneOrZero.apply(inputs[0])))
            elif next(module.parameters(recurse=False), None) is not None:
                self._hooks.append(module.register_forward_hook(_clamp))
        for name, module in [*self._layers.items(), *self._norms.items()]:
            self._hooks.append(module.register_forward_pre_hook(self._see_input(name)))
            self._hooks.append(module.register_forward_hook(self._see_output(name)))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for hook in self._hooks:
            hook.remove()

    def dead(self, masks: Mapping[str, Tensor]) -> Dead:
        """What is dead under `masks`. Never what a walk without masks calls dead; the first call does that walk too."""
        if self._unmasked is None:
            self._unmasked = self._walk({})
        found = self._walk(masks)
        return Dead(
            *(
                {
                    name: dead_C & ~before[name] if name not in self._shared else torch.zeros_like(dead_C)
                    for name, dead_C in now.items()
                }
                for now, before in zip(found, self._unmasked, strict=True)
            )
        )

    def _walk(self, masks: Mapping[str, Tensor]) -> Dead:
        with torch.no_grad():
            for name, parameter in self._model.named_parameters():
                if name in masks:
                    parameter.copy_(masks[name])
                else:  # Whatever was asked before.
                    parameter.fill_(1.0)
        self._arrives.clear()
        self._is_read.clear()
        with torch.enable_grad():
            # Not the leaf itself, which no network may change in place.
            images_NCHW = self._ones_NCHW * 1.0
            with Presence(self._ones_NCHW) as presence:
                answers = all_logits(self._model, images_NCHW)
            read = torch.stack([total.float() for total in (*map(Tensor.sum, answers), *presence.read_unseen)])
            torch.autograd.grad(read.sum(), self._ones_NCHW)
        return Dead(
            inputs={name: ~self._arrives[name] for name in self._layers if name in self._arrives},
            outputs={
                name: ~self._is_read.get(name, torch.zeros(len(layer.weight), dtype=torch.bool))
                for name, layer in self._layers.items()
                if name in self._arrives
            },
            norms={
                name: ~(self._arrives[name] & self._is_read[name])
                for name in self._norms
                if name in self._arrives and name in self._is_read
            },
        )

    def _see_input(self, name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        @unseen
        def record(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            _note(self._arrives, name, _by_channel(module, inputs[0].detach()))

        return record

    def _see_output(self, name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        @unseen
        def record(module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if output.requires_grad:
                output.register_hook(lambda gradient: _note(self._is_read, name, _by_channel(module, gradient)))
            else:
                _note(self._is_read, name, _by_channel(module, torch.ones_like(output)))

        return record


def _note(found: dict[str, Tensor], name: str, is_alive_C: Tensor) -> None:
    # A layer that is applied twice is alive where one of its uses is.
    found[name] = found[name] | is_alive_C if name in found else is_alive_C


def _by_channel(module: nn.Module, x: Tensor) -> Tensor:
    # Channels stand last for a linear layer, second for convolutions and batch norms.
    axis = -1 if isinstance(module, nn.Linear) else 1
    return (x != 0).movedim(axis, 0).flatten(1).any(1).cpu()


def _clamp(_module: nn.Module, _inputs: tuple[Tensor, ...], output: object) -> object:
    return OneOrZero.apply(output) if isinstance(output, Tensor) else output
