"""Whether channels flow as the graph says: each gets a label, which its readers and nobody else must see."""

# C channels, H W height and width, K bits of a label, J inputs of a reader, L layers

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from raypruning.compaction.channels import UNKNOWN, Channels
from raypruning.compaction.labels import LabelReader


def mixed_channels(reader: LabelReader, channels: Channels, labels_QK: Tensor) -> dict[int, str]:
    """Channels that flow otherwise than the graph says: these must stay as well.

    Args:
        reader: of the network's labels.
        labels_QK: one for each channel, none part of another.
    """
    try:
        seen = reader.read({name: labels_QK[ids] for name, ids in channels.outputs.items()})
    except Exception:  # Any error of a forward that cannot be run so: then nothing is known.
        return dict.fromkeys(range(channels.num), UNKNOWN)
    kept: dict[int, str] = {}
    readers = {**channels.inputs, **channels.norms}
    for name, ids in readers.items():
        if name not in seen:  # Its weights are used without calling it, if at all.
            unseen = torch.cat([ids, channels.outputs[name]]) if name in channels.outputs else ids
            kept |= dict.fromkeys(unseen.tolist(), UNKNOWN)
    is_kept_Q = channels.is_kept_Q
    strange: dict[str, Tensor] = {}
    for name, ids in readers.items():
        if name in seen:
            # One that must stay anyway may be misread: it only counts where what reaches it comes from.
            wrong_J = _differ(seen[name], labels_QK[ids])
            kept |= dict.fromkeys(ids[wrong_J & ~is_kept_Q[ids]].tolist(), UNKNOWN)
            # What comes from no layer, such as the image, has no source to look for.
            wrong_J &= seen[name].any(1)
            if wrong_J.any():
                strange[name] = seen[name][wrong_J]
    if strange:
        for sources in _sources(reader, channels, labels_QK, strange):
            kept |= dict.fromkeys(sources, UNKNOWN)
    return {channel: reason for channel, reason in kept.items() if channel not in channels.kept}


def is_wired(model: nn.Module, channels: Channels, labels_QK: Tensor, image_CHW: Tensor) -> bool:
    """Whether a network runs, and each of its channels that could be removed reaches its readers and no other.

    Args:
        model: smaller than the one the channels were found in; left as it is.
        channels: those that are left.
        labels_QK: one for each channel, those that are gone included.
        image_CHW: one image that the network takes.
    """
    try:
        seen = LabelReader(model, image_CHW).read({name: labels_QK[ids] for name, ids in channels.outputs.items()})
    except Exception:  # It computes with numbers of channels that are no longer true.
        return False
    is_kept_Q = channels.is_kept_Q
    for name, ids in {**channels.inputs, **channels.norms}.items():
        if name in seen and bool((_differ(seen[name], labels_QK[ids]) & ~is_kept_Q[ids]).any()):
            return False
    return True


def _differ(first_JK: Tensor, second_JK: Tensor) -> Tensor:
    """Rows that are not equal, shape (J,)."""
    return torch.from_numpy((first_JK.numpy() != second_JK.numpy()).any(1))  # torch's `any` takes ten times as long


def _sources(
    reader: LabelReader, channels: Channels, labels_QK: Tensor, strange: Mapping[str, Tensor]
) -> list[list[int]]:
    """The channels that may be behind what each reader saw: their labels fit, and their layers do reach it."""
    names = list(channels.outputs)
    reaches = {name: seen_JL.any(0) for name, seen_JL in reader.read_layers().items()}
    found: list[list[int]] = []
    for name, seen_JK in strange.items():
        layers = [layer for layer, does in zip(names, reaches[name].tolist(), strict=True) if does]
        if not layers:
            continue
        ids = torch.cat([channels.outputs[layer] for layer in layers]).unique()  # type: ignore[no-untyped-call]
        missing = labels_QK[ids].double() @ (~seen_JK).double().T
        found.append(ids[(missing == 0).any(1)].tolist())
    return found
