import pytest
import torch
from torch import nn

from raypruning.models.layers import count_macs, count_parameters, layer_positions, logits_shape, prunable_layers


class Mixed(nn.Module):
    """One of everything: a dense, a depthwise and a twice applied convolution, a norm, tokens, a head."""

    def __init__(self):
        super().__init__()
        self.dense = nn.Conv2d(3, 4, kernel_size=3, stride=2, padding=1)  # 8 px to 4 px
        self.depthwise = nn.Conv2d(4, 4, kernel_size=3, padding=1, groups=4)
        self.norm = nn.BatchNorm2d(4)
        self.twice = nn.Conv2d(4, 4, kernel_size=1, bias=False)
        self.tokens = nn.Linear(4, 6)
        self.head = nn.Linear(6, 5)
        self.unused = nn.Linear(6, 2)

    def forward(self, images_NCHW):
        maps = self.norm(self.depthwise(self.dense(images_NCHW)))
        maps = self.twice(self.twice(maps))
        return self.head(self.tokens(maps.flatten(2).transpose(1, 2)).mean(dim=1))


def state_of(model):
    return {key: value.clone() for key, value in model.state_dict().items()}, [m.training for m in model.modules()]


def test_prunable_layers_are_ungrouped_convolutions_and_linear_ones_in_order():
    assert list(prunable_layers(Mixed())) == ["dense", "twice", "tokens", "head", "unused"]


def test_a_shared_weight_is_listed_once():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    assert list(prunable_layers(model)) == ["0"]
    assert layer_positions(nn.Sequential(nn.Conv2d(3, 4, 2), nn.Flatten(2), model), 3, 3) == {"0": 4, "2.0": 8}


def test_parameters_are_weights_biases_and_norms():
    convolutions = (3 * 4 * 9 + 4) + (4 * 9 + 4) + 4 * 4
    linears = (4 * 6 + 6) + (6 * 5 + 5) + (6 * 2 + 2)
    assert count_parameters(Mixed()) == convolutions + 2 * 4 + linears


def test_positions_are_output_places_times_applications():
    assert layer_positions(Mixed(), 3, 8) == {"dense": 16, "twice": 32, "tokens": 16, "head": 1, "unused": 0}


def test_macs_are_weights_times_positions_of_all_layers_pruned_or_not():
    expected = 3 * 4 * 9 * 16 + 4 * 9 * 16 + 4 * 4 * 32 + 4 * 6 * 16 + 6 * 5
    assert count_macs(Mixed(), 3, 8) == expected


@pytest.mark.parametrize("mode", [True, False])
def test_counting_leaves_weights_statistics_and_mode_alone(mode):
    model = Mixed().train(mode)
    weights, modes = state_of(model)
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    count_macs(model, 3, 8)
    layer_positions(model, 3, 8)
    logits_shape(model, 3, 8)
    after, modes_after = state_of(model)
    assert modes_after == modes
    assert all(torch.equal(after[key], weights[key]) for key in weights)
    assert all(not value.is_meta for value in model.state_dict().values())
    assert torch.equal(torch.random.get_rng_state(), before)


def test_attention_counts_its_output_projection_although_it_is_never_called():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(embed_dim=3, num_heads=1, batch_first=True)

        def forward(self, images_NCHW):
            tokens = images_NCHW.flatten(2).transpose(1, 2)
            return self.attention(tokens, tokens, tokens, need_weights=False)[0].mean(dim=1)

    # 4 tokens of 3: queries, keys, values and output are 3 x 3 each, scores and their use 4 x 4 x 3 each.
    assert layer_positions(Attention(), 3, 2) == {"attention.out_proj": 4}
    assert count_macs(Attention(), 3, 2) == 4 * (4 * 9) + 2 * (4 * 4 * 3)


def test_a_forward_that_looks_at_values_is_counted_too():
    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(12, 2)

        def forward(self, images_NCHW):
            scale = 1.0 if images_NCHW.sum().item() > 1e9 else 0.5
            return self.head(images_NCHW.flatten(1)) * scale

    assert count_macs(Gated(), 3, 2) == 24
    assert layer_positions(Gated(), 3, 2) == {"head": 1}


def test_logits_shape_of_an_image_that_does_not_fit_raises_what_torch_raises():
    assert logits_shape(Mixed(), 3, 8) == (1, 5)
    with pytest.raises(RuntimeError, match="channels"):
        logits_shape(Mixed(), 1, 8)
