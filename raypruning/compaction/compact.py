"""From a network with masks to a smaller network with equal outputs."""

# N images, C channels, H W height and width, O out channels, Q channels of the whole network

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from raypruning.compaction.channels import ALIVE, RIGID, Channels, layers_of
from raypruning.compaction.constants import settle, unread
from raypruning.compaction.copies import copy_with
from raypruning.compaction.graph import find_channels
from raypruning.compaction.labels import LabelReader, draw_labels, labelling_image
from raypruning.compaction.removable import choose
from raypruning.compaction.shapes import LayerShape, shapes_left, smaller
from raypruning.compaction.usage import usages_of
from raypruning.compaction.wiring import is_wired, mixed_channels

# Real images that constants are measured on, besides as many of noise.
_NUM_IMAGES = 2


class Compacted(NamedTuple):
    """A smaller network.

    Attributes:
        model: in evaluation mode, on the CPU, without gradients.
        shapes: of the layers that changed, by name.
        num_outputs: filters and units of all layers of the original, those of depthwise convolutions aside.
        num_dead: of these, the ones all of whose weights are zero.
        num_removed: filters and units that are gone: dead ones, and those that nothing read any more.
        kept: dead filters and units that had to stay, by reason.
    """

    model: nn.Module
    shapes: dict[str, LayerShape]
    num_outputs: int
    num_dead: int
    num_removed: int
    kept: dict[str, int]


def compact(model: nn.Module, masks: Mapping[str, Tensor], images_NCHW: Tensor) -> Compacted:
    """Take out of a network what its masks made useless. Its outputs stay equal, up to rounding.

    What cannot be taken out safely stays: see `Compacted.kept`.

    Args:
        model: left as it is; on the CPU.
        masks: by parameter name, True where kept; a parameter that is kept whole may be left out.
        images_NCHW: a few inputs as the network gets them; at least one.
    """
    masked = masked_copy(model, masks)
    images = images_NCHW[:_NUM_IMAGES]
    image = labelling_image(masked, images[0])
    reader = LabelReader(masked, image)
    channels = find_channels(masked, reader)
    labels_QK = draw_labels(channels.num)
    channels = channels.keeping(mixed_channels(reader, channels, labels_QK))
    biased = {name for name, layer in layers_of(masked).items() if layer.bias is not None}
    usages = usages_of(masked)
    dead = {name: ~usage.is_live_O for name, usage in usages.items()}
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    reasons = settle(masked, usages, channels, image_CHW=image, images_NCHW=[images, noise])
    reduced = _without_unread(_Settled(masked, biased, channels, unread(usages, channels)), labels_QK, image)
    reasons = {**reasons, **reduced.reasons, **channels.kept}
    goes_Q = reduced.goes_Q
    num_outputs = num_dead = num_removed = 0
    kept: Counter[str] = Counter()
    for name, is_dead_O in dead.items():
        ids = channels.outputs[name]
        num_outputs += len(ids)
        num_dead += int(is_dead_O.sum())
        num_removed += int(goes_Q[ids].sum())
        kept.update(reasons.get(channel, ALIVE) for channel in ids[is_dead_O & ~goes_Q[ids]].tolist())
    return Compacted(reduced.model, reduced.shapes, num_outputs, num_dead, num_removed, dict(kept.most_common()))


@torch.no_grad()
def masked_copy(model: nn.Module, masks: Mapping[str, Tensor]) -> nn.Module:
    """A copy with everything zero that the masks remove, in evaluation mode and without gradients."""
    parameters = dict(model.named_parameters())
    masked = {id(parameters[name]): torch.where(mask, parameters[name], 0.0) for name, mask in masks.items()}
    copied = copy_with(model, masked).eval()
    # Both networks in one memory layout: convolutions of another one round otherwise.
    return copied.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload,no-any-return]


@torch.no_grad()
def largest_difference(first: nn.Module, second: nn.Module, batches: Iterable[Tensor]) -> tuple[float, int]:
    """The largest absolute difference of two networks' logits, and on how many images. A NaN counts as infinite."""
    largest, num_images = 0.0, 0
    for images_NCHW in batches:
        difference = (first(images_NCHW) - second(images_NCHW)).abs().nan_to_num(nan=float("inf"))
        largest = max(largest, float(difference.max()))
        num_images += len(images_NCHW)
    return largest, num_images


class _Settled(NamedTuple):
    """A network with constants folded; `biased` are the layers that had a bias before."""

    model: nn.Module
    biased: set[str]
    channels: Channels
    is_unread_Q: Tensor


class _Reduced(NamedTuple):
    """A network without the channels that go, and why others that nobody reads stay."""

    model: nn.Module
    shapes: dict[str, LayerShape]
    goes_Q: Tensor
    reasons: dict[int, str]


def _without_unread(settled: _Settled, labels_QK: Tensor, image_CHW: Tensor) -> _Reduced:
    """The network without all that nobody reads, as far as it runs and is wired so."""

    def is_right(reduced: _Reduced) -> bool:
        return is_wired(reduced.model, settled.channels.without(reduced.goes_Q), labels_QK, image_CHW)

    is_unread_Q = settled.is_unread_Q
    reduced = _reduce(settled, is_unread_Q)
    if is_right(reduced):
        return reduced
    # Somewhere the network computes with a fixed number of channels, or deals them out by their number: find where, by
    # halves, and remove nothing there.
    part_Q = _parts(settled.channels)
    candidates = part_Q[is_unread_Q].unique()  # type: ignore[no-untyped-call]
    good = torch.zeros(0, dtype=candidates.dtype)
    waiting = [half for half in candidates.tensor_split(2) if len(half)]
    while waiting:
        tried = waiting.pop()
        allowed = torch.cat([good, tried])
        if is_right(_reduce(settled, is_unread_Q & torch.isin(part_Q, allowed))):
            good = allowed
        elif len(tried) > 1:
            waiting += tried.tensor_split(2)
    is_allowed_Q = torch.isin(part_Q, good)
    reduced = _reduce(settled, is_unread_Q & is_allowed_Q)
    rigid = dict.fromkeys((is_unread_Q & ~is_allowed_Q).nonzero().flatten().tolist(), RIGID)
    return reduced._replace(reasons=reduced.reasons | rigid)


def _reduce(settled: _Settled, is_allowed_Q: Tensor) -> _Reduced:
    goes_Q, reasons = choose(settled.model, settled.channels, is_allowed_Q)
    shapes = shapes_left(settled.model, settled.biased, settled.channels, goes_Q)
    return _Reduced(smaller(settled.model, shapes, settled.channels, goes_Q), shapes, goes_Q, reasons)


def _parts(channels: Channels) -> Tensor:
    """The part of the network that each channel is of: those that are side by side in some layer, shape (Q,)."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    sides = [ids for side in (channels.outputs, channels.inputs, channels.norms) for ids in side.values()]
    first = torch.cat([ids[:1].expand(len(ids)) for ids in sides]).numpy()
    second = torch.cat(sides).numpy()
    ones = torch.ones(len(first), dtype=torch.int8).numpy()
    graph = coo_array((ones, (first, second)), shape=(channels.num, channels.num))
    return torch.from_numpy(connected_components(graph, directed=False)[1].astype("int64"))
