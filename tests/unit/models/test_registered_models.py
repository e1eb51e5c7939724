"""What holds for each of our own networks, at the input it was made for."""

import pytest
import torch

from raypruning.errors import SpecError
from raypruning.models.layers import count_macs, count_parameters, layer_positions, prunable_layers
from raypruning.models.resolve import build_model

# Name, channels, px, parameters, multiply-adds, prunable layers. Parameters, and multiply-adds to the digits printed:
# the LeNet study (sections 1.1 and 1.4), the MLP study (3.1) and Lost in Pruning (section 3) in our reference notes.
NETWORKS = [
    ("lenet5", 1, 28, 21_840, 480_500, 4),
    ("mlp", 1, 28, 2_386_000, 2_386_000, 5),
    ("resnet20", 3, 32, 272_474, 40.8e6, 22),
    ("resnet56", 3, 32, 869_530, 127e6, 86),
    ("resnet110", 3, 32, 1_704_154, 248e6, 167),
    ("vgg16", 3, 32, 14_728_266, 313e6, 14),
    ("densenet22", 3, 32, 71_686, 31.2e6, 22),
    ("wrn16_8", 3, 32, 10_961_370, 1_548e6, 17),
]
INPUTS = [network[:3] for network in NETWORKS]


def build(name, in_channels, image_size, *, seed=0, num_classes=10):
    torch.manual_seed(seed)
    return build_model(name, num_classes=num_classes, in_channels=in_channels, image_size=image_size, options={})


@pytest.mark.parametrize(("name", "in_channels", "px", "num_parameters", "num_macs", "num_layers"), NETWORKS)
def test_network_has_the_size_of_its_source(name, in_channels, px, num_parameters, num_macs, num_layers):
    model = build(name, in_channels, px)
    assert count_parameters(model) == num_parameters
    # Three digits are printed (four for wrn16_8): half a unit of the third of 127 is 0.4 %.
    assert count_macs(model, in_channels, px) == pytest.approx(num_macs, rel=0.004)
    assert len(prunable_layers(model)) == num_layers


@pytest.mark.parametrize(("name", "in_channels", "px"), INPUTS)
def test_positions_account_for_every_multiply_add(name, in_channels, px):
    model = build(name, in_channels, px)
    positions = layer_positions(model, in_channels, px)
    num_weights = {name: layer.weight.numel() for name, layer in prunable_layers(model).items()}
    assert sum(num_weights[name] * positions[name] for name in num_weights) == count_macs(model, in_channels, px)


@pytest.mark.parametrize(("name", "in_channels", "px"), [*INPUTS, ("lenet5", 3, 32), ("resnet20", 1, 28)])
def test_logits_are_finite_and_one_per_class(name, in_channels, px):
    logits_NC = build(name, in_channels, px, num_classes=7)(torch.randn(2, in_channels, px, px))
    assert logits_NC.shape == (2, 7)
    assert logits_NC.isfinite().all()


@pytest.mark.parametrize(("name", "in_channels", "px"), INPUTS)
def test_seed_decides_the_weights_and_a_state_dict_carries_them(name, in_channels, px):
    model, same, other = (build(name, in_channels, px, seed=seed) for seed in (1, 1, 2))
    weights = model.state_dict()
    assert all(torch.equal(value, weights[key]) for key, value in same.state_dict().items())
    assert any(not torch.equal(value, weights[key]) for key, value in other.state_dict().items())
    other.load_state_dict(weights)
    images_NCHW = torch.randn(1, in_channels, px, px)
    assert torch.equal(model.eval()(images_NCHW), other.eval()(images_NCHW))


@pytest.mark.parametrize(("name", "in_channels", "px"), INPUTS)
def test_an_option_that_does_not_exist_is_refused(name, in_channels, px):
    with pytest.raises(SpecError, match=f"the model {name} has no option 'colour'"):
        build_model(name, num_classes=10, in_channels=in_channels, image_size=px, options={"colour": 1})


@pytest.mark.parametrize(("name", "at_least"), [("lenet5", 16), ("vgg16", 32), ("densenet22", 4)])
def test_smallest_image_is_taken_and_one_pixel_less_is_refused(name, at_least):
    assert build(name, 1, at_least).eval()(torch.randn(1, 1, at_least, at_least)).shape == (1, 10)
    with pytest.raises(SpecError, match=f"at least {at_least} px"):
        build(name, 1, at_least - 1)


@pytest.mark.parametrize("name", ["resnet20", "densenet22", "wrn16_8"])
def test_convolutions_start_with_the_spread_of_he_fan_out(name):
    for layer in prunable_layers(build(name, 3, 32)).values():
        weight = layer.weight.detach()
        if weight.dim() == 4:
            fan_out = weight.shape[0] * weight.shape[2] * weight.shape[3]
            # The spread of n normal numbers is off by 1 / sqrt(2n), relative; five of these make a false alarm rare.
            assert weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=5 / (2 * weight.numel()) ** 0.5)


def test_images_larger_than_the_natural_ones_are_taken_by_vgg16():
    assert build("vgg16", 3, 64).eval()(torch.randn(1, 3, 64, 64)).shape == (1, 10)
