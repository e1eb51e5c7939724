"""Masks under corruptions against the pictures they belong to, scipy, and a loop over pixels."""

# N images, H W height and width

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from raypruning.corruptions import elastic
from raypruning.corruptions.corrupt import corrupt, draw
from raypruning.corruptions.moved_masks import move_masks
from raypruning.corruptions.parameters import NAMES, VARIANTS, parameters_of
from raypruning.corruptions.zoom import zoom_factors

MOVING = ("zoom_blur", "elastic_transform", "elastic_simple")
VOID = 255


def blobs(num: int, height: int, width: int, *, seed: int = 0) -> Tensor:
    """Masks of some large regions of the classes 0, 1 and 2."""
    noise = np.random.default_rng(seed).normal(size=(num, height, width))
    smooth = ndimage.gaussian_filter(noise, (0, height / 10, width / 10))
    cuts = np.quantile(smooth, [0.4, 0.7])
    return torch.from_numpy(np.digitize(smooth, cuts).astype(np.uint8))


def moved(name: str, masks_NHW: Tensor, *, severity: int = 3, ids: Tensor | None = None, of: str = "cifar") -> Tensor:
    ids = torch.arange(len(masks_NHW)) if ids is None else ids
    return move_masks(name, severity, masks_NHW, ids, parameter_set=of)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (48, 75)])
@pytest.mark.parametrize("severity", [1, 3, 5])
@pytest.mark.parametrize("name", MOVING)
def test_mask_stays_on_what_it_shows(name, severity, height, width):
    """A picture whose grey levels are its classes: away from outlines, it and its mask say the same afterwards."""
    masks_NHW = blobs(4, height, width)
    ids = torch.arange(4) + 7
    picture_N1HW = (masks_NHW * 100)[:, None]
    after_NHW = corrupt(name, severity, picture_N1HW, ids, parameter_set="cifar")[:, 0].to(torch.int64)
    mask_NHW = moved(name, masks_NHW, severity=severity, ids=ids).to(torch.int64)
    # Of one class all around: what interpolation mixes is told apart only up to a pixel or two.
    pure_NHW = torch.stack([(after_NHW - level).abs() <= 1 for level in (0, 100, 200)]).any(0)
    assert pure_NHW.float().mean() > 0.3
    assert torch.equal(mask_NHW[pure_NHW] * 100, ((after_NHW + 1) // 100 * 100)[pure_NHW])
    assert not torch.equal(mask_NHW, masks_NHW.long()), "something moved"


@pytest.mark.parametrize("name", sorted({*NAMES, *VARIANTS} - set(MOVING)))
def test_mask_stays_where_nothing_moves(name):
    masks_NHW = blobs(2, 32, 32)
    assert torch.equal(moved(name, masks_NHW), masks_NHW)


@pytest.mark.parametrize("name", MOVING)
def test_masks_are_moved_alike_whatever_the_batch(name):
    masks_NHW, ids = blobs(6, 40, 56), torch.tensor([3, 900, 5, 0, 77, 12])
    whole_NHW = moved(name, masks_NHW, ids=ids)
    assert whole_NHW.dtype == torch.uint8 and whole_NHW.shape == masks_NHW.shape
    order = torch.tensor([4, 1, 0, 5, 2, 3])
    assert torch.equal(moved(name, masks_NHW[order], ids=ids[order]), whole_NHW[order])
    for index in range(6):
        alone_NHW = moved(name, masks_NHW[index : index + 1], ids=ids[index : index + 1])
        assert torch.equal(alone_NHW[0], whole_NHW[index])


@pytest.mark.parametrize("name", MOVING)
def test_pixels_without_a_class_are_moved_as_others_are(name):
    masks_NHW = blobs(3, 64, 64)
    with_void_NHW = masks_NHW.masked_fill(masks_NHW == 2, VOID)
    assert torch.equal(
        moved(name, with_void_NHW), moved(name, masks_NHW).masked_fill(moved(name, masks_NHW) == 2, VOID)
    )


def test_no_masks_are_moved_to_none():
    for name in (*MOVING, "fog"):
        assert moved(name, torch.zeros(0, 8, 8, dtype=torch.uint8)).shape == (0, 8, 8)


@pytest.mark.parametrize("severity", [1, 5])
def test_zoom_is_a_vote_over_the_enlargements(severity):
    """Weights from enlarging a one by scipy, in a loop over classes; ties, which rounding decides, are left out."""
    size = 33
    masks_NHW = blobs(3, size, size)
    mask_NHW = moved("zoom_blur", masks_NHW, severity=severity)
    factors = zoom_factors(*parameters_of("zoom_blur", severity, parameter_set="cifar"))
    for before_HW, after_HW in zip(masks_NHW.numpy(), mask_NHW.numpy(), strict=True):
        weights_CHW = []
        for label in range(3):
            has_HW = (before_HW == label).astype(float)
            total_HW = has_HW.copy()
            for factor in factors:
                kept = int(np.ceil(size / factor))
                top = (size - kept) // 2
                part = has_HW[top : top + kept, top : top + kept]
                total_HW += ndimage.zoom(part, (factor, factor), order=1)[:size, :size]
            weights_CHW.append(total_HW / (len(factors) + 1))
        best_CHW = np.sort(weights_CHW, axis=0)
        # Ours are whole multiples of 2^-16, off by half of one for each of some thirty weights at most.
        is_clear_HW = best_CHW[-1] - best_CHW[-2] > 30 * 2.0**-16
        assert is_clear_HW.mean() > 0.95
        assert np.array_equal(after_HW[is_clear_HW], np.argmax(weights_CHW, axis=0)[is_clear_HW])


def test_tie_of_a_zoom_is_won_by_the_pixel_before():
    # A checkerboard far from the middle is blurred to halves; where both weigh the same, each pixel keeps its own.
    masks_NHW = (torch.arange(32)[:, None] + torch.arange(32)[None]).remainder(2).to(torch.uint8)[None]
    flipped = moved("zoom_blur", 1 - masks_NHW, severity=5)
    assert torch.equal(1 - flipped, moved("zoom_blur", masks_NHW, severity=5))


@pytest.mark.parametrize("name", ["elastic_transform", "elastic_simple"])
def test_elastic_takes_the_class_of_the_place_that_the_picture_is_taken_from(name):
    """The place is read off pictures of the columns' and of the rows' numbers, corrupted in floating point."""
    size, severity = 50, 5
    masks_NHW, ids = blobs(2, size, size), torch.tensor([4, 9])
    parameters = parameters_of(name, severity, parameter_set="cifar")
    draws = draw(name, severity, masks_NHW[:, None], ids, parameter_set="cifar")
    mask_NHW = moved(name, masks_NHW, severity=severity, ids=ids)
    number = torch.arange(size, dtype=torch.float32)
    places_N2HW = torch.stack([number.expand(size, size), number[:, None].expand(size, size)]).expand(2, 2, size, size)
    if name == "elastic_simple":
        places_N2HW = elastic._shift(
            places_N2HW, draws["fields"], (0.01 * size, 0.01 * size), parameters[0] * 0.005 * size
        )
    else:
        alpha, sigma, _ = parameters
        places_N2HW = elastic._warp(places_N2HW, draws["moves"])
        if alpha:
            places_N2HW = elastic._shift(places_N2HW, draws["fields"], (sigma, sigma), alpha)
    num_checked = 0
    for image in range(2):
        for row in range(8, size - 8):
            for column in range(8, size - 8):
                x, y = places_N2HW[image, :, row, column].tolist()
                inside = 1 <= x <= size - 2 and 1 <= y <= size - 2
                # Half way between two pixels either may be the nearest.
                if not inside or min(abs(x % 1 - 0.5), abs(y % 1 - 0.5)) < 1e-3:
                    continue
                num_checked += 1
                assert mask_NHW[image, row, column] == masks_NHW[image, round(y), round(x)]
    assert num_checked > 1500
