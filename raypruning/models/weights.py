"""Weights as a plain dictionary, into a network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn


def load_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Load a plain dictionary of weights, in place. Raises RuntimeError, torch's own, when they do not fit."""
    state: Any = model.state_dict()
    # With the versions of its modules, which a plain dictionary lacks and torchvision's MNASNet insists on.
    metadata = state._metadata
    state = type(state)(weights)
    state._metadata = metadata
    model.load_state_dict(state)
