"""The sample sweep's probes with layers of drawn weights, pruned by magnitude, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from raypruning.analysis.weights import CurveWeights, NetworkWeights, SweepWeights, bin_width, layer_weights
from raypruning.core.records import ProbeResult

from . import sample

SHAPES = {"conv1": (6, 1, 5, 5), "conv2": (16, 6, 5, 5), "fc1": (120, 64), "fc2": (10, 120)}
# By how much more than the network a layer is cut: fc1 the most, conv1 the least.
SHARE = {"conv1": 0.2, "conv2": 0.9, "fc1": 1.0, "fc2": 0.6}


def sweep_weights(
    curves: Sequence[tuple[str, int, int]] = (("wt", 10, 0),),
    *,
    shapes: Mapping[str, tuple[int, ...]] = SHAPES,
    removed: str = "",
) -> SweepWeights:
    """Weights of some curves of the sample, by method, budget and seed.

    Args:
        removed: a layer of which the most pruned networks have nothing left.
    """
    results = sample.realistic()
    found = []
    for key in curves:
        probes = [one for one in results.probes if one.probe.curve == sample.curve(*key) and one.is_done]
        probes.sort(key=lambda one: one.probe.ratio)
        parents = [one for one in results.probes if one.probe.curve == sample.curve("dense", 0, key[2])]
        networks = [_network(one, shapes, removed=removed if one is probes[-1] else "") for one in (*parents, *probes)]
        found.append(CurveWeights(probes[0].probe.curve, networks[0], tuple(networks[1:])))
    return SweepWeights("lenet5-strokes", "/store", ("wt", "ft"), "nominal", tuple(found))


def _network(one: ProbeResult, shapes: Mapping[str, tuple[int, ...]], *, removed: str) -> NetworkWeights:
    generator = np.random.default_rng(one.probe.curve.seed)
    layers = []
    for name, shape in shapes.items():
        weight = generator.normal(scale=0.1, size=shape).astype(np.float32)
        cut = 1.0 if name == removed else one.probe.ratio * SHARE.get(name, 0.5)
        mask = None
        if not one.probe.curve.is_dense:
            order = np.argsort(np.abs(weight), axis=None)
            mask = np.ones(weight.size, bool)
            mask[order[: round(cut * weight.size)]] = False
            mask = mask.reshape(shape)
        layers.append(layer_weights(name, weight, mask, width=bin_width(weight)))
    return NetworkWeights(one, tuple(layers))
