"""Linear centred kernel alignment of what networks see in the same images, in one pass.

Source: Kornblith, Norouzi, Lee and Hinton 2019, "Similarity of Neural Network Representations Revisited", section 3.
"""

# B images of a batch, D E features of two networks, K networks, P pairs

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


class CkaSums:
    """Sums of products of centred features, from batches: what CKA is made of, as large as the features squared.

    In double precision, about a running mean (Chan, Golub and LeVeque 1983), so that features far from 0 lose nothing.

    Args:
        pairs: of networks, by their places.
    """

    def __init__(self, pairs: Sequence[tuple[int, int]]) -> None:
        self._pairs = list(pairs)
        self._num = 0
        self._means: list[Tensor] = []
        self._products: dict[tuple[int, int], Tensor] = {}

    def add(self, features: Sequence[Tensor]) -> None:
        """The features (B, D) that each network has of the same further images; D may differ between networks."""
        doubles = [one.double() for one in features]
        batch_means = [one.mean(0) for one in doubles]
        centred = [one - mean for one, mean in zip(doubles, batch_means, strict=True)]
        num = len(doubles[0])
        means = self._means or [torch.zeros_like(mean) for mean in batch_means]
        shifts = [new - old for new, old in zip(batch_means, means, strict=True)]
        weight = self._num * num / (self._num + num)
        for pair in {(network, network) for network in range(len(doubles))} | set(self._pairs):
            first, second = pair
            added_DE = centred[first].T @ centred[second] + weight * torch.outer(shifts[first], shifts[second])
            self._products[pair] = self._products[pair] + added_DE if pair in self._products else added_DE
        self._means = [old + shift * num / (self._num + num) for old, shift in zip(means, shifts, strict=True)]
        self._num += num

    @property
    def num_features(self) -> int:
        """Of the first network."""
        return len(self._means[0])

    def values_P(self) -> np.ndarray:
        """CKA of each pair, in [0, 1]; 0 where the features of one do not vary."""
        sizes = {pair: float(torch.linalg.matrix_norm(product)) for pair, product in self._products.items()}
        found = []
        for first, second in self._pairs:
            scale = sizes[first, first] * sizes[second, second]
            # Cauchy and Schwarz bound it by 1, rounding does not.
            found.append(min(1.0, sizes[first, second] ** 2 / scale) if scale > 0.0 else 0.0)
        return np.array(found)
