"""Draws by counter: they depend on key, label and id alone, are unrelated otherwise, and are distributed as named."""

# B images of a batch, K values of an image

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from raypruning.corruptions.stream import Stream

# The draws are fixed, so that a test passes always or never. Under the hypothesis, one of a thousand would fail.
LEAST_P = 1e-3
# Of a correlation of n pairs, times the square root of n: two-sided normal quantile of 1e-4, for some ten comparisons.
MOST_SIGMAS = 3.9


def _stream(num_images: int, *, key: str = "key") -> Stream:
    return Stream(key, torch.arange(num_images))


def _bytes(bits: Tensor) -> np.ndarray:
    return bits.contiguous().view(torch.uint8).flatten().numpy()


def _p_of_even_bytes(values: np.ndarray) -> float:
    return float(stats.chisquare(np.bincount(values, minlength=256)).pvalue)


def _assert_unrelated(left: Tensor, right: Tensor) -> None:
    """Neither the numbers nor any of their bits are correlated, and their xor has even bytes."""
    left, right = left.flatten(), right.flatten()
    limit = MOST_SIGMAS / np.sqrt(len(left))
    assert abs(np.corrcoef(left.double().numpy(), right.double().numpy())[0, 1]) < limit
    differing = (((left ^ right)[:, None] >> torch.arange(32, dtype=torch.int32)) & 1).double().mean(0)
    # Of 32 shares; a share has standard deviation 1 / (2 sqrt n).
    assert float((differing - 0.5).abs().max()) < limit / 2
    assert _p_of_even_bytes(_bytes(left ^ right)) > LEAST_P


def test_draws_of_an_image_do_not_depend_on_the_batch_or_its_order() -> None:
    ids = torch.tensor([5, 0, 2**31 - 1, 77, 5])
    stream = Stream("key", ids)
    for draw in (
        lambda of: of.bits("label", 3, 5),
        lambda of: of.bits16("label", 3, 5),
        lambda of: of.uniform("label", 3, 5),
        lambda of: of.normal("label", 3, 5),
        lambda of: of.integers("label", 3, 5, low=-2, high=9),
    ):
        together = draw(stream)
        assert together.shape == (5, 3, 5)
        assert torch.equal(together[0], together[4])
        for index in range(5):
            assert torch.equal(draw(Stream("key", ids[index : index + 1]))[0], together[index])
        assert torch.equal(draw(Stream("key", ids.flip(0))).flip(0), together)


def test_draws_with_no_shape_are_one_an_image() -> None:
    stream = _stream(7)
    assert stream.bits("label").shape == stream.bits16("label").shape == stream.uniform("label").shape == (7,)


def test_draws_of_two_labels_keys_ids_or_positions_are_unrelated() -> None:
    bits = _stream(64).bits("label", 1024)
    _assert_unrelated(bits, _stream(64).bits("other", 1024))
    _assert_unrelated(bits, _stream(64, key="other").bits("label", 1024))
    _assert_unrelated(bits[:-1], bits[1:])
    _assert_unrelated(bits[::2], bits[1::2])
    _assert_unrelated(bits[:32], bits[32:])
    _assert_unrelated(bits[:, :-1], bits[:, 1:])
    _assert_unrelated(bits[:, :512], bits[:, 512:])
    _assert_unrelated(bits[:-1, 1:], bits[1:, :-1])


def test_halves_of_a_word_are_unrelated() -> None:
    halves = _stream(64).bits16("label", 1024, 2)
    left, right = halves[..., 0].flatten(), halves[..., 1].flatten()
    assert abs(np.corrcoef(left.double().numpy(), right.double().numpy())[0, 1]) < MOST_SIGMAS / np.sqrt(len(left))


def test_no_two_of_a_million_images_and_positions_share_more_words_than_chance_has_it() -> None:
    bits = _stream(1000).bits("label", 1000)
    num_equal = bits.numel() - len(bits.flatten().unique())
    # Pairs over 2^32: Poisson with mean 116, whose quantile of 1e-4 is some 4 standard deviations up.
    assert num_equal <= stats.poisson.isf(1e-4, bits.numel() ** 2 / 2 / 2**32)


def test_bits_have_even_bytes_for_one_image_and_for_one_position() -> None:
    assert _p_of_even_bytes(_bytes(_stream(300).bits("label", 300))) > LEAST_P
    assert _p_of_even_bytes(_bytes(_stream(1).bits("label", 100_000))) > LEAST_P
    assert _p_of_even_bytes(_bytes(_stream(100_000).bits("label", 1))) > LEAST_P


def test_bits_of_which_one_of_the_id_changes_change_by_half() -> None:
    before = Stream("key", torch.arange(2000)).bits("label", 2)
    for place in range(31):
        after = Stream("key", torch.arange(2000) ^ (1 << place)).bits("label", 2)
        differing = (((before ^ after)[..., None] >> torch.arange(32, dtype=torch.int32)) & 1).double().mean((0, 1))
        # 31 x 32 shares of 4000 bits: standard deviation 0.0079, and 4.9 of them leave 1e-3 for all together. Where the
        # ids of both sides are the same set, pairs occur twice, which is another factor of sqrt 2.
        assert float((differing - 0.5).abs().max()) < 4.9 * 0.0079 * np.sqrt(2)


@pytest.mark.parametrize("odd", [False, True])
def test_bits16_are_even_from_0_to_65535(odd: bool) -> None:
    bits = _stream(300).bits16("label", 1001 if odd else 1000)
    assert bits.dtype == torch.int32
    assert int(bits.min()) >= 0 and int(bits.max()) < 1 << 16
    assert stats.chisquare(torch.bincount(bits.flatten() >> 6).numpy()).pvalue > LEAST_P
    assert stats.chisquare(torch.bincount(bits.flatten() & 0x3FF).numpy()).pvalue > LEAST_P


def test_uniform_draws_are_even_between_their_bounds() -> None:
    values = _stream(100).uniform("label", 1000, low=-45.0, high=45.0).flatten().numpy()
    assert values.dtype == np.float64 and values.min() > -45.0 and values.max() < 45.0
    assert stats.kstest(values, stats.uniform(-45.0, 90.0).cdf).pvalue > LEAST_P


def test_normal_draws_are_normal() -> None:
    values = _stream(100).normal("label", 1000).flatten()
    assert values.dtype == torch.float32
    assert stats.kstest(values.double().numpy(), stats.norm.cdf).pvalue > LEAST_P


def test_normal_draws_have_the_variance_that_their_table_leaves() -> None:
    values = _stream(1000).normal("label", 1000).double()
    # The table's own variance is 1 - 3e-5; a million draws give standard deviations of 1e-3 and 1.4e-3.
    assert abs(float(values.mean())) < 4e-3
    assert abs(float(values.var()) - 1.0) < 4 * 1.4e-3


@pytest.mark.parametrize(("low", "high"), [(-2, 2), (0, 5), (3, 4), (0, 1000)])
def test_integers_are_even_from_low_to_below_high(low: int, high: int) -> None:
    values = _stream(100).integers("label", 1000, low=low, high=high).flatten()
    counts = torch.bincount(values - low, minlength=high - low).numpy()
    assert len(counts) == high - low
    assert high - low == 1 or stats.chisquare(counts).pvalue > LEAST_P
