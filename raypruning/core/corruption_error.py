"""How a network does over all corruptions: the mean error, and the mean corruption error relative to AlexNet's."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean
from typing import Final, NamedTuple

# Of AlexNet on ImageNet-C, means over the five severities; its authors' numbers, hendrycks/robustness, issue 10.
ALEXNET_ERRORS: Final[Mapping[str, float]] = {
    "gaussian_noise": 0.886428,
    "shot_noise": 0.894468,
    "impulse_noise": 0.922640,
    "defocus_blur": 0.819880,
    "glass_blur": 0.826268,
    "motion_blur": 0.785948,
    "zoom_blur": 0.798360,
    "snow": 0.866816,
    "frost": 0.826572,
    "fog": 0.819324,
    "brightness": 0.564592,
    "contrast": 0.853204,
    "elastic_transform": 0.646056,
    "pixelate": 0.717840,
    "jpeg_compression": 0.606500,
}
# On ImageNet itself, of the same weights: torchvision's 56.522 % accuracy.
ALEXNET_CLEAN_ERROR: Final = 0.43478
NUM_SEVERITIES: Final = 5

Cell = tuple[str, int]  # corruption, severity


class CorruptionErrors(NamedTuple):
    """Over corruptions.

    Attributes:
        mean: error averaged over the corruptions, and before that over the severities of each that were measured.
        mce, relative_mce: relative to AlexNet; None unless all fifteen corruptions were measured at all severities.
    """

    mean: float
    mce: float | None
    relative_mce: float | None


def corruption_errors(errors: Mapping[Cell, float], *, clean_error: float) -> CorruptionErrors | None:
    """The summary of errors by corruption and severity; None where there are none.

    `mce` means something for ImageNet's classes and constants alone.

    Source: Hendrycks and Dietterich 2019, section 4: the sums over severities are divided corruption by corruption.
    """
    if not errors:
        return None
    by_name: dict[str, list[float]] = {}
    for (name, _), error in errors.items():
        by_name.setdefault(name, []).append(error)
    means = {name: fmean(found) for name, found in by_name.items()}
    mce = relative = None
    if all(len(by_name.get(name, ())) == NUM_SEVERITIES for name in ALEXNET_ERRORS):
        mce = fmean(means[name] / alexnet for name, alexnet in ALEXNET_ERRORS.items())
        relative = fmean(
            (means[name] - clean_error) / (alexnet - ALEXNET_CLEAN_ERROR) for name, alexnet in ALEXNET_ERRORS.items()
        )
    return CorruptionErrors(fmean(means.values()), mce, relative)
