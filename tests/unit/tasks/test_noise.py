"""Uniform noise: its distribution, and one fixed draw for each image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from raypruning.errors import SpecError, UnknownNameError
from raypruning.tasks.noise import uniform_draws
from raypruning.tasks.task import resolve_task

IDS = torch.arange(200)
ZEROS = torch.zeros(200, 3, 8, 8)


def normalised(epsilon: str, images_NCHW=ZEROS, ids_N=IDS):
    return resolve_task(f"noise/uniform/{epsilon}").on_normalised(images_NCHW, ids_N)


def pixels(levels: str, images_NCHW=ZEROS, ids_N=IDS):
    return resolve_task(f"noise/uniform_pixel/{levels}").on_pixels(images_NCHW, ids_N)


def test_draws_are_uniform_between_minus_one_and_one():
    draws = uniform_draws(ZEROS, IDS).flatten().double().numpy()
    assert draws.min() >= -1 and draws.max() <= 1
    # The draws are fixed, so this cannot fail by luck: only another way to draw can make it, once in a thousand times.
    assert stats.kstest(draws, stats.uniform(-1, 2).cdf).pvalue > 0.001


def test_draws_of_one_image_do_not_follow_from_those_before():
    draws_NK = uniform_draws(ZEROS, IDS).flatten(1).double().numpy()
    neighbours = np.corrcoef(draws_NK[:, :-1].ravel(), draws_NK[:, 1:].ravel())[0, 1]
    # 38 000 pairs of independent numbers correlate by 1 / sqrt(38 000) = 0.005; four of these.
    assert abs(neighbours) < 0.02


def test_draws_at_one_place_do_not_follow_from_those_of_the_image_before():
    draws_NK = uniform_draws(ZEROS, IDS).flatten(1).double().numpy()
    assert abs(np.corrcoef(draws_NK[:-1].ravel(), draws_NK[1:].ravel())[0, 1]) < 0.02  # as above


def test_no_two_images_have_the_same_noise():
    assert len({image.numpy().tobytes() for image in uniform_draws(ZEROS, IDS)}) == len(IDS)


def test_draws_are_the_recorded_ones():
    # Stored evaluations hold errors on these very images; another draw needs another version of the tasks.
    draws = uniform_draws(torch.zeros(2, 1, 1, 2), torch.tensor([0, 9_999])).flatten().double()
    assert (draws * 2**24).tolist() == [337211, 702585, -14696855, 5055195]


@pytest.mark.parametrize("corrupted", [normalised, pixels])
def test_image_gets_the_same_noise_whatever_the_batch_and_its_order(corrupted):
    images_NCHW = torch.rand(200, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    whole = corrupted("0.5", images_NCHW)
    order = torch.randperm(200, generator=torch.Generator().manual_seed(1))
    assert torch.equal(corrupted("0.5", images_NCHW[order], IDS[order]), whole[order])
    assert torch.equal(corrupted("0.5", images_NCHW[7:8], IDS[7:8]), whole[7:8])


def test_image_gets_the_same_noise_in_channels_last_memory():
    images_NCHW = torch.rand(200, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(
        normalised("0.5", images_NCHW.to(memory_format=torch.channels_last)), normalised("0.5", images_NCHW)
    )


def test_noise_scales_exactly_with_the_amplitude():
    # Powers of two, whose products are not rounded.
    assert torch.equal(normalised("0.5") * 4, normalised("2"))
    assert normalised("0.1").abs().max() <= 0.1


def test_noise_in_normalised_space_is_added_and_not_clipped():
    noise = normalised("2")
    assert noise.min() < -1.9 and noise.max() > 1.9
    # Sums of 24-bit numbers below 4: rounded at most by half of 2^-21.
    assert torch.allclose(normalised("2", torch.ones_like(ZEROS)) - 1, noise, rtol=0, atol=2**-22)


def test_noise_in_pixels_is_counted_in_grey_levels_of_255():
    grey = torch.full_like(ZEROS, 0.5)
    change = (pixels("8", grey) - grey) * 255
    # Rounded near .5 by 2^-25, times 255.
    assert 7.99 < change.abs().max() <= 8 + 255 * 2**-24


def test_noise_in_pixels_stays_in_the_range_of_pixels():
    images_NCHW = torch.rand(200, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    noisy = pixels("128", images_NCHW)
    assert noisy.min() == 0 and noisy.max() == 1


def test_both_noises_are_the_same_draws():
    assert torch.allclose(pixels("255", torch.full_like(ZEROS, 0.5)), (normalised("1") + 0.5).clamp(0, 1))


def test_noise_leaves_the_images_it_was_given_alone():
    images_NCHW = torch.rand(200, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    before = images_NCHW.clone()
    normalised("1", images_NCHW)
    pixels("8", images_NCHW)
    assert torch.equal(images_NCHW, before)


@pytest.mark.parametrize("family", ["noise/uniform/", "noise/uniform_pixel/"])
@pytest.mark.parametrize("argument", ["", "a", "0", "-1", "nan", "inf", "1e9", "0.1/2"])
def test_amplitude_that_is_no_positive_number_is_refused_with_an_example(family, argument):
    with pytest.raises(SpecError) as caught:
        resolve_task(family + argument)
    message = str(caught.value)
    assert message == f"task {family}{argument}: what follows {family} must be a positive number, such as {family}0.1"


def test_noise_of_an_unknown_kind_is_refused_with_a_near_name():
    with pytest.raises(UnknownNameError, match=r"no task is called 'noise/unifrom/0.1': did you mean noise/uniform/"):
        resolve_task("noise/unifrom/0.1")
