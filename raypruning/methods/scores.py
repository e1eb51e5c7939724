"""Scores of weights: magnitude, gradient, activation, chance. Larger means keep."""

# N images, B of a batch, P positions, O out, I in channels, K weights of a filter

from __future__ import annotations

import torch
from torch import Tensor

from raypruning.methods.layer_inputs import visit_inputs
from raypruning.methods.method import Network, Samples
from raypruning.methods.sample_loss import summed_loss

GRADIENT_BATCH = 32
# Of a batch whose activations are kept: larger images come fewer at once.
GRADIENT_PIXELS = GRADIENT_BATCH * 224**2


def magnitude(network: Network) -> dict[str, Tensor]:
    """|w| of every weight; the sum of |w| over each filter or channel, its l1 norm.

    Source: Renda et al. 2020 (WT); Li et al. 2017 for the l1 norm of filters (FT).
    """
    return per_unit(network, {name: network.weight(name).abs() for name in network.layers})


def l2_norm(network: Network) -> dict[str, Tensor]:
    """|w| of every weight; the Euclidean norm of each filter or channel."""
    squares = per_unit(network, {name: network.weight(name).square() for name in network.layers})
    return {name: score.sqrt() for name, score in squares.items()}


def uniform_random(network: Network) -> dict[str, Tensor]:
    """Independent uniform numbers: the control that any method must beat.

    Drawn on the CPU in registration order, so that a seed means the same masks on every device.
    """
    axis = {"filter": slice(0, 1), "channel": slice(1, 2), "weight": slice(None)}[network.granularity.score_by]
    shapes = {name: network.weight(name).shape[axis] for name in network.layers}
    return {name: torch.rand(shape, generator=network.generator) for name, shape in shapes.items()}


def gradient_saliency(network: Network) -> dict[str, Tensor]:
    """|w * dL/dw| with L the mean cross-entropy over the samples, in evaluation mode; summed over filters or channels.

    Source: Lee et al. 2019 (SNIP), equation 5, with the sample set of Lost in Pruning's code in place of one batch.
    """
    samples = _samples(network)
    weights = [layer.weight for layer in network.layers.values()]
    totals = [torch.zeros_like(weight, dtype=torch.float32) for weight in weights]
    num_pixels = samples.images_NCHW[0, 0].numel()
    size = max(1, min(GRADIENT_BATCH, GRADIENT_PIXELS // num_pixels))
    batches = zip(samples.images_NCHW.split(size), samples.labels_N.split(size), strict=True)
    with torch.enable_grad():
        for images_BCHW, labels_B in batches:
            loss = summed_loss(network.model, images_BCHW, labels_B)
            for total, gradient in zip(totals, torch.autograd.grad(loss, weights, allow_unused=True), strict=True):
                if gradient is not None:
                    total += gradient
    num = len(samples.labels_N)
    saliency = {
        name: (network.weight(name) * total / num).abs() for name, total in zip(network.layers, totals, strict=True)
    }
    return per_unit(network, saliency)


def activation(network: Network) -> dict[str, Tensor]:
    """|w| times the Euclidean norm of what it multiplies, over all samples and positions; summed over filters.

    Source: Sun et al. 2024 (Wanda), equation 1; for convolutions the input is each of the kernel's pixels.
    """
    squares: dict[str, Tensor] = {}

    def add(name: str, patches_BKP: Tensor) -> None:
        sums_K = patches_BKP.square().sum((0, 2))
        squares[name] = squares[name] + sums_K if name in squares else sums_K

    visit_inputs(network, add)
    found = {}
    for name in network.layers:
        weight = network.weight(name)
        found[name] = (weight.flatten(1).abs() * squares[name].sqrt()).view_as(weight)
    return per_unit(network, found)


def per_unit(network: Network, weight_scores: dict[str, Tensor]) -> dict[str, Tensor]:
    """Scores of weights as they are, or their sums over each filter or channel, as the granularity asks."""
    by = network.granularity.score_by
    if by == "weight":
        return weight_scores
    return {
        name: (score if by == "filter" else score.transpose(0, 1)).flatten(1).sum(1)
        for name, score in weight_scores.items()
    }


def _samples(network: Network) -> Samples:
    assert network.samples is not None, "a method that needs samples says so"
    return network.samples
