"""Scopes: in which order units go, over all layers together or fairly between them.

Each scope gives every unit a time; units go in the order of their times until the asked ratio is reached. A fraction
"of a layer" is that of its units: the i-th of n to go has gone by the fraction (i + 1/2) / n, so that counts are
rounded to the nearest.
"""

# U units of a layer, T grid points

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from raypruning.errors import SpecError
from raypruning.methods.method import Network, Scope, Units
from raypruning.methods.paper_rules import bound_factor, num_distinct
from raypruning.methods.ranking import removal_order
from raypruning.models.layers import layer_positions

# Relative error bounds that are told apart; units of a layer that go at the same one go in the order of their scores.
_ERROR_BOUNDS_T = np.geomspace(1e-4, 1e8, 400)


def make_scope(name: str, parameters: Mapping[str, object]) -> Scope:
    """The scope of that name. `parameters`: `map` of map; `of_alive` of layer."""
    return _MAKERS[name](parameters)


def _global(parameters: Mapping[str, object]) -> Scope:
    """All units of all layers in the order of their scores."""

    def times(network: Network, units: Mapping[str, Units]) -> dict[str, Tensor]:
        return {name: own.scores_U for name, own in units.items()}

    return times


def _layer(parameters: Mapping[str, object]) -> Scope:
    """The same fraction of every layer: of all its units, or `of_alive` of those that an earlier prune left."""
    is_of_alive = parameters.get("of_alive", False) is True

    def times(network: Network, units: Mapping[str, Units]) -> dict[str, Tensor]:
        return {name: _fractions(own.scores_U, is_of_alive=is_of_alive) for name, own in units.items()}

    return times


def _erk(parameters: Mapping[str, object]) -> Scope:
    """Densities in proportion to the sum of a layer's dimensions over their product, none above 1.

    Source: Evci et al. 2020 (RigL), section 3, Erdos-Renyi-Kernel.
    """

    def times(network: Network, units: Mapping[str, Units]) -> dict[str, Tensor]:
        found = {}
        for name, own in units.items():
            shape = network.weight(name).shape
            # A unit goes when the density epsilon * raw falls below what is left of its layer: epsilon = left / raw.
            raw = sum(shape) / math.prod(shape)
            found[name] = -(1.0 - _fractions(own.scores_U)) / raw
        return found

    return times


def _map(parameters: Mapping[str, object]) -> Scope:
    """A layer's fraction is in proportion to its number in `map`, 1 where it is not named; 0 keeps a layer whole."""
    weights = parameters.get("map")
    if not isinstance(weights, Mapping) or not weights or min(weights.values()) < 0:
        raise SpecError("scope map needs map, numbers from 0 by layer, such as map = {conv1 = 0.5}")

    def times(network: Network, units: Mapping[str, Units]) -> dict[str, Tensor]:
        unknown = sorted(set(weights) - set(network.all_layers))
        if unknown:
            raise SpecError(f"map: there is no prunable layer {unknown[0]!r}: {', '.join(network.all_layers)}")
        return {
            name: _fractions(own.scores_U) / weight
            if (weight := float(weights.get(name, 1.0))) > 0
            else torch.full_like(own.scores_U, math.inf)
            for name, own in units.items()
        }

    return times


def _error_bound(parameters: Mapping[str, object]) -> Scope:
    """The same bound on the relative error of every layer's output; needs sensitivities as scores.

    Source: Liebenwein et al. 2020 (PFP), section 4; a unit's time is the bound from which on it is not needed.
    """

    def times(network: Network, units: Mapping[str, Units]) -> dict[str, Tensor]:
        example = network.example_NCHW
        positions = layer_positions(network.model, example.shape[1], example.shape[2])
        found = {}
        for name, own in units.items():
            score_U = own.scores_U.double().clamp(min=0.0)  # -inf, gone, draws nothing
            factor = bound_factor(positions[name], network.weight(name)[0, 0].numel())
            kept_T = np.array([num_distinct(score_U.numpy(), factor, bound) for bound in _ERROR_BOUNDS_T])
            # A unit with d better ones goes at the first bound that keeps d or fewer; counts only fall with the bound.
            rank_U = _ranks(own.scores_U).numpy()
            first_U = np.searchsorted(-kept_T, rank_U + 1 - len(rank_U), side="left")
            times_U = np.append(_ERROR_BOUNDS_T, 2 * _ERROR_BOUNDS_T[-1])[first_U]
            found[name] = torch.as_tensor(times_U * (1.0 + 1e-9 * rank_U))
        return found

    return times


def _ranks(scores_U: Tensor) -> Tensor:
    """0 for the lowest score; among equal ones the higher index is lower."""
    order = removal_order(scores_U)
    return torch.empty_like(order).scatter_(0, order, torch.arange(len(order)))


def _fractions(scores_U: Tensor, *, is_of_alive: bool = False) -> Tensor:
    num_gone = int(torch.isneginf(scores_U).sum()) if is_of_alive else 0
    left = max(1, len(scores_U) - num_gone)
    rank_U = _ranks(scores_U) - num_gone
    # A half unit is rounded to even, as torch's own pruning does: the odd ones go a trifle earlier.
    return (rank_U.double() + 0.5 - 1e-9 * (rank_U % 2)) / left


_MAKERS: dict[str, Callable[[Mapping[str, object]], Scope]] = {
    "global": _global,
    "layer": _layer,
    "erk": _erk,
    "map": _map,
    "error_bound": _error_bound,
}
SCOPE_NAMES = tuple(_MAKERS)
