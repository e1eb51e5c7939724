"""Ratios of published studies by name, for iterative schedules: `lost/resnet20`, `lost_robust/vgg16` and so on.

Lost in Pruning gives its chains as fractions kept, cut into chunks whose last element is retrained at. That of resnet20
is known as a formula, and computed. Of the others the ratios that were retrained at are known, as printed; the steps
that prune without retraining lie between them, here evenly in the logarithm of what is kept, which is where the one
formula that is known has nearly all of its own.

Source: `lucaslie/torchprune`, src/experiment, the parameters of the paper "lost", with numpy's geomspace and linspace.
"""

from __future__ import annotations

from typing import NamedTuple

from raypruning.core.search.axis import RATIO_DIGITS, position, ratio_at


class Link(NamedTuple):
    """A prune and a retraining of a chain.

    Attributes:
        ratio: pruned to, then retrained.
        via: smaller ratios pruned to on the way, ascending, without retraining in between.
    """

    ratio: float
    via: tuple[float, ...] = ()


def even_steps(begin: float, end: float, num: int) -> tuple[float, ...]:
    """`num` ratios after `begin`, the last of them `end`, evenly spaced in the logarithm of what is kept."""
    a, b = position(begin), position(end)
    # A set, because neighbours in a range of a few millionths round to the same ratio.
    between = {ratio_at(a + (b - a) * i / num) for i in range(1, num)}
    return (*sorted(ratio for ratio in between if begin < ratio < end), end)


def with_steps_between(ratios: tuple[float, ...], *, num_steps: int) -> tuple[Link, ...]:
    """Links at ascending ratios, each of which prunes `num_steps` times before it retrains."""
    begins = (0.0, *ratios)
    steps = [even_steps(begin, end, num_steps) for begin, end in zip(begins, ratios, strict=False)]
    return tuple(Link(ratio, one[:-1]) for ratio, one in zip(ratios, steps, strict=True))


def grid_names() -> tuple[str, ...]:
    """Names of the grids, sorted."""
    return tuple(sorted(_PRINTED.keys() | {"lost/resnet20"}))


def has_own_steps(name: str) -> bool:
    """Whether the study prunes several times for each retraining, and how often is not open to choice."""
    return any(link.via for link in named_grid(name))


def named_grid(name: str) -> tuple[Link, ...]:
    """The links of a study, ascending. Raises KeyError for a name that `grid_names` lacks."""
    if name == "lost/resnet20":
        return _resnet20()
    percentages, num_steps = _PRINTED[name]
    ratios = tuple(round(percentage / 100, RATIO_DIGITS) for percentage in percentages)
    return with_steps_between(ratios, num_steps=num_steps)


def _resnet20() -> tuple[Link, ...]:
    """69 steps, every third of them retrained at: the spacing is geometric, and linear beyond 85 %."""
    kept = [*_geometric(0.99, 0.855, 2), *_geometric(0.85, 0.15, 58), *_linear(0.132, 0.02, 9)]
    ratios = [round(1.0 - fraction, RATIO_DIGITS) for fraction in kept]
    return tuple(Link(ratios[i + 2], tuple(ratios[i : i + 2])) for i in range(0, len(ratios), 3))


def _geometric(begin: float, end: float, num: int) -> list[float]:
    return [begin * (end / begin) ** (i / (num - 1)) for i in range(num)]


def _linear(begin: float, end: float, num: int) -> list[float]:
    return [begin + (end - begin) * i / (num - 1) for i in range(num)]


_TWENTY = (15.0, 30.2, 42.7, 53.0, 61.4, 68.3, 74.0, 78.6, 82.5, 85.6, 88.2, 90.3, 92.0, 93.5, 94.6, 95.6, 96.4, 97.0,
           97.6, 98.0)  # fmt: skip
_TWENTY_TWO = (15.0, 24.1, 32.1, 39.4, 45.8, 51.6, 56.8, 61.4, 65.5, 69.2, 72.4, 75.4, 78.0, 80.3, 82.4, 84.3, 86.0,
               87.5, 88.8, 90.0, 92.6, 95.3)  # fmt: skip
_ROBUST = (20.0, 35.7, 48.4, 58.5, 66.7, 73.2, 78.5, 82.7, 86.1, 88.8, 91.0, 92.8, 94.2, 95.4, 96.3, 97.0)
_IMAGENET = (10.0, 17.4, 24.2, 30.4, 36.2, 41.4, 46.2, 50.7, 54.7, 58.4, 61.9, 65.0, 69.0, 73.2, 77.4, 81.6)
_ROBUST_DENSENET = (20.0, 36.5, 49.6, 60.0, 68.3, 74.8, 80.0, 84.1, 87.4, 90.0, 92.1, 93.7, 95.0)
_VOC = (20.0, 36.5, 49.6, 60.0, 68.3, 74.8, 80.0, 84.1, 87.4, 90.0, 92.0, 93.7, 95.1, 96.2, 97.0)

# Percentages removed where the study retrains, as printed; how often it prunes for each.
_PRINTED = {
    "lost/resnet56": (_TWENTY, 3),
    "lost/resnet110": (_TWENTY, 3),
    "lost/vgg16": (_TWENTY, 3),
    "lost/densenet22": (_TWENTY_TWO, 3),
    "lost/wrn16_8": ((*_TWENTY_TWO, 98.0), 3),
    "lost/resnet101": (_IMAGENET, 1),
    "lost/resnet18": ((*_IMAGENET, 85.8, 90.0), 1),
    "lost/deeplabv3_resnet50": (_VOC, 1),
    "lost_robust/resnet20": (_ROBUST, 1),
    "lost_robust/resnet56": (_ROBUST, 1),
    "lost_robust/resnet110": (_ROBUST, 1),
    "lost_robust/vgg16": (_ROBUST, 1),
    "lost_robust/wrn16_8": (_ROBUST, 1),
    "lost_robust/densenet22": (_ROBUST_DENSENET, 1),
}
