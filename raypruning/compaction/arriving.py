"""What arrives at each layer of channels that are constants: measured on images, or known to be zero without any."""

# N images, I in channels of a layer, J inputs of a reader, C channels of a norm, Q channels of the whole network

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from raypruning.compaction.channels import Channels, Layer, layers_of
from raypruning.compaction.cut import compute_depthwise, run_cut, spread


@dataclass
class Arriving:
    """What a layer is given over several images: whether each input channel is one number, and which.

    Attributes:
        is_constant_I, value_I: shape (I,).
    """

    is_constant_I: Tensor
    value_I: Tensor


def zeros_arriving(
    model: nn.Module, channels: Channels, is_constant_Q: Tensor, image_CHW: Tensor
) -> dict[str, Arriving] | None:
    """By layer, that all constants arrive as zeros. None unless they do, and are zeros at every norm on the way too.

    Most masks that remove a filter remove its bias and its norm's entry, and few activations make something of nothing.
    That is seen with everything between the layers as it is, but on a small image and without the layers' arithmetic.

    Args:
        is_constant_Q: channels that no layer makes with any weight, and that flow unmixed.
    """
    for name, layer in layers_of(model).items():
        if layer.bias is not None and layer.bias[is_constant_Q[channels.outputs[name]]].any():
            return None
    probe = _Zeros(channels, is_constant_Q)
    try:
        run_cut(model, probe, image_CHW[None])
    except Exception:  # Any error of a forward that cannot be run so: then the constants are measured.
        return None
    if not probe.are_zeros:
        return None
    inputs = {name: is_constant_Q[channels.inputs[name]] for name in probe.seen}
    return {name: Arriving(is_zero_I, torch.zeros(len(is_zero_I))) for name, is_zero_I in inputs.items()}


class _Zeros:
    """The probe: constants put out zeros, other channels ones."""

    num_samples = 1

    def __init__(self, channels: Channels, is_constant_Q: Tensor) -> None:
        self._channels, self._is_constant_Q = channels, is_constant_Q
        self.are_zeros = True
        self.seen: set[str] = set()  # layers

    def see(self, name: str, inputs: Tensor, axis: int) -> None:
        if name in self._channels.inputs:
            self.seen.add(name)
            self._look(self._channels.inputs[name], inputs, axis)

    def put_out(self, name: str, shape: tuple[int, ...], axis: int) -> Tensor:
        ones_SO = (~self._is_constant_Q[self._channels.outputs[name]]).float()[None]
        return spread(ones_SO, shape, axis)

    def norm(self, name: str, compute: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
        outputs = compute(inputs)
        for values in (inputs, outputs):
            self._look(self._channels.norms[name], values, 1)
        return outputs

    def pass_on(self, layer: Layer, inputs: Tensor) -> Tensor:
        return compute_depthwise(layer, inputs)

    def without_samples(self, name: str, inputs: Tensor) -> None:
        raise AssertionError("any number of rows is so many of one sample")

    def _look(self, ids_J: Tensor, values: Tensor, axis: int) -> None:
        is_constant_J = self._is_constant_Q[ids_J]
        self.are_zeros &= not values.movedim(axis, -1)[..., is_constant_J].any()


def measure_arriving(
    model: nn.Module, layers: Mapping[str, Layer], images_NCHW: Sequence[Tensor]
) -> dict[str, Arriving]:
    """By layer, for those that are called with the images at all."""
    lows: dict[str, Tensor] = {}
    highs: dict[str, Tensor] = {}

    def record(name: str, axis: int, inputs: Tensor) -> None:
        values_IM = inputs.movedim(axis, 0).flatten(1)
        low, high = values_IM.amin(1), values_IM.amax(1)
        lows[name] = torch.minimum(lows[name], low) if name in lows else low
        highs[name] = torch.maximum(highs[name], high) if name in highs else high

    hooks = []
    for name, layer in layers.items():
        axis = -1 if isinstance(layer, nn.Linear) else 1
        hooks.append(
            layer.register_forward_pre_hook(lambda _m, inputs, name=name, axis=axis: record(name, axis, inputs[0]))
        )
    try:
        for images in images_NCHW:
            model(images)
    finally:
        for hook in hooks:
            hook.remove()
    # A product or a mean of constants may be rounded differently from place to place.
    return {
        name: Arriving((highs[name] - low) <= 1e-6 * (1 + low.abs()), (low + highs[name]) / 2)
        for name, low in lows.items()
    }
