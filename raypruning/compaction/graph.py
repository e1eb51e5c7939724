"""Where the channels of a network flow, measured with labels: no rule for any operation, and none that can be missing.

First each layer labels all its outputs alike, which shows where each layer arrives. Where as many channels arrive as
the layer has, or a multiple of it (flattened maps), they are taken to arrive in order; where fewer do (split or
shuffled), each gets a label of its own. `wiring` then measures for the whole network what is taken for granted here.

The idea of groups of coupled rows and columns is that of DepGraph (Fang et al. 2023); its implementation guesses at
reshapes, and stops with an error at shuffled channels.
"""

# C channels, H W height and width, K bits of a label, L layers, O outputs of a layer, J inputs of a reader

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from raypruning.compaction.channels import (
    ATTENTION,
    OTHER,
    OUTPUT,
    STATISTICS,
    UNKNOWN,
    Channels,
    Connections,
    is_depthwise,
    layers_of,
    norms_of,
    nothing_understood,
    num_outputs,
    tied,
)
from raypruning.compaction.cut import LOGITS, OVER_CHANNELS, mixes
from raypruning.compaction.labels import LabelReader, draw_labels


def find_channels(model: nn.Module, reader: LabelReader) -> Channels:
    """The channels of a network. Where it cannot be run with labels, every channel must stay.

    Args:
        model: left as it is.
        reader: of its labels.
    """
    layers = layers_of(model)
    sizes = {name: num_outputs(layer) for name, layer in layers.items()}
    try:
        seen = reader.read_layers()
        readings = list(_readings(layers, norms_of(model), seen))
        codes = _codes(readings, sizes)
        seen_codes = reader.read(codes) if codes else {}
    except Exception:  # Whatever a forward stumbles over: the network is exported as it is.
        return nothing_understood(model)
    connections = Connections(model)
    for name, layer in layers.items():
        if name in seen:
            places = connections.all_places(name, "out")
            connections.join(places, connections.all_places(name, "in") if is_depthwise(layer) else places)
    for reading in readings:
        _connect(connections, reading, sizes[reading.layer], codes.get(reading.layer), seen_codes.get(reading.reader))
    _keep(connections, model, seen)
    return connections.channels()


class _Reading:
    """That outputs of a layer arrive at inputs of a reader: `places_J` in ascending order."""

    def __init__(self, layer: str, reader: str, side: str, places_J: np.ndarray) -> None:
        self.layer, self.reader, self.side, self.places_J = layer, reader, side, places_J


def _readings(
    layers: Mapping[str, nn.Module], norms: Mapping[str, nn.Module], seen: Mapping[str, Tensor]
) -> Iterator[_Reading]:
    names = list(layers)
    for reader in (*layers, *norms):
        if reader in seen:
            arrives_LJ = seen[reader].T
            for i in arrives_LJ.any(1).nonzero().flatten().tolist():
                places_J = arrives_LJ[i].nonzero().flatten().numpy()
                yield _Reading(names[i], reader, "norm" if reader in norms else "in", places_J)


def _codes(readings: list[_Reading], sizes: Mapping[str, int]) -> dict[str, Tensor]:
    """Labels for the layers of which only a part arrives somewhere, shape (O, K) each; no two meet in one sample."""
    unclear = [reading.layer for reading in readings if len(reading.places_J) % sizes[reading.layer]]
    colours: list[list[str]] = []
    readers = {name: {reading.reader for reading in readings if reading.layer == name} for name in set(unclear)}
    for name in dict.fromkeys(unclear):
        for colour in colours:
            if not any(readers[name] & readers[other] for other in colour):
                colour.append(name)
                break
        else:
            colours.append([name])
    if not colours:
        return {}
    drawn = [draw_labels(max(sizes[name] for name in colour)) for colour in colours]
    ends = np.cumsum([labels.shape[1] for labels in drawn])
    codes = {name: torch.zeros(size, int(ends[-1]), dtype=torch.bool) for name, size in sizes.items()}
    for colour, labels, end in zip(colours, drawn, ends.tolist(), strict=True):
        for name in colour:
            codes[name][:, end - labels.shape[1] : end] = labels[: sizes[name]]
    return codes


def _connect(
    connections: Connections, reading: _Reading, size: int, codes_OK: Tensor | None, seen_JK: Tensor | None
) -> None:
    outputs_O = connections.all_places(reading.layer, "out")
    places_J = connections.places(reading.reader, reading.side, reading.places_J)
    times, rest = divmod(len(places_J), size)
    if not rest:
        connections.join(places_J, np.repeat(outputs_O, times))
        return
    if codes_OK is None or seen_JK is None:
        raise AssertionError("a layer of which a part arrives has codes")
    uses_K = codes_OK.any(0)
    known = {row.numpy().tobytes(): i for i, row in enumerate(codes_OK[:, uses_K])}
    found_J = np.array([known.get(row.numpy().tobytes(), -1) for row in seen_JK[reading.places_J][:, uses_K]])
    connections.join(places_J[found_J >= 0], outputs_O[found_J[found_J >= 0]])
    if (found_J < 0).any():  # Several of them at once.
        connections.keep(outputs_O, UNKNOWN)
        connections.keep(places_J[found_J < 0], UNKNOWN)


def _keep(connections: Connections, model: nn.Module, seen: Mapping[str, Tensor]) -> None:
    """What is known to have to stay, the strongest reason first."""
    modules = dict(model.named_modules())
    layers, norms = layers_of(model), norms_of(model)
    names = list(layers)

    def keep_makers(reader: str, reason: str) -> None:
        for i in seen[reader].any(0).nonzero().flatten().tolist():
            connections.keep(connections.all_places(names[i], "out"), reason)

    keep_makers(LOGITS, OUTPUT)
    for reader in seen:
        if reader in modules and mixes(modules[reader]):
            module = modules[reader]
            is_attention = isinstance(module, nn.MultiheadAttention)
            keep_makers(
                reader, STATISTICS if isinstance(module, OVER_CHANNELS) else ATTENTION if is_attention else OTHER
            )
    attentions = [f"{name}." for name, module in modules.items() if isinstance(module, nn.MultiheadAttention)]
    reasons = tied(model)
    for name in (*layers, *norms):
        reason = reasons.get(name)
        if name not in seen:
            reason = ATTENTION if name.startswith(tuple(attentions)) else UNKNOWN
        if reason:
            for side in ("norm",) if name in norms else ("out", "in"):
                connections.keep(connections.all_places(name, side), reason)
