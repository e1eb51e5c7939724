"""How alike networks answer the same images under the same noise. Only one batch, and one draw of it, is in memory.

Source: Lost in Pruning, section 4: x' = x + epsilon * U(-1, 1) in normalised space, not clipped.
"""

# B images of a batch, C channels or classes, H W height and width, L noise levels, P pairs, K networks

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from raypruning.inspection.cka import CkaSums
from raypruning.inspection.penultimate import tapped
from raypruning.tasks.noise import uniform_draws
from raypruning.training.inputs import autocast

# An image's id has the lower 24 bits of the 32 that noise is drawn by, the number of the draw the others.
_ID_BITS = 24
MAX_DRAWS = 1 << (32 - _ID_BITS)


class BatchLikeness(NamedTuple):
    """How alike each pair answers each image of a batch, averaged over draws, float64.

    Attributes:
        matching_LPB: fraction of draws under which both networks give the same class.
        distance_LPB: mean Euclidean distance of their softmax outputs.
    """

    matching_LPB: np.ndarray
    distance_LPB: np.ndarray


def noise_draws(images_BCHW: Tensor, ids_B: Tensor, *, draw: int) -> Tensor:
    """U(-1, 1) for every value of every image; the first draw is that of the tasks `noise/uniform/EPSILON`.

    Args:
        images_BCHW: give the shape and the device.
        ids_B: in [0, 2^24).
        draw: in [0, 256). No two draws of any images share their noise.
    """
    return uniform_draws(images_BCHW, ids_B + (draw << _ID_BITS))


def batch_likeness(
    networks: Sequence[nn.Module],
    pairs: Sequence[tuple[int, int]],
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    amplitudes: Sequence[float],
    num_draws: int,
    precision: str = "float32",
    cka: CkaSums | None = None,
) -> Iterator[BatchLikeness]:
    """How alike pairs of networks answer, batch by batch. Each network runs once for each batch, level and draw.

    Args:
        networks: classifiers on one device, in evaluation mode.
        pairs: of networks, by their places.
        batches: normalised images, and their ids (see `noise_draws`).
        amplitudes: noise levels; a draw serves all of them and all networks. Without noise there is nothing to draw.
        num_draws: of noise for each image.
        precision: of the sweep's recipe.
        cka: is given the features before the last layer at amplitude 0, which must then be among the levels.
    """
    first, second = (torch.tensor([pair[side] for pair in pairs], dtype=torch.long) for side in (0, 1))
    with tapped(networks if cka else []) as taps:
        for images_BCHW, ids_B in batches:
            sums_2LPB = torch.zeros(2, len(amplitudes), len(pairs), len(images_BCHW), device=images_BCHW.device)
            with torch.inference_mode(), autocast(images_BCHW.device, precision):
                for draw in range(num_draws):
                    noise_BCHW = noise_draws(images_BCHW, ids_B, draw=draw)
                    for level, amplitude in enumerate(amplitudes):
                        if amplitude:
                            noisy_BCHW = images_BCHW + amplitude * noise_BCHW
                            sums_2LPB[:, level] += _answers(networks, noisy_BCHW).alike(first, second)
                        elif draw == 0:
                            sums_2LPB[:, level] = num_draws * _answers(networks, images_BCHW).alike(first, second)
                            if cka is not None:
                                cka.add([tap.features_BD() for tap in taps])
            matching_LPB, distance_LPB = (sums_2LPB.double() / num_draws).cpu().numpy()
            yield BatchLikeness(matching_LPB, distance_LPB)


class _Answers(NamedTuple):
    """Of all networks to the same images."""

    predicted_KB: Tensor
    probability_KBC: Tensor

    def alike(self, first: Tensor, second: Tensor) -> Tensor:
        """For each pair whether the classes match, and how far the probabilities are apart, (2, P, B)."""
        matching_PB = (self.predicted_KB[first] == self.predicted_KB[second]).float()
        apart_PBC = self.probability_KBC[first] - self.probability_KBC[second]
        return torch.stack([matching_PB, torch.linalg.vector_norm(apart_PBC, dim=2)])


def _answers(networks: Sequence[nn.Module], images_BCHW: Tensor) -> _Answers:
    images_BCHW = images_BCHW.contiguous(memory_format=torch.channels_last)
    logits_KBC = torch.stack([network(images_BCHW).float() for network in networks])
    return _Answers(logits_KBC.argmax(2), logits_KBC.softmax(2))
