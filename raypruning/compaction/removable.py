"""Which of the channels that nobody reads can go, with every layer left in a shape that it can have."""

# O out, I in channels of a layer, G groups, Q channels of the whole network

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from raypruning.compaction.channels import GROUPS, LAST, Channels, Layer, is_depthwise, layers_of, num_groups


def choose(model: nn.Module, channels: Channels, is_unread_Q: Tensor) -> tuple[Tensor, dict[int, str]]:
    """The channels to remove, shape (Q,), and why others that nobody reads stay.

    Every layer keeps an input and an output at least; the groups of a convolution stay equally large, except that whole
    groups go.
    """
    goes_Q = is_unread_Q.clone()
    reasons: dict[int, str] = {}
    # Keeping one more channel may unbalance another layer; there are finitely many to keep.
    while True:
        back = list(_to_keep(model, channels, goes_Q))
        if not back:
            return goes_Q, reasons
        for channel, reason in back:
            goes_Q[channel] = False
            reasons.setdefault(channel, reason)


def _to_keep(model: nn.Module, channels: Channels, goes_Q: Tensor) -> Iterable[tuple[int, str]]:
    for name, layer in layers_of(model).items():
        outputs, inputs = channels.outputs[name], channels.inputs[name]
        for ids in (outputs, inputs):
            if goes_Q[ids].all():
                yield int(ids[0]), LAST
        if num_groups(layer) > 1 and not is_depthwise(layer):
            yield from _unbalanced(layer, outputs, inputs, goes_Q)
    for ids in channels.norms.values():
        if goes_Q[ids].all():
            yield int(ids[0]), LAST


def _unbalanced(layer: Layer, outputs: Tensor, inputs: Tensor, goes_Q: Tensor) -> Iterable[tuple[int, str]]:
    groups = num_groups(layer)
    goes_GO, goes_GI = goes_Q[outputs].view(groups, -1), goes_Q[inputs].view(groups, -1)
    goes_whole_G = goes_GO.all(1) & goes_GI.all(1)
    if goes_whole_G.all():
        return  # Its last channels are kept by another rule, and the rest of their group by this one then.
    for ids, goes in ((outputs.view(groups, -1), goes_GO), (inputs.view(groups, -1), goes_GI)):
        num = int(goes[~goes_whole_G].sum(1).min())
        num = min(num, goes.shape[1] - 1)  # A group that is left has one of each.
        for group in (~goes_whole_G).nonzero().flatten().tolist():
            for channel in ids[group][goes[group]][num:].tolist():
                yield int(channel), GROUPS


def groups_left(layer: Layer, outputs: Tensor, goes_Q: Tensor) -> int:
    """Groups that have an output left."""
    groups = num_groups(layer)
    return int((~goes_Q[outputs]).view(groups, -1).any(1).sum())


def columns_left(layer: Layer, inputs: Tensor, goes_Q: Tensor) -> Tensor:
    """By row of the old weight's groups, the columns that are left, shape (G, columns). Groups that go have none."""
    groups = num_groups(layer)
    stays_GI = (~goes_Q[inputs]).view(groups, -1)
    left = stays_GI.any(1)
    num = int(stays_GI[left].sum(1)[0])
    columns = torch.zeros(groups, num, dtype=torch.long)
    columns[left] = stays_GI[left].nonzero()[:, 1].view(-1, num)
    return columns
