"""Frost: part of a picture of a frozen pane, added to an image that is dimmed.

Source: Hendrycks and Dietterich 2019 for the `cifar` set, whose generator shrinks the pictures to a fifth; Michaelis et
al. 2019 for the `imagenet` set, which enlarges them by a tenth, and further for images that are larger.
"""

# B images of a batch, H W height and width, P pictures, R runs of values

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor

from raypruning.corruptions import frost_textures
from raypruning.corruptions.corruption import Corruption, Draws
from raypruning.corruptions.frost_textures import NUM_USED, Textures
from raypruning.corruptions.parameters import Parameters
from raypruning.corruptions.stream import Stream

_SHRUNK = 0.2
_ENLARGED = 1.1
# The weights are multiples of 0.05, which whole numbers make exact.
_STEPS = 20

_Size = tuple[int, int]


def parts(
    textures: Textures, picture_B: Tensor, top_B: Tensor, left_B: Tensor, size: _Size, *, is_shrunk: bool
) -> Tensor:
    """The parts of rescaled pictures that start at (top, left), uint8 (B, 3, H, W).

    Args:
        size: H and W of the images that they are for; larger ones need larger pictures.
        is_shrunk: for small images: a fifth of the pictures' own size.
    """
    panes, _ = _rescaled(textures, size, is_shrunk, picture_B.device)
    height, width = size
    # A view of every run of W values there is; selecting copies those that are rows of a part.
    runs_RW = panes.view(-1).unfold(0, width, 1)
    channel_B3 = 3 * picture_B[:, None] + torch.arange(3, device=panes.device)
    row_B3H = channel_B3[:, :, None] * panes.shape[2] + top_B[:, None, None] + torch.arange(height, device=panes.device)
    first_B3H = row_B3H * panes.shape[3] + left_B[:, None, None]
    return runs_RW.index_select(0, first_B3H.view(-1)).view(-1, 3, height, width)


def _draw_parts(stream: Stream, images_B3HW: Tensor, parameters: Parameters) -> Draws:
    """The frost itself, so that it is only here that pictures are needed."""
    height, width = images_B3HW.shape[-2:]
    textures = frost_textures.default()
    is_shrunk = parameters[2] == _SHRUNK
    _, free_P2 = _rescaled(textures, (height, width), is_shrunk, images_B3HW.device)
    picture_B = stream.integers("picture", low=0, high=len(free_P2))
    top_B, left_B = (stream.uniform("place", 2) * free_P2[picture_B]).to(torch.int64).unbind(1)
    return {"frost": parts(textures, picture_B, top_B, left_B, (height, width), is_shrunk=is_shrunk)}


def _frost(images_B3HW: Tensor, draws: Draws, parameters: Parameters) -> Tensor:
    image_weight, frost_weight, _ = parameters
    frosted_B3HW = draws["frost"].to(torch.int32).mul_(round(frost_weight * _STEPS))
    frosted_B3HW.add_(images_B3HW.to(torch.int32).mul_(round(image_weight * _STEPS)))
    # 3277 / 2^16 is a twentieth and so little more that no sum up to 255 * 2 * 20 is rounded otherwise.
    return frosted_B3HW.mul_(3277).bitwise_right_shift_(16).clamp_(max=255).to(torch.uint8)


def _rescaled(textures: Textures, size: _Size, is_shrunk: bool, device: torch.device) -> tuple[Tensor, Tensor]:
    """The pictures at their new sizes, uint8 (P, 3, ., .), and how many tops and lefts are free in each, (P, 2).

    Smaller pictures have zeros below and to the right.
    """
    factors = tuple(_factor(picture.shape[:2], size, is_shrunk=is_shrunk) for picture in textures.pictures[:NUM_USED])
    panes, sizes_P2 = _panes(textures, factors, device)
    # The reference leaves out the last place.
    return panes, (sizes_P2 - torch.tensor(size, device=device)).clamp_(min=1)


def _factor(picture_size: _Size, size: _Size, *, is_shrunk: bool) -> float:
    if is_shrunk and all(round(own * _SHRUNK) > needed for own, needed in zip(picture_size, size, strict=True)):
        return _SHRUNK
    to_fit = max(needed / own for own, needed in zip(picture_size, size, strict=True))
    return (to_fit if is_shrunk else max(1.0, to_fit)) * _ENLARGED


@functools.lru_cache(maxsize=16)  # Images of many sizes may want as many.
def _panes(textures: Textures, factors: tuple[float, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    panes = [_resized(picture, factor) for picture, factor in zip(textures.pictures[:NUM_USED], factors, strict=True)]
    sizes_P2 = torch.tensor([pane.shape[:2] for pane in panes])
    together = torch.zeros(len(panes), 3, *sizes_P2.amax(dim=0).tolist(), dtype=torch.uint8)
    for index, pane in enumerate(panes):
        together[index, :, : pane.shape[0], : pane.shape[1]] = torch.from_numpy(pane).permute(2, 0, 1)
    return together.to(device), sizes_P2.to(device)


def _resized(picture: np.ndarray, factor: float) -> np.ndarray:
    import cv2

    if factor == _SHRUNK:
        return np.asarray(cv2.resize(picture, (0, 0), fx=factor, fy=factor))
    height, width = (int(np.ceil(length * factor)) for length in picture.shape[:2])
    return np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_CUBIC))


FROST = Corruption(draw=_draw_parts, apply=_frost, needs_colour=True, chunk_bytes=1 << 22)
