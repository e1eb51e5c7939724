"""Counts of what masks leave, by hand and beside what a network really needs for its answer."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from raypruning.methods.accounting import count_left
from raypruning.models.layers import count_macs, prunable_layers

from .networks import build, masks_of, num_params

LENET = torch.zeros(1, 1, 28, 28)
ROWS = {"conv1": (10, 25, 576), "conv2": (20, 250, 64), "fc1": (50, 320, 1), "fc2": (10, 50, 1)}


def test_dense_network_has_all():
    model = build("lenet5")
    left = count_left(model, {}, LENET)
    assert left == (21_840, 21_840, 480_500, 480_500, 480_500, ())


def test_counts_of_a_removed_filter_by_hand():
    """A filter of conv2 without its readers: its own 16 000 MACs go, and on paths its 16 columns of fc1 go as well."""
    model = build("lenet5")
    mask = torch.ones(20, 10, 5, 5, dtype=torch.bool)
    mask[3] = False
    left = count_left(model, {"conv2.weight": mask}, LENET)
    assert left.num_nonzero == 21_840 - 250
    assert left.macs == 480_500 - 250 * 64
    # Its bias is left, and gives the same number for every image: no path.
    assert left.macs_on_paths == left.macs - 16 * 50
    assert left.dead_layers == ()


def test_weights_before_a_dead_end_are_on_no_path():
    """All columns of conv2 that read map 0 are removed: nobody needs conv1's first filter."""
    model = build("lenet5")
    mask = torch.ones(20, 10, 5, 5, dtype=torch.bool)
    mask[:, 0] = False
    left = count_left(model, {"conv2.weight": mask}, LENET)
    assert left.macs == 480_500 - 20 * 25 * 64
    assert left.macs_on_paths == left.macs - 25 * 576


def test_layer_without_live_output_is_named_with_all_that_it_cuts_off():
    model = build("lenet5")
    left = count_left(model, {"conv2.weight": torch.zeros(20, 10, 5, 5, dtype=torch.bool)}, LENET)
    assert left.dead_layers == tuple(prunable_layers(model))
    assert left.macs_on_paths == 0
    assert left.macs == 480_500 - 320_000


@pytest.mark.parametrize("name", ["resnet20", "densenet22"])
@pytest.mark.parametrize("method", ["wt", "ft"])
def test_corrected_rules_leave_nothing_that_is_on_no_path(name: str, method: str):
    model = build(name, in_channels=3, image_size=8)
    example = torch.zeros(1, 3, 8, 8)
    masks = masks_of(method, model, 0.9, shape=(1, 3, 8, 8))
    left = count_left(model, masks, example)
    assert left.num_nonzero == num_params(model) - sum(int((~mask).sum()) for mask in masks.values())
    assert left.macs_on_paths <= left.macs <= left.macs_dense == count_macs(model, 3, 8)
    if method == "ft":  # What lost its purpose has gone along already.
        assert left.macs_on_paths == left.macs


def test_network_is_left_as_it_was():
    model = build("lenet5").train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    count_left(model, masks_of("wt", model, 0.9), LENET)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


def test_grouped_convolutions_count_whole():
    model = nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.Flatten(), nn.Linear(4 * 36, 2)).eval()
    left = count_left(model, {"2.weight": torch.zeros(2, 144, dtype=torch.bool)}, torch.zeros(1, 4, 8, 8))
    assert (left.macs, left.macs_on_paths) == (4 * 9 * 36, 4 * 9 * 36)
    assert left.dead_layers == ("2",)
