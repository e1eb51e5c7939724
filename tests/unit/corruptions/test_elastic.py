"""Elastic transforms: that of the package against it, that of the published data against its definition."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from raypruning.corruptions.corrupt import apply, corrupt, draw
from raypruning.corruptions.parameters import NUM_SEVERITIES, PARAMETER_SETS, parameters_of
from tests.unit.corruptions import oracle
from tests.unit.corruptions.parity import SIZES, compare, difference, ours, picture
from tests.unit.corruptions.replay_elastic import REPLAYS, affine_warp, corner_points, transform_draws, transformed

SEVERITIES = range(1, NUM_SEVERITIES + 1)
SETS = pytest.mark.parametrize("parameter_set", PARAMETER_SETS)
NAMES = pytest.mark.parametrize("name", ["elastic_transform", "elastic_simple"])
# Truncation: what is a whole number but for rounding errors may fall to either side. Nothing else differs by a level.
LARGEST, SHARE_EQUAL = 1, 0.99


def _batch(num: int, height: int, width: int) -> torch.Tensor:
    return torch.from_numpy(np.stack([picture(height, width, seed=k).transpose(2, 0, 1) for k in range(num)]))


@pytest.mark.parametrize("size", [*SIZES, (224, 224)])
def test_simple_agrees_with_the_package_given_its_draws(size: tuple[int, int]) -> None:
    oracle.require()
    for severity in SEVERITIES if size[0] < 224 else (1, 5):
        # The two sets have the same constants for it.
        found = difference("elastic_simple", severity, picture(*size), REPLAYS["elastic_simple"], parameter_set="cifar")
        assert found.largest <= LARGEST and found.share_equal >= SHARE_EQUAL, (severity, found)


@SETS
@pytest.mark.parametrize("size", [*SIZES, (28, 28), (224, 224)])
def test_transform_agrees_with_its_definition_given_the_same_draws(parameter_set: str, size: tuple[int, int]) -> None:
    # Severity 1 of the imagenet set smooths with a sigma of 171 px: beyond any of these images, mirrored many times.
    image = picture(*size)
    for severity in SEVERITIES if size[0] < 224 else (1, 2, 5):
        parameters = parameters_of("elastic_transform", severity, parameter_set=parameter_set)
        draws = transform_draws(np.random.RandomState(7), image, parameters)
        found = ours("elastic_transform", severity, image, draws, parameter_set=parameter_set)
        gap = compare(found, transformed(image, draws, parameters))
        assert gap.largest <= LARGEST and gap.share_equal >= SHARE_EQUAL, (severity, gap)


@pytest.mark.parametrize(("size", "jitter"), [((32, 32), 2.56), ((33, 47), 2.5), ((224, 224), 48.8), ((64, 40), 6.0)])
def test_definition_of_the_affine_part_is_what_opencv_computes(size: tuple[int, int], jitter: float) -> None:
    if int(cv2.__version__.split(".")[0]) < 5:
        pytest.skip("OpenCV 4 rounds places to 1/32 px")
    image = picture(*size).astype(np.float32) / np.float32(255)
    rng = np.random.default_rng(0)
    for _ in range(5):
        moves = rng.uniform(-jitter, jitter, size=(3, 2))
        matrix = cv2.getAffineTransform(*corner_points(*size, moves))
        expected = cv2.warpAffine(image, matrix, size[::-1], borderMode=cv2.BORDER_REFLECT_101)
        # Float32 places: within some 1e-4 px of ours at 224 px, times at most 255 levels per pixel.
        assert np.abs(affine_warp(image, moves) - expected).max() * 255 < 0.05


def test_transform_interpolates_twice_when_the_field_undoes_the_affine_part() -> None:
    image = picture(32, 32)
    parameters = parameters_of("elastic_transform", 5, parameter_set="cifar")
    # Half a pixel to the right, and constant fields, which smoothing keeps, half a pixel back.
    fields = torch.zeros(1, 2, 32, 32, dtype=torch.float64)
    fields[:, 0] = 0.5 / parameters[0]
    draws = {"moves": torch.tensor([[[0.5, 0.0]] * 3], dtype=torch.float64), "fields": fields}
    found = ours("elastic_transform", 5, image, draws, parameter_set="cifar").astype(int)
    values = image.astype(float)
    twice = (values[:, :-2] + 2 * values[:, 1:-1] + values[:, 2:]) / 4
    # Quarters are exact but for rounding errors, so that a whole number may be truncated to the one below.
    assert np.abs(found[:, 1:-1] - np.floor(twice)).max() <= 1
    assert np.abs(found - image).max() > 10


@NAMES
@SETS
def test_flat_image_keeps_its_level_at_every_severity(name: str, parameter_set: str) -> None:
    levels = torch.arange(256, dtype=torch.uint8).view(256, 1, 1, 1).expand(256, 1, 28, 30).contiguous()
    for severity in SEVERITIES:
        found = corrupt(name, severity, levels, torch.arange(256), parameter_set=parameter_set)
        assert torch.equal(found, levels)


@NAMES
@SETS
def test_image_comes_out_the_same_alone_in_any_batch_and_any_order(name: str, parameter_set: str) -> None:
    images, ids = _batch(50, 32, 37), torch.arange(50)
    for severity in (1, 2, 5):
        together = corrupt(name, severity, images, ids, parameter_set=parameter_set)
        backwards = corrupt(name, severity, images.flip(0), ids.flip(0), parameter_set=parameter_set)
        assert torch.equal(backwards.flip(0), together)
        for start, stop in ((0, 1), (49, 50), (20, 27)):
            few = corrupt(name, severity, images[start:stop], ids[start:stop], parameter_set=parameter_set)
            assert torch.equal(few, together[start:stop])


@NAMES
def test_applying_leaves_images_and_draws_as_they_were(name: str) -> None:
    images = _batch(3, 28, 28)
    for severity in SEVERITIES:
        # At 28 px the simple fields are hardly smoothed, those of severity 1 of the other are not at all.
        draws = draw(name, severity, images, torch.arange(3), parameter_set="cifar")
        before = images.clone(), {key: value.clone() for key, value in draws.items()}
        apply(name, severity, images, draws, parameter_set="cifar")
        assert torch.equal(images, before[0])
        assert all(torch.equal(value, before[1][key]) for key, value in draws.items())


@NAMES
def test_grey_image_is_what_each_channel_of_three_would_be(name: str) -> None:
    grey = _batch(4, 32, 32)[:, :1]
    alone = corrupt(name, 4, grey, torch.arange(4), parameter_set="cifar")
    three = corrupt(name, 4, grey.expand(-1, 3, -1, -1), torch.arange(4), parameter_set="cifar")
    assert torch.equal(three, alone.expand(-1, 3, -1, -1))


def test_points_moved_onto_a_line_leave_some_image() -> None:
    image = picture(32, 32)
    parameters = parameters_of("elastic_transform", 1, parameter_set="cifar")
    points, _ = corner_points(32, 32, np.zeros((3, 2)))
    # All three onto the last: no affine map does that.
    draws = {"moves": torch.from_numpy(points[2] - points)[None].to(torch.float64)}
    found = ours("elastic_transform", 1, image, draws, parameter_set="cifar")
    assert parameters[0] == 0 and (found == found[:1, :1]).all()


def test_draws_depend_on_the_id_alone_and_lie_within_their_bounds() -> None:
    images = _batch(200, 28, 28)
    for severity in SEVERITIES:
        jitter = parameters_of("elastic_transform", severity, parameter_set="cifar")[2]
        draws = draw("elastic_transform", severity, images, torch.arange(200), parameter_set="cifar")
        some = draw("elastic_transform", severity, images[:1] // 2, torch.tensor([70]), parameter_set="cifar")
        assert all(torch.equal(value[70:71], some[key]) for key, value in draws.items())
        # 1200 uniform draws come this close to their bounds but for a chance of 1e-20.
        assert 0.96 * jitter < draws["moves"].abs().max() < jitter
        assert severity == 1 or 0.99 < draws["fields"].abs().max() < 1
