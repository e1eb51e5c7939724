"""What lies on no path: by reachability on random graphs, and by what networks really compute."""

from __future__ import annotations

from collections import defaultdict

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from raypruning.methods.paths import Dead, PathWalker
from raypruning.methods.prune import apply_masks
from raypruning.models.layers import prunable_layers
from raypruning.models.torchvision_import import import_torchvision

from .networks import build, images, masks_of

JOINS = {
    "chain": lambda y, x: y,
    "add": torch.add,
    "concatenate": lambda y, x: torch.cat([y, x], 1),
}


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
            x = JOINS[join](torch.relu(norm(layer(x))), x)
        return self.head(x.flatten(1))


def arriving(model: Graph, masks) -> tuple[dict[str, list[bool]], dict[str, list[bool]]]:
    """Inputs and outputs of each layer that some kept path, from the image or a kept bias, leads to."""
    alive = [True] * model.layers[0].in_channels
    inputs, outputs = {}, {}
    for i, join in enumerate(model.joins):
        inputs[f"layers.{i}"] = alive
        kept, bias = masks[f"layers.{i}.weight"], masks.get(f"layers.{i}.bias")
        out = [
            bool(bias is not None and bias[o]) or any(alive[c] and bool(kept[o, c]) for c in range(len(alive)))
            for o in range(kept.shape[0])
        ]
        outputs[f"layers.{i}"] = out
        if join == "add":
            out = [a or b for a, b in zip(out, alive, strict=True)]
        alive = out + alive if join == "concatenate" else out
    inputs["head"] = [is_alive for is_alive in alive for _ in range(4)]
    return inputs, outputs


def leaving(model: Graph, masks) -> dict[str, list[bool]]:
    """Outputs of each layer from which some kept path leads to the answer."""
    head = masks["head.weight"]
    read = [bool(head[:, 4 * c : 4 * c + 4].any()) for c in range(head.shape[1] // 4)]
    outputs = {"head": [True] * len(head)}
    for i, join in reversed(list(enumerate(model.joins))):
        kept = masks[f"layers.{i}.weight"]
        num_out, num_in = kept.shape[:2]
        outputs[f"layers.{i}"] = read[:num_out]
        by_layer = [any(read[o] and bool(kept[o, c]) for o in range(num_out)) for c in range(num_in)]
        past_it = {"chain": [False] * num_in, "add": read, "concatenate": read[num_out:]}[join]
        read = [a or b for a, b in zip(by_layer, past_it, strict=True)]
    return outputs


def negated(values: list[bool]) -> list[bool]:
    return [not value for value in values]


def both(one: list[bool], other: list[bool]) -> list[bool]:
    return [a and b for a, b in zip(one, other, strict=True)]


@settings(max_examples=80)
@given(
    st.lists(st.sampled_from(sorted(JOINS)), min_size=1, max_size=4),
    st.integers(1, 4),
    st.booleans(),
    st.floats(0.1, 0.9),
    st.integers(0, 10_000),
)
def test_dead_is_what_no_kept_path_leads_to_or_from(joins, width, has_bias, share, seed):
    model = Graph(joins, width=width, has_bias=has_bias)
    generator = torch.Generator().manual_seed(seed)
    masks = {
        f"{name}.{part}": torch.rand(getattr(layer, part).shape, generator=generator) < share
        for name, layer in prunable_layers(model).items()
        for part in (("weight", "bias") if layer.bias is not None else ("weight",))
    }
    with PathWalker(model, torch.zeros(1, width, 2, 2)) as walker:
        dead = walker.dead(masks)
    inputs, outputs = arriving(model, masks)
    read = leaving(model, masks)
    assert {name: dead_I.tolist() for name, dead_I in dead.inputs.items()} == {
        name: negated(alive) for name, alive in inputs.items()
    }
    assert dead.outputs["head"].tolist() == [False, False]
    for i in range(len(joins)):
        name = f"layers.{i}"
        useful = both(outputs[name], read[name])
        assert dead.norms[f"norms.{i}"].tolist() == negated(useful)
        # A channel into which nothing goes may be called read or not: there is nothing to read.
        assert both((~dead.outputs[name]).tolist(), outputs[name]) == useful


# --- Networks that are no such graph, by what they compute ---------------------------------------------------------


class SqueezeExcite(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(2, 5, 3, padding=1)
        self.down, self.up = nn.Conv2d(5, 3, 1), nn.Conv2d(3, 5, 1)
        self.head = nn.Linear(5, 2)

    def forward(self, x):
        x = F.silu(self.stem(x))
        x = x * torch.sigmoid(self.up(F.silu(self.down(F.adaptive_avg_pool2d(x, 1)))))
        return self.head(x.mean((2, 3)))


class Twice(nn.Module):
    """One layer applied to its own output."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(4, 5)
        self.shared = nn.Linear(5, 5)
        self.head = nn.Linear(5, 2)

    def forward(self, x):
        x = self.stem(x.mean((2, 3)).repeat(1, 2))
        return self.head(F.silu(self.shared(F.silu(self.shared(x)))))


class Grouped(nn.Module):
    """A grouped convolution, which is never pruned itself, with pooling on both sides."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(2, 6, 3)
        self.grouped = nn.Conv2d(6, 6, 3, padding=1, groups=3)
        self.head = nn.Linear(6, 2)

    def forward(self, x):
        x = F.max_pool2d(F.gelu(self.stem(x)), 2)
        return self.head(F.avg_pool2d(F.gelu(self.grouped(x)), 2, ceil_mode=True).flatten(1))


class Attention(nn.Module):
    """Tokens of pixels, one head, in each of the ways in which people write it."""

    def __init__(self, softmax: str):
        super().__init__()
        self.softmax = softmax
        self.stem = nn.Conv2d(2, 4, 2, stride=2)
        self.query, self.key, self.value = (nn.Linear(4, 5) for _ in range(3))
        self.out = nn.Linear(5, 4)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        tokens = F.gelu(self.stem(x)).flatten(2).transpose(1, 2)
        query, key, value = self.query(tokens), self.key(tokens), self.value(tokens)
        if self.softmax == "fused":
            mixed = F.scaled_dot_product_attention(query, key, value)
        elif self.softmax == "fused_by_keyword":
            mixed = F.scaled_dot_product_attention(query=query, key=key, value=value)
        else:
            products = query @ key.transpose(1, 2)
            weights = {
                "function": lambda: torch.softmax(products, -1),
                "functional": lambda: F.softmax(input=products, dim=-1),
                "tensor": lambda: products.softmax(-1),
                "module": lambda: nn.Softmax(-1)(products),
            }[self.softmax]()
            mixed = weights @ value
        return self.head((tokens + self.out(mixed)).mean(1))


class AnswersBy(nn.Module):
    """Three layers with what stands between and after them."""

    def __init__(self, between: nn.Module, after: nn.Module):
        super().__init__()
        self.first, self.between = nn.Conv2d(2, 6, 3, padding=1), between
        # Four logits: equal ones have a softmax of exactly a quarter, whose gradient is exactly zero.
        self.second, self.head, self.after = nn.Conv2d(6, 5, 3), nn.Linear(5, 4), after

    def forward(self, x):
        x = F.silu(self.between(self.first(x)))
        return self.after(self.head(F.silu(self.second(x)).mean((2, 3))))


class ResidualSix(nn.Module):
    """So many sums that a cut at 6 is reached when each adds a 1."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(2, 3, 1)
        self.branches = nn.ModuleList(nn.Conv2d(3, 3, 1) for _ in range(9))
        self.head = nn.Linear(3, 2)

    def forward(self, x):
        x = F.silu(self.stem(x))
        for branch in self.branches:
            x = F.hardtanh(x + branch(x), -6.0, 6.0)
        return self.head(x.mean((2, 3)))


class SteepGate(nn.Module):
    """A gate that is wide open, to seven digits, where every weight is 1."""

    def __init__(self):
        super().__init__()
        self.stem, self.gate, self.head = nn.Conv2d(2, 5, 1), nn.Conv2d(5, 5, 1), nn.Linear(5, 2)

    def forward(self, x):
        x = F.silu(self.stem(x))
        return self.head((x * torch.sigmoid(60.0 * self.gate(x))).mean((2, 3)))


def alive_by_computing(model: nn.Module, masks: dict[str, Tensor], images_NCHW: Tensor) -> Dead:
    """What is exactly zero, forwards or backwards, in a network of those masks and random weights."""
    model = model.double().eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(std=0.3, generator=generator).mul_(masks.get(name, torch.ones(())))
    arrives: dict[str, list[Tensor]] = defaultdict(list)
    is_read: dict[str, list[Tensor]] = defaultdict(list)

    def per_channel(layer: nn.Module, values: Tensor) -> Tensor:
        axis = -1 if isinstance(layer, nn.Linear) else 1
        return (values != 0).movedim(axis, 0).flatten(1).any(1)

    def watch(name: str, layer: nn.Module):
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            arrives[name].append(per_channel(layer, inputs[0].detach()))
            output.register_hook(lambda gradient: is_read[name].append(per_channel(layer, gradient)))

        return layer.register_forward_hook(hook)

    hooks = [watch(name, layer) for name, layer in prunable_layers(model).items()]
    answer = model(images_NCHW.double())
    (answer * torch.arange(1.0, answer.numel() + 1).view_as(answer)).sum().backward()
    for hook in hooks:
        hook.remove()
    return Dead(
        inputs={name: ~torch.stack(found).any(0) for name, found in arrives.items()},
        outputs={name: ~torch.stack(is_read[name]).any(0) for name in arrives},
        norms={},
    )


OTHERS = {
    "squeeze_excite": SqueezeExcite,
    "twice": Twice,
    "grouped": Grouped,
    "residual_six": ResidualSix,
    "steep_gate": SteepGate,
    **{
        f"attention_{softmax}": lambda softmax=softmax: Attention(softmax)
        for softmax in ("function", "functional", "tensor", "module", "fused", "fused_by_keyword")
    },
    "log_softmax": lambda: AnswersBy(nn.Identity(), nn.LogSoftmax(1)),
    "instance_norm": lambda: AnswersBy(nn.InstanceNorm2d(6), nn.Identity()),
    "group_norm": lambda: AnswersBy(nn.GroupNorm(6, 6, affine=False), nn.Identity()),
    "tanh": lambda: AnswersBy(nn.Tanh(), nn.Sigmoid()),
}


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("seed", range(4))
def test_dead_is_what_carries_only_zeros_in_the_network_itself(name, seed):
    """Rows go at random (none in the first case), with their biases, as the pruning of outputs does it."""
    model = OTHERS[name]()
    generator = torch.Generator().manual_seed(seed)
    masks = {}
    for layer_name, layer in list(prunable_layers(model).items())[:-1]:
        keep_O = torch.rand(len(layer.weight), generator=generator) < (1.0, 0.7, 0.5, 0.4)[seed]
        keep_O[seed % len(keep_O)] = True
        masks[f"{layer_name}.weight"] = keep_O.view(-1, *[1] * (layer.weight.ndim - 1)).expand(layer.weight.shape)
        masks[f"{layer_name}.bias"] = keep_O
    with PathWalker(model, torch.zeros(1, 2, 6, 6)) as walker:
        dead = walker.dead(masks)
    expected = alive_by_computing(model, masks, images((1, 2, 6, 6), num=3).images_NCHW)
    for layer_name in prunable_layers(model):
        assert dead.inputs[layer_name].tolist() == expected.inputs[layer_name].tolist(), layer_name
        is_kept_O = masks.get(f"{layer_name}.bias", torch.ones(len(dead.outputs[layer_name]), dtype=torch.bool))
        # Of outputs that are removed there is nothing to read.
        assert torch.equal(dead.outputs[layer_name] & is_kept_O, expected.outputs[layer_name] & is_kept_O), layer_name


def test_queries_and_keys_are_read_although_their_gradient_on_equal_tokens_is_zero():
    with PathWalker(Attention("function"), torch.zeros(1, 2, 6, 6)) as walker:
        dead = walker.dead({})
    assert not any(dead.outputs[name].any() for name in ("query", "key", "value"))


def test_attention_between_removed_queries_and_keys_is_even_and_not_none():
    """Query and key have no unit in common, so that all products are zero; what softmax makes of them is not."""
    rows = torch.arange(5)[:, None] < 2
    masks = {
        **{"query.weight": rows.expand(5, 4), "query.bias": rows[:, 0]},
        **{"key.weight": ~rows.expand(5, 4), "key.bias": ~rows[:, 0]},
    }
    for softmax in ("tensor", "fused"):
        with PathWalker(Attention(softmax), torch.zeros(1, 2, 6, 6)) as walker:
            dead = walker.dead(masks)
        assert not dead.inputs["out"].any()
        assert not dead.outputs["value"].any()
        assert torch.equal(dead.outputs["query"], rows[:, 0])  # by keys that are all removed


def torchvision_models() -> dict[str, nn.Module]:
    models = import_torchvision().models
    swin = models.swin_transformer
    return {
        "vit": models.VisionTransformer(32, 8, 2, 2, 16, 24, num_classes=5),
        "maxvit": models.MaxVit((32, 32), 8, 2, [8, 8], [1, 1], 4, 0.0, num_classes=5),
        "swin": swin.SwinTransformer([4, 4], 8, [2, 2], [2, 2], [2, 2], num_classes=5),
        # Its attention's bias is computed by layers into which no image goes.
        "swin_v2": swin.SwinTransformer(
            *([4, 4], 8, [2, 2], [2, 2], [2, 2]),
            num_classes=5,
            block=swin.SwinTransformerBlockV2,
            downsample_layer=swin.PatchMergingV2,
        ),
        "mobilenet_v3": models.mobilenet_v3_small(num_classes=5),
        "googlenet": models.googlenet(num_classes=5, init_weights=False, aux_logits=False),
    }


@pytest.mark.parametrize("name", ["vit", "maxvit", "swin", "swin_v2", "mobilenet_v3", "googlenet"])
def test_nothing_is_dead_in_a_whole_network(name):
    with PathWalker(torchvision_models()[name], torch.zeros(1, 3, 32, 32)) as walker:
        dead = walker.dead({})
    assert dead.inputs
    for found in dead:
        assert [layer for layer, dead_C in found.items() if dead_C.any()] == []


def test_hidden_units_of_a_vision_transformer_go_one_by_one():
    model = torchvision_models()["vit"]
    first, second = "encoder.layers.encoder_layer_1.mlp.0", "encoder.layers.encoder_layer_1.mlp.3"
    keep_O = torch.arange(24) % 3 > 0
    with PathWalker(model, torch.zeros(1, 3, 32, 32)) as walker:
        dead = walker.dead({f"{first}.weight": keep_O[:, None].expand(24, 16), f"{first}.bias": keep_O})
        unread = walker.dead(
            {
                **{f"{first}.weight": torch.ones(24, 16, dtype=torch.bool)},
                **{f"{first}.bias": torch.ones(24, dtype=torch.bool)},
                f"{second}.weight": keep_O[None].expand(16, 24),
            }
        )
    assert dead.inputs.pop(second).tolist() == (~keep_O).tolist()
    assert not any(dead_I.any() for dead_I in dead.inputs.values())
    assert unread.outputs.pop(first).tolist() == (~keep_O).tolist()
    assert not any(dead_O.any() for dead_O in unread.outputs.values())


def test_norm_over_tokens_has_one_answer_per_channel():
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.norm, self.head = nn.Conv1d(2, 5, 1), nn.BatchNorm1d(5), nn.Linear(5, 2)

        def forward(self, x):
            return self.head(self.norm(self.embed(x.flatten(2))).mean(2))

    with PathWalker(Tokens(), torch.zeros(1, 2, 3, 3)) as walker:
        dead = walker.dead({"head.weight": torch.tensor([[True, True, False, True, False]] * 2)})
    assert dead.norms["norm"].tolist() == [False, False, True, False, True]


def test_channel_of_a_layer_that_is_applied_twice_is_dead_only_where_both_inputs_are():
    class Shared(nn.Module):
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
    with PathWalker(Shared(), torch.zeros(1, 2)) as walker:
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
        answers = [walker.dead(masks) for masks in (kept, none_of_first, kept)]
    assert [dead.inputs["layers.1"].tolist() for dead in answers] == [[False] * 3, [True, False, False], [False] * 3]
    assert [dead.norms["norms.0"].tolist() for dead in answers] == [[False] * 3, [True, False, False], [False] * 3]


def test_walker_leaves_the_network_as_it_was():
    model = Graph(["chain"], width=3, has_bias=True).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with PathWalker(model, torch.zeros(1, 3, 2, 2)) as walker:
        walker.dead({})
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


# --- Operations that take away, cut off, compare or are not known --------------------------------------------------


def mixed(x: Tensor, y: Tensor) -> Tensor:
    gate = torch.sigmoid(y)
    return gate * x + (1 - gate) * y


def centred_in_place(x: Tensor, y: Tensor) -> Tensor:
    y = y.clone()
    y -= y.mean(1, keepdim=True)
    return y


def gated_in_place(x: Tensor, y: Tensor) -> Tensor:
    y = F.relu(y, inplace=True)
    y *= x
    return y.neg_()


def looked_at_without_gradient(x: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        gate = y.tanh()
    return x + gate


def filled_in(x: Tensor, y: Tensor) -> Tensor:
    out = torch.zeros_like(x)
    out[:, :3] = x[:, :3] - y[:, :3]
    out[:, 3:] = y[:, 3:]
    return out


def masked_both_ways(x: Tensor, y: Tensor) -> Tensor:
    is_high = x > 0.1
    return is_high * x + (~is_high) * y


# What becomes of a channel that is removed in both: "gone", or something that the answer depends on.
OPERATIONS = {
    "sub": ("gone", lambda x, y: x - y),
    "sub_function": ("gone", lambda x, y: torch.sub(x, y, alpha=2)),
    "sub_method": ("gone", lambda x, y: x.subtract(y)),
    "sub_in_place": ("gone", lambda x, y: x.clone().sub_(y)),
    "rsub": ("gone", lambda x, y: torch.rsub(x, y)),
    "sub_of_equals": ("gone", lambda x, y: (2 * x - y) - x),
    "neg": ("gone", lambda x, y: -y),
    "neg_function": ("gone", lambda x, y: torch.neg(y)),
    "neg_in_place": ("gone", lambda x, y: y.clone().neg_()),
    "negative_factor": ("gone", lambda x, y: x + y * -1),
    "negative_buffer": ("gone", lambda x, y: x + y * torch.full((6, 1, 1), -1.0)),
    "one_minus": ("gone", lambda x, y: (1 - y) * x + y),
    "mixed": ("gone", mixed),
    "offset": ("there", lambda x, y: y - 1.0),
    "clamp": ("gone", lambda x, y: y.clamp(-0.3, 0.3)),
    "clamp_below_one": ("gone", lambda x, y: torch.clamp(y, min=0, max=0.05)),
    "clamp_above_zero": ("there", lambda x, y: y.clip(min=0.05)),
    "clamp_in_place": ("any", lambda x, y: y.clone().clamp_(-0.3, 0.3)),
    "hardtanh": ("gone", lambda x, y: F.hardtanh(y, -0.2, 0.2)),
    "hardtanh_above_zero": ("there", lambda x, y: F.hardtanh(y, 0.1, 0.2)),
    "threshold": ("any", lambda x, y: F.threshold(y, 0.1, 0.0)),
    "division": ("gone", lambda x, y: y / (x.abs() + 1)),
    "reciprocal": ("there", lambda x, y: 1 / (y.abs() + 1)),
    "norm": ("gone", lambda x, y: y / y.norm(dim=1, keepdim=True)),
    "vector_norm": ("gone", lambda x, y: y / torch.linalg.vector_norm(y, dim=1, keepdim=True)),
    "normalize": ("gone", lambda x, y: F.normalize(y, dim=1)),
    "centre": ("there", lambda x, y: y - y.mean(1, keepdim=True)),
    "centre_in_place": ("there", centred_in_place),
    "standardise": ("gone", lambda x, y: (y - y.mean((2, 3), keepdim=True)) / (y.std((2, 3), keepdim=True) + 0.1)),
    "standardise_by_var": (
        "gone",
        lambda x, y: (y - y.mean((2, 3), True)) * torch.rsqrt(y.var((2, 3), keepdim=True) + 1),
    ),
    "layer_norm": ("there", lambda x, y: F.layer_norm(y, (6, 6, 6))),
    "group_norm": ("there", lambda x, y: F.group_norm(y, 2)),
    "softmax": ("there", lambda x, y: y.softmax(1)),
    "softmin": ("there", lambda x, y: F.softmin(y, dim=1)),
    "log_softmax": ("there", lambda x, y: F.log_softmax(y, 1)),
    "cos": ("there", lambda x, y: torch.cos(3 * y)),
    "sin": ("gone", lambda x, y: torch.sin(5 * y)),
    "exp": ("there", lambda x, y: (-y.abs()).exp()),
    "softplus": ("there", lambda x, y: F.softplus(y)),
    "logsigmoid": ("there", lambda x, y: F.logsigmoid(y)),
    "elu": ("gone", lambda x, y: F.elu(y)),
    "softsign": ("gone", lambda x, y: F.softsign(y)),
    "hardswish": ("gone", lambda x, y: F.hardswish(y)),
    "leaky_relu_of_negative": ("gone", lambda x, y: F.leaky_relu(-y)),
    "abs": ("gone", lambda x, y: y.abs()),
    "square": ("gone", lambda x, y: y**2),
    "power": ("any", lambda x, y: (y.abs() + 1) ** -0.5),
    "maximum": ("gone", lambda x, y: torch.maximum(x, y)),
    "max_of_two": ("any", lambda x, y: torch.max(x, y)),
    "amax": ("there", lambda x, y: y - y.amax(1, keepdim=True)),
    "max_with_index": ("there", lambda x, y: x - y.max(1, keepdim=True)[0]),
    "argmax": ("any", lambda x, y: x * (1 + y.argmax(1, keepdim=True))),
    "topk": ("any", lambda x, y: x + y.topk(2, dim=1).values.sum(1, keepdim=True)),
    "gather": ("any", lambda x, y: x - y.gather(1, x.argsort(1))),
    "where": ("any", lambda x, y: torch.where(x > y, x, y)),
    "masked_both_ways": ("any", masked_both_ways),
    "masked_by_whole_numbers": ("any", lambda x, y: (1 - (x > 0.1).long()) * x - y),
    "masked_by_floats": ("any", lambda x, y: (1 - (x > 0.1).double()) * x - y),
    "one_of_comparison_alone": ("any", lambda x, y: (x > y).double()),
    "masked_fill": ("any", lambda x, y: y.masked_fill(x > 0.1, -1.0)),
    "branch_by_value": ("any", lambda x, y: x - y if float(y.mean()) > 0 else x + y),
    "round": ("gone", lambda x, y: (y * 8).round()),
    "detach": ("gone", lambda x, y: x + y.detach()),
    "no_grad": ("gone", looked_at_without_gradient),
    "filled_in": ("any", filled_in),
    "gated_in_place": ("gone", gated_in_place),
    "local_response_norm": ("gone", lambda x, y: F.local_response_norm(y, 5)),
    "lp_pool": ("any", lambda x, y: F.lp_pool2d(y, 2, 2)),
    "max_pool": ("gone", lambda x, y: F.max_pool2d(y, 2)),
    "max_pool_over_shuffled": (
        "any",
        lambda x, y: F.pixel_unshuffle(F.max_pool2d(F.pixel_shuffle(torch.cat([x, y], 1), 2), 2), 2),
    ),
    "bilinear": ("gone", lambda x, y: F.interpolate(y, scale_factor=2, mode="bilinear")),
    "bicubic": ("any", lambda x, y: F.interpolate(y, scale_factor=2, mode="bicubic")),
    "padded": ("gone", lambda x, y: F.pad(y, (1, 1))),
    "padded_with_value": ("there", lambda x, y: F.pad(y, (1, 1), value=-2.0)),
    "fourier": ("any", lambda x, y: torch.fft.rfft2(y).abs()),
    "cumulative_product": ("any", lambda x, y: y.cumprod(1)),
}


class Operated(nn.Module):
    """Operations on what goes into and what comes out of one layer each, in a chain."""

    def __init__(self, names: list[str]):
        super().__init__()
        self.names = names
        self.first = nn.Conv2d(2, 6, 3, padding=1)
        self.layers = nn.ModuleList(nn.Conv2d(6, 6, 3, padding=1) for _ in names)
        self.last, self.head = nn.LazyConv2d(6, 1), nn.Linear(6, 3)

    def forward(self, x):
        x = F.silu(self.first(x))
        for name, layer in zip(self.names, self.layers, strict=True):
            y = OPERATIONS[name][1](x, layer(x))
            # Sizes and channels that an operation has changed.
            x = F.adaptive_avg_pool2d(y, 6) if y.shape[1] == 6 else y
        return self.head(F.silu(self.last(x)).mean((2, 3)))


def operated(names: list[str], *, seed: int) -> Operated:
    model = Operated(names).double().eval()
    with torch.no_grad():
        model(torch.ones(1, 2, 6, 6, dtype=torch.double))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3, generator=generator)
    return model


def random_masks(model: nn.Module, *, seed: int) -> dict[str, Tensor]:
    """Rows with their biases, columns and single weights."""
    generator = torch.Generator().manual_seed(seed)
    masks = {}
    for name, layer in prunable_layers(model).items():
        shape = layer.weight.shape
        ones = [1] * (len(shape) - 2)
        keep_O = torch.rand(shape[0], generator=generator) < 0.7
        keep_I = torch.rand(shape[1], generator=generator) < 0.7
        masks[f"{name}.weight"] = (
            keep_O.view(-1, 1, *ones) & keep_I.view(1, -1, *ones) & (torch.rand(shape, generator=generator) < 0.9)
        )
        masks[f"{name}.bias"] = keep_O
    return masks


def assert_dead_weights_change_no_answer(model: nn.Module, masks: dict[str, Tensor], *, seed: int) -> None:
    """Dead inputs carry zeros, whatever they are multiplied with; of dead outputs no value is read."""
    images_NCHW = images((1, 2, 6, 6), num=4, seed=seed).images_NCHW.double()
    with PathWalker(model, torch.zeros(1, 2, 6, 6, dtype=torch.double)) as walker:
        dead = walker.dead(masks)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        apply_masks(model, masks)
        logits_NC = model(images_NCHW)
        for name, layer in prunable_layers(model).items():
            for dead_C, weight_CX in (
                (dead.inputs[name], layer.weight.transpose(0, 1)),
                (dead.outputs[name], layer.weight),
            ):
                before, bias_before = layer.weight.clone(), layer.bias.clone()
                changed = dead_C
                if weight_CX is layer.weight:
                    # Removed outputs stay as they are: two that are multiplied with each other are each unread.
                    changed = dead_C & masks[f"{name}.bias"]
                    layer.bias[changed] = torch.randn(layer.bias.shape, generator=generator).double()[changed]
                    weight_CX[changed] = torch.randn(weight_CX.shape, generator=generator).double()[changed]
                else:
                    is_kept_O = masks[f"{name}.bias"].view(1, -1, *[1] * (weight_CX.ndim - 2))
                    noise = torch.randn(weight_CX.shape, generator=generator).double()
                    weight_CX[changed] = (noise * is_kept_O)[changed]
                again_NC = model(images_NCHW)
                torch.testing.assert_close(again_NC, logits_NC, rtol=1e-9, atol=1e-9, equal_nan=True)
                layer.weight.copy_(before)
                layer.bias.copy_(bias_before)


@pytest.mark.parametrize("name", OPERATIONS)
def test_nothing_is_dead_in_a_whole_network_that_uses(name):
    model = operated([name], seed=0)
    with PathWalker(model, torch.zeros(1, 2, 6, 6, dtype=torch.double)) as walker:
        dead = walker.dead({})
    assert [layer for found in dead for layer, dead_C in found.items() if dead_C.any()] == []


@pytest.mark.parametrize("name", OPERATIONS)
def test_channel_that_is_removed_on_both_sides_is_dead_or_alive_after(name):
    removed = torch.tensor([False, True, False, True, False, False])
    masks = {}
    for layer, width in (("first", 2), ("layers.0", 6)):
        masks |= {f"{layer}.weight": ~removed.view(-1, 1, 1, 1).expand(6, width, 3, 3), f"{layer}.bias": ~removed}
    model = operated([name], seed=0)
    with PathWalker(model, torch.zeros(1, 2, 6, 6, dtype=torch.double)) as walker:
        dead = walker.dead(masks)
    expected = {"gone": removed.tolist(), "there": [False] * 6}
    if OPERATIONS[name][0] in expected:
        assert dead.inputs["last"].tolist() == expected[OPERATIONS[name][0]]


@pytest.mark.parametrize("name", OPERATIONS)
def test_weights_that_are_dead_change_no_answer_of_a_network_that_uses(name):
    for seed in range(4):
        model = operated([name], seed=seed)
        assert_dead_weights_change_no_answer(model, random_masks(model, seed=seed), seed=seed)


@settings(max_examples=40, deadline=None)
@given(
    # Not what gives another number of channels.
    st.lists(st.sampled_from(sorted(set(OPERATIONS) - {"max_pool_over_shuffled"})), min_size=2, max_size=4),
    st.integers(0, 10_000),
)
def test_weights_that_are_dead_change_no_answer_of_a_network_of_several_operations(names, seed):
    model = operated(names, seed=seed)
    assert_dead_weights_change_no_answer(model, random_masks(model, seed=seed), seed=seed)


def test_layers_that_share_a_weight_are_alive():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.one, self.other, self.head = (nn.Linear(4, 4) for _ in range(4))
            self.other.weight = self.one.weight

        def forward(self, x):
            return self.head(self.other(self.one(self.stem(x))))

    keep_O = torch.tensor([False, True, True, True])
    masks = {
        **{"stem.weight": keep_O[:, None].expand(4, 4), "stem.bias": keep_O},
        "head.weight": keep_O[None].expand(4, 4),
    }
    with PathWalker(Tied(), torch.zeros(1, 4)) as walker:
        dead = walker.dead(masks)
    assert not dead.inputs["one"].any()
    assert not dead.outputs["one"].any()


def test_layer_whose_output_is_dropped_is_alive_whatever_the_masks():
    class Dropping(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.dropped, self.head = (nn.Linear(4, 4) for _ in range(3))

        def forward(self, x):
            x = self.stem(x)
            self.dropped(x)
            return self.head(x)

    with PathWalker(Dropping(), torch.zeros(1, 4)) as walker:
        dead = walker.dead({"head.weight": (torch.arange(4) > 0)[None].expand(4, 4)})
    assert not dead.outputs["dropped"].any()
    assert dead.outputs["stem"].tolist() == [True, False, False, False]


# --- Masks that follow the paths -----------------------------------------------------------------------------------

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


@pytest.mark.parametrize(("name", "channels", "px"), NETWORKS)
def test_outputs_removed_because_nobody_reads_them_change_no_answer(name, channels, px):
    """Channels go by their readers' columns; rows, biases and norms of what is left unread then go along."""
    model = build(name, in_channels=channels, image_size=px)
    shape = (1, channels, px, px)
    masks = masks_of("pfp", model, 0.6, shape=shape, samples=images(shape), score="l1", scope="layer")
    images_NCHW = torch.randn(4, channels, px, px, generator=torch.Generator().manual_seed(1))
    columns = {}
    for layer_name in prunable_layers(model):
        if (mask := masks.get(f"{layer_name}.weight")) is not None:
            keep_I = mask.transpose(0, 1).flatten(1).any(1)
            columns[f"{layer_name}.weight"] = keep_I.view(1, -1, *[1] * (mask.ndim - 2)).expand(mask.shape)
    rows = {key: mask for key, mask in masks.items() if not torch.equal(mask, columns.get(key, torch.zeros(())))}
    assert rows
    with torch.no_grad():
        apply_masks(model, columns)
        logits_NC = model(images_NCHW)
        apply_masks(model, rows)
        again_NC = model(images_NCHW)
    assert logits_NC.std() > 0
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
