"""Zoom blur: the mean of an image and itself enlarged ever more about its middle."""

# B images of a batch, C channels, H W height and width, P pixels H x W of an image

from __future__ import annotations

import functools

import cv2
import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from raypruning.corruptions.corruption import Corruption, Draws
from raypruning.corruptions.parameters import Parameters

# Weights are whole multiples of this: sums of weight times level then have at most 24 bits (255 x 2^16 < 2^24), and are
# exact in float32 in whatever order a library adds, on whatever device.
_WEIGHT_STEP = 2.0**-16


def zoom_factors(stop: float, step: float) -> np.ndarray:
    """The enlargements, from 1. Rounding decides whether `stop` is one of them: NumPy's is part of the definition."""
    return np.arange(1, stop, step)


def _zoom_blur(images_BCHW: Tensor, _draws: Draws, parameters: Parameters) -> Tensor:
    height, width = images_BCHW.shape[-2:]
    planes = images_BCHW.reshape(-1, height * width)
    if planes.device.type != "cpu":
        operator = _operator_on_device(height, width, *parameters, planes.device)
        return (operator @ planes.T.float()).to(torch.uint8).T.reshape(images_BCHW.shape)
    # OpenCV transposes bytes, and NumPy truncates floats, many times as fast as torch.
    levels_PB = cv2.transpose(planes.numpy()).astype(np.float32)
    blurred_PB = (_operator(height, width, *parameters) @ levels_PB).astype(np.uint8)
    return torch.from_numpy(cv2.transpose(blurred_PB)).view(images_BCHW.shape)


# One for 224 px takes some 15 MB and 0.1 s, one for 513 px six times that: those of the five severities are kept.
@functools.lru_cache(maxsize=5)
def _operator(height: int, width: int, stop: float, step: float) -> scipy.sparse.csr_array:
    """All of the blur: weights (P, P), float32; those of a pixel are multiples of 2^-16 and sum to one.

    There are 10 to 50 of them for a pixel, as enlargements by nearly the same factor look at the same pixels.
    """
    factors = zoom_factors(stop, step)
    # The image itself, and once more as the first of its enlargements.
    total = scipy.sparse.kron(_enlarged(height, 1.0), _enlarged(width, 1.0), format="csr")
    for factor in factors:
        total = total + scipy.sparse.kron(_enlarged(height, factor), _enlarged(width, factor), format="csr")
    total.sum_duplicates()
    total.data /= len(factors) + 1
    total.data = _in_whole_steps(total.data, total.indptr)
    total.eliminate_zeros()
    # Half the memory and more speed with short indices, which sums of matrices do not keep.
    parts = (total.data.astype(np.float32), total.indices.astype(np.int32), total.indptr.astype(np.int32))
    return scipy.sparse.csr_array(parts, shape=total.shape)


def _in_whole_steps(weights: np.ndarray, row_starts: np.ndarray) -> np.ndarray:
    """Rounded so that a row's sum is rounded as a whole: the running sums are, and a weight is what one adds."""
    running = np.cumsum(weights)
    of_row = np.repeat(np.arange(len(row_starts) - 1), np.diff(row_starts))
    # From the start of its row each, lest a row whose sum is no whole number of steps shift all after it.
    before_row = np.concatenate([[0.0], running])[row_starts[:-1]]
    steps = np.rint((running - before_row[of_row]) / _WEIGHT_STEP)
    differences = np.diff(steps, prepend=0.0)
    first = row_starts[:-1][np.diff(row_starts) > 0]
    differences[first] = steps[first]
    return np.asarray(differences * _WEIGHT_STEP)


def _enlarged(size: int, factor: float) -> scipy.sparse.csr_array:
    """Linear interpolation of the middle of `size` values to as many, as scipy.ndimage.zoom does: (size, size).

    What is enlarged has ceil(size / factor) values and gets round(that * factor), at most one too many: it is left out.
    """
    num_kept = int(np.ceil(size / float(factor)))
    num_enlarged = round(num_kept * factor)
    assert num_enlarged >= size  # ceil(size / factor) * factor is no less than size.
    row = np.arange(size)
    position = row * ((num_kept - 1) / (num_enlarged - 1))
    left = np.minimum(position.astype(np.int64), num_kept - 2)
    right_weight = position - left
    weights = np.stack([1.0 - right_weight, right_weight])
    # Rounding may put the last one beyond the last value, of which scipy makes zero: at 36 px for one, not 32 or 224.
    weights[:, position > num_kept - 1] = 0.0
    columns = np.stack([left, left + 1]) + (size - num_kept) // 2
    return scipy.sparse.csr_array((weights.ravel(), (np.tile(row, 2), columns.ravel())), shape=(size, size))


@functools.lru_cache(maxsize=5)
def _operator_on_device(height: int, width: int, stop: float, step: float, device: torch.device) -> Tensor:
    operator = _operator(height, width, stop, step).tocoo()
    index = torch.from_numpy(np.stack([operator.row, operator.col]).astype(np.int64))
    values = torch.from_numpy(operator.data)
    return torch.sparse_coo_tensor(index, values, operator.shape, check_invariants=True).coalesce().to(device)


def _vote(masks_B1HW: Tensor, _draws: Draws, parameters: Parameters) -> Tensor:
    """The class that weighs most in a pixel's blur; that of the pixel before if none weighs more, else the lowest."""
    height, width = masks_B1HW.shape[-2:]
    before_BP = masks_B1HW.flatten(1)
    is_on_cpu = before_BP.device.type == "cpu"
    most_BP = torch.zeros(before_BP.shape, device=before_BP.device)
    own_BP, winner_BP = most_BP.clone(), before_BP.clone()
    for label_B1 in _labels(before_BP).T.unsqueeze(2):
        has_PB = (before_BP == label_B1).T.to(torch.float32)
        if is_on_cpu:
            weight_BP = torch.from_numpy(_operator(height, width, *parameters) @ has_PB.numpy()).T
        else:
            weight_BP = (_operator_on_device(height, width, *parameters, before_BP.device) @ has_PB).T
        # Weights are exact, so that a tie is one. Labels ascend; one that a mask has not weighs nothing.
        winner_BP = torch.where(weight_BP > most_BP, label_B1, winner_BP)
        most_BP = torch.maximum(most_BP, weight_BP)
        own_BP = torch.where(before_BP == label_B1, weight_BP, own_BP)
    return torch.where(own_BP >= most_BP, before_BP, winner_BP).view(masks_B1HW.shape)


def _labels(masks_BP: Tensor) -> Tensor:
    """Classes of each mask, ascending: uint8 (B, K), K those of the richest; others go on with some that they lack."""
    has_B256 = torch.zeros(len(masks_BP), 256, dtype=torch.uint8, device=masks_BP.device)
    has_B256.scatter_(1, masks_BP.to(torch.int64), 1)
    most = int(has_B256.sum(1).max())
    return has_B256.argsort(dim=1, descending=True, stable=True)[:, :most].to(torch.uint8)


# A sparse matrix is read once for all images of a chunk.
ZOOM_BLUR = Corruption(apply=_zoom_blur, move=_vote, chunk_bytes=1 << 22)
