"""Run a network cut at its layers: each puts out what it is told, and shows what it is given.

What flows between layers can be followed so, without the arithmetic of the layers themselves.
"""

# N images, C channels, H W height and width, S samples, O outputs of a layer

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call

from raypruning.compaction.channels import Layer, is_depthwise, num_inputs

OVER_CHANNELS = nn.LayerNorm | nn.GroupNorm | nn.modules.instancenorm._InstanceNorm
# Where the network's own output is seen. No module has the name "/".
LOGITS = "/"


class Probe(Protocol):
    """What a cut network is told, and what becomes of what it shows.

    Attributes:
        num_samples: in the batch it is run with; a layer's input may hold several rows of each.
    """

    num_samples: int

    def see(self, name: str, inputs: Tensor, axis: int) -> None:
        """Called with what a reader is given, its channels along an axis."""

    def put_out(self, name: str, shape: tuple[int, ...], axis: int) -> Tensor:
        """What a layer gives in place of its output: memory of its own, which may be overwritten."""

    def norm(self, name: str, compute: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
        """What a batch norm gives."""

    def pass_on(self, layer: Layer, inputs: Tensor) -> Tensor:
        """What a depthwise convolution gives: `compute_depthwise`, or what has the same channels."""

    def without_samples(self, name: str, inputs: Tensor) -> None:
        """Called in place of `see` for a layer whose input is not one or several rows of each sample."""


@torch.no_grad()
def run_cut(
    model: nn.Module, probe: Probe, images_NCHW: Tensor, tensors: Mapping[str, Tensor] = MappingProxyType({})
) -> None:
    """Run a network once. Readers are layers, batch norms, whatever else has weights, and `LOGITS`.

    Depthwise convolutions compute, since each of their outputs is an input. So does whatever is no layer.

    Args:
        model: left as it is.
        tensors: used in place of its own parameters and buffers, by name; what has several is given for each.

    Raises:
        Exception: whatever the network raises when it is run so.
    """
    replaced = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            forward: Callable[..., Any] = _layer(name, module, probe)
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            forward = _norm(name, module, probe)
        elif mixes(module):
            forward = _other(name, module, probe)
        else:
            continue
        # Hooks could not keep a layer from computing what is thrown away.
        object.__setattr__(module, "forward", forward)
        replaced.append(module)
    try:
        probe.see(LOGITS, functional_call(model, dict(tensors), (images_NCHW,), tie_weights=False), 1)
    finally:
        for module in replaced:
            object.__delattr__(module, "forward")


def mixes(module: nn.Module) -> bool:
    """Whether a module cannot be shrunk here: a norm over channels, an attention, any other with weights."""
    if isinstance(module, nn.Conv2d | nn.Linear | nn.BatchNorm1d | nn.BatchNorm2d):
        return False
    if isinstance(module, nn.MultiheadAttention | OVER_CHANNELS):
        return True
    is_leaf = next(module.children(), None) is None
    return is_leaf and next(module.parameters(), None) is not None


def compute_depthwise(layer: Layer, inputs: Tensor) -> Tensor:
    """What a depthwise convolution gives with the weights it has."""
    passed: Tensor = type(layer).forward(layer, inputs)  # type: ignore[arg-type]
    return passed


def spread(values_SO: Tensor, shape: tuple[int, ...], axis: int) -> Tensor:
    """The same for all rows and places of a sample, as a layer's output of this shape; maybe in the same memory."""
    times = shape[0] // len(values_SO)
    values = values_SO.repeat_interleave(times, dim=0) if times > 1 else values_SO
    values = values.view(shape[0], *[1] * (len(shape) - 2), -1) if axis == -1 else values[:, :, None, None]
    return values.expand(shape).contiguous()


def _layer(name: str, layer: Layer, probe: Probe) -> Callable[[Tensor], Tensor]:
    axis = -1 if isinstance(layer, nn.Linear) else 1

    def run(inputs: Tensor) -> Tensor:
        if inputs.shape[0] % probe.num_samples:
            # No image comes here, but a table of positions, say: the layer is left as one that is never called.
            probe.without_samples(name, inputs)
            return torch.ones(_output_shape(layer, inputs), dtype=inputs.dtype)
        if inputs.shape[axis] != num_inputs(layer):
            raise ValueError(f"{name} is given {inputs.shape[axis]} channels")
        probe.see(name, inputs, axis)
        if is_depthwise(layer):
            return probe.pass_on(layer, inputs)
        return probe.put_out(name, _output_shape(layer, inputs), axis)

    return run


def _output_shape(layer: Layer, inputs: Tensor) -> tuple[int, ...]:
    if isinstance(layer, nn.Linear):
        return (*inputs.shape[:-1], layer.out_features)
    on_meta = layer._conv_forward(
        torch.empty(inputs.shape, device="meta"), torch.empty(layer.weight.shape, device="meta"), None
    )
    return tuple(on_meta.shape)


def _norm(name: str, norm: nn.Module, probe: Probe) -> Callable[[Tensor], Tensor]:
    def run(inputs: Tensor) -> Tensor:
        probe.see(name, inputs, 1)
        return probe.norm(name, lambda given: type(norm).forward(norm, given), inputs)

    return run


def _other(name: str, module: nn.Module, probe: Probe) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        for inputs in (*args, *kwargs.values()):
            if isinstance(inputs, Tensor) and inputs.is_floating_point() and inputs.ndim > 1:
                probe.see(name, inputs.flatten(1)[:, :, None], 2)
        return type(module).forward(module, *args, **kwargs)

    return run
