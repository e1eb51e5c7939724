"""What of a network can be pruned, and what the network costs: parameters, multiply-adds, output positions.

One multiply-add (MAC) is one multiplication and one addition: half of the two floating-point operations torch counts.
All counts are for a dense network; with masks, MACs = sum over prunable layers of non-zeros * positions, plus the rest.
"""

# N images, C channels, H W height and width, O out channels

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

T = TypeVar("T")


def prunable_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Layers whose `weight` can be pruned, by module name, in registration order.

    These are the convolutions with one group and the linear layers. Grouped (also depthwise) convolutions, biases,
    normalisations, embeddings and the joint query-key-value matrix of torch's attention are never pruned but count as
    parameters. A weight that several layers share is listed once, under the first of them.

    Source: torchprune, `compressible_layers`.
    """
    layers: dict[str, nn.Module] = {}
    seen: set[int] = set()
    for name, module in model.named_modules():
        is_prunable = isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1)
        if is_prunable and id(module.weight) not in seen:
            seen.add(id(module.weight))
            layers[name] = module
    return layers


def count_parameters(model: nn.Module) -> int:
    """Numbers in the weights, biases and normalisations; the buffers, such as running means, are not parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_macs(model: nn.Module, in_channels: int, image_size: int) -> int:
    """Dense multiply-adds for one image. Convolutions and matrix products count, element-wise work does not.

    Args:
        model: left as it is, whatever its device and mode.
        in_channels: channels of an image.
        image_size: height and width of an image in pixels.
    """

    def count(copied: nn.Module, image_NCHW: torch.Tensor) -> int:
        with FlopCounterMode(display=False) as counter:
            copied(image_NCHW)
        return counter.get_total_flops() // 2

    return _on_copy(model, in_channels, image_size, count)


def layer_positions(model: nn.Module, in_channels: int, image_size: int) -> dict[str, int]:
    """How often one image uses each weight, per prunable layer: MACs = non-zero weights * positions.

    It is height * width of the output for a convolution, 1 for a linear layer on a vector, the number of tokens for
    one on tokens; a layer that is applied twice counts twice, and one that is never applied has 0.

    Args:
        model: left as it is. Its layers must use their weights as they are: not parametrised, not multiplied by masks.
        in_channels: channels of an image.
        image_size: height and width of an image in pixels.
    """

    def count(copied: nn.Module, image_NCHW: torch.Tensor) -> dict[str, int]:
        layers = prunable_layers(copied)
        with _PositionCounter({name: layer.weight for name, layer in layers.items()}) as counter:
            copied(image_NCHW)
        return counter.positions

    return _on_copy(model, in_channels, image_size, count)


def same_padding_positions(model: nn.Module, in_channels: int, image_size: int) -> dict[str, int]:
    """`layer_positions` by the rule of ShrinkBench and the LeNet study, for comparison with published numbers.

    It counts too much: every convolution's output is taken to be as large as its input, divided by the stride.

    Source: the LeNet study, whose LeNet-5 has 932 500 multiply-adds by it and 480 500 in truth.
    """

    def count(copied: nn.Module, image_NCHW: torch.Tensor) -> dict[str, int]:
        layers = prunable_layers(copied)
        positions = dict.fromkeys(layers, 0)

        def hook_for(name: str) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
            def hook(layer: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
                if isinstance(layer, nn.Conv2d):
                    height, width = inputs[0].shape[-2:]
                    positions[name] += -(-height // layer.stride[0]) * -(-width // layer.stride[1])
                else:
                    positions[name] += inputs[0].numel() // inputs[0].shape[-1]

            return hook

        for name, layer in layers.items():
            layer.register_forward_pre_hook(hook_for(name))
        copied(image_NCHW)
        return positions

    return _on_copy(model, in_channels, image_size, count)


def logits_shape(model: nn.Module, in_channels: int, image_size: int) -> tuple[int, ...]:
    """Shape of what the model gives for one image, (1, classes) for a classifier.

    Raises:
        RuntimeError: torch's own, when the image does not fit the model.
    """

    def shape(copied: nn.Module, image_NCHW: torch.Tensor) -> tuple[int, ...]:
        return tuple(copied(image_NCHW).shape)

    return _on_copy(model, in_channels, image_size, shape)


class _PositionCounter(TorchDispatchMode):
    """Counts the outputs per unit of every product with one of the given weights.

    Looks at operators and not at forward hooks because attention layers use the weights of their linear layers without
    calling these. A weight is known by its storage, which survives the transposition in a linear layer.
    """

    def __init__(self, weights: dict[str, torch.Tensor]) -> None:
        super().__init__()
        self.positions = dict.fromkeys(weights, 0)
        self._layers = {_storage_of(weight): (name, weight.shape[0]) for name, weight in weights.items()}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        if func._overloadpacket in _PRODUCTS:
            for operand in args:
                layer = self._layers.get(_storage_of(operand)) if isinstance(operand, torch.Tensor) else None
                if layer is not None:
                    name, num_units = layer
                    self.positions[name] += output.numel() // num_units
        return output


_PRODUCTS = frozenset({torch.ops.aten.convolution, torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.bmm})


def _storage_of(tensor: torch.Tensor) -> int:
    # Not data_ptr(), which is 0 for all tensors on the meta device.
    return tensor.untyped_storage()._cdata


def _on_copy(model: nn.Module, in_channels: int, image_size: int, count: Callable[[nn.Module, torch.Tensor], T]) -> T:
    """`count` of a copy of `model` in evaluation mode and one image."""
    size = (1, in_channels, image_size, image_size)
    # A default device, even the CPU, also keeps attention from its fused kernel, which hides its products.
    try:
        # Shapes alone give the answer: a large network costs milliseconds and no memory.
        with torch.no_grad(), torch.device("meta"):
            return count(_meta_copy(model).eval(), torch.empty(size))
    except (RuntimeError, NotImplementedError):
        # A forward that looks at values, or holds tensors that are no buffers, has to be run; an error in it recurs.
        with torch.no_grad(), torch.device("cpu"):
            return count(copy.deepcopy(model).cpu().eval(), torch.zeros(size))


def _meta_copy(model: nn.Module) -> nn.Module:
    """Copy of `model` whose parameters and buffers have shapes only, without copying their values on the way."""
    known: dict[int, Any] = {}
    for parameter in model.parameters():
        known[id(parameter)] = nn.Parameter(parameter.detach().to("meta"), requires_grad=parameter.requires_grad)
    for buffer in model.buffers():
        known[id(buffer)] = buffer.detach().to("meta")
    return copy.deepcopy(model, known)
