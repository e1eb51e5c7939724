"""Elastic transforms: every pixel is taken from a place nearby that smooth random fields say."""

# B images of a batch, C channels, H W height and width; a last axis of 2 is (x, y)

from __future__ import annotations

import functools

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from raypruning.corruptions.corruption import Corruption, Draws
from raypruning.corruptions.parameters import Parameters
from raypruning.corruptions.smoothing import gaussian_smooth
from raypruning.corruptions.stream import Stream

# Kernels of the fields end at three sigma.
_TRUNCATE = 3.0
# In grey levels, added before truncation. The four float32 weights of a pixel add up to one but for some 2e-7, twice
# where there are two interpolations: a flat area of 200 comes out as 199.9999 at worst, and has to stay 200.
_EPSILON = 5e-4


def _draw_fields(stream: Stream, images_BCHW: Tensor, _parameters: Parameters) -> Draws:
    """Uniform in (-1, 1), float64 (B, 2, H, W): for x, for y."""
    bits = stream.bits16("fields", 2, *images_BCHW.shape[2:])
    return {"fields": bits.to(torch.float64).add_(0.5).mul_(2.0**-15).sub_(1.0)}


def _elastic_simple(images_BCHW: Tensor, draws: Draws, parameters: Parameters) -> Tensor:
    """No affine part; fields that grow with the image. Source: Michaelis et al. 2019, imagecorruptions."""
    (alpha,) = parameters
    height, width = images_BCHW.shape[2:]
    sigma = (0.01 * height, 0.01 * width)
    # Both fields in units of the height, in the reference too.
    shifted = _shift(images_BCHW.to(torch.float32), draws["fields"], sigma, alpha * 0.005 * height)
    return _truncated(shifted)


def _draw_transform(stream: Stream, images_BCHW: Tensor, parameters: Parameters) -> Draws:
    """By how much three points are moved, float64 (B, 3, 2), and the fields where they move anything."""
    alpha, _sigma, jitter = parameters
    moves = stream.uniform("moves", 3, 2, low=-jitter, high=jitter)
    return {"moves": moves} if alpha == 0 else {"moves": moves, **_draw_fields(stream, images_BCHW, parameters)}


def _elastic_transform(images_BCHW: Tensor, draws: Draws, parameters: Parameters) -> Tensor:
    """An affine map, then the fields. Source: Hendrycks and Dietterich 2019, after Simard et al. 2003."""
    alpha, sigma, _jitter = parameters
    # Interpolated twice, as in the reference: one interpolation at the composed place would blur less.
    warped = _warp(images_BCHW.to(torch.float32), draws["moves"])
    if alpha != 0:
        warped = _shift(warped, draws["fields"], (sigma, sigma), alpha)
    return _truncated(warped)


def _truncated(levels_BCHW: Tensor) -> Tensor:
    # Means of grey levels: nothing is outside of [0, 256).
    # By way of int16, which torch converts four times faster than it does without.
    return levels_BCHW.add_(_EPSILON).to(torch.int16).to(torch.uint8)


def _move_simply(masks_B1HW: Tensor, draws: Draws, parameters: Parameters) -> Tensor:
    """The class at the place that a pixel is taken from, or at the nearest pixel to it."""
    (alpha,) = parameters
    height, width = masks_B1HW.shape[2:]
    sigma = (0.01 * height, 0.01 * width)
    grid_BHW2 = _shift_grid(draws["fields"], sigma, alpha * 0.005 * height)
    return _nearest(masks_B1HW, grid_BHW2, align_corners=False)


def _move(masks_B1HW: Tensor, draws: Draws, parameters: Parameters) -> Tensor:
    """The class at the place that a pixel is taken from in the end.

    One nearest pixel of the composed place, not one after the other, which could be a pixel further off.
    """
    alpha, sigma, _jitter = parameters
    grid_BHW2 = _warp_grid(draws["moves"], *masks_B1HW.shape[2:])
    if alpha != 0:
        # Linear between pixels, so that interpolation gives the very place.
        places_B2HW = grid_BHW2.permute(0, 3, 1, 2)
        grid_BHW2 = _shift(places_B2HW, draws["fields"], (sigma, sigma), alpha).permute(0, 2, 3, 1)
    return _nearest(masks_B1HW, grid_BHW2, align_corners=True)


def _nearest(masks_B1HW: Tensor, grid_BHW2: Tensor, *, align_corners: bool) -> Tensor:
    levels = masks_B1HW.to(torch.float32)
    moved = grid_sample(levels, grid_BHW2, mode="nearest", padding_mode="reflection", align_corners=align_corners)
    return moved.to(torch.uint8)


def _warp(levels_BCHW: Tensor, moves_B32: Tensor) -> Tensor:
    """The image under the affine map that moves three points so; mirrored about its border pixels."""
    grid_BHW2 = _warp_grid(moves_B32, *levels_BCHW.shape[2:])
    return grid_sample(levels_BCHW, grid_BHW2, mode="bilinear", padding_mode="reflection", align_corners=True)


def _warp_grid(moves_B32: Tensor, height: int, width: int) -> Tensor:
    """Where each pixel comes from, (B, H, W, 2); from -1 to 1 between the middles of the border pixels."""
    device = moves_B32.device
    xx, xy, x0, yx, yy, y0 = (term.view(-1, 1, 1) for term in _source_of(moves_B32, height, width).unbind(1))
    x_W = torch.arange(width, dtype=torch.float64, device=device)
    y_H1 = torch.arange(height, dtype=torch.float64, device=device)[:, None]
    # To [-1, 1] between the middles of the border pixels, which is what grid_sample takes.
    to_x, to_y = 2.0 / (width - 1), 2.0 / (height - 1)
    grid_BHW2 = torch.empty(len(moves_B32), height, width, 2, device=device)
    grid_BHW2[..., 0] = (xx * to_x) * x_W + ((xy * to_x) * y_H1 + (x0 * to_x - 1.0))
    grid_BHW2[..., 1] = (yx * to_y) * x_W + ((yy * to_y) * y_H1 + (y0 * to_y - 1.0))
    return grid_BHW2


def _source_of(moves_B32: Tensor, height: int, width: int) -> Tensor:
    """Where a pixel is taken from, as terms (B, 6): x = 0 x + 1 y + 2, and y = 3 x + 4 y + 5."""
    side = float(min(height, width) // 3)
    # The reference takes the middle row for the x of its middle, and the middle column for the y.
    middle_2 = (float(height // 2), float(width // 2))
    points_32 = torch.tensor(
        [[m + side * sign for m, sign in zip(middle_2, signs, strict=True)] for signs in ((1, 1), (1, -1), (-1, -1))],
        dtype=torch.float32,
        device=moves_B32.device,
    )
    # Float32 as in the reference; from here on everything is float64.
    moved_B32 = (points_32 + moves_B32.to(torch.float32)).to(torch.float64)
    (ax, ay), (bx, by) = ((moved_B32[:, k] - moved_B32[:, 2]).unbind(1) for k in (0, 1))
    # The moved edges a and b come from (2, 2) and (2, 0) times the side.
    area = ax * by - ay * bx
    scale = torch.where(area == 0, 0.0, 2.0 * side / area)  # points on a line: no map; any finite one will do
    xx, xy, yx, yy = (by - ay) * scale, (ax - bx) * scale, by * scale, -bx * scale
    qx, qy = moved_B32[:, 2].unbind(1)
    px, py = (m - side for m in middle_2)
    return torch.stack([xx, xy, px - xx * qx - xy * qy, yx, yy, py - yx * qx - yy * qy], dim=1)


def _shift(levels_BCHW: Tensor, fields_B2HW: Tensor, sigma: tuple[float, float], alpha: float) -> Tensor:
    """Every pixel from where it is plus alpha times the smoothed fields; mirrored about the image's outer edge."""
    grid_BHW2 = _shift_grid(fields_B2HW, sigma, alpha)
    return grid_sample(levels_BCHW, grid_BHW2, mode="bilinear", padding_mode="reflection", align_corners=False)


def _shift_grid(fields_B2HW: Tensor, sigma: tuple[float, float], alpha: float) -> Tensor:
    """Where each pixel comes from, (B, H, W, 2); from -1 to 1 between the image's outer edges."""
    height, width = fields_B2HW.shape[2:]
    offsets_B2HW = gaussian_smooth(fields_B2HW, sigma, boundary="reflect", truncate=_TRUNCATE).to(torch.float32)
    base_x_W, base_y_H1 = _middles(height, width, fields_B2HW.device)
    grid_BHW2 = torch.empty(len(fields_B2HW), height, width, 2, device=fields_B2HW.device)
    # Two steps, for a fused one rounds differently at the end of a batch than in it.
    torch.add(offsets_B2HW[:, 0].mul(2.0 * alpha / width), base_x_W, out=grid_BHW2[..., 0])
    torch.add(offsets_B2HW[:, 1].mul(2.0 * alpha / height), base_y_H1, out=grid_BHW2[..., 1])
    return grid_BHW2


@functools.cache
def _middles(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Of the pixels, x (W) and y (H, 1), where the image's outer edges are -1 and 1: float32."""
    x_W, y_H = (
        ((2 * torch.arange(size, dtype=torch.float64, device=device) + 1) / size - 1).to(torch.float32)
        for size in (width, height)
    )
    return x_W, y_H[:, None]


ELASTIC_TRANSFORM = Corruption(draw=_draw_transform, apply=_elastic_transform, move=_move, chunk_bytes=1 << 21)
ELASTIC_SIMPLE = Corruption(draw=_draw_fields, apply=_elastic_simple, move=_move_simply)
