"""Uniform and gaussian noise on the test images, one fixed draw for each image and all amplitudes.

Source: Lost in Pruning, section 5 and appendix: x' = x + epsilon * U(-1, 1) in normalised input space, not clipped.
"""

# N images, C channels, H W height and width, K values of an image

from __future__ import annotations

from typing import TYPE_CHECKING

from raypruning.core.identity import derive_seed
from raypruning.tasks.task import TaskDefinition, members, positive_number

if TYPE_CHECKING:
    from torch import Tensor

_MASK = 0xFFFFFFFF
# The paper's fifteen levels; the first, 0, is the nominal task.
_LEVELS = tuple(f"{step / 20:g}" for step in range(1, 15))


@members(*_LEVELS)
def uniform(argument: str) -> TaskDefinition:
    """Noise of amplitude epsilon in normalised space, `noise/uniform/EPSILON`; not clipped (the paper's)."""
    epsilon = positive_number(argument, task="noise/uniform/")

    def add_noise(images_NCHW: Tensor, ids_N: Tensor) -> Tensor:
        return images_NCHW + epsilon * uniform_draws(images_NCHW, ids_N)

    return TaskDefinition(
        corruption={"kind": "uniform noise", "space": "normalised", "amplitude": epsilon},
        on_normalised=add_noise,
        source="Lost in Pruning, section 5",
    )


@members("2", "4", "8", "16", "32")
def uniform_pixel(argument: str) -> TaskDefinition:
    """Noise of so many of 255 grey levels, `noise/uniform_pixel/LEVELS`; clipped to the pixels' range."""
    levels = positive_number(argument, task="noise/uniform_pixel/")

    def add_noise(images_NCHW: Tensor, ids_N: Tensor) -> Tensor:
        return (images_NCHW + levels / 255.0 * uniform_draws(images_NCHW, ids_N)).clamp(0.0, 1.0)

    return TaskDefinition(
        corruption={"kind": "uniform noise", "space": "pixels", "amplitude": levels},
        on_pixels=add_noise,
        source="Lost in Pruning, section 5, in units a camera has",
    )


@members(*_LEVELS)
def gaussian(argument: str) -> TaskDefinition:
    """Noise of standard deviation sigma in normalised space, `noise/gaussian/SIGMA`; not clipped."""
    sigma = positive_number(argument, task="noise/gaussian/")

    def add_noise(images_NCHW: Tensor, ids_N: Tensor) -> Tensor:
        from raypruning.corruptions.stream import Stream

        # No sigma in the key: tasks differ in amplitude alone.
        draws_NCHW = Stream("noise/gaussian", ids_N.to(images_NCHW.device)).normal("values", *images_NCHW.shape[1:])
        return images_NCHW + sigma * draws_NCHW

    return TaskDefinition(
        corruption={"kind": "gaussian noise", "space": "normalised", "amplitude": sigma},
        on_normalised=add_noise,
        source="Lost in Pruning, section 5, with normal draws",
    )


def uniform_draws(images_NCHW: Tensor, ids_N: Tensor) -> Tensor:
    """U(-1, 1) for every value of every image, the same for an image id whatever the batch, order or device.

    The same draws serve every amplitude, so that tasks differ in amplitude alone. Counter-based: a hash of (image,
    position), 24 bits of it; integer arithmetic throughout, so every device gives the same bits.
    """
    import torch

    num = images_NCHW[0].numel()
    key = derive_seed(0, "uniform noise") & _MASK
    position_K = torch.arange(num, device=images_NCHW.device, dtype=torch.int64)
    image_N1 = _hash(ids_N.to(images_NCHW.device, torch.int64)[:, None] ^ key)
    bits_NK = _hash((image_N1 + position_K * 0x9E3779B9) & _MASK)
    draws_NK = (bits_NK >> 8).to(torch.float32) * (2.0 / (1 << 24)) - (1.0 - 2.0**-24)
    return draws_NK.view_as(images_NCHW)


def _hash(x: Tensor) -> Tensor:
    """A bijection on 32-bit integers with good avalanche (the "lowbias32" constants of C. Wellons' hash prospector)."""
    x = x & _MASK
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & _MASK
    x = ((x ^ (x >> 15)) * 0x846CA68B) & _MASK
    return x ^ (x >> 16)
