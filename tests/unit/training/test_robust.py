"""Robust training: what an access to an image sees."""

# B images of a batch

from __future__ import annotations

import numpy as np
import pytest
import torch

from raypruning.corruptions.corrupt import corrupt
from raypruning.corruptions.mixes import MIXES, expand_mixes
from raypruning.corruptions.parameters import NAMES
from raypruning.datasets.base import ImageArrays
from raypruning.errors import UnknownNameError
from raypruning.training.images import ResidentImages
from raypruning.training.robust import corrupt_at_random
from raypruning.training.streaming import StreamedImages

CPU = torch.device("cpu")
NOISES = ("gaussian_noise", "impulse_noise")
NUM = 3000


@pytest.fixture(scope="module")
def images_NCHW() -> torch.Tensor:
    return torch.full((NUM, 1, 8, 8), 128, dtype=torch.uint8)


def test_an_image_is_clean_one_time_in_six_and_otherwise_under_each_corruption_as_often(images_NCHW):
    seen = corrupt_at_random(images_NCHW, torch.arange(NUM), names=NOISES, seed=0)
    num_clean = int((seen == images_NCHW).flatten(1).all(1).sum())
    is_impulse_B = ((seen == 128) | (seen == 0) | (seen == 255)).flatten(1).all(1)
    # Salt and pepper at 1 to 7 % leaves 64 values untouched more or less often: 0.99^64 = 0.53, 0.28, 0.14, 0.04, 0.01.
    share_untouched = (0.53 + 0.28 + 0.14 + 0.04 + 0.01) / 5
    expected = NUM * (1 / 6 + 5 / 6 / 2 * share_untouched)
    assert abs(num_clean - expected) < 4 * np.sqrt(expected)  # Four standard deviations of a Poisson count.
    assert abs(int(is_impulse_B.sum()) - NUM * (1 / 6 + 5 / 12)) < 4 * np.sqrt(NUM / 4)


def test_what_an_access_sees_depends_on_its_place_and_epoch_alone(images_NCHW):
    whole = corrupt_at_random(images_NCHW, torch.arange(NUM), names=NOISES, seed=0)
    places = torch.tensor([2999, 7, 1500])
    assert torch.equal(corrupt_at_random(images_NCHW[:3], places, names=NOISES, seed=0), whole[places])
    other = corrupt_at_random(images_NCHW, torch.arange(NUM), names=NOISES, seed=1)
    differs = (whole != other).flatten(1).any(1)
    assert differs.float().mean() > 0.8, "the next epoch draws anew"


def test_training_draws_are_not_those_of_the_test_set(images_NCHW):
    ids = torch.arange(50)
    drawn = [
        corrupt("gaussian_noise", 3, images_NCHW[:50], ids, parameter_set="cifar", key=key)
        for key in ("test", "train/0")
    ]
    assert (drawn[0] != drawn[1]).float().mean() > 0.5


@pytest.mark.parametrize("batch_size", [7, 64])
def test_batches_are_corrupted_alike_from_memory_and_from_disk(batch_size: int):
    random = np.random.default_rng(0)
    split = ImageArrays(
        images_NCHW=random.integers(0, 256, (200, 3, 8, 8), dtype=np.uint8), labels_N=np.zeros(200, np.int64)
    )
    order = torch.randperm(200, generator=torch.Generator().manual_seed(1))
    read = [
        torch.cat(
            [
                batch.pixels_BCHW
                for batch in images.read(order, batch_size=batch_size, augmentation="none", seed=5, corruptions=NOISES)
            ]
        )
        for images in (ResidentImages(split, CPU), StreamedImages(split, CPU))
    ]
    expected = corrupt_at_random(torch.from_numpy(split.images_NCHW)[order], torch.arange(200), names=NOISES, seed=5)
    assert torch.equal(read[0], expected.float() / 255) and torch.equal(read[1], read[0])


def test_mixes_are_the_studys_nine_and_ten():
    assert len(MIXES["mix1"]) == 9 and len(MIXES["mix2"]) == 10
    assert set(MIXES["mix1"]) | set(MIXES["mix2"]) == set(NAMES)
    assert expand_mixes(["fog", "mix1"]) == tuple(name for name in NAMES if name in (*MIXES["mix1"], "fog"))


def test_a_mix_that_does_not_exist_is_refused():
    with pytest.raises(UnknownNameError, match="no corruption is called 'mix3': did you mean mix"):
        expand_mixes(["mix3"])
