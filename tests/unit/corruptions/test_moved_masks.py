"""Masks under corruptions against the pictures they belong to, scipy, and a loop over pixels."""

# N images, H W height and width

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from raypruning.corruptions.corrupt import corrupt, draw
from raypruning.corruptions.moved_masks import move_masks
from raypruning.corruptions.parameters import NAMES, VARIANTS, parameters_of
from raypruning.corruptions.zoom import zoom_factors
from tests.unit.corruptions.replay_elastic import corner_points

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


def shifted_places(fields_2HW: np.ndarray, sigma: tuple[float, float], alpha: float) -> np.ndarray:
    """Rows and columns, (2, H, W), that pixels are taken from; the fields are those of x and of y."""
    dx, dy = (ndimage.gaussian_filter(field, sigma, mode="reflect", truncate=3) * alpha for field in fields_2HW)
    return np.mgrid[0 : dx.shape[0], 0 : dx.shape[1]] + np.stack([dy, dx])


def affine_source(height: int, width: int, moves_32: np.ndarray) -> np.ndarray:
    """Terms (2, 3) of the x and of the y that a pixel is taken from: of x, of y, and the constant."""
    points, after = corner_points(height, width, moves_32)
    return np.linalg.solve(np.hstack([after.astype(float), np.ones((3, 1))]), points.astype(float)).T


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


@pytest.mark.parametrize("name", ["elastic_transform", "elastic_simple"])
def test_masks_of_many_chunks_are_moved_each_by_its_own_id(name):
    # A chunk is at most 2 MiB of float32: 128 masks of 64 px.
    masks_NHW, ids = blobs(2, 64, 64).repeat(150, 1, 1), torch.arange(300).flip(0)
    whole_NHW = moved(name, masks_NHW, ids=ids)
    assert whole_NHW.shape == masks_NHW.shape
    for index in (0, 63, 64, 127, 128, 255, 256, 299):
        alone_NHW = moved(name, masks_NHW[index : index + 1], ids=ids[index : index + 1])
        assert torch.equal(whole_NHW[index], alone_NHW[0]), index


@pytest.mark.parametrize("name", ["elastic_transform", "elastic_simple"])
def test_mask_follows_the_picture_of_the_same_key(name):
    masks_NHW, ids = blobs(3, 64, 64), torch.arange(3)
    mask_NHW = move_masks(name, 3, masks_NHW, ids, parameter_set="cifar", key="train")
    picture_N1HW = (masks_NHW * 100)[:, None]
    shares = {}
    for key in ("train", "test"):
        after_N1HW = corrupt(name, 3, picture_N1HW, ids, parameter_set="cifar", key=key)
        # Half way between levels at most: the class that the picture shows.
        shown_NHW = ((after_N1HW[:, 0].to(torch.int64) + 50) // 100).to(torch.uint8)
        shares[key] = (shown_NHW == mask_NHW).float().mean()
    assert shares["train"] > 0.97 > shares["test"]


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


@pytest.mark.parametrize(("height", "width"), [(33, 33), (33, 46)])
@pytest.mark.parametrize("severity", [1, 5])
def test_zoom_is_a_vote_over_the_enlargements(severity, height, width):
    """Weights from enlarging a one by scipy, in a loop over classes; ties, which rounding decides, are left out."""
    masks_NHW = blobs(3, height, width)
    mask_NHW = moved("zoom_blur", masks_NHW, severity=severity)
    factors = zoom_factors(*parameters_of("zoom_blur", severity, parameter_set="cifar"))
    for before_HW, after_HW in zip(masks_NHW.numpy(), mask_NHW.numpy(), strict=True):
        weights_CHW = []
        for label in range(3):
            has_HW = (before_HW == label).astype(float)
            total_HW = has_HW.copy()
            for factor in factors:
                rows, columns = (
                    slice((size - kept) // 2, (size - kept) // 2 + kept)
                    for size, kept in ((size, int(np.ceil(size / factor))) for size in (height, width))
                )
                total_HW += ndimage.zoom(has_HW[rows, columns], factor, order=1)[:height, :width]
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


def test_tie_of_a_zoom_between_other_classes_is_won_by_the_lowest():
    """Seen by reversing the order of the classes, which changes the result at such ties alone."""
    # Sixteen of 131072 pixels: of fewer classes, or smaller masks, hardly any.
    masks_NHW = torch.from_numpy(np.random.default_rng(0).integers(0, 32, (8, 128, 128)).astype(np.uint8))
    first_NHW = moved("zoom_blur", masks_NHW, severity=5)
    second_NHW = 255 - moved("zoom_blur", 255 - masks_NHW, severity=5)
    is_tie_NHW = first_NHW != second_NHW
    assert is_tie_NHW.any()
    assert (first_NHW < second_NHW)[is_tie_NHW].all()
    assert ((masks_NHW != first_NHW) & (masks_NHW != second_NHW))[is_tie_NHW].all()


@pytest.mark.parametrize(("height", "width"), [(50, 50), (33, 47)])
@pytest.mark.parametrize("severity", [1, 5])
@pytest.mark.parametrize("name", ["elastic_transform", "elastic_simple"])
def test_elastic_takes_the_class_nearest_to_the_place_that_the_picture_is_taken_from(name, severity, height, width):
    """Places and classes by scipy, borders included; but for what lies half way, where either may be the nearest."""
    masks_NHW, ids = blobs(3, height, width), torch.tensor([4, 9, 2])
    parameters = parameters_of(name, severity, parameter_set="cifar")
    draws = draw(name, severity, masks_NHW[:, None], ids, parameter_set="cifar")
    mask_NHW = moved(name, masks_NHW, severity=severity, ids=ids)
    for image in range(3):
        of_image = {key: values[image].numpy() for key, values in draws.items()}
        if name == "elastic_simple":
            factors = (0.01 * height, 0.01 * width), parameters[0] * 0.005 * height
            places_2HW, boundary = shifted_places(of_image["fields"], *factors), "reflect"
        else:
            alpha, sigma, _ = parameters
            rows_HW, columns_HW = np.mgrid[0:height, 0:width].astype(float)
            source_23 = affine_source(height, width, of_image["moves"])
            places_2HW = np.stack([k[0] * columns_HW + k[1] * rows_HW + k[2] for k in source_23[::-1]])
            boundary = "mirror"  # Scipy's name for one about the border pixels.
            if alpha:
                through_2HW = shifted_places(of_image["fields"], (sigma, sigma), alpha)
                places_2HW = np.stack(
                    [ndimage.map_coordinates(place, through_2HW, order=1, mode="reflect") for place in places_2HW]
                )
        expected_HW = ndimage.map_coordinates(masks_NHW[image].numpy(), places_2HW, order=0, mode=boundary)
        is_clear_HW = (np.abs(places_2HW % 1 - 0.5) > 1e-3).all(axis=0)
        assert is_clear_HW.mean() > 0.98
        assert np.array_equal(mask_NHW[image].numpy()[is_clear_HW], expected_HW[is_clear_HW])
