"""What goes into every layer when the samples go through the network, as the patches that its filters multiply."""

# N images, B of a batch, C channels, H W height and width, K weights of a filter, P positions

from __future__ import annotations

from collections.abc import Callable, Collection

import torch
from torch import Tensor, nn

from raypruning.errors import MethodError
from raypruning.methods.method import Network

# Of the unfolded inputs of one layer: the batch is chosen so that the largest layer's stay below it.
MAX_PATCH_BYTES = 64 << 20

Visit = Callable[[str, Tensor], None]


@torch.no_grad()
def visit_inputs(network: Network, visit: Visit) -> None:
    """Call `visit(layer, patches (B, K, P))` for every layer and batch of samples; float32.

    Raises: MethodError: the network uses a layer's weight without calling the layer, so its input cannot be seen.
    """
    assert network.samples is not None, "a method that needs samples says so"
    images_NCHW = network.samples.images_NCHW
    seen: set[str] = set()
    largest = 1

    def hook_for(name: str, layer: nn.Module) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            nonlocal largest
            patches_BKP = unfold(layer, inputs[0].detach().float())
            largest = max(largest, patches_BKP.nbytes // len(patches_BKP))
            seen.add(name)
            visit(name, patches_BKP)

        return hook

    hooks = [layer.register_forward_pre_hook(hook_for(name, layer)) for name, layer in network.layers.items()]
    try:
        # The first image tells how large the inputs are.
        network.model(images_NCHW[:1])
        for images_BCHW in images_NCHW[1:].split(network.images_at_once or max(1, MAX_PATCH_BYTES // largest)):
            network.model(images_BCHW)
    finally:
        for hook in hooks:
            hook.remove()
    check_all_seen(network, seen)


def check_all_seen(network: Network, seen: Collection[str]) -> None:
    """Raise MethodError if a layer was not called although the network ran: its weight is used in another way."""
    if unseen := [name for name in network.layers if name not in seen]:
        raise MethodError(
            f"the network uses the weights of {'+'.join(unseen)} without calling the layers, so what goes into them "
            f"cannot be seen: add skip={'+'.join(unseen)}, or take a method that looks at weights alone"
        )


def unfold(layer: nn.Module, x: Tensor) -> Tensor:
    """The patches (B, K, P) that each filter multiplies, in the order of its weight; of a layer with one group."""
    if isinstance(layer, nn.Conv2d):
        padding = _padding_of(layer)
        if layer.padding_mode != "zeros":
            x = nn.functional.pad(x, layer._reversed_padding_repeated_twice, mode=layer.padding_mode)
            padding = (0, 0)
        return nn.functional.unfold(x, layer.kernel_size, dilation=layer.dilation, padding=padding, stride=layer.stride)
    return x.reshape(len(x), -1, x.shape[-1]).transpose(1, 2)


def _padding_of(layer: nn.Conv2d) -> tuple[int, int]:
    if not isinstance(layer.padding, str):
        return layer.padding[0], layer.padding[1]
    if layer.padding == "valid":
        return 0, 0
    sides = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
    if any(side % 2 for side in sides):
        raise MethodError("a convolution with padding 'same' and an even kernel cannot be unfolded: give it numbers")
    return sides[0] // 2, sides[1] // 2
