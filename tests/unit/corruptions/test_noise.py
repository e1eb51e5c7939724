"""The noises against the oracle with its draws, and the distribution of our own draws."""

# B images of a batch, C channels, H W height and width

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from raypruning.corruptions.corrupt import apply, corrupt, draw
from raypruning.corruptions.parameters import NUM_SEVERITIES, PARAMETER_SETS, parameters_of
from tests.unit.corruptions import oracle
from tests.unit.corruptions.parity import SIZES, difference, picture
from tests.unit.corruptions.replay_noise import REPLAYS

ALL_SEVERITIES = [
    (severity, parameter_set) for parameter_set in PARAMETER_SETS for severity in range(1, NUM_SEVERITIES + 1)
]
# The draws are fixed, so that a test passes always or never. Under the hypothesis, one of a thousand would fail.
LEAST_P = 1e-3


def _flat(level: int, *, num_images: int = 40) -> torch.Tensor:
    return torch.full((num_images, 3, 32, 32), level, dtype=torch.uint8)


@pytest.mark.parametrize("name", REPLAYS)
@pytest.mark.parametrize(("severity", "parameter_set"), ALL_SEVERITIES)
def test_noise_equals_the_oracle_with_its_draws(name: str, severity: int, parameter_set: str) -> None:
    oracle.require()
    sizes = (*SIZES, (224, 224)) if severity == 3 else (*SIZES, (28, 28))
    for size in sizes:
        found = difference(name, severity, picture(*size), REPLAYS[name], parameter_set=parameter_set)
        assert found.largest <= 1
        # Draws as float32 round a value across a whole level in about 1 of 10^5 cases, so in a few of 150528 values.
        assert found.share_equal > 0.9998


@pytest.mark.parametrize(("severity", "parameter_set"), ALL_SEVERITIES)
def test_shot_noise_draws_poisson_counts(severity: int, parameter_set: str) -> None:
    (photons,) = parameters_of("shot_noise", severity, parameter_set=parameter_set)
    for level in (1, 60, 255):
        images = _flat(level, num_images=10)
        draws = draw("shot_noise", severity, images, torch.arange(10), parameter_set=parameter_set)
        counts = draws["counts"].flatten().numpy()
        expected = stats.poisson.pmf(np.arange(counts.max() + 1), level / 255.0 * photons) * len(counts)
        # Chi-square wants at least some five expected in a class. The rare counts join the first common one.
        is_common = expected >= 5
        observed, expected = np.bincount(counts)[is_common], expected[is_common]
        observed[0] += len(counts) - observed.sum()
        expected[0] += len(counts) - expected.sum()
        assert stats.chisquare(observed, expected).pvalue > LEAST_P


@pytest.mark.parametrize("photons", [3, 500])
def test_shot_noise_gives_every_count_its_share_of_all_outcomes(photons: int) -> None:
    from raypruning.corruptions.noise import _poisson_aliases

    table = _poisson_aliases(photons, torch.device("cpu")).view(256, 256).long()
    for level in (0, 1, 17, 128, 255):
        low = torch.arange(256)[None, :]
        entries = table[level][:, None]
        is_alias = low >= 256 - (entries & 0x3FF)
        counts = torch.where(is_alias, entries >> 20, (entries >> 10) & 0x3FF)
        share = torch.bincount(counts.flatten()).numpy() / 65536
        expected = stats.poisson.pmf(np.arange(len(share)), level / 255.0 * photons)
        # A share is a difference of two numbers of outcomes, each rounded to a whole one.
        np.testing.assert_allclose(share, expected, rtol=0, atol=1 / 65536)


def test_shot_noise_of_black_is_black() -> None:
    images = _flat(0, num_images=2)
    assert torch.equal(corrupt("shot_noise", 5, images, torch.arange(2), parameter_set="imagenet"), images)


@pytest.mark.parametrize(("severity", "parameter_set"), ALL_SEVERITIES)
def test_impulse_noise_flips_its_amount_of_values_half_of_them_to_white(severity: int, parameter_set: str) -> None:
    (amount,) = parameters_of("impulse_noise", severity, parameter_set=parameter_set)
    found = corrupt("impulse_noise", severity, _flat(100), torch.arange(40), parameter_set=parameter_set)
    num_black, num_white = int((found == 0).sum()), int((found == 255).sum())
    assert num_black + num_white == int((found != 100).sum())
    # Binomial, four standard deviations: 6e-5 for each of two times ten tests. The amount itself is a multiple of
    # 2 / 65536, so it is off by up to 1.5e-5, here 2 of 122880 values.
    for num in (num_black, num_white):
        share = amount / 2
        assert abs(num - share * found.numel()) < 4 * np.sqrt(share * (1 - share) * found.numel()) + 2


@pytest.mark.parametrize("name", ["gaussian_noise", "speckle_noise"])
def test_normal_noise_has_its_standard_deviation(name: str) -> None:
    # So far from black and white that nothing is clipped: 4.33 sigma are 44 levels.
    found = corrupt(name, 1, _flat(128), torch.arange(40), parameter_set="cifar").double()
    (sigma,) = parameters_of(name, 1, parameter_set="cifar")
    expected = 255.0 * sigma if name == "gaussian_noise" else 128 * sigma
    # Truncation takes half a level off the mean and adds 1/12 to the variance. Four standard deviations.
    deviation = np.sqrt(expected**2 + 1 / 12)
    assert abs(float(found.mean()) - 127.5) < 4 * deviation / np.sqrt(found.numel())
    assert abs(float(found.std()) - deviation) < 4 * deviation / np.sqrt(2 * found.numel())


@pytest.mark.parametrize("name", REPLAYS)
def test_noise_of_an_image_is_the_same_alone_in_a_batch_and_in_threads(name: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (400, 3, 33, 47), dtype=np.uint8)
    images, ids = torch.from_numpy(noise), torch.arange(1000, 1400)
    together = corrupt(name, 3, images, ids, parameter_set="imagenet")
    for index in (0, 123, 399):
        part = slice(index, index + 1)
        assert torch.equal(corrupt(name, 3, images[part], ids[part], parameter_set="imagenet"), together[part])
    assert torch.equal(corrupt(name, 3, images, ids, parameter_set="imagenet", num_threads=2), together)


@pytest.mark.parametrize("name", REPLAYS)
def test_noise_leaves_its_arguments_as_they_were(name: str) -> None:
    images = torch.from_numpy(picture(32, 32).transpose(2, 0, 1).copy())[None]
    draws = draw(name, 3, images, torch.arange(1), parameter_set="cifar")
    first = apply(name, 3, images, draws, parameter_set="cifar")
    assert torch.equal(apply(name, 3, images, draws, parameter_set="cifar"), first)
    assert torch.equal(images[0], torch.from_numpy(picture(32, 32).transpose(2, 0, 1)))
