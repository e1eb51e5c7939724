"""The built-in methods by their names in the field."""

from __future__ import annotations

from collections.abc import Mapping

from raypruning.methods import scopes, scores
from raypruning.methods.method import Method, refuse_parameters

_WEIGHTS = {"scope": scopes.global_weights, "granularity": "weight"}
_FILTERS = {"scope": scopes.uniform_filters, "granularity": "filter"}


def wt(parameters: Mapping[str, object]) -> Method:
    """Weights of smallest magnitude, over all layers together."""
    refuse_parameters("wt", parameters)
    return Method(name="wt", score=scores.magnitude, source="Renda et al. 2020; Lost in Pruning, section 4", **_WEIGHTS)


def ft(parameters: Mapping[str, object]) -> Method:
    """Filters of smallest l1 norm, the same fraction in every layer but the last."""
    refuse_parameters("ft", parameters)
    source = "Li et al. 2017, Renda et al. 2020; Lost in Pruning, section 4"
    return Method(name="ft", score=scores.magnitude, source=source, **_FILTERS)


def random(parameters: Mapping[str, object]) -> Method:
    """Weights at random, over all layers together: the control for weight pruning."""
    refuse_parameters("random", parameters)
    return Method(name="random", score=scores.uniform_random, source="control", **_WEIGHTS)


def random_filter(parameters: Mapping[str, object]) -> Method:
    """Filters at random, the same fraction in every layer but the last: the control for filter pruning."""
    refuse_parameters("random_filter", parameters)
    return Method(name="random_filter", score=scores.uniform_random, source="control", **_FILTERS)
