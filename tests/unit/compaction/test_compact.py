from __future__ import annotations

import functools

import pytest
import torch
from torch import nn

from raypruning.compaction.channels import ALIVE, ATTENTION, BORDERS, GROUPS, LAST, NOT_CONSTANT, RIGID, STATISTICS
from raypruning.compaction.compact import compact, largest_difference, masked_copy
from raypruning.models.layers import prunable_layers
from tests.unit.compaction.networks import (
    assert_equal_outputs,
    build,
    filter_masks,
    images,
    num_parameters,
    randomise,
)

OURS = [
    ("lenet5", 1, 28),
    ("mlp", 1, 28),
    ("resnet20", 3, 32),
    ("resnet56", 3, 32),
    ("vgg16", 3, 32),
    ("densenet22", 3, 32),
    ("wrn16_8", 3, 32),
]
TORCHVISION = [
    ("resnet18", 64),
    ("resnext50_32x4d", 64),
    ("densenet121", 64),
    ("mobilenet_v2", 64),
    ("mnasnet0_5", 64),
    ("mobilenet_v3_small", 64),
    ("shufflenet_v2_x0_5", 64),
    ("efficientnet_b0", 64),
    ("regnet_y_400mf", 64),
    ("squeezenet1_1", 64),
    ("googlenet", 64),
    pytest.param("convnext_tiny", 32, marks=pytest.mark.slow),
    pytest.param("vit_b_32", 32, marks=pytest.mark.slow),
    pytest.param("swin_t", 32, marks=pytest.mark.slow),
]


def keep_first(model: nn.Module, nums: dict[str, int]) -> dict[str, torch.Tensor]:
    """Masks that leave so many of a layer's first filters or units."""
    masks = {}
    for name, num in nums.items():
        weight = model.get_submodule(name).weight
        masks[f"{name}.weight"] = torch.zeros_like(weight, dtype=torch.bool)
        masks[f"{name}.weight"][:num] = True
    return masks


@pytest.mark.parametrize(
    ("kept_share", "num_expected"),
    # 784-500-500-250-100-10 and 784-100-100-50-20-10, without biases.
    [
        (0.5, 784 * 500 + 500 * 500 + 500 * 250 + 250 * 100 + 100 * 10),
        (0.1, 784 * 100 + 100 * 100 + 100 * 50 + 50 * 20 + 20 * 10),
    ],
)
def test_mlp_gets_the_widths_that_its_masks_leave(kept_share: float, num_expected: int):
    model = build("mlp", in_channels=1, image_size=28)
    widths = {"fc1": 1000, "fc2": 1000, "fc3": 500, "fc4": 200}
    masks = keep_first(model, {name: round(kept_share * width) for name, width in widths.items()})
    small = assert_equal_outputs(model, masks, images(4, 1, 28, 28)).model
    assert num_parameters(small) == num_expected
    assert num_expected in (793_000, 94_600)
    assert all(parameter.all() for parameter in small.parameters())


def test_lenet_gets_the_widths_that_its_masks_leave():
    model = build("lenet5", in_channels=1, image_size=28)
    found = assert_equal_outputs(model, keep_first(model, {"conv1": 4, "conv2": 7, "fc1": 20}), images(4, 1, 28, 28))
    # Biases of constants go on in the next layer: all layers had one.
    assert num_parameters(found.model) == (4 * 25 + 4) + (7 * 4 * 25 + 7) + (20 * 7 * 16 + 20) + (10 * 20 + 10)
    assert (found.num_outputs, found.num_dead, found.num_removed, found.kept) == (90, 6 + 13 + 30, 6 + 13 + 30, {})
    shape = found.shapes["fc1"]
    assert (shape.kept_inputs, shape.kept_outputs) == ("0-111", "0-19")


@pytest.mark.parametrize(("name", "in_channels", "image_size"), OURS)
@pytest.mark.parametrize("with_bias", [False, True], ids=["weights", "weights and biases"])
def test_outputs_of_our_models_stay_equal(name: str, in_channels: int, image_size: int, with_bias: bool):
    model = build(name, in_channels=in_channels, image_size=image_size)
    masks = filter_masks(model, with_bias=with_bias)
    found = assert_equal_outputs(model, masks, images(4, in_channels, image_size, image_size))
    assert num_parameters(found.model) < 0.6 * num_parameters(model)
    assert found.num_removed + sum(found.kept.values()) >= found.num_dead


@functools.cache
def kept_of_torchvision(name: str, image_size: int) -> dict[str, int]:
    """Dead filters that stay, by reason, of a network that was found equal."""
    model = build(name, image_size=image_size)
    # With half of the filters constant, little of the image would be left to compare.
    found = assert_equal_outputs(model, filter_masks(model, 0.3), images(2, 3, image_size, image_size))
    assert num_parameters(found.model) < num_parameters(model)
    assert found.num_removed + sum(found.kept.values()) >= found.num_dead
    return found.kept


@pytest.mark.parametrize(("name", "image_size"), TORCHVISION)
def test_outputs_of_torchvision_models_stay_equal(name: str, image_size: int):
    kept_of_torchvision(name, image_size)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet110", "resnet101"])
def test_outputs_of_deep_models_stay_equal(name: str):
    model = build(name, image_size=64)
    assert_equal_outputs(model, filter_masks(model, 0.3), images(2, 3, 64, 64))


@pytest.mark.slow
def test_maxvit_whose_attention_needs_large_images_stays_equal():
    model = build("maxvit_t", image_size=224)
    found = assert_equal_outputs(model, filter_masks(model, 0.3), images(2, 3, 224, 224))
    assert num_parameters(found.model) < 0.95 * num_parameters(model)


class Attention(nn.Module):
    """Queries and keys of an attention change nothing where all places are alike."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.all, self.last = nn.Linear(4, 6), nn.Linear(6, 18), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        queries, keys, values = self.all(self.first(x)).chunk(3, -1)
        return self.last((queries @ keys.mT).softmax(-1) @ values).mean(1)


def test_queries_and_keys_are_not_taken_for_unread():
    torch.manual_seed(0)
    model = randomise(Attention())
    mask = torch.ones(18, 6, dtype=torch.bool)
    mask[[0, 1, 7]] = False
    assert_equal_outputs(model, {"all.weight": mask}, images(4, 5, 4))


@pytest.mark.slow
def test_inception_at_its_smallest_images_stays_equal():
    model = build("inception_v3", image_size=96)
    found = assert_equal_outputs(model, filter_masks(model), images(2, 3, 96, 96))
    assert num_parameters(found.model) < 0.4 * num_parameters(model)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("resnet18", ALIVE),
        ("mobilenet_v2", NOT_CONSTANT),
        ("resnext50_32x4d", GROUPS),
        ("shufflenet_v2_x0_5", RIGID),
        pytest.param("vit_b_32", ATTENTION, marks=pytest.mark.slow),
        pytest.param("vit_b_32", STATISTICS, marks=pytest.mark.slow),
        pytest.param("convnext_tiny", STATISTICS, marks=pytest.mark.slow),
    ],
)
def test_what_cannot_be_shrunk_is_counted_with_its_reason(name: str, reason: str):
    image_size = 32 if name in ("vit_b_32", "convnext_tiny") else 64
    assert kept_of_torchvision(name, image_size)[reason] > 0


def test_masks_that_leave_no_constant_shrink_coupled_channels_fully():
    model = build("resnet20")
    # All of the first stage's channels from 8 on: the stem, the ends of its branches, and what is added to them.
    masks = {}
    for name, layer in prunable_layers(model).items():
        if name == "stem.0" or (name.startswith("stages.0") and name.endswith("branch.3")):
            masks[f"{name}.weight"] = torch.ones_like(layer.weight, dtype=torch.bool)
            masks[f"{name}.weight"][8:] = False
            norm = name.replace("branch.3", "branch.4").replace("stem.0", "stem.1")
            masks[f"{norm}.weight"] = masks[f"{norm}.bias"] = torch.arange(16) < 8
    found = assert_equal_outputs(model, masks, images(2, 3, 32, 32))
    assert found.kept == {}
    assert found.model.stem[0].out_channels == 8
    assert found.model.stages[0][2].branch[3].out_channels == 8
    assert found.model.stages[1][0].shortcut[0].in_channels == 8


def test_constants_are_folded_and_not_dropped():
    model = randomise(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3, bias=False)))
    with torch.no_grad():
        model[0].bias[:] = torch.tensor([2.0, 3.0, -1.0, 0.5, 0.5, 0.5])
    mask = torch.ones(6, 4, dtype=torch.bool)
    mask[:3] = False
    found = compact(model, {"0.weight": mask}, images(4, 4, 1, 1).flatten(1))
    # relu(2) and relu(3) reach the outputs through the first two columns, relu(-1) does not.
    expected = 2.0 * model[2].weight[:, 0] + 3.0 * model[2].weight[:, 1]
    assert found.model[2].weight.shape == (3, 3)
    torch.testing.assert_close(found.model[2].bias, expected.detach())
    assert found.shapes["2"].is_bias_new


def test_constants_behind_zero_padding_move_into_one_channel():
    torch.manual_seed(0)
    model = randomise(
        nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 3, padding=1), nn.Flatten(), nn.Linear(128, 3))
    )
    with torch.no_grad():
        model[0].bias.fill_(0.3)
    mask = torch.ones(8, 1, 3, 3, dtype=torch.bool)
    mask[:5] = False
    found = assert_equal_outputs(model, {"0.weight": mask}, images(2, 1, 10, 10))
    assert found.model[0].out_channels == 3 + 1
    assert found.kept == {BORDERS: 1}


def test_a_filter_that_nobody_reads_goes_with_what_it_alone_reads():
    torch.manual_seed(0)
    model = randomise(nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3)))
    reads = torch.ones(3, 6, dtype=torch.bool)
    reads[:, :2] = False  # nobody reads the first two of layer 2 ...
    first = torch.ones(6, 5, dtype=torch.bool)
    first[2:, 0] = False  # ... which alone read the first of layer 0
    found = assert_equal_outputs(model, {"4.weight": reads, "2.weight": first}, images(4, 4, 1, 1).flatten(1))
    assert [found.model[i].out_features for i in (0, 2, 4)] == [4, 4, 3]
    assert (found.num_dead, found.num_removed) == (0, 3)


def test_a_network_without_any_weight_left_becomes_a_constant_of_width_one():
    model = build("lenet5", in_channels=1, image_size=28)
    masks = keep_first(model, {"conv1": 0, "conv2": 0, "fc1": 0})
    found = compact(model, masks, images(4, 1, 28, 28))
    assert [found.model.get_submodule(name).weight.shape[0] for name in ("conv1", "conv2", "fc1", "fc2")] == [
        1,
        1,
        1,
        10,
    ]
    assert found.kept == {LAST: 3}
    difference, _ = largest_difference(masked_copy(model, masks), found.model, [images(4, 1, 28, 28)])
    assert difference <= 1e-6


def test_a_dead_last_layer_keeps_all_classes():
    model = build("lenet5", in_channels=1, image_size=28)
    found = compact(model, keep_first(model, {"fc2": 0}), images(4, 1, 28, 28))
    logits = found.model(images(4, 1, 28, 28))
    torch.testing.assert_close(logits, model.fc2.bias.detach().expand(4, 10))


def test_dense_network_stays_as_it_is():
    model = build("resnet20")
    found = compact(model, {}, images(2, 3, 32, 32))
    assert (found.shapes, found.num_dead, found.num_removed, found.kept) == ({}, 0, 0, {})
    assert all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), found.model.state_dict().values(), strict=True)
    )


def test_compacting_leaves_the_model_alone():
    model = build("lenet5", in_channels=1, image_size=28).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    compact(model, filter_masks(model), images(2, 1, 28, 28))
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_single_weights_stay_zeros_where_no_filter_is_empty():
    model = build("lenet5", in_channels=1, image_size=28)
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(model.fc1.weight.shape, generator=generator) < 0.5
    found = assert_equal_outputs(model, {"fc1.weight": mask}, images(2, 1, 28, 28))
    assert found.shapes == {}
    assert int((found.model.fc1.weight == 0).sum()) == int((~mask).sum())


HOW = ["plain", "matrix", "mean", "centred", "reversed", "rolled", "halves", "group_norm", "slopes", "functional"]
HOW += ["softmax", "twice", "fixed"]


class Positions(nn.Module):
    """A layer that makes a bias out of a table, without any image."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.table, self.last = nn.Linear(4, 6), nn.Linear(3, 6), nn.Linear(6, 3)
        self.register_buffer("places", torch.randn(1, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last((self.first(x) + self.table(self.places)).relu())


def test_layers_that_see_no_images_stay_and_so_does_what_they_are_added_to():
    torch.manual_seed(0)
    mask = torch.ones(6, 4, dtype=torch.bool)
    mask[:3] = False
    found = assert_equal_outputs(randomise(Positions()), {"first.weight": mask}, images(4, 4, 1, 1).flatten(1))
    assert found.model.table.out_features == 6


class Odd(nn.Module):
    """Reads channels in ways that no rule knows."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.first, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 5)
        self.bare = nn.Parameter(torch.randn(8, 8))
        self.middle = nn.Conv2d(8, 8, 1)
        self.norm = nn.GroupNorm(2, 8)
        self.slope = nn.PReLU(8)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        maps = self.first(maps)
        if self.how == "matrix":
            maps = torch.einsum("nchw,cd->ndhw", maps, self.bare)
        elif self.how == "mean":
            maps = maps * maps.mean(1, keepdim=True)
        elif self.how == "centred":
            maps = maps - maps.mean(1, keepdim=True)
        elif self.how == "reversed":
            maps = maps.flip(1)
        elif self.how == "rolled":
            maps = maps.roll(1, 1)
        elif self.how == "halves":
            maps = torch.cat([maps[:, 4:], maps[:, :4]], 1)
        elif self.how == "group_norm":
            maps = self.norm(maps)
        elif self.how == "slopes":
            maps = self.slope(maps)
        elif self.how == "functional":
            maps = torch.nn.functional.conv2d(maps, self.middle.weight, self.middle.bias)
        elif self.how == "softmax":
            maps = maps.softmax(1)
        elif self.how == "twice":
            maps = self.middle(self.middle(maps))
        elif self.how == "fixed":
            maps = maps.view(len(maps), 8, *maps.shape[2:])
        return self.last(maps.relu().mean((2, 3)))


@pytest.mark.parametrize(
    "how",
    HOW,
)
@pytest.mark.parametrize("seed", range(3))
def test_outputs_stay_equal_however_channels_are_read(how: str, seed: int):
    torch.manual_seed(seed)
    model = randomise(Odd(how), seed=seed)
    generator = torch.Generator().manual_seed(seed)
    masks = {}
    for name in ("first", "middle"):
        layer = model.get_submodule(name)
        keeps = torch.rand(8, generator=generator) < 0.5
        masks[f"{name}.weight"] = keeps[:, None, None, None].expand_as(layer.weight).clone()
    found = assert_equal_outputs(model, masks, images(3, 3, 8, 8))
    if how == "plain":
        assert found.model.first.out_channels == int(masks["first.weight"].flatten(1).any(1).sum())


@pytest.mark.parametrize("seed", range(4))
def test_grouped_convolution_drops_whole_groups_and_stays_balanced(seed: int):
    torch.manual_seed(seed)
    model = randomise(
        nn.Sequential(
            nn.Conv2d(3, 12, 1), nn.ReLU(), nn.Conv2d(12, 24, 3, groups=4), nn.ReLU(), nn.Conv2d(24, 4, 1),
            nn.Flatten(), nn.Linear(4 * 16, 3),
        )
    )  # fmt: skip
    masks = {
        "0.weight": torch.ones(12, 3, 1, 1, dtype=torch.bool),
        "4.weight": torch.ones(4, 24, 1, 1, dtype=torch.bool),
    }
    masks["4.weight"][:, 6:12] = False  # nobody reads the second group
    masks["0.weight"][[0, 6, 7, 9]] = False  # of the others, one input each is dead, and one more
    found = assert_equal_outputs(model, masks, images(2, 3, 6, 6))
    grouped = found.model[2]
    assert (grouped.groups, grouped.in_channels, grouped.out_channels) == (3, 6, 18)
    assert found.kept == {GROUPS: 1}


def test_shared_weights_are_left_alone():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3))
    model[2].weight = model[0].weight
    randomise(model)
    mask = torch.ones(6, 6, dtype=torch.bool)
    mask[:3] = False
    found = assert_equal_outputs(model, {"0.weight": mask}, images(4, 6, 1, 1).flatten(1))
    assert found.model[0].out_features == 6


def test_largest_difference_of_a_network_that_gives_no_numbers_is_infinite():
    model, broken = nn.Linear(2, 2), nn.Linear(2, 2)
    nn.init.constant_(broken.weight, float("nan"))
    assert largest_difference(model, broken, [torch.ones(3, 2)]) == (float("inf"), 3)
