"""Scores of weights, filters and channels, against their definitions in loops."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from raypruning.errors import MethodError
from raypruning.methods import layer_inputs, scores
from raypruning.methods.method import Samples
from raypruning.models.layers import prunable_layers

from .networks import SMALL, build, images, network_of, small_network

BY = {"filter": "filter", "channel": "channel", "unit": "filter", "weight": "weight"}


def sum_over(score: Tensor, by: str) -> list[float]:
    """Sums of a weight's scores over each of its filters or channels, one number after the other."""
    axis = 0 if by == "filter" else 1
    return [math.fsum(score.select(axis, i).flatten().tolist()) for i in range(score.shape[axis])]


@pytest.mark.parametrize("granularity", ["weight", "n_m", "block"])
def test_magnitude_is_the_absolute_weight(granularity):
    model = small_network()
    found = scores.magnitude(network_of(model, SMALL, granularity=granularity))
    assert list(found) == ["0", "3", "6", "8"]
    assert all(torch.equal(found[name], layer.weight.detach().abs()) for name, layer in prunable_layers(model).items())


@pytest.mark.parametrize("granularity", ["filter", "unit", "channel"])
def test_magnitude_of_a_filter_or_channel_is_its_l1_norm(granularity):
    model = small_network()
    for name, score in scores.magnitude(network_of(model, SMALL, granularity=granularity)).items():
        weight = prunable_layers(model)[name].weight.detach()
        expected = sum_over(weight.abs(), BY[granularity])
        # Sums of at most 96 float32 numbers of one sign: a relative error below 96 * 2^-24.
        assert score.tolist() == pytest.approx(expected, rel=6e-6)


@pytest.mark.parametrize(("granularity", "axis"), [("filter", 0), ("channel", 1)])
def test_l2_norm_is_torchs(granularity, axis):
    model = small_network()
    for name, score in scores.l2_norm(network_of(model, SMALL, granularity=granularity)).items():
        weight = prunable_layers(model)[name].weight.detach()
        expected = [float(weight.select(axis, i).double().norm()) for i in range(weight.shape[axis])]
        assert score.tolist() == pytest.approx(expected, rel=6e-6)


def test_l2_norm_of_single_weights_orders_them_as_their_magnitude_does():
    model = small_network()
    for name, score in scores.l2_norm(network_of(model, SMALL)).items():
        weight = prunable_layers(model)[name].weight.detach()
        # A square and its root, each rounded once.
        torch.testing.assert_close(score, weight.abs(), rtol=2.0**-22, atol=0.0)


@pytest.mark.parametrize("granularity", ["weight", "filter", "channel"])
def test_random_scores_are_the_generators_numbers_in_the_layers_order(granularity):
    model = small_network()
    generator = torch.Generator().manual_seed(3)
    for name, score in scores.uniform_random(network_of(model, SMALL, granularity=granularity, seed=3)).items():
        weight = prunable_layers(model)[name].weight
        shape = {"weight": weight.shape, "filter": weight.shape[:1], "channel": weight.shape[1:2]}[granularity]
        assert torch.equal(score, torch.rand(shape, generator=generator))


# --- By gradients ---------------------------------------------------------------------------------------------------


def saliency_by_hand(model: nn.Module, samples: Samples) -> dict[str, Tensor]:
    """|w * mean gradient|, one image at a time."""
    layers = prunable_layers(model)
    totals = {name: torch.zeros_like(layer.weight) for name, layer in layers.items()}
    for image_CHW, label in zip(samples.images_NCHW, samples.labels_N, strict=True):
        model.zero_grad()
        F.cross_entropy(model(image_CHW[None]), label[None]).backward()
        for name, layer in layers.items():
            totals[name] += layer.weight.grad
    model.zero_grad()
    return {
        name: (layers[name].weight.detach() * total / len(samples.labels_N)).abs() for name, total in totals.items()
    }


@pytest.mark.parametrize("num", [5, 40])
def test_gradient_saliency_is_that_of_the_mean_loss(num):
    """Also with more images than go through at once, whose batches differ in size."""
    model = small_network().double()
    samples = images(SMALL, num=num)
    samples = Samples(samples.images_NCHW.double(), samples.labels_N)
    expected = saliency_by_hand(model, samples)
    for name, score in scores.gradient_saliency(network_of(model, SMALL, samples=samples)).items():
        # The scores are float32, of sums with both signs: half a digit less than its seven, of the layer's largest.
        torch.testing.assert_close(score.double(), expected[name], rtol=1e-5, atol=1e-6 * float(expected[name].max()))


@pytest.mark.parametrize("granularity", ["filter", "channel"])
def test_gradient_saliency_of_a_filter_or_channel_is_the_sum_over_its_weights(granularity):
    model = small_network()
    samples = images(SMALL)
    expected = saliency_by_hand(model, samples)
    for name, score in scores.gradient_saliency(
        network_of(model, SMALL, granularity=granularity, samples=samples)
    ).items():
        assert score.tolist() == pytest.approx(sum_over(expected[name], granularity), rel=1e-4)


def test_gradient_saliency_of_a_layer_that_the_answer_does_not_hang_on_is_zero():
    class Unused(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.Linear(4, 3), nn.Linear(4, 3)

        def forward(self, x):
            return self.used(x)

    samples = Samples(torch.randn(4, 4, generator=torch.Generator().manual_seed(0)), torch.arange(4) % 3)
    found = scores.gradient_saliency(network_of(Unused(), (1, 4), samples=samples))
    assert found["used"].min() > 0
    assert found["unused"].tolist() == [[0.0] * 4] * 3


def test_gradient_saliency_is_found_where_gradients_are_switched_off_and_leaves_none_behind():
    model = small_network()
    with torch.no_grad():
        found = scores.gradient_saliency(network_of(model, SMALL, samples=images(SMALL)))
    assert found["8"].max() > 0
    assert all(parameter.grad is None for parameter in model.parameters())


# --- By inputs ------------------------------------------------------------------------------------------------------


def convolution_terms(layer: nn.Conv2d, image_CHW: Tensor):
    """(channel, row, column of the kernel, input) for every output position, by the definition of a convolution."""
    padded = F.pad(image_CHW, (layer.padding[1], layer.padding[1], layer.padding[0], layer.padding[0]))
    reach = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
    for top in range(0, padded.shape[1] - reach[0], layer.stride[0]):
        for left in range(0, padded.shape[2] - reach[1], layer.stride[1]):
            for c in range(padded.shape[0]):
                for i in range(layer.kernel_size[0]):
                    for j in range(layer.kernel_size[1]):
                        yield c, i, j, float(padded[c, top + i * layer.dilation[0], left + j * layer.dilation[1]])


@pytest.mark.parametrize(
    "geometry",
    [
        {},
        {"stride": 2, "padding": 1},
        {"stride": (1, 2), "padding": (2, 0)},
        {"dilation": 2, "padding": 1},
        {"kernel_size": (1, 3)},
    ],
)
def test_activation_of_a_convolution_is_the_norm_of_what_each_weight_multiplies(geometry):
    torch.manual_seed(0)
    layer = nn.Conv2d(2, 3, **{"kernel_size": 3, **geometry})
    model = nn.Sequential(layer, nn.Flatten(), nn.LazyLinear(3))
    samples = images((1, 2, 6, 5), num=3)
    model(samples.images_NCHW)
    squares = torch.zeros(layer.weight.shape[1:], dtype=torch.float64)
    for image_CHW in samples.images_NCHW:
        for c, i, j, value in convolution_terms(layer, image_CHW):
            squares[c, i, j] += value**2
    expected = layer.weight.detach().double().abs() * squares.sqrt()
    found = scores.activation(network_of(model, (1, 2, 6, 5), samples=samples))["0"]
    # Sums of a hundred float32 squares.
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=0.0)


def test_activation_of_a_linear_layer_on_tokens_is_the_norm_over_images_and_tokens():
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(2, 3)

        def forward(self, x):
            return self.linear(x.flatten(2).transpose(1, 2)).mean(1)

    model, samples = Tokens(), images((1, 2, 3, 3), num=4)
    weight = model.linear.weight.detach()
    expected = [
        [
            abs(float(weight[o, c])) * math.sqrt(math.fsum(float(a) ** 2 for a in values))
            for c, values in enumerate(samples.images_NCHW.transpose(0, 1).flatten(1))
        ]
        for o in range(3)
    ]
    found = scores.activation(network_of(model, (1, 2, 3, 3), samples=samples))["linear"]
    torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-5, atol=0.0)


@pytest.mark.parametrize("granularity", ["filter", "channel"])
def test_activation_of_a_filter_or_channel_is_the_sum_over_its_weights(granularity):
    model, samples = small_network(), images(SMALL)
    of_weights = scores.activation(network_of(model, SMALL, samples=samples))
    for name, score in scores.activation(network_of(model, SMALL, granularity=granularity, samples=samples)).items():
        assert score.tolist() == pytest.approx(sum_over(of_weights[name], granularity), rel=1e-5)


def test_activation_of_a_layer_that_is_applied_twice_counts_both():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.shared = nn.Linear(3, 3, bias=False)

        def forward(self, x):
            return self.shared(self.shared(x))

    model = Twice()
    samples = Samples(torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), torch.arange(5) % 3)
    weight = model.shared.weight.detach()
    inputs = torch.cat([samples.images_NCHW, samples.images_NCHW @ weight.T])
    found = scores.activation(network_of(model, (1, 3), samples=samples))["shared"]
    torch.testing.assert_close(found, weight.abs() * inputs.norm(dim=0), rtol=1e-5, atol=0.0)


# --- What goes into a layer ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(2, 3, 3, stride=2, padding=(1, 2), dilation=(2, 1), bias=False),
        nn.Conv2d(2, 3, (2, 3), padding="valid", bias=False),
        nn.Conv2d(2, 3, (3, 5), padding="same", dilation=(2, 1), bias=False),
        nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular", bias=False),
        nn.Conv2d(2, 3, 3, padding=(2, 1), padding_mode="reflect", stride=2, bias=False),
        nn.Linear(7, 3, bias=False),
    ],
)
def test_patches_times_weights_are_the_layers_outputs(layer):
    x = torch.randn(3, 2, 7, 7, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        outputs = layer.weight.flatten(1) @ layer_inputs.unfold(layer, x)
        expected = layer(x).flatten(2) if isinstance(layer, nn.Conv2d) else layer(x).flatten(1, 2).transpose(1, 2)
    # Two sums of the same 30 products of about 1 in other orders.
    torch.testing.assert_close(outputs, expected, rtol=1e-5, atol=1e-5)


def test_same_padding_of_an_even_kernel_is_refused():
    with pytest.raises(MethodError, match="padding 'same' and an even kernel cannot be unfolded: give it numbers"):
        layer_inputs.unfold(nn.Conv2d(2, 3, 2, padding="same"), torch.zeros(1, 2, 5, 5))


@pytest.mark.parametrize("score", [scores.activation, scores.gradient_saliency])
def test_scores_do_not_hang_on_how_many_images_go_through_at_once(monkeypatch, score):
    model, samples = build("lenet5"), images((1, 1, 28, 28), num=7)
    whole = score(network_of(model, (1, 1, 28, 28), samples=samples))
    monkeypatch.setattr(layer_inputs, "MAX_PATCH_BYTES", 1)
    monkeypatch.setattr(scores, "GRADIENT_BATCH", 3)
    parts = score(network_of(model, (1, 1, 28, 28), samples=samples))
    for name, of_whole in whole.items():
        torch.testing.assert_close(parts[name], of_whole, rtol=1e-4, atol=1e-5 * float(of_whole.max()))


# Of one image, the patches of conv2 are the largest: 250 inputs of a filter at 64 positions, of 4 bytes.
@pytest.mark.parametrize(
    ("limit", "batches"),
    [(1, [1] * 7), (64_000, [1] * 7), (3 * 64_000, [1, 3, 3]), (4 * 64_000, [1, 4, 2]), (64_000_000, [1, 6])],
)
def test_every_image_is_looked_at_once_in_batches_within_the_memory_limit(monkeypatch, limit, batches):
    samples = images((1, 1, 28, 28), num=7)
    model = build("lenet5")
    monkeypatch.setattr(layer_inputs, "MAX_PATCH_BYTES", limit)
    seen: list[Tensor] = []
    network = network_of(model, (1, 1, 28, 28), samples=samples)
    layer_inputs.visit_inputs(network, lambda name, x: seen.append(x) if name == "conv1" else None)
    assert torch.equal(torch.cat(seen), layer_inputs.unfold(model.conv1, samples.images_NCHW))
    assert [len(part) for part in seen] == batches


def test_hooks_are_gone_also_when_a_visit_fails():
    model = small_network()

    def fail(name, patches):
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        layer_inputs.visit_inputs(network_of(model, SMALL, samples=images(SMALL)), fail)
    assert not any(module._forward_pre_hooks for module in model.modules())
