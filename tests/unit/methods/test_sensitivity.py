"""Shares of weights and channels in outputs, against loops over images, signs, filters and patches."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from raypruning.errors import MethodError
from raypruning.methods import layer_inputs, scores, sensitivity
from raypruning.methods.method import Samples
from raypruning.models.layers import prunable_layers

from .networks import SMALL, build, images, network_of, small_network

SMALLEST_SUM = 1.19e-7  # Lost in Pruning's code: below it a sum counts as 0


class Shares(NamedTuple):
    """Of one layer: the mean and the largest share over patches of weight (o, k), each the largest over images."""

    mean: list[list[float]]
    largest: list[list[float]]


def patches_of(layer: nn.Module, x: Tensor) -> list[list[float]]:
    """The inputs of one image that a filter multiplies, position by position."""
    if isinstance(layer, nn.Linear):
        return [x.tolist()]
    (down, right), (ph, pw), (dh, dw) = layer.stride, layer.padding, layer.dilation
    kh, kw = layer.kernel_size
    padded = F.pad(x, (pw, pw, ph, ph))
    return [
        [
            float(padded[c, top + i * dh, left + j * dw])
            for c in range(padded.shape[0])
            for i in range(kh)
            for j in range(kw)
        ]
        for top in range(0, padded.shape[1] - dh * (kh - 1), down)
        for left in range(0, padded.shape[2] - dw * (kw - 1), right)
    ]


def shares_by_definition(layer: nn.Module, inputs: Tensor) -> Shares:
    """Reference 2.2, steps 1 to 4 (SiPP) and 2.4 (PFP), one number at a time."""
    weight_OK = layer.weight.detach().flatten(1).tolist()
    num_k = len(weight_OK[0])
    mean = [[0.0] * num_k for _ in weight_OK]
    largest = [[0.0] * num_k for _ in weight_OK]
    for x in inputs:
        both = [x] if bool((x >= 0).all()) else [x.clamp(min=0), (-x).clamp(min=0)]
        for part in both:
            patches = patches_of(layer, part)
            for o, filter_K in enumerate(weight_OK):
                sums = [0.0] * num_k
                for patch in patches:
                    up = sum(w * a for w, a in zip(filter_K, patch, strict=True) if w > 0)
                    down = sum(w * a for w, a in zip(filter_K, patch, strict=True) if w < 0)
                    for k, (w, a) in enumerate(zip(filter_K, patch, strict=True)):
                        total = up if w > 0 else down
                        share = w * a / total if abs(total) > SMALLEST_SUM else 0.0
                        sums[k] += share
                        largest[o][k] = max(largest[o][k], share)
                for k in range(num_k):
                    mean[o][k] = max(mean[o][k], sums[k] / len(patches))
    return Shares(mean, largest)


def by_channel(largest_OK: list[list[float]], num_channels: int) -> list[float]:
    per = len(largest_OK[0]) // num_channels
    return [max(max(row[c * per : (c + 1) * per]) for row in largest_OK) for c in range(num_channels)]


def check_layer(layer: nn.Module, inputs: Tensor, *, batch: int = 3) -> None:
    """Both sensitivities of a network that is this layer alone."""
    samples = Samples(inputs, torch.arange(len(inputs)) % 3)
    shape = (1, *inputs.shape[1:])
    model = nn.Sequential(layer)
    expected = shares_by_definition(layer, inputs)
    weight = layer.weight.detach()
    found = sensitivity.sipp(network_of(model, shape, samples=samples))["0"]
    # Shares are in [0, 1]; sums of at most 50 float32 products of one sign are right to 50 * 2^-24 of them.
    torch.testing.assert_close(found, torch.tensor(expected.mean).view_as(weight), rtol=1e-5, atol=1e-7)
    found_I = sensitivity.pfp(network_of(model, shape, granularity="channel", samples=samples))["0"]
    expected_I = by_channel(expected.largest, weight.shape[1])
    torch.testing.assert_close(found_I, torch.tensor(expected_I), rtol=1e-5, atol=1e-7)


GEOMETRIES = [
    {},
    {"padding": 1},
    {"stride": 2, "padding": (1, 0)},
    {"dilation": (1, 2), "padding": 1},
    {"kernel_size": 1, "stride": 2},
    {"kernel_size": (1, 3)},
]


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("has_both_signs", [False, True])
def test_sensitivities_of_a_convolution_are_those_of_the_definition(geometry, has_both_signs):
    generator = torch.Generator().manual_seed(len(GEOMETRIES))
    layer = nn.Conv2d(2, 3, **{"kernel_size": 3, **geometry})
    with torch.no_grad():
        layer.weight.normal_(generator=generator)
    inputs = torch.randn(4, 2, 5, 6, generator=generator)
    check_layer(layer, inputs if has_both_signs else inputs.clamp(min=0))


@settings(max_examples=30)
@given(st.integers(1, 4), st.integers(1, 6), st.integers(2, 4), st.booleans(), st.integers(0, 10_000))
def test_sensitivities_of_a_linear_layer_are_those_of_the_definition(num_out, num_in, num, has_both_signs, seed):
    """With many exact zeros among weights and inputs, so that whole sums are zero."""
    generator = torch.Generator().manual_seed(seed)
    layer = nn.Linear(num_in, num_out)
    with torch.no_grad():
        layer.weight.copy_(torch.randint(-2, 3, (num_out, num_in), generator=generator).float())
    inputs = torch.randint(-2 if has_both_signs else 0, 3, (num, num_in), generator=generator).float() / 2
    check_layer(layer, inputs)


def test_inputs_of_both_signs_and_of_one_are_told_apart_image_by_image():
    """What one image has below zero makes two samples of it alone; that of another, of one sign, gives no second."""
    layer = nn.Conv2d(1, 2, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[[[1.0, -2.0], [3.0, 1.0]]], [[[0.5, 0.5], [-1.0, 2.0]]]]))
    inputs = torch.rand(4, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    inputs[2] -= 0.5
    check_layer(layer, inputs)


def test_sums_as_good_as_zero_give_nobody_a_share():
    layer = nn.Linear(2, 1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 1.0]]))
    for scale, expected in [(1e-8, 0.0), (1e-6, 1.0)]:
        samples = Samples(torch.tensor([[scale, 0.0], [scale, 0.0]]), torch.tensor([0, 0]))
        network = network_of(nn.Sequential(layer), (1, 2), samples=samples)
        assert sensitivity.sipp(network)["0"].tolist() == [[expected, 0.0]]
        network = network_of(nn.Sequential(layer), (1, 2), granularity="channel", samples=samples)
        assert sensitivity.pfp(network)["0"].tolist() == [expected, 0.0]


def test_shares_of_a_channel_that_makes_whole_sums_are_exactly_one():
    """However they are rounded: channels that tie by the definition must tie in the order, too."""
    torch.manual_seed(0)
    layer = nn.Conv2d(24, 16, 1)
    inputs = torch.rand(6, 24, 3, 3) * (torch.rand(6, 24, 3, 3) < 0.1)  # most sums have one term or none
    samples = Samples(inputs, torch.arange(6) % 3)
    found = sensitivity.pfp(network_of(nn.Sequential(layer), (1, 24, 3, 3), granularity="channel", samples=samples))
    expected = by_channel(shares_by_definition(layer, inputs).largest, 24)
    is_one = [share > 1 - 1e-9 for share in expected]
    assert sum(is_one) > 12
    assert (found["0"] == 1.0).tolist() == is_one
    assert found["0"].max() == 1.0


def test_inner_layers_are_scored_by_what_reaches_them():
    model = small_network()
    samples = images(SMALL, num=3)
    found = sensitivity.sipp(network_of(model, SMALL, samples=samples))
    with torch.no_grad():
        inputs = {"0": samples.images_NCHW, "3": model[:3](samples.images_NCHW), "6": model[:6](samples.images_NCHW)}
    for name, x in inputs.items():
        expected = torch.tensor(shares_by_definition(model.get_submodule(name), x).mean)
        torch.testing.assert_close(found[name].flatten(1), expected, rtol=1e-4, atol=1e-6)


def test_a_layer_that_is_applied_twice_takes_the_larger_share():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.shared = nn.Linear(3, 3, bias=False)

        def forward(self, x):
            return self.shared(torch.relu(self.shared(x)))

    torch.manual_seed(0)
    model = Twice()
    samples = Samples(torch.rand(5, 3), torch.arange(5) % 3)
    with torch.no_grad():
        again = torch.relu(model.shared(samples.images_NCHW))
    expected = shares_by_definition(model.shared, torch.cat([samples.images_NCHW, again]))
    found = sensitivity.sipp(network_of(model, (1, 3), samples=samples))["shared"]
    torch.testing.assert_close(found, torch.tensor(expected.mean), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("granularity", ["filter", "channel"])
def test_sipp_of_a_filter_or_channel_is_the_sum_over_its_weights(granularity):
    model, samples = small_network(), images(SMALL)
    of_weights = sensitivity.sipp(network_of(model, SMALL, samples=samples))
    axis = {"filter": 0, "channel": 1}[granularity]
    for name, score in sensitivity.sipp(network_of(model, SMALL, granularity=granularity, samples=samples)).items():
        expected = [float(of_weights[name].select(axis, i).double().sum()) for i in range(len(score))]
        assert score.tolist() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("score", "granularity"), [(sensitivity.sipp, "weight"), (sensitivity.pfp, "channel")])
@pytest.mark.parametrize("limits", [{"CACHE_BYTES": 1}, {"CACHE_BYTES": 100_000}, {"MAX_PATCH_BYTES": 1}])
def test_sensitivities_do_not_hang_on_how_much_is_looked_at_at_once(monkeypatch, score, granularity, limits):
    model, samples = build("lenet5"), images((1, 1, 28, 28), num=5)
    network = network_of(model, (1, 1, 28, 28), granularity=granularity, samples=samples)
    whole = score(network)
    for name, value in limits.items():
        monkeypatch.setattr(sensitivity if name == "CACHE_BYTES" else layer_inputs, name, value)
    for name, found in score(network).items():
        # Products of other sizes may be added up in another order: a few roundings of shares in [0, 1].
        torch.testing.assert_close(found, whole[name], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("score", [sensitivity.sipp, sensitivity.pfp, scores.activation])
def test_network_that_uses_a_weight_without_calling_its_layer_is_refused_with_what_to_do(score):
    class Uncalled(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.head = nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, x):
            return F.linear(self.stem(x), self.head.weight)

    model = Uncalled()
    samples = Samples(torch.rand(3, 4), torch.arange(3))
    granularity = "channel" if score is sensitivity.pfp else "weight"
    with pytest.raises(MethodError, match=r"uses the weights of head without calling the layers.*: add skip=head, or"):
        score(network_of(model, (1, 4), granularity=granularity, samples=samples))
    assert not any(module._forward_pre_hooks for module in model.modules())
    layers = {name: layer for name, layer in prunable_layers(model).items() if name != "head"}
    network = network_of(model, (1, 4), granularity=granularity, samples=samples, layers=layers)
    assert list(score(network)) == ["stem"]
