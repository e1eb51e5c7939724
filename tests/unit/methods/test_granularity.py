"""What a unit is: which weights go with it, how many there are, what its score is."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from raypruning.errors import SpecError
from raypruning.methods.granularity import make_granularity
from raypruning.models.layers import prunable_layers

from .networks import SMALL, kept, masks_of, network_of, num_params, num_removed, small_network, wide_network

SHAPES = [(6, 8), (4, 8, 3, 3), (5, 4, 1, 2), (3, 12)]
shapes = st.sampled_from(SHAPES)


def distinct(shape: tuple[int, ...], seed: int) -> Tensor:
    order = torch.randperm(math.prod(shape), generator=torch.Generator().manual_seed(seed))
    return (1.0 + order.float()).view(shape)


def tied(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randint(0, 3, shape, generator=torch.Generator().manual_seed(seed)).float()


def layer_of(shape: tuple[int, ...]) -> nn.Module:
    return nn.Linear(shape[1], shape[0]) if len(shape) == 2 else nn.Conv2d(shape[1], shape[0], shape[2:])


def in_the_middle(shape: tuple[int, ...], granularity: str, **parameters: int):
    """A network that holds such a layer as "1", between two of one weight each."""
    model = nn.ModuleList([nn.Linear(1, 1), layer_of(shape), nn.Linear(1, 1)])
    return network_of(model, (1, 1), granularity=granularity, **parameters)


@pytest.mark.parametrize("shape", SHAPES)
def test_weights_are_units_one_by_one_in_the_order_of_their_index(shape):
    network = in_the_middle(shape, "weight")
    score = distinct(shape, 0)
    units = network.granularity.units(network, "1", score)
    assert units.scores_U.tolist() == score.flatten().tolist()
    keep_U = distinct((score.numel(),), 1) % 2 == 0
    assert network.granularity.mask(keep_U, score, network.weight("1")).flatten().tolist() == keep_U.tolist()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("granularity", "axis"), [("filter", 0), ("unit", 0), ("channel", 1)])
def test_rows_and_columns_go_whole(shape, granularity, axis):
    network = in_the_middle(shape, granularity)
    score = distinct(shape[axis : axis + 1], 0)
    units = network.granularity.units(network, "1", score)
    assert units.scores_U.tolist() == score.tolist()
    keep_U = torch.arange(shape[axis]) % 3 > 0
    mask = network.granularity.mask(keep_U, score, network.weight("1"))
    for index in itertools.product(*map(range, shape)):
        assert bool(mask[index]) == bool(keep_U[index[axis]])


def test_outputs_of_the_last_layer_and_inputs_of_the_first_stay():
    model = small_network()
    stay = {}
    for granularity in ("filter", "unit", "channel"):
        network = network_of(model, SMALL, granularity=granularity)
        by = {"filter": 0, "channel": 1}[network.granularity.score_by]
        stay[granularity] = [
            name
            for name, layer in network.layers.items()
            if network.granularity.units(network, name, torch.ones(layer.weight.shape[by])).is_kept_whole
        ]
    assert stay == {"filter": ["8"], "unit": ["0", "3", "8"], "channel": ["0"]}


def test_last_layers_outputs_stay_also_when_the_layers_to_prune_end_before_it():
    model = small_network()
    layers = {name: layer for name, layer in prunable_layers(model).items() if name in ("3", "6")}
    network = network_of(model, SMALL, granularity="filter", layers=layers)
    assert [network.granularity.units(network, name, torch.ones(6)).is_kept_whole for name in layers] == [False, False]


# --- n:m ------------------------------------------------------------------------------------------------------------


def n_m_by_loops(score: Tensor, keep_slots: list[bool], *, m: int) -> Tensor:
    """Group by group: the slots are those of the ascending order, in which of equals the higher index comes first."""
    mask = torch.zeros(score.shape, dtype=torch.bool)
    rest = [range(size) for size in score.shape[2:]]
    for o, *position in itertools.product(range(score.shape[0]), *rest):
        for first in range(0, score.shape[1], m):
            group = [(float(score[(o, c, *position)]), -c) for c in range(first, first + m)]
            for (_, minus_c), keep in zip(sorted(group), keep_slots, strict=True):
                mask[(o, -minus_c, *position)] = keep
    return mask


@settings(max_examples=60)
@given(shapes, st.sampled_from([2, 4]), st.data(), st.integers(0, 1000))
def test_n_m_removes_the_lowest_of_every_group_of_input_channels(shape, m, data, seed):
    n = data.draw(st.integers(1, m - 1))
    score = data.draw(st.sampled_from([distinct, tied]))(shape, seed)
    network = in_the_middle(shape, "n_m", n=n, m=m)
    units = network.granularity.units(network, "1", score)
    assert len(units.scores_U) == m - n
    for num_gone in range(m - n + 1):
        keep_U = torch.arange(m - n) >= num_gone
        mask = network.granularity.mask(keep_U, score, network.weight("1"))
        assert torch.equal(mask, n_m_by_loops(score, [*keep_U.tolist(), *[True] * n], m=m))
    # All slots gone: n of every m stay, and they are the highest.
    groups_GM = mask.transpose(0, 1).flatten(1).T.reshape(-1, m)
    assert set(groups_GM.sum(1).tolist()) == {n}


@pytest.mark.parametrize("shape", SHAPES)
def test_score_of_an_n_m_slot_is_the_mean_over_groups_of_what_it_would_remove(shape):
    score = distinct(shape, 1)
    network = in_the_middle(shape, "n_m", n=1, m=4)
    units = network.granularity.units(network, "1", score)
    weights = [score[~n_m_by_loops(score, [slot != k for slot in range(4)], m=4)] for k in range(3)]
    # A mean of at most 72 whole numbers below 300.
    assert units.scores_U.tolist() == pytest.approx([float(each.double().mean()) for each in weights], rel=1e-6)


def test_n_m_of_a_whole_network_keeps_exactly_n_of_every_m_when_everything_goes():
    model = wide_network()
    largest = sum(prunable_layers(model)[name].weight.numel() for name in ("4", "8", "10")) / 2
    masks = masks_of(
        "wt", model, largest / num_params(model), shape=(1, 2, 8, 8), granularity="n_m", n=2, m=4, skip=("0",)
    )
    assert num_removed(masks) == largest
    assert masks.keys() == {"4.weight", "8.weight", "10.weight"}
    for mask in masks.values():
        assert set(mask.transpose(0, 1).flatten(1).T.reshape(-1, 4).sum(1).tolist()) == {2}


def test_group_that_does_not_divide_the_channels_is_refused_naming_the_layer_and_what_to_do():
    model, shape = wide_network(), (1, 2, 8, 8)
    with pytest.raises(
        SpecError, match=r"n_m with m=4 does not divide the 2 input channels of layer 0; take another m, or skip=0"
    ):
        masks_of("wt", model, 0.3, shape=shape, granularity="n_m")
    half = sum(layer.weight.numel() for layer in prunable_layers(model).values()) / 2
    masks = masks_of("wt", model, half / num_params(model), shape=shape, granularity="n_m", n=1, m=2)
    assert num_removed(masks) == half


@pytest.mark.parametrize(("n", "m"), [(4, 4), (5, 4), (2, 2)])
def test_n_that_leaves_nothing_to_remove_is_refused(n, m):
    with pytest.raises(SpecError, match=f"1 <= n < m, got n={n} and m={m}"):
        make_granularity("n_m", {"n": n, "m": m})


# --- Blocks ---------------------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(shapes, st.integers(1, 9), st.booleans(), st.integers(0, 1000))
def test_blocks_tile_the_weight_as_a_matrix_and_are_scored_by_their_mean(shape, side, is_tied, seed):
    score = (tied if is_tied else distinct)(shape, seed)
    network = in_the_middle(shape, "block", block=side)
    units = network.granularity.units(network, "1", score)
    matrix = score.flatten(1)
    tops, lefts = (range(0, size, side) for size in matrix.shape)
    blocks = [matrix[top : top + side, left : left + side] for top in tops for left in lefts]
    assert units.scores_U.tolist() == pytest.approx([float(block.double().mean()) for block in blocks], rel=1e-6)
    keep_U = torch.rand(len(blocks), generator=torch.Generator().manual_seed(seed)) < 0.5
    mask = network.granularity.mask(keep_U, score, network.weight("1")).flatten(1)
    assert mask.shape == matrix.shape
    for (top, left), is_kept in zip(itertools.product(tops, lefts), keep_U.tolist(), strict=True):
        assert set(mask[top : top + side, left : left + side].flatten().tolist()) == {is_kept}


def test_block_of_which_a_part_is_gone_is_scored_by_what_is_left_and_one_that_is_gone_goes_first():
    score = torch.full((2, 6), 3.0)
    score[:, :2] = -math.inf
    score[0, 2:] = -math.inf
    network = in_the_middle((2, 6), "block", block=2)
    units = network.granularity.units(network, "1", score)
    assert units.scores_U.tolist() == [-math.inf, 1.5, 1.5]


def test_blocks_take_scores_of_double_precision():
    """As a method of one's own may give them."""
    network = in_the_middle((4, 8), "block", block=4)
    units = network.granularity.units(network, "1", distinct((4, 8), 0).double())
    assert units.scores_U.dtype == torch.float64


def test_blocks_of_a_network_go_whole_lowest_mean_first():
    model = wide_network()
    masks = masks_of("wt", model, 0.4, shape=(1, 2, 8, 8), granularity="block", block=3)
    means = {True: [], False: []}
    for name, mask in kept(masks, model).items():
        matrix = prunable_layers(model)[name].weight.detach().abs().flatten(1)
        for top, left in itertools.product(range(0, len(matrix), 3), range(0, matrix.shape[1], 3)):
            states = set(mask.flatten(1)[top : top + 3, left : left + 3].flatten().tolist())
            assert len(states) == 1
            means[states.pop()].append(float(matrix[top : top + 3, left : left + 3].mean()))
    assert max(means[False]) <= min(means[True])
