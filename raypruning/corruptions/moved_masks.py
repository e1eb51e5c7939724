"""Classes of pixels under corruptions that move what is in an image: by the very draws that the image gets.

Zoom blur and the elastic transforms do. Motion blur smears everything to one side, and glass blur lets it drift a
little: at severity 5 and 224 px what is seen at a pixel was on average 11 and 4 px away. But what motion blur shows is
everywhere along its trail, and what glass blur shows within its grain: there is no better place for an outline, and
masks stay. All others move nothing by more than a pixel or so.
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

    Returns: uint8 (N, H, W) on the same device; the masks themselves where nothing moves.
    """
    parameters = parameters_of(name, severity, parameter_set=parameter_set)
    corruption = get_corruption(name)
    if corruption.move is None:
        return masks_NHW
    masks_N1HW = masks_NHW[:, None]
    size = chunk_size(corruption, masks_N1HW)
    moved = []
    for masks, ids in zip(masks_N1HW.split(size), ids_N.split(size), strict=True):
        draws = draw(name, severity, masks, ids, parameter_set=parameter_set, key=key)
        moved.append(corruption.move(masks, draws, parameters))
    return torch.cat(moved)[:, 0] if moved else masks_NHW
