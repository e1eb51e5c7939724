"""What networks look at: how the pixels are ordered, which are kept, and what a network makes of another one's pixels.

Pixels are ordered by `inspection.backselect`, each network's by itself. A network then sees nothing but the pixels
that another one kept: where it is still sure, both look at the same things. Two controls tell what "still" means:
pixels of a network trained from another seed, and random ones.

Source: Liebenwein et al. 2021, "Lost in Pruning", whose heat map this is.
"""

# N images, K of them pictures, P pixels, C channels, H W height and width, M networks
# S sources of pixels: the networks, then random pixels, then the whole image

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, NamedTuple

import numpy as np
from pydantic import Field, model_validator
from scipy.stats import t as student_t

from raypruning.analysis.multiple import holm
from raypruning.core.records import Ratio, Record

Mode = Literal["screened", "exact", "gradient"]
Role = Literal["parent", "pruned", "separate"]
# Of the default way; see benchmarks/features_2cores_2026-11-27.md.
CANDIDATES, PIXELS_PER_STEP = 32, 2
RANDOM, WHOLE = "random", "whole image"
LEVEL = 0.05  # of the adjusted p-values that are called a difference
_BACKWARD_FORWARDS = 2  # what a backward pass costs


class Selector(Record):
    """How the pixels that go are found.

    Attributes:
        mode: `exact` tries each pixel that is left; `screened` tries those that the gradient says matter least;
            `gradient` believes the gradient.
        pixels_per_step: that go before anything is measured again.
        candidates: tried at each step when screened, at least as many as go; 0 in the other modes.
    """

    mode: Mode = "screened"
    pixels_per_step: Annotated[int, Field(ge=1)] = 1
    candidates: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _candidates_belong_to_screening(self) -> Selector:
        if (self.mode == "screened") != (self.candidates > 0):
            raise ValueError("candidates are for the mode screened, which needs at least 1")
        return self

    @property
    def label(self) -> str:
        """Such as `screened, 16 candidates` or `gradient, 8 a step`, for people."""
        parts: list[str] = [self.mode]
        parts += [f"{self.candidates} candidates"] if self.candidates else []
        parts += [f"{self.pixels_per_step} a step"] if self.pixels_per_step > 1 else []
        return ", ".join(parts)


class Step(NamedTuple):
    """What is done to an image at a step.

    Attributes:
        num_gone: pixels that go.
        num_candidates: pixels that are tried, one forward pass each.
        is_estimated: whether the gradient is asked first, which is one forward and one backward pass.
    """

    num_gone: int
    num_candidates: int
    is_estimated: bool

    @property
    def forwards(self) -> int:
        """Forward passes for one image; a backward pass counts as two."""
        return self.num_candidates + (1 + _BACKWARD_FORWARDS if self.is_estimated else 0)


def step_of(selector: Selector, *, num_left: int) -> Step:
    """The step with so many pixels left, at least 1. Where all of them would be candidates, no gradient is asked."""
    num_gone = min(selector.pixels_per_step, num_left)
    if selector.mode == "gradient":
        return Step(num_gone, 0, True)
    num_candidates = max(selector.candidates, num_gone)
    if selector.mode == "exact" or num_candidates >= num_left:
        return Step(num_gone, num_left, False)
    return Step(num_gone, num_candidates, True)


def forwards_of(selector: Selector, num_pixels: int) -> int:
    """Forward passes to order the pixels of one image; a backward pass counts as two."""
    steps = range(num_pixels, 0, -selector.pixels_per_step)
    return sum(step_of(selector, num_left=num_left).forwards for num_left in steps)


def num_kept_of(keep: float, num_pixels: int) -> int:
    """Pixels that a fraction is, at least 1; halves to the even number, as Python rounds."""
    return max(1, round(keep * num_pixels))


class Looker(Record):
    """A network of whose pixels and answers there is talk.

    Attributes:
        role: `parent`, the dense network; `pruned` from it; `separate`, the dense network of another seed.
        method, budget: of the pruning; `dense` and 0 for the others.
        ratio: as asked for; what came out is `ratio_reached`.
    """

    role: Role
    training: str
    seed: int
    method: str
    budget: int
    ratio: Ratio
    ratio_reached: Ratio


class Question(Record):
    """What decides an order of pixels, beside the network.

    Attributes:
        images: positions in the test set.
    """

    data_fingerprint: str
    selector: Selector
    images: Annotated[tuple[int, ...], Field(min_length=1)]


class FeaturesRecord(Record):
    """What was asked, of which networks, and on what it was computed.

    Attributes:
        method, budget, seed: of the pruned networks; the parent is of the same seed.
        keep: the fraction of the pixels that is kept, in (0, 1).
        networks: the parent, its pruned networks with the ratio ascending, and a separate network if there is one.
        pictures: positions in `question.images` of those that are shown.
        image_size: height and width of the square images.
        random_seed: of the random pixels.
        versions, device: provenance.
    """

    format: Literal[1] = 1
    sweep: str
    question: Question
    method: str
    budget: int
    seed: int
    keep: Annotated[float, Field(gt=0, lt=1)]
    networks: Annotated[tuple[Looker, ...], Field(min_length=1)]
    class_names: tuple[str, ...]
    pictures: tuple[int, ...]
    image_size: int
    random_seed: int
    device: str = "cpu"
    versions: Mapping[str, str] = {}

    @property
    def num_pixels(self) -> int:
        """Of an image."""
        return self.image_size**2

    @property
    def num_kept(self) -> int:
        """Pixels of an image that a network is shown."""
        return num_kept_of(self.keep, self.num_pixels)

    @property
    def num_images(self) -> int:
        """That were looked at."""
        return len(self.question.images)


class Features(NamedTuple):
    """What was found.

    Attributes:
        orders_MNP: by training; pixels of each image, row by row from 0, from the first that goes to the last.
        labels_N: the true classes.
        confidence_SMN: in the true class, of network M on the pixels of source S, in [0, 1].
        predicted_SMN: the class it then takes the image for, and `top_SMN` its confidence in that.
        pictures_KCHW: uint8, the images that are shown.
    """

    record: FeaturesRecord
    orders_MNP: Mapping[str, np.ndarray]
    labels_N: np.ndarray
    confidence_SMN: np.ndarray
    predicted_SMN: np.ndarray
    top_SMN: np.ndarray
    pictures_KCHW: np.ndarray


def random_orders(num_images: int, num_pixels: int, *, seed: int) -> np.ndarray:
    """Pixels in a random order, another one for each image, (N, P)."""
    generator = np.random.default_rng(seed)
    return np.stack([generator.permutation(num_pixels) for _ in range(num_images)])


def kept_mask(orders_NP: np.ndarray, num_kept: int) -> np.ndarray:
    """True at the last pixels of each order, (N, P)."""
    kept_NP = np.zeros(orders_NP.shape, bool)
    np.put_along_axis(kept_NP, orders_NP[:, orders_NP.shape[1] - num_kept :].astype(np.int64), True, axis=1)
    return kept_NP


class Estimate(NamedTuple):
    """A mean over images and its standard error; NaN for that of a single image."""

    mean: float
    standard_error: float


class Difference(NamedTuple):
    """A mean difference over the same images, its standard error, and the two-sided p-value of a paired t-test."""

    mean: float
    standard_error: float
    p_value: float


def estimate(values_N: np.ndarray) -> Estimate:
    """The mean of at least one value."""
    num = len(values_N)
    error = float(np.std(values_N, ddof=1)) / math.sqrt(num) if num > 1 else math.nan
    return Estimate(float(np.mean(values_N, dtype=np.float64)), error)


def difference(one_N: np.ndarray, other_N: np.ndarray) -> Difference:
    """Of two measurements on the same images. With one image nothing is proven, and p is 1."""
    mean, error = estimate(one_N.astype(np.float64) - other_N)
    if mean == 0 or math.isnan(error):
        return Difference(mean, error, 1.0)
    p_value = 2 * float(student_t.sf(abs(mean) / error, len(one_N) - 1)) if error > 0 else 0.0
    return Difference(mean, error, p_value)


class HeatMap(NamedTuple):
    """Mean confidence in the true class and its standard error over images.

    Attributes:
        sources: names of the rows: who chose the pixels.
        judges: names of the columns: who sees them; the networks, as the first rows are.
    """

    sources: tuple[str, ...]
    judges: tuple[str, ...]
    mean_SM: np.ndarray
    standard_error_SM: np.ndarray


def heat_map(found: Features) -> HeatMap:
    """All that was measured."""
    names = names_of(found.record.networks)
    num = found.record.num_images
    mean_SM = found.confidence_SMN.mean(axis=2, dtype=np.float64)
    if num == 1:
        error_SM = np.full_like(mean_SM, np.nan)
    else:
        error_SM = found.confidence_SMN.std(axis=2, ddof=1, dtype=np.float64) / math.sqrt(num)
    return HeatMap((*names, RANDOM, WHOLE), names, mean_SM, error_SM)


def names_of(networks: Sequence[Looker]) -> tuple[str, ...]:
    """Such as `parent`, `80.0 %`, `separate`; with more decimals where two ratios, or one and 100 %, would be alike."""
    names: list[str] = []
    for decimals in range(1, 6):
        names = [f"{100 * one.ratio_reached:.{decimals}f} %" if one.role == "pruned" else one.role for one in networks]
        if len({*names, f"{100:.{decimals}f} %"}) == len(names) + 1:
            break
    return tuple(names)


class Look(NamedTuple):
    """What a pruned network looks at, beside its parent. Confidences are in the true class, in [0, 1].

    Attributes:
        own: of the network on its own pixels.
        by_parent: of the parent on the network's pixels.
        of_parent: of the network on the parent's pixels.
        shared: the fraction of the kept pixels that the parent keeps as well; by chance it is `keep`.
        beyond_separate: `by_parent` minus the parent's confidence on the pixels of the separate network; None without
            one. Its p-value is adjusted for all ratios (Holm).
        beyond_random: the same against random pixels.
    """

    network: Looker
    own: Estimate
    by_parent: Estimate
    of_parent: Estimate
    shared: Estimate
    beyond_separate: Difference | None
    beyond_random: Difference


def looks(found: Features) -> list[Look]:
    """Of each pruned network, ratios ascending."""
    networks = found.record.networks
    separate = separate_index(networks)
    pruned = [index for index, one in enumerate(networks) if one.role == "pruned"]
    confidence_SMN = found.confidence_SMN
    by_parent_SN = confidence_SMN[:, 0]
    beyond_random = _adjusted([difference(by_parent_SN[i], by_parent_SN[len(networks)]) for i in pruned])
    beyond_separate: Sequence[Difference | None] = [None] * len(pruned)
    if separate is not None:
        beyond_separate = _adjusted([difference(by_parent_SN[i], by_parent_SN[separate]) for i in pruned])
    return [
        Look(
            network=networks[index],
            own=estimate(confidence_SMN[index, index]),
            by_parent=estimate(by_parent_SN[index]),
            of_parent=estimate(confidence_SMN[0, index]),
            shared=shared(found, index, 0),
            beyond_separate=against_separate,
            beyond_random=against_random,
        )
        for index, against_separate, against_random in zip(pruned, beyond_separate, beyond_random, strict=True)
    ]


def separate_index(networks: Sequence[Looker]) -> int | None:
    """Where the separate network stands; None without one."""
    return next((index for index, one in enumerate(networks) if one.role == "separate"), None)


def shared(found: Features, one: int, other: int) -> Estimate:
    """The fraction of the kept pixels that two networks have in common."""
    record = found.record
    one_NP, other_NP = (
        kept_mask(found.orders_MNP[record.networks[index].training], record.num_kept) for index in (one, other)
    )
    return estimate((one_NP & other_NP).sum(axis=1) / record.num_kept)


def _adjusted(differences: Sequence[Difference]) -> list[Difference]:
    p_values = holm([one.p_value for one in differences])
    return [one._replace(p_value=p) for one, p in zip(differences, p_values, strict=True)]
