"""The axes of a method by name, and a method put together from them.

Every registered method sets some axes; a person may set any axis anew: `wt:scope=layer`, `ft:score=l2`,
`wt:granularity=n_m,m=4,n=2`, `sipp:rules=paper`, `wt:skip=conv1+fc2`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple, cast

from raypruning.errors import SpecError, UnknownNameError, unknown_name_message
from raypruning.methods import scores, sensitivity
from raypruning.methods.granularity import GRANULARITY_NAMES, make_granularity
from raypruning.methods.method import Method, Rules, Score
from raypruning.methods.paper_rules import Allocate, error_bound_channels, highest_weights, uniform_filters
from raypruning.methods.scopes import SCOPE_NAMES, make_scope

Parameters = Mapping[str, object]
Factory = Callable[[Parameters], Method]


class _Axis(NamedTuple):
    score: Score
    needs_samples: bool = False


SCORES: dict[str, _Axis] = {
    "magnitude": _Axis(scores.magnitude),
    "l1": _Axis(scores.magnitude),
    "l2": _Axis(scores.l2_norm),
    "random": _Axis(scores.uniform_random),
    "snip": _Axis(scores.gradient_saliency, needs_samples=True),
    "activation": _Axis(scores.activation, needs_samples=True),
    "sipp": _Axis(sensitivity.sipp, needs_samples=True),
    "pfp": _Axis(sensitivity.pfp, needs_samples=True),
}
RULES = ("corrected", "plain", "paper")

# What each parameter is, in the words of an error message.
PARAMETERS = {
    "score": "one of " + ", ".join(SCORES),
    "scope": "one of " + ", ".join(SCOPE_NAMES),
    "granularity": "one of " + ", ".join(GRANULARITY_NAMES),
    "rules": "one of " + ", ".join(RULES),
    "skip": "names of layers to keep whole, such as conv1+fc2",
    "map": "a table of numbers by layer",
    "of_alive": "true or false",
    "samples": "a number of images from 2",
    "m": "a whole number from 2",
    "n": "a whole number from 1",
    "block": "a whole number from 1",
}
_SMALLEST = {"samples": 2, "m": 2, "n": 1, "block": 1}
# (granularity, scope) -> how the paper's code distributes a budget.
PAPER_ALLOCATIONS: dict[tuple[str, str], Allocate] = {
    ("weight", "global"): highest_weights,
    ("filter", "layer"): uniform_filters,
    ("channel", "error_bound"): error_bound_channels,
}
_BELONGS_TO = {"map": ("scope", "map"), "of_alive": ("scope", "layer"), "m": ("granularity", "n_m")}
_BELONGS_TO |= {"n": ("granularity", "n_m"), "block": ("granularity", "block")}


def method(
    *,
    source: str,
    granularity: str = "weight",
    scope: str = "global",
    needs_samples: bool = False,
    version: int = 1,
) -> Callable[[Score], Factory]:
    """Decorator: make a registered method of a score, `function(network) -> {layer: scores}`.

    Args:
        source: paper and section.
        granularity, scope: by name, to be exchanged by a method's parameters.
        needs_samples: whether the function looks at `network.samples`.
        version: raised when the same inputs give other masks.
    """

    def decorate(score: Score) -> Factory:
        @functools.wraps(score)
        def factory(parameters: Parameters) -> Method:
            return build(
                parameters,
                name=getattr(score, "__name__", "score"),
                own=_Axis(score, needs_samples),
                defaults={"granularity": granularity, "scope": scope},
                source=source,
                version=version,
            )

        return factory

    return decorate


def build(
    parameters: Parameters,
    *,
    name: str,
    defaults: Mapping[str, object],
    source: str,
    own: _Axis | None = None,
    version: int = 1,
) -> Method:
    """A method of its default axes with `parameters` laid over them.

    Args:
        defaults: `score` (unless `own` is given), `scope`, `granularity`, and what else of PARAMETERS.
        own: a score that has no name.

    Raises: SpecError, UnknownNameError: a parameter that does not exist, or does not fit the others.
    """
    for key in parameters:
        if key not in PARAMETERS:
            raise UnknownNameError(f"method {name}: {unknown_name_message('parameter', key, PARAMETERS)}")
    values = {"rules": "corrected", "granularity": "weight", "scope": "global", **defaults, **parameters}
    axes = _Axes(name, values)
    for key, (axis, value) in _BELONGS_TO.items():
        if key in values and values[axis] != value:
            # Of a preset whose axis was exchanged it goes with the axis; whoever types it wants it.
            axes.require(key not in parameters, f"{key} belongs to {axis}={value}")
            del values[key]
    chosen = own if own is not None and "score" not in parameters else SCORES[axes.one_of("score", SCORES)]
    granularity = make_granularity(
        axes.one_of("granularity", GRANULARITY_NAMES), {key: axes.number(key) for key in ("m", "n", "block")}
    )
    scope_name = axes.one_of("scope", SCOPE_NAMES)
    is_of_alive = axes.values.get("of_alive", False)
    axes.require(isinstance(is_of_alive, bool), f"of_alive must be {PARAMETERS['of_alive']}, got {is_of_alive!r}")
    axes.require(
        chosen.score is not sensitivity.pfp or granularity.score_by == "channel",
        f"score pfp is one of input channels, and a granularity of {granularity.name} has none",
    )
    axes.require(
        scope_name != "error_bound" or chosen.score is sensitivity.pfp,
        "scope error_bound needs the sensitivities of score=pfp",
    )
    rules = axes.one_of("rules", RULES)
    paper = PAPER_ALLOCATIONS.get((granularity.name, scope_name))
    axes.require(
        rules != "paper" or paper is not None,
        "rules=paper know " + ", ".join(f"granularity={g} with scope={s}" for g, s in PAPER_ALLOCATIONS),
    )
    axes.require(
        rules != "paper" or "of_alive" not in parameters, "rules=paper have a way of their own to share out a budget"
    )
    needs_samples = chosen.needs_samples or rules == "paper"
    num_samples = axes.number("samples")
    axes.require(num_samples is None or needs_samples, "it looks at no images: leave samples out")
    return Method(
        name=name,
        score=chosen.score,
        scope=make_scope(scope_name, axes.values),
        granularity=granularity,
        source=source,
        rules=cast(Rules, rules),
        paper_allocation=paper if rules == "paper" else None,
        needs_samples=needs_samples,
        num_samples=num_samples,
        skip=axes.names("skip"),
        version=version,
    )


class _Axes:
    """The values of a method's parameters, each read as what it must be."""

    def __init__(self, method: str, values: Mapping[str, object]) -> None:
        self.method, self.values = method, values

    def require(self, holds: bool, message: str) -> None:
        if not holds:
            raise SpecError(f"method {self.method}: {message}")

    def one_of(self, key: str, known: Collection[str]) -> str:
        value = self.values.get(key)
        if not isinstance(value, str) or value not in known:
            raise UnknownNameError(
                f"method {self.method}: {unknown_name_message(f'value of {key}', str(value), known)}"
            )
        return value

    def number(self, key: str) -> int | None:
        value = self.values.get(key)
        self.require(
            value is None or (type(value) is int and value >= _SMALLEST[key]),
            f"{key} must be {PARAMETERS[key]}, got {value!r}",
        )
        return cast("int | None", value)

    def names(self, key: str) -> tuple[str, ...]:
        value = self.values.get(key, ())
        names = (value,) if isinstance(value, str) else value
        self.require(isinstance(names, list | tuple), f"{key} must be {PARAMETERS[key]}, got {value!r}")
        names = tuple(cast("tuple[str, ...]", names))
        twice = [name for index, name in enumerate(names) if name in names[:index]]
        self.require(not twice, f"{key} names {twice[0] if twice else ''} twice")
        return names
