"""Spatter: drops of water or splashes of mud on the lens."""

# B images of a batch, C channels (3), H W height and width

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

from raypruning.corruptions.corruption import Corruption, Draws
from raypruning.corruptions.parameters import Parameters
from raypruning.corruptions.smoothing import gaussian_smooth
from raypruning.corruptions.stream import Stream

# Red, green, blue, of 255: pale turquoise, and brown.
_WATER = (175.0, 238.0, 238.0)
_MUD = (63.0, 42.0, 20.0)
# Mud is opaque nearly everywhere that it is: fainter rims are left out.
_FAINTEST_MUD = 0.8

# Of the reference: hysteresis thresholds of the edges, how far from an edge it still matters in pixels, and what makes
# light fall from the top left.
_EDGE_THRESHOLDS = (50, 150)
_FARTHEST = 20.0
_EMBOSS = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]], dtype=np.float32)


def _draw_liquid(stream: Stream, images_BCHW: Tensor, _parameters: Parameters) -> Draws:
    """Standard normal, (B, H, W)."""
    return {"liquid": stream.normal("liquid", *images_BCHW.shape[2:])}


def _spatter(images_BCHW: Tensor, draws: Draws, parameters: Parameters) -> Tensor:
    """Source: Hendrycks and Dietterich 2019; imagecorruptions is the same but for the precision of one sum."""
    location, scale, sigma, threshold, strength, is_mud = parameters
    liquid_BHW = gaussian_smooth(draws["liquid"].to(torch.float64).mul(scale).add_(location), sigma)
    # Float32 as in the reference. Its x / 255 is rounded up for each x, so what nothing falls on keeps its value.
    unit_BCHW = images_BCHW.to(torch.float32).div_(255.0)
    if is_mud:
        mask_B1HW = _mud_mask(liquid_BHW, threshold, strength)[:, None]
        unit_BCHW.mul_(1.0 - mask_B1HW).add_(_coloured(mask_B1HW, _MUD))
    else:
        mask_B1HW = _water_mask(liquid_BHW, threshold, strength)[:, None]
        unit_BCHW.add_(_coloured(mask_B1HW, _WATER)).clamp_(max=1.0)
    # By way of int16, which torch converts four times faster than it does without.
    return unit_BCHW.mul_(255.0).to(torch.int16).to(torch.uint8)


def _coloured(mask_B1HW: Tensor, levels: tuple[float, float, float]) -> Tensor:
    colour_C11 = torch.tensor([level / 255.0 for level in levels], device=mask_B1HW.device)[:, None, None]
    return mask_B1HW * colour_C11


def _mud_mask(liquid_BHW: Tensor, threshold: float, sigma: float) -> Tensor:
    """How opaque the mud is, from 0 to 1: float32."""
    mask_BHW = gaussian_smooth((liquid_BHW > threshold).to(torch.float64), sigma).to(torch.float32)
    return _zero_below(mask_BHW, _FAINTEST_MUD)


def _water_mask(liquid_BHW: Tensor, threshold: float, strength: float) -> Tensor:
    """How much of the colour of water is added, from 0 to the strength: float32."""
    # Liquid beyond 1 wraps around to little, as the reference's cast to bytes does on the machines that it ran on.
    levels_BHW = _zero_below(liquid_BHW, threshold).mul_(255.0).to(torch.int32).to(torch.uint8)
    light_BHW = torch.from_numpy(_light(levels_BHW.cpu().numpy())).to(levels_BHW.device)
    mask_BHW = levels_BHW.to(torch.float32).mul_(light_BHW)
    peak_B11 = mask_BHW.amax(dim=(1, 2), keepdim=True)
    # The reference divides by a peak of zero where nothing exceeds the threshold, and its image becomes black. No
    # spatter is the image as it is.
    return mask_BHW.div_(torch.where(peak_B11 == 0, 1.0, peak_B11)).mul_(strength)


def _zero_below(values: Tensor, least: float) -> Tensor:
    """Values that are less than `least` set to zero."""
    # Torch's threshold keeps what is greater, not what is equal; it is ten times faster than a mask.
    kind = np.float32 if values.dtype == torch.float32 else np.float64
    return torch.nn.functional.threshold(values, float(np.nextafter(kind(least), kind(0))), 0.0)


def _light(levels_BHW: np.ndarray) -> np.ndarray:
    """How bright the edges of the liquid make its surroundings: bytes. Image by image: OpenCV's calls take one."""
    light_BHW = np.empty_like(levels_BHW)
    for levels_HW, light_HW in zip(levels_BHW, light_BHW, strict=True):
        edges = cv2.Canny(levels_HW, *_EDGE_THRESHOLDS)
        distance = cv2.distanceTransform(cv2.bitwise_not(edges, edges), cv2.DIST_L2, 5)
        cv2.threshold(distance, _FARTHEST, _FARTHEST, cv2.THRESH_TRUNC, distance)
        near = cv2.equalizeHist(cv2.blur(distance, (3, 3), distance).astype(np.uint8))
        cv2.blur(cv2.filter2D(near, cv2.CV_8U, _EMBOSS), (3, 3), light_HW)
    return light_BHW


SPATTER = Corruption(draw=_draw_liquid, apply=_spatter, needs_colour=True, chunk_bytes=1 << 21)
