"""Blur by one kernel for all images: gaussian and defocus blur."""

# B images of a batch, C channels, H W height and width

from __future__ import annotations

import functools
from collections.abc import Callable

import cv2
import numpy as np
import torch
from torch import Tensor

from raypruning.corruptions.corruption import Corruption, Draws
from raypruning.corruptions.parameters import Parameters
from raypruning.corruptions.smoothing import gaussian_smooth, gaussian_weights

# Added before truncation: float32 sums of whole values, above all those of flat areas, come out up to 7e-5 too low
# (measured, 21 x 21 weights), and truncated they would lose a level. More would lift what is truly below a whole value:
# by 3e-4, for a neighbour of the least weight that is one level darker. In float64 too, so that devices agree.
_SLACK = 1.5e-4
# Below this many pixels a call of OpenCV costs more than its work: one for all channels is better than one for each.
_FEW_PIXELS = 96 * 96
_TRUNCATE = 4.0


def gaussian_blur_levels(images_BCHW: Tensor, sigma: float) -> Tensor:
    """Smoothed and truncated to whole levels: uint8, a new tensor. The border's values go on beyond it."""
    radius = int(_TRUNCATE * sigma + 0.5)
    if radius == 0:
        return images_BCHW.clone(memory_format=torch.contiguous_format)
    if images_BCHW.device.type != "cpu":
        smooth = gaussian_smooth(images_BCHW.to(torch.float64), sigma, truncate=_TRUNCATE)
        return smooth.add_(_SLACK).to(torch.uint8)
    weights = gaussian_weights(sigma, radius)

    def blur(image: np.ndarray, out: np.ndarray) -> None:
        # Straight from uint8: twice as fast as from float32. Weights of a pixel of its own image alone, in one order.
        cv2.sepFilter2D(image, cv2.CV_32F, weights, weights, dst=out, delta=_SLACK, borderType=cv2.BORDER_REPLICATE)

    return _filtered(images_BCHW, blur)


def _filtered(images_BCHW: Tensor, blur: Callable[[np.ndarray, np.ndarray], None]) -> Tensor:
    """Images whose (H, W) planes or (H, W, C) images `blur` has filtered into float32, truncated: uint8."""
    channels, height, width = images_BCHW.shape[1:]
    if channels == 1 or height * width >= _FEW_PIXELS:
        planes = images_BCHW.reshape(-1, height, width).numpy()
        smooth = np.empty(planes.shape, np.float32)
        for plane, out in zip(planes, smooth, strict=True):
            blur(plane, out)
        return torch.from_numpy(smooth.astype(np.uint8)).view(images_BCHW.shape)
    images_BHWC = images_BCHW.permute(0, 2, 3, 1).contiguous().numpy()
    smooth = np.empty(images_BHWC.shape, np.float32)
    for image, out in zip(images_BHWC, smooth, strict=True):
        blur(image, out)
    return torch.from_numpy(smooth.astype(np.uint8)).permute(0, 3, 1, 2).contiguous()


def _gaussian_blur(images_BCHW: Tensor, _draws: Draws, parameters: Parameters) -> Tensor:
    (sigma,) = parameters
    return gaussian_blur_levels(images_BCHW, sigma)


def _defocus_blur(images_BCHW: Tensor, _draws: Draws, parameters: Parameters) -> Tensor:
    kernel = defocus_kernel(*parameters)
    if images_BCHW.device.type != "cpu":
        return _correlated(images_BCHW, torch.from_numpy(kernel).to(images_BCHW.device, torch.float64))

    def blur(image: np.ndarray, out: np.ndarray) -> None:
        # From float32, not uint8: OpenCV has a fast path for it alone, direct up to 11 x 11 weights and by FFT beyond.
        cv2.filter2D(image.astype(np.float32), -1, kernel, dst=out, delta=_SLACK, borderType=cv2.BORDER_REFLECT_101)
        np.minimum(out, 255.0, out=out)  # The largest kernels sum to more than one.

    return _filtered(images_BCHW, blur)


@functools.cache
def defocus_kernel(radius: float, sigma: float) -> np.ndarray:
    """The weights, float32, square, without rows and columns that weigh nothing.

    A disk on a grid that ends at 8 pixels, or at a larger radius, blurred to soften its edge. The blur sees the mirror
    image of the disk beyond the grid: where the disk touches the grid's edge the weights sum to one and a hundredth,
    and it brightens. Else they sum to one.

    Args:
        sigma: of the edge's blur.
    """
    reach = 8 if radius <= 8 else int(radius)
    num_weights = 3 if radius <= 8 else 5
    offsets = np.arange(-reach, reach + 1)
    is_inside = offsets[:, None] ** 2 + offsets**2 <= radius**2
    disk = is_inside.astype(np.float32) / np.float32(is_inside.sum())
    kernel = cv2.GaussianBlur(disk, (num_weights, num_weights), sigmaX=sigma)
    # All that is left out is worth less than a 300th of a level, and the smaller the kernel the faster.
    used = np.flatnonzero(kernel.max(axis=0) > 1e-5 / kernel.size)
    return np.ascontiguousarray(kernel[used[0] : used[-1] + 1, used[0] : used[-1] + 1])


def _correlated(images_BCHW: Tensor, kernel: Tensor) -> Tensor:
    radius = len(kernel) // 2
    planes = images_BCHW.to(torch.float64).flatten(0, 1)[:, None]
    padded = torch.nn.functional.pad(planes, (radius,) * 4, mode="reflect")
    blurred = torch.nn.functional.conv2d(padded, kernel[None, None])
    return blurred.add_(_SLACK).clamp_(0.0, 255.0).to(torch.uint8).view(images_BCHW.shape)


GAUSSIAN_BLUR = Corruption(apply=_gaussian_blur, chunk_bytes=1 << 21)
DEFOCUS_BLUR = Corruption(apply=_defocus_blur, chunk_bytes=1 << 21)
