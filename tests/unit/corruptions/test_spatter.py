"""Spatter against the package, and the traps in its definition."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from raypruning.corruptions.corrupt import apply, corrupt, draw
from raypruning.corruptions.parameters import NUM_SEVERITIES, PARAMETER_SETS, parameters_of
from tests.unit.corruptions import oracle
from tests.unit.corruptions.parity import SIZES, compare, difference, ours, picture
from tests.unit.corruptions.replay_elastic import REPLAYS

SEVERITIES = range(1, NUM_SEVERITIES + 1)
SETS = pytest.mark.parametrize("parameter_set", PARAMETER_SETS)


def _batch(num: int, height: int, width: int) -> torch.Tensor:
    return torch.from_numpy(np.stack([picture(height, width, seed=k).transpose(2, 0, 1) for k in range(num)]))


@SETS
@pytest.mark.parametrize("size", [*SIZES, (224, 224)])
def test_spatter_agrees_with_the_package_given_its_draws(parameter_set: str, size: tuple[int, int]) -> None:
    oracle.require()
    for severity in SEVERITIES if size[0] < 224 else (1, 4):
        found = difference("spatter", severity, picture(*size), REPLAYS["spatter"], parameter_set=parameter_set)
        # Water is the same to the bit. The package adds mud's colour in float64, the generator of the published data
        # and we in float32: where the sum is nearly whole, they are truncated to either side of it.
        is_mud = parameters_of("spatter", severity, parameter_set=parameter_set)[-1]
        assert found.largest <= is_mud and found.share_equal >= 0.999, (severity, found)


def test_image_stays_as_it_is_where_no_liquid_is_left_but_is_black_in_the_package() -> None:
    oracle.require()
    image = picture(32, 32)
    draws = REPLAYS["spatter"](np.random.RandomState(81), image, ())
    parameters = parameters_of("spatter", 1, parameter_set="imagenet")
    location, scale, sigma, threshold = parameters[:4]
    liquid = gaussian_filter(location + scale * draws["liquid"][0].numpy(), sigma, mode="nearest")
    assert liquid.max() < threshold
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # it divides by zero
        assert oracle.reference("spatter", 1, image, seed=81, parameter_set="imagenet").max() == 0
    assert np.array_equal(ours("spatter", 1, image, draws, parameter_set="imagenet"), image)


@SETS
def test_every_level_stays_where_nothing_falls(parameter_set: str) -> None:
    image = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2).repeat(2, axis=0).repeat(2, axis=1)
    # Far below the threshold everywhere.
    draws = {"liquid": torch.full((1, 32, 32), -3.0)}
    for severity in SEVERITIES:
        assert np.array_equal(ours("spatter", severity, image, draws, parameter_set=parameter_set), image)


def test_liquid_beyond_one_wraps_around_as_in_the_package() -> None:
    oracle.require()
    image = picture(32, 32)
    location, scale, sigma = parameters_of("spatter", 3, parameter_set="cifar")[:3]
    # One image in six has such a place.
    for seed in (3, 5, 8):
        draws = REPLAYS["spatter"](np.random.RandomState(seed), image, ())
        liquid = gaussian_filter(location + scale * draws["liquid"][0].numpy(), sigma, mode="nearest")
        assert liquid.max() * 255 >= 256
        expected = oracle.reference("spatter", 3, image, seed=seed, parameter_set="cifar")
        assert compare(ours("spatter", 3, image, draws, parameter_set="cifar"), expected).largest == 0


@pytest.mark.parametrize("border", [20, 0])
def test_puddle_wider_than_its_edges_reach_agrees_with_the_package(
    border: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    oracle.require()
    # Random draws make no puddle whose middle is 20 px from its edges, where distances end. Without a border all
    # of the image is one puddle that has no edge.
    image = picture(90, 100)
    liquid = np.full((90, 100), -2.0)
    # Level 205.1: not a whole number, which rounding errors would put on either side.
    liquid[border : 90 - border, border : 100 - border] = 0.515
    monkeypatch.setattr(np.random, "normal", lambda size, loc, scale: loc + scale * liquid)
    expected = oracle.reference("spatter", 3, image, seed=0, parameter_set="imagenet")
    draws = {"liquid": torch.from_numpy(liquid)[None]}
    found = ours("spatter", 3, image, draws, parameter_set="imagenet")
    assert compare(found, expected).largest == 0 and not np.array_equal(found, image)


@SETS
def test_image_comes_out_the_same_alone_in_any_batch_and_any_order(parameter_set: str) -> None:
    images, ids = _batch(50, 32, 37), torch.arange(50)
    for severity in (1, 3, 5):
        together = corrupt("spatter", severity, images, ids, parameter_set=parameter_set)
        backwards = corrupt("spatter", severity, images.flip(0), ids.flip(0), parameter_set=parameter_set)
        assert torch.equal(backwards.flip(0), together)
        for start, stop in ((0, 1), (49, 50), (20, 27)):
            few = corrupt("spatter", severity, images[start:stop], ids[start:stop], parameter_set=parameter_set)
            assert torch.equal(few, together[start:stop])


@SETS
def test_own_draws_spatter_about_as_much_as_those_of_the_package(parameter_set: str) -> None:
    oracle.require()
    image = picture(32, 32)
    num = 200
    images = torch.from_numpy(image.transpose(2, 0, 1).copy()).expand(num, -1, -1, -1).contiguous()
    for severity in (2, 4):
        found = corrupt("spatter", severity, images, torch.arange(num), parameter_set=parameter_set).numpy()
        expected = np.empty_like(found)
        for seed in range(num):
            reference = oracle.reference("spatter", severity, image, seed=1000 + seed, parameter_set=parameter_set)
            expected[seed] = reference.transpose(2, 0, 1)
        # By image: how much of it is changed. Equal means within four standard errors of their difference.
        ours_N, theirs_N = ((spattered != images.numpy()).mean(axis=(1, 2, 3)) for spattered in (found, expected))
        error = np.sqrt((ours_N.var() + theirs_N.var()) / num)
        assert abs(ours_N.mean() - theirs_N.mean()) < 4 * error


def test_applying_leaves_images_and_draws_as_they_were() -> None:
    images = _batch(3, 28, 28)
    for severity in (1, 5):
        draws = draw("spatter", severity, images, torch.arange(3), parameter_set="cifar")
        before = images.clone(), draws["liquid"].clone()
        apply("spatter", severity, images, draws, parameter_set="cifar")
        assert torch.equal(images, before[0]) and torch.equal(draws["liquid"], before[1])


def test_grey_images_stay_grey() -> None:
    grey = _batch(4, 28, 28)[:, :1]
    found = corrupt("spatter", 4, grey, torch.arange(4), parameter_set="cifar")
    assert found.shape == grey.shape and not torch.equal(found, grey)
