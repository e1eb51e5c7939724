"""Rewrite weights, without changing outputs, until nothing reads the channels that carry nothing.

A channel whose makers have only zero weights is a constant. What arrives of it at each reader is measured; the reader
takes it into its bias and reads the channel no more. Where zero padding forbids that, since the borders see less of the
constant, all the constants of a reader move into one of their channels. A layer's outputs that nobody reads become
zero, which may leave nobody to read its inputs. No shape changes here.
"""

# N images, O out, I in channels of a layer, G groups, Q channels of the whole network

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from raypruning.compaction.arriving import measure_arriving, zeros_arriving
from raypruning.compaction.channels import BORDERS, NOT_CONSTANT, Channels, Layer, num_groups
from raypruning.compaction.usage import Usage, live_channels, read_channels

# Of the largest constant: one that is much smaller would make weights that are much larger.
_CARRIER_SHARE = 0.1


@torch.no_grad()
def settle(
    model: nn.Module,
    usages: Mapping[str, Usage],
    channels: Channels,
    *,
    image_CHW: Tensor,
    images_NCHW: Sequence[Tensor],
) -> dict[int, str]:
    """Fold constants and zero what nobody reads, in place, until neither is left to do.

    Args:
        model: its weights change, its outputs do not.
        usages: of its layers; kept up to date.
        image_CHW: one image that the network takes, as small as may be.
        images_NCHW: different inputs, on which a constant must be the same.

    Returns: constant channels that are still read, with the reason.
    """
    is_free_Q = ~channels.is_kept_Q
    carriers: set[int] = set()
    # Each round needs another only if it made something zero, and there are finitely many weights.
    while True:
        has_changed = _zero_unread(usages, channels, is_free_Q)
        is_constant_Q = is_free_Q & ~live_channels(usages, channels)
        if not (is_constant_Q & read_channels(usages, channels)).any():
            if not has_changed:
                return {}
            continue
        arriving = zeros_arriving(model, channels, is_constant_Q, image_CHW)
        if arriving is None:
            arriving = measure_arriving(model, {name: usage.layer for name, usage in usages.items()}, images_NCHW)
        reasons: dict[int, str] = {}
        for name, usage in usages.items():
            if name not in arriving:
                continue
            ids = channels.inputs[name]
            is_candidate_I = is_constant_Q[ids] & usage.is_read_I
            foldable_I = is_candidate_I & arriving[name].is_constant_I
            reasons |= dict.fromkeys(ids[is_candidate_I & ~foldable_I].tolist(), NOT_CONSTANT)
            has_changed |= _fold(usage, foldable_I, arriving[name].value_I, ids, carriers=carriers, reasons=reasons)
        if not has_changed:
            return reasons


def unread(usages: Mapping[str, Usage], channels: Channels) -> Tensor:
    """Channels that may go and that no layer reads, shape (Q,)."""
    return ~channels.is_kept_Q & ~read_channels(usages, channels)


def _zero_unread(usages: Mapping[str, Usage], channels: Channels, is_free_Q: Tensor) -> bool:
    """Zero the weights and biases that make what nobody reads. Returns whether there was anything to zero."""
    is_unread_Q = is_free_Q & ~read_channels(usages, channels)
    has_changed = False
    for name, usage in usages.items():
        has_changed |= usage.stop_making(is_unread_Q[channels.outputs[name]])
    return has_changed


def _fold(
    usage: Usage, foldable_I: Tensor, value_I: Tensor, ids: Tensor, *, carriers: set[int], reasons: dict[int, str]
) -> bool:
    """Take constants into a layer's bias, or, behind zero padding, into one channel. True if any was."""
    if not foldable_I.any():
        return False
    layer = usage.layer
    into_bias_I = foldable_I & ((value_I == 0) | (not _pads_with_zeros(layer)))
    rest_I = foldable_I & ~into_bias_I
    has_changed = bool(into_bias_I.any())
    if has_changed:
        _into_bias(usage, into_bias_I, value_I)
    if rest_I.any():
        has_moved = num_groups(layer) == 1 and _into_carrier(usage, rest_I, value_I, ids, carriers=carriers)
        has_changed |= has_moved
        reasons |= dict.fromkeys(ids[rest_I & usage.is_read_I].tolist(), BORDERS)
    return has_changed


def _pads_with_zeros(layer: Layer) -> bool:
    if isinstance(layer, nn.Linear) or layer.padding_mode != "zeros":
        return False
    return layer.padding == "same" if isinstance(layer.padding, str) else any(layer.padding)


def _into_bias(usage: Usage, which_I: Tensor, value_I: Tensor) -> None:
    layer = usage.layer
    constant_I = torch.where(which_I, value_I.double(), 0.0)
    if constant_I.any():
        groups = num_groups(layer)
        weight_GOI = layer.weight.double().view(groups, -1, *layer.weight.shape[1:])
        if weight_GOI.ndim == 5:
            weight_GOI = weight_GOI.sum((3, 4))
        added_O = torch.einsum("goi,gi->go", weight_GOI, constant_I.view(groups, -1)).flatten()
        if added_O.any():
            old_O = layer.bias.double() if layer.bias is not None else torch.zeros_like(added_O)
            layer.bias = nn.Parameter((old_O + added_O).to(layer.weight.dtype), requires_grad=False)
    usage.stop_reading(which_I)


def _into_carrier(usage: Usage, which_I: Tensor, value_I: Tensor, ids: Tensor, *, carriers: set[int]) -> bool:
    places = which_I.nonzero().flatten()
    sizes = value_I[places].abs()
    large = places[sizes >= _CARRIER_SHARE * sizes.max()].tolist()
    # One channel may carry the constants of several readers.
    carrier = next((i for i in large if int(ids[i]) in carriers), int(places[sizes.argmax()]))
    carriers.add(int(ids[carrier]))
    if len(places) == 1:
        return False
    weight = usage.layer.weight
    shares = (value_I[places] / value_I[carrier]).double()
    kernel = torch.einsum("oi...,i->o...", weight[:, places].double(), shares)
    usage.stop_reading(which_I)
    usage.set_column(carrier, kernel.to(weight.dtype))
    return True
