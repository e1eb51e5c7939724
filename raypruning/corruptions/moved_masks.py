"""Classes of pixels under corruptions that move what is in an image: by the very draws that the image gets.

Zoom blur and the elastic transforms do. Two others displace what they show but have no one place for it, and masks
stay, by choice. In 224 px images, at severities 3 and 5:

- Motion blur displaces by 6 and 11 px on average, to one side, with a spread of 5 and 9; a trail starts at the pixel
  itself and fades. What is shown of large blobs of two classes has an IoU of 0.89 and 0.80 with the mask that stays.
- Glass blur lets things drift by 3 and 2.5 px, with a spread of 2 and 4 px along an axis. The IoU is 0.93.

All others are symmetric, or change each pixel where it is.
"""

# N images, H W height and width

from __future__ import annotations

import torch
from torch import Tensor

from raypruning.corruptions.corrupt import chunk_size, draw
from raypruning.corruptions.corruption import get_corruption
from raypruning.corruptions.parameters import parameters_of


def move_masks(
    name: str, severity: int, masks_NHW: Tensor, ids_N: Tensor, *, parameter_set: str, key: str = "test"
) -> Tensor:
    """Where the classes of pixels are after `corrupt` with the same ids, parameters and key.

    Args:
        masks_NHW: uint8, of the images' height and width; any value is a class, also one that stands for none.

    Returns: uint8 (N, H, W) on the same device; the masks themselves, not a copy, where nothing moves.
    """
    parameters = parameters_of(name, severity, parameter_set=parameter_set)
    corruption = get_corruption(name)
    if corruption.move is None or len(masks_NHW) == 0:
        return masks_NHW
    masks_N1HW = masks_NHW[:, None]
    size = chunk_size(corruption, masks_N1HW)
    moved = []
    for masks, ids in zip(torch.split(masks_N1HW, size), torch.split(ids_N, size), strict=True):
        draws = draw(name, severity, masks, ids, parameter_set=parameter_set, key=key)
        moved.append(corruption.move(masks, draws, parameters))
    return torch.cat(moved)[:, 0]
