"""Pixelate: shrink by averaging, grow again by repetition. To the bit what Pillow's BOX and NEAREST filters do.

Columns are averaged first at every size, as in the Pillow versions that made the published data. Pillow 13 averages the
rows first in images that are more than about twice as high as wide (its pull request 9549), which moves single values
by one level.
"""

# B images of a batch, C channels, H W height and width, L rows before and l rows after, R values of a row

from __future__ import annotations

import functools
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor

from raypruning.corruptions.corruption import Corruption, Draws
from raypruning.corruptions.parameters import Parameters

# Bits after the point of Pillow's weights for 8-bit images (its Resample.c).
_PRECISION_BITS = 22


class _Group(NamedTuple):
    """Cells that average equally many rows."""

    rows: Tensor  # of all cells: their first rows, then their second, ...
    num_rows: int  # of a cell
    stop: int  # the cells end there in the order of all groups


class _Cells(NamedTuple):
    """How L rows become l, in an order of its own, and these L again."""

    groups: tuple[_Group, ...]
    cell_of_row_L: Tensor


def _pixelate(images_BCHW: Tensor, _draws: Draws, parameters: Parameters) -> Tensor:
    (scale,) = parameters
    num, num_channels, height, width = images_BCHW.shape
    across = _cells(width, max(1, int(width * scale)), images_BCHW.device)
    down = _cells(height, max(1, int(height * scale)), images_BCHW.device)
    # Always on the first axis, where a row is many bytes in one piece. Columns come first, as their averages are
    # rounded before those of the rows are taken.
    columns_lR = _averages(transposed(images_BCHW.reshape(-1, width)), across)
    rows_lR = _averages(transposed(columns_lR.view(-1, height)), down)
    columns_lR = transposed(rows_lR.index_select(0, down.cell_of_row_L)).view(columns_lR.shape)
    pixelated = transposed(columns_lR.index_select(0, across.cell_of_row_L))
    return pixelated.view(num, num_channels, height, width)


def _averages(rows_LR: Tensor, cells: _Cells) -> Tensor:
    """Of each cell, rounded: uint8 (l, R), in the order of the groups."""
    averages_lR = rows_LR.new_empty(cells.groups[-1].stop, rows_LR.shape[1])
    start = 0
    for rows, num_rows, stop in cells.groups:
        selected = rows_LR.index_select(0, rows)
        if num_rows > 1:
            total = selected.view(num_rows, stop - start, -1).sum(0, dtype=torch.int32)
            weight = round((1 << _PRECISION_BITS) / num_rows)
            selected = total.mul_(weight).add_(1 << (_PRECISION_BITS - 1)).bitwise_right_shift_(_PRECISION_BITS)
        averages_lR[start:stop] = selected
        start = stop
    return averages_lR


def transposed(values: Tensor) -> Tensor:
    """A transposed copy of uint8 values; OpenCV's takes a tenth of the time of PyTorch's."""
    if values.device.type != "cpu":
        return values.t().contiguous()
    import cv2

    return torch.from_numpy(cv2.transpose(values.numpy()))


@functools.lru_cache(maxsize=64)
def _cells(num_rows: int, num_cells: int, device: torch.device) -> _Cells:
    windows = sorted(enumerate(_windows(num_rows, num_cells)), key=lambda cell: len(cell[1]))
    place_of_cell = {cell: place for place, (cell, _) in enumerate(windows)}
    groups, stop = [], 0
    for size, members in groupby((window for _, window in windows), key=len):
        group = list(members)
        stop += len(group)
        rows = [row for nth in zip(*group, strict=True) for row in nth]
        groups.append(_Group(torch.tensor(rows, dtype=torch.int32, device=device), size, stop))
    places = [place_of_cell[cell] for cell in _nearest(num_rows, num_cells)]
    return _Cells(tuple(groups), torch.tensor(places, dtype=torch.int32, device=device))


def _windows(num_rows: int, num_cells: int) -> list[range]:
    """The rows that each cell averages, with equal weights. Source: Pillow's Resample.c, in its order of operations."""
    scale = num_rows / num_cells
    support = 0.5 * scale
    windows = []
    for cell in range(num_cells):
        center = (cell + 0.5) * scale
        start, stop = max(0, int(center - support + 0.5)), min(num_rows, int(center + support + 0.5))
        # The filter is open below and closed above.
        inside = [row for row in range(start, stop) if -0.5 < (row - center + 0.5) * (1.0 / scale) <= 0.5]
        windows.append(range(inside[0], inside[-1] + 1))
    return windows


def _nearest(num_rows: int, num_cells: int) -> list[int]:
    """The cell that each row repeats: positions summed up step by step, as in Pillow's Geometry.c."""
    step = num_cells / num_rows
    cells, position = [], step * 0.5
    for _ in range(num_rows):
        cells.append(min(int(position), num_cells - 1))
        position += step
    return cells


PIXELATE = Corruption(apply=_pixelate, chunk_bytes=1 << 21)
