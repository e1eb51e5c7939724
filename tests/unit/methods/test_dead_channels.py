"""Channels that carry nothing: by reachability on random graphs, and by what real networks compute."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from raypruning.methods.dead_channels import PathWalker
from raypruning.methods.prune import apply_masks
from raypruning.models.layers import prunable_layers

from .networks import build, masks_of


class Graph(nn.Module):
    """Layers of 1 x 1 convolutions, each with a norm, joined in one of three ways to what came before."""

    def __init__(self, joins: list[str], *, width: int, has_bias: bool) -> None:
        super().__init__()
        self.joins = joins
        self.layers, self.norms = nn.ModuleList(), nn.ModuleList()
        num_channels = width
        for join in joins:
            num_out = num_channels if join == "add" else width
            self.layers.append(nn.Conv2d(num_channels, num_out, kernel_size=1, bias=has_bias))
            self.norms.append(nn.BatchNorm2d(num_out))
            num_channels = num_channels + num_out if join == "concatenate" else num_out
        self.head = nn.Linear(num_channels * 4, 2)

    def forward(self, x):
        for join, layer, norm in zip(self.joins, self.layers, self.norms, strict=True):
            y = torch.relu(norm(layer(x)))
            x = {"chain": lambda y, x: y, "add": torch.add, "concatenate": lambda y, x: torch.cat([y, x], 1)}[join](
                y, x
            )
        return self.head(x.flatten(1))


def reachable(model: Graph, masks) -> dict[str, list[bool]]:
    """Which inputs of each layer some kept path, from the image or from a kept bias, leads to: by the definition."""
    alive = [True] * model.layers[0].in_channels
    found = {}
    for i, join in enumerate(model.joins):
        found[f"layers.{i}"] = alive
        kept, bias = masks[f"layers.{i}.weight"], masks.get(f"layers.{i}.bias")
        out = [
            bool(bias is not None and bias[o]) or any(alive[c] and bool(kept[o, c]) for c in range(len(alive)))
            for o in range(kept.shape[0])
        ]
        found[f"norms.{i}"] = out
        if join == "add":
            out = [a or b for a, b in zip(out, alive, strict=True)]
        alive = out + alive if join == "concatenate" else out
    found["head"] = [is_alive for is_alive in alive for _ in range(4)]
    return found


@settings(max_examples=60)
@given(
    st.lists(st.sampled_from(["chain", "add", "concatenate"]), min_size=1, max_size=4),
    st.integers(1, 4),
    st.booleans(),
    st.floats(0.1, 0.9),
    st.integers(0, 10_000),
)
def test_dead_channels_are_those_that_no_kept_path_reaches(joins, width, has_bias, share, seed):
    model = Graph(joins, width=width, has_bias=has_bias)
    generator = torch.Generator().manual_seed(seed)
    masks = {
        f"{name}.{part}": torch.rand(getattr(layer, part).shape, generator=generator) < share
        for name, layer in prunable_layers(model).items()
        for part in (("weight", "bias") if layer.bias is not None else ("weight",))
    }
    with PathWalker(model, torch.zeros(1, width, 2, 2)) as walker:
        dead = walker.dead(masks)
    expected = reachable(model, masks)
    assert {name: (~dead_I).tolist() for name, dead_I in {**dead.inputs, **dead.norms}.items()} == expected


def test_channel_of_a_layer_that_is_applied_twice_is_dead_only_where_both_inputs_are():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right = (nn.Linear(2, 3, bias=False) for _ in range(2))
            self.shared = nn.Linear(3, 1)

        def forward(self, x):
            return self.shared(self.left(x)) + self.shared(self.right(x))

    masks = {
        "left.weight": torch.tensor([[False, False], [False, False], [True, False]]),
        "right.weight": torch.tensor([[False, False], [False, True], [False, False]]),
    }
    with PathWalker(Twice(), torch.zeros(1, 2)) as walker:
        assert walker.dead(masks).inputs["shared"].tolist() == [True, False, False]


def test_walker_can_be_asked_again_with_other_masks():
    model = Graph(["chain", "chain"], width=3, has_bias=True)
    kept = {name: torch.ones_like(parameter, dtype=torch.bool) for name, parameter in model.named_parameters()}
    kept = {name: mask for name, mask in kept.items() if not name.startswith("norms")}
    none_of_first = {
        name: mask & (torch.arange(3) > 0).view(-1, *[1] * (mask.ndim - 1)) if name.startswith("layers.0") else mask
        for name, mask in kept.items()
    }
    with PathWalker(model, torch.zeros(1, 3, 2, 2)) as walker:
        answers = [walker.dead(masks).inputs["layers.1"].tolist() for masks in (kept, none_of_first, kept)]
    assert answers == [[False] * 3, [True, False, False], [False] * 3]


def test_walker_leaves_the_network_as_it_was():
    model = Graph(["chain"], width=3, has_bias=True).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with PathWalker(model, torch.zeros(1, 3, 2, 2)) as walker:
        walker.dead({})
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


NETWORKS = [
    ("lenet5", 1, 28),  # biases, pooling, flattening
    ("resnet20", 3, 16),  # skip connections, projections
    ("densenet22", 3, 8),  # concatenation, norms before convolutions
    ("resnet18", 3, 32),  # torchvision's
    ("torchvision/mobilenet_v3_small", 3, 32),  # depthwise convolutions, squeeze and excitation
]


@pytest.mark.parametrize(("name", "channels", "px"), NETWORKS)
@pytest.mark.parametrize("method", ["ft", "random_filter"])
def test_weights_removed_because_their_input_is_dead_do_nothing(name, channels, px, method):
    model = build(name, in_channels=channels, image_size=px)
    masks = masks_of(method, model, 0.6, shape=(1, channels, px, px))
    apply_masks(model, masks)
    images_NCHW = torch.randn(4, channels, px, px, generator=torch.Generator().manual_seed(1))
    num_revived = 0
    with torch.no_grad():
        logits_NC = model(images_NCHW)
        for layer_name, layer in prunable_layers(model).items():
            mask = masks.get(f"{layer_name}.weight")
            if mask is None:
                continue
            is_kept_row = mask.flatten(1).any(1).view(-1, *[1] * (mask.ndim - 1))
            revived = ~mask & is_kept_row
            num_revived += int(revived.sum())
            layer.weight[revived] = torch.randn(int(revived.sum()), generator=torch.Generator().manual_seed(2))
        again_NC = model(images_NCHW)
    assert num_revived > 0
    assert logits_NC.std() > 0
    # What they are multiplied with is exactly zero, so not even rounding may differ.
    assert torch.equal(logits_NC, again_NC)


@pytest.mark.parametrize(("name", "channels", "px"), NETWORKS[:4])
def test_removed_filters_norm_entries_silence_the_channel(name, channels, px):
    """Without masks on a norm, the constant it adds to a removed channel would reach the next layer."""
    model = build(name, in_channels=channels, image_size=px)
    masks = masks_of("ft", model, 0.6, shape=(1, channels, px, px))
    norms = {name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)}
    masked = {key.rpartition(".")[0] for key in masks} & norms
    assert masked == norms
    for norm in norms:
        assert torch.equal(masks[f"{norm}.weight"], masks[f"{norm}.bias"])
