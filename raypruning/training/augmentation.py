"""Random changes to images of a batch, drawn on the CPU so that they are the same on every device."""

# B images of a batch, C channels, H W height and width

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class Part(NamedTuple):
    """What there is of a batch where workers share it.

    Attributes:
        span: of the images.
        num: images of the whole batch, all of which draw random numbers.
    """

    span: range
    num: int

    def of(self, drawn: Tensor) -> Tensor:
        """Its own of the random numbers (..., num) that the whole batch drew."""
        return drawn[..., self.span.start : self.span.stop]


def augment(images_BCHW: Tensor, *, augmentation: str, generator: torch.Generator, part: Part | None = None) -> Tensor:
    """Random changes to uint8 images of a batch.

    Args:
        augmentation: "none"; "crop_flip": zero padding of 4 px, a crop of the old size, and a horizontal flip for half
            of the images (the paper's for CIFAR); "resized_crop_flip": a crop of .08 to 1 of the area at an aspect
            ratio of 3/4 to 4/3, resized bilinearly, and the flip (the paper's for ImageNet).
        part: of the batch that the images are; None for all of it.
    """
    if augmentation == "none":
        return images_BCHW
    num, _, height, width = images_BCHW.shape
    part = part or Part(range(num), num)
    if augmentation == "resized_crop_flip":
        return _flip(_resized_crop(images_BCHW, generator, part), generator, part)
    padded = torch.nn.functional.pad(images_BCHW, (4, 4, 4, 4))
    top_B, left_B = part.of(torch.randint(0, 9, (2, part.num), generator=generator)).to(images_BCHW.device)
    rows_BH = top_B[:, None] + torch.arange(height, device=images_BCHW.device)
    columns_BW = left_B[:, None] + torch.arange(width, device=images_BCHW.device)
    image_B = torch.arange(num, device=images_BCHW.device)
    cropped_BHWC = padded.permute(0, 2, 3, 1)[image_B[:, None, None], rows_BH[:, :, None], columns_BW[:, None, :]]
    return _flip(cropped_BHWC.permute(0, 3, 1, 2), generator, part)


def _flip(images_BCHW: Tensor, generator: torch.Generator, part: Part) -> Tensor:
    flip_B = part.of(torch.rand(part.num, generator=generator) < 0.5).to(images_BCHW.device)
    return torch.where(flip_B[:, None, None, None], images_BCHW.flip(3), images_BCHW)


def _resized_crop(images_BCHW: Tensor, generator: torch.Generator, part: Part) -> Tensor:
    """Crops as an affine sampling grid, so that a whole batch is one operation. Source: Szegedy et al. 2015."""
    area_B, aspect_B, x_B, y_B = part.of(torch.rand(4, part.num, generator=generator)).to(images_BCHW.device)
    area_B = 0.08 + 0.92 * area_B
    aspect_B = torch.exp((2.0 * aspect_B - 1.0) * np.log(4.0 / 3.0))
    width_B = (area_B * aspect_B).sqrt().clamp(max=1.0)
    height_B = (area_B / aspect_B).sqrt().clamp(max=1.0)
    zero_B = torch.zeros_like(area_B)
    theta_B23 = torch.stack(
        [width_B, zero_B, (2.0 * x_B - 1.0) * (1.0 - width_B), zero_B, height_B, (2.0 * y_B - 1.0) * (1.0 - height_B)],
        dim=1,
    ).view(-1, 2, 3)
    grid = torch.nn.functional.affine_grid(theta_B23, list(images_BCHW.shape), align_corners=False)
    resized = torch.nn.functional.grid_sample(images_BCHW.float(), grid, padding_mode="border", align_corners=False)
    return resized.round().to(torch.uint8)
