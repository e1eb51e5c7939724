"""Snow: flakes out of thresholded noise, driven by the wind, on an image that is whitened."""

# B images of a batch, N of a block, H W height and width, h w of what is zoomed, O rows of a zoomed layer

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor
from torch.nn import functional

from raypruning.corruptions.corruption import Corruption, Draws
from raypruning.corruptions.motion import blocks_of_like_angles, streak
from raypruning.corruptions.parameters import Parameters
from raypruning.corruptions.stream import Stream

# Of a grey level: a sum that is a whole level but for float32's rounding keeps it.
_EPSILON = 1e-3


def _draw_flakes(stream: Stream, images_BCHW: Tensor, parameters: Parameters) -> Draws:
    """Normal values of the middle part that is zoomed, and the wind's angle."""
    zoom = parameters[2]
    height, width = images_BCHW.shape[-2:]
    return {
        "flakes": stream.normal("flakes", math.ceil(height / zoom), math.ceil(width / zoom)),
        "angle": stream.uniform("angle", low=-135.0, high=-45.0),
    }


def _snow(images_B3HW: Tensor, draws: Draws, parameters: Parameters) -> Tensor:
    mean, scale, zoom, threshold, radius, sigma, kept = parameters
    height, width = images_B3HW.shape[-2:]
    snowy_B3HW = torch.empty_like(images_B3HW, memory_format=torch.contiguous_format)
    for index_N in blocks_of_like_angles(draws["angle"], 8 * height * width):
        # Float64 as in the reference: a flake that is just above the threshold there must be here.
        noise_Nhw = draws["flakes"].index_select(0, index_N).to(torch.float64).mul_(scale).add_(mean)
        layer = _at_least(_zoomed(noise_Nhw, height, width, zoom), threshold).clamp_(0.0, 1.0)
        layer = streak(layer[:, None], draws["angle"][index_N], radius=int(radius), sigma=sigma)
        # The zoomed layer is a little larger than the image, and is cut after the wind.
        flakes_N1HW = layer[:, :, :height, :width].mul(255.0).round_().to(torch.float32)
        snowy_N3HW = _whitened(images_B3HW.index_select(0, index_N), flakes_N1HW, kept)
        snowy_B3HW.index_copy_(0, index_N, snowy_N3HW)
    return snowy_B3HW


def _whitened(images_B3HW: Tensor, flakes_B1HW: Tensor, kept: float) -> Tensor:
    """The images, partly replaced by something brighter, and the flakes, a second time turned by 180 degrees."""
    images_B3HW = images_B3HW.to(torch.float32)
    red, green, blue = torch.split(images_B3HW, 1, dim=1)
    bright_B1HW = red * 0.299
    bright_B1HW = bright_B1HW.add_(green * 0.587).add_(blue * 0.114).mul_(1.5).add_(127.5).mul_(1.0 - kept)
    # kept * x + (1 - kept) * max(x, bright), with one pass less.
    snowy_B3HW = (images_B3HW * kept).add_(bright_B1HW)
    snowy_B3HW = torch.maximum(snowy_B3HW, images_B3HW, out=snowy_B3HW)
    twice_B1HW = flakes_B1HW.flip(2, 3).add_(flakes_B1HW).add_(_EPSILON)
    # By way of int16, which takes a third of the time.
    return snowy_B3HW.add_(twice_B1HW).clamp_(max=255.0).to(torch.int16).to(torch.uint8)


def _at_least(values: Tensor, threshold: float) -> Tensor:
    """Zero where values are below the threshold."""
    # PyTorch's keeps only what is above.
    return functional.threshold(values, math.nextafter(threshold, -math.inf), 0.0)


def _zoomed(layer_Bhw: Tensor, height: int, width: int, zoom: float) -> Tensor:
    """Linearly interpolated to at least height x width."""
    if zoom == 1.0:
        return layer_Bhw
    layer_BOh = _interpolated(layer_Bhw.transpose(1, 2).contiguous(), width, zoom)
    return _interpolated(layer_BOh.transpose(1, 2).contiguous(), height, zoom)


def _interpolated(layer_Bhw: Tensor, length: int, zoom: float) -> Tensor:
    """The rows interpolated to those of an image of `length` rows, or a few more."""
    before_O, weight_before_O, weight_after_O = _zoom_table(length, zoom, layer_Bhw.device)
    zoomed = layer_Bhw.index_select(1, before_O).mul_(weight_before_O[:, None])
    return zoomed.add_(layer_Bhw.index_select(1, before_O + 1).mul_(weight_after_O[:, None]))


@functools.cache
def _zoom_table(length: int, zoom: float, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Of which two neighbours every value is the mean, and their weights.

    Read off SciPy's zoom, which leaves a last row at 0 where it computes that it lies just outside.
    """
    import numpy as np
    from scipy.ndimage import zoom as scipy_zoom

    num_before = math.ceil(length / zoom)
    matrix = scipy_zoom(np.eye(num_before), (zoom, 1), order=1)
    before = np.minimum((matrix > 0.0).argmax(axis=1), num_before - 2)
    rows = np.arange(len(matrix))
    weights = torch.from_numpy(np.stack([matrix[rows, before], matrix[rows, before + 1]]))
    return (torch.from_numpy(before).to(device), *weights.to(device))


# Many images at once, so that those of a block of streaks have like angles.
SNOW = Corruption(draw=_draw_flakes, apply=_snow, needs_colour=True, chunk_bytes=1 << 24)
