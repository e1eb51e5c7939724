"""Corrupt batches of images."""

# N images of a set, B of a batch, C channels, H W height and width

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from raypruning.corruptions.corruption import Corruption, Draws, get_corruption
from raypruning.corruptions.parameters import parameters_of
from raypruning.corruptions.stream import Stream
from raypruning.errors import DataError

# Of images as float32 that a GPU handles at once.
GPU_CHUNK_BYTES = 1 << 29


def draw(
    name: str, severity: int, images_NCHW: Tensor, ids_N: Tensor, *, parameter_set: str, key: str = "test"
) -> Draws:
    """The random draws of a corruption for images, by their ids: pass them to `apply`.

    Args:
        severity: from 1 to 5.
        images_NCHW: uint8, one or three channels.
        ids_N: which images these are, whole numbers from 0; equal ids of equal shapes get equal draws.
        parameter_set: `cifar` or `imagenet`.
        key: what the draws are for; another one, other draws.
    """
    parameters = parameters_of(name, severity, parameter_set=parameter_set)
    corruption = get_corruption(name)
    images_NCHW = _in_colour(_checked(images_NCHW), corruption)
    stream = Stream(f"{key}/{name}/{severity}", ids_N.to(images_NCHW.device))
    return corruption.draw(stream, images_NCHW, parameters)


def apply(name: str, severity: int, images_NCHW: Tensor, draws: Draws, *, parameter_set: str) -> Tensor:
    """The images corrupted with those draws: uint8 (N, C, H, W), a new tensor on the same device.

    Source: Hendrycks and Dietterich 2019. Values are truncated to whole grey levels, as its generators do.
    """
    parameters = parameters_of(name, severity, parameter_set=parameter_set)
    corruption = get_corruption(name)
    is_grey = images_NCHW.shape[1] == 1
    corrupted = corruption.apply(_in_colour(_checked(images_NCHW), corruption), draws, parameters)
    return luma(corrupted) if is_grey and corrupted.shape[1] == 3 else corrupted


def corrupt(
    name: str,
    severity: int,
    images_NCHW: Tensor,
    ids_N: Tensor,
    *,
    parameter_set: str,
    key: str = "test",
    num_threads: int = 1,
) -> Tensor:
    """Draw and apply, in chunks that fit a CPU's cache or a GPU's memory.

    Args:
        key: what the draws are for; another one, other draws.
        num_threads: chunks at once on a CPU; no effect on the result.
    """
    parameters_of(name, severity, parameter_set=parameter_set)  # Raises for what there is not, also without images.
    is_on_cpu = images_NCHW.device.type == "cpu"
    size = chunk_size(get_corruption(name), _checked(images_NCHW))
    corrupted_NCHW = torch.empty_like(images_NCHW, memory_format=torch.contiguous_format)

    def corrupt_chunk(start: int) -> None:
        images, ids = images_NCHW[start : start + size], ids_N[start : start + size]
        draws = draw(name, severity, images, ids, parameter_set=parameter_set, key=key)
        corrupted_NCHW[start : start + size] = apply(name, severity, images, draws, parameter_set=parameter_set)

    starts = range(0, len(images_NCHW), size)
    if num_threads == 1 or not is_on_cpu or len(starts) == 1:
        for start in starts:
            corrupt_chunk(start)
    else:
        with ThreadPoolExecutor(num_threads) as pool:
            list(pool.map(corrupt_chunk, starts))
    return corrupted_NCHW


def chunk_size(corruption: Corruption, images_NCHW: Tensor) -> int:
    """How many images are handled at once."""
    chunk_bytes = corruption.chunk_bytes if images_NCHW.device.type == "cpu" else GPU_CHUNK_BYTES
    return max(1, chunk_bytes // (4 * max(1, images_NCHW[:1].numel())))


def luma(images_N3HW: Tensor) -> Tensor:
    """Grey values of colour images: uint8 (N, 1, H, W). Equal channels keep their value. Source: ITU-R BT.601."""
    red, green, blue = (images_N3HW[:, channel : channel + 1].to(torch.int32) for channel in range(3))
    return ((19595 * red + 38470 * green + 7471 * blue + (1 << 15)) >> 16).to(torch.uint8)


def _checked(images_NCHW: Tensor) -> Tensor:
    if images_NCHW.dtype != torch.uint8 or images_NCHW.ndim != 4 or images_NCHW.shape[1] not in (1, 3):
        kind = str(images_NCHW.dtype).removeprefix("torch.")
        raise DataError(
            f"images to corrupt must be uint8 of shape (N, 1 or 3, H, W), got {kind} {tuple(images_NCHW.shape)}"
        )
    return images_NCHW


def _in_colour(images_NCHW: Tensor, corruption: Corruption) -> Tensor:
    is_grey = images_NCHW.shape[1] == 1
    return images_NCHW.expand(-1, 3, -1, -1) if is_grey and corruption.needs_colour else images_NCHW
