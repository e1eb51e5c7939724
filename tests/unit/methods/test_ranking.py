"""The order among scores: exact counts, ties, NaN."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from raypruning.errors import MethodError
from raypruning.methods import ranking
from raypruning.methods.ranking import keep_highest, removal_order

scores = st.lists(
    st.sampled_from([-math.inf, -1.5, -0.0, 0.0, 0.25, 0.25, 3.0, math.inf]) | st.floats(-2, 2, width=32),
    min_size=1,
    max_size=40,
)


@given(scores, st.integers(0, 40))
def test_keep_highest_under_ties_keeps_the_exact_count_and_the_lower_index(values, num_keep):
    num_keep = min(num_keep, len(values))
    kept = sorted(range(len(values)), key=lambda index: (-values[index], index))[:num_keep]
    mask = keep_highest(torch.tensor(values), num_keep)
    assert mask.dtype == torch.bool
    assert mask.nonzero().flatten().tolist() == sorted(kept)


@given(scores)
def test_kept_units_nest_as_fewer_are_kept(values):
    masks = [keep_highest(torch.tensor(values), num_keep) for num_keep in range(len(values) + 1)]
    for fewer, more in pairwise(masks):
        assert not bool((fewer & ~more).any())


@given(scores, st.integers(0, 40))
def test_nan_score_has_no_order_whatever_is_kept(values, num_keep):
    with pytest.raises(MethodError, match="NaN"):
        keep_highest(torch.tensor([*values, math.nan]), num_keep)


def test_kept_units_have_the_shape_of_the_scores():
    assert keep_highest(torch.tensor([[1.0, 4.0], [3.0, 2.0]]), 2).tolist() == [[False, True], [True, False]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_keep_highest_tells_apart_what_its_own_type_does(dtype):
    values = torch.tensor([1.0, 1.0 + 2.0**-40, 1.0 + 2.0**-30, 1.0], dtype=dtype)
    by_numpy = np.argsort(-values.numpy(), kind="stable")[:2]
    assert sorted(by_numpy.tolist()) == keep_highest(values, 2).nonzero().flatten().tolist()


@given(scores)
def test_removal_order_is_ascending_and_the_higher_index_goes_first_among_equals(values):
    expected = sorted(range(len(values)), key=lambda index: (values[index], -index))
    assert removal_order(torch.tensor(values)).tolist() == expected


@given(scores)
def test_removal_order_and_keep_highest_agree_for_every_count(values):
    times = torch.tensor(values)
    order = removal_order(times)
    for num_remove in range(len(values) + 1):
        removed = (~keep_highest(times, len(values) - num_remove)).nonzero().flatten()
        assert set(removed.tolist()) == set(order[:num_remove].tolist())


@given(
    st.lists(
        st.sampled_from([-math.inf, -1.0, 0.0, 0.5, 0.5, 2.0]) | st.floats(-1, 1, width=32), min_size=8, max_size=60
    ),
    st.integers(0, 60),
)
def test_many_scores_are_ranked_as_few_are(values, num_keep):
    """The sample that brackets the threshold of many scores changes no answer, also when it is a bad one."""
    flat = torch.tensor(values)
    expected = keep_highest(flat, num_keep)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranking, "SAMPLED_FROM", 8)
        patch.setattr(ranking, "SAMPLE_SIZE", 8)
        patch.setattr(ranking, "SAMPLE_MARGIN", 1)
        assert torch.equal(keep_highest(flat, num_keep), expected)


def test_millions_of_scores_have_the_threshold_of_a_sort():
    scores = torch.randn(3_000_000, generator=torch.Generator().manual_seed(0))
    ordered = scores.sort().values
    for num_keep in (1, 1000, 1_500_000, 2_999_999):
        kept = keep_highest(scores, num_keep)
        assert int(kept.sum()) == num_keep
        assert scores[kept].min() == ordered[-num_keep]
