"""Masks of a training: chosen before it begins, step by step, or while it runs."""

# N images, C channels, H W height and width

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from raypruning.core.identity import derive_seed
from raypruning.core.records import Gradual, Mask
from raypruning.errors import RatioError
from raypruning.methods.method import Masks, Method, Samples
from raypruning.methods.prune import apply_masks, enforced, make_masks, num_samples, resolve_method
from raypruning.methods.selection import RATIO_TOLERANCE, num_removed
from raypruning.training.batches import Images
from raypruning.training.gradual import Growth
from raypruning.training.inputs import Normalisation

MIN_SAMPLES = 2  # A channel that never changes is told from one that does by no fewer.


@dataclass(frozen=True, kw_only=True)
class Masker:
    """Chooses masks with what stays the same over a training: method, seed, the images it looks at."""

    method: Method
    final_ratio: float
    example_NCHW: Tensor
    seed: int
    samples: Samples | None

    def masks(self, model: nn.Module, ratio: float, *, alive: Masks) -> Masks:
        """All masks at a ratio, on the CPU; what `alive` removed stays removed. Raises MethodError."""
        return make_masks(
            self.method,
            model,
            ratio,
            example_NCHW=self.example_NCHW,
            seed=self.seed,
            alive=alive,
            samples=self.samples,
        )

    def masks_after(self, model: nn.Module, ratio: float, *, alive: Masks) -> Masks:
        """As `masks`, or `alive` itself where it is as near to the ratio as any masks have to be.

        The next filter may be more than what a link is to remove beyond the one before: then it retrains it once more,
        and its reached ratio says so.
        """
        try:
            return self.masks(model, ratio, alive=alive)
        except RatioError:
            num_params = sum(parameter.numel() for parameter in model.parameters())
            if alive and abs(num_removed(alive) / num_params - ratio) <= RATIO_TOLERANCE:
                return alive
            raise

    def masks_on_the_way(self, model: nn.Module, ratio: float, *, alive: Masks) -> Masks | None:
        """As `masks`; None for a ratio short of the last one that the method has no masks for."""
        try:
            return self.masks(model, ratio, alive=alive)
        except RatioError:
            if ratio >= self.final_ratio:
                raise
            return None

    def remask(self, model: nn.Module, ratio: float) -> Masks | None:
        """Prune the network in place, as if it had not been pruned; see `gradual.Remask`."""
        masks = self.masks_on_the_way(model, ratio, alive={})
        if masks is None:
            return None
        apply_masks(model, self.on_device(masks))
        return self.on_device(enforced(self.method, model, masks))

    def on_device(self, masks: Masks) -> Masks:
        """The masks on the device of the network."""
        return {name: mask.to(self.example_NCHW.device) for name, mask in masks.items()}


class Pruned(NamedTuple):
    """What a training begins with.

    Attributes:
        removed: masks of all that is removed, on the device.
        enforced: those of them that hold while training.
        growth: in place of both, where masks are reached while training.
    """

    removed: Masks
    enforced: Masks
    growth: Growth | None = None


def make_masker(
    mask: Mask,
    model: nn.Module,
    *,
    example_NCHW: Tensor,
    images: Images,
    share: float,
    normalise: Normalisation,
    batch_size: int,
    seed: int,
) -> Masker:
    """The masker of a training. Draws its images, once.

    Args:
        mask: of the training.
        example_NCHW: one image of zeros on the device.
        images: to draw from, without augmentation.
        share: of the images, at most.
        batch_size: images read at once.
        seed: of the training.
    """
    method = resolve_method(mask.method)
    samples = None
    num = num_samples(method, model, example_NCHW)
    if num > 0:
        generator = torch.Generator().manual_seed(derive_seed(seed, "samples"))
        most = max(MIN_SAMPLES, int(share * len(images)))
        order = torch.randperm(len(images), generator=generator)[: min(num, most)]
        batches = list(images.read(order, batch_size=batch_size, augmentation="none", seed=0))
        images_NCHW = torch.cat([normalise(batch.pixels_BCHW) for batch in batches])
        samples = Samples(images_NCHW, torch.cat([batch.truth for batch in batches]))
    return Masker(
        method=method,
        final_ratio=mask.ratio,
        example_NCHW=example_NCHW,
        seed=derive_seed(seed, "method"),
        samples=samples,
    )


def prune(
    model: nn.Module, mask: Mask | None, gradual: Gradual | None, masker: Masker | None, *, alive: Masks
) -> Pruned:
    """Prune the network in place to each ratio of the mask in turn, with scores computed anew.

    Args:
        gradual: prune nothing yet, and find out whether the last ratio can be reached at all.
        masker: None without a mask.
        alive: masks that the network has, on the CPU.

    Raises: RatioError: a ratio that cannot be reached. MethodError.
    """
    if mask is None or masker is None:
        device = next(model.parameters()).device
        kept = {name: one.to(device) for name, one in alive.items()}
        return Pruned(kept, kept)
    if gradual is not None:
        masker.masks(model, mask.ratio, alive={})
        return Pruned({}, {}, Growth(gradual, mask.ratio, masker.remask))
    masks = alive
    for ratio in mask.via:
        masks = masker.masks_on_the_way(model, ratio, alive=masks) or masks
        apply_masks(model, masker.on_device(masks))
    masks = masker.masks_after(model, mask.ratio, alive=masks)
    apply_masks(model, masker.on_device(masks))
    return Pruned(masker.on_device(masks), masker.on_device(enforced(masker.method, model, masks)))
