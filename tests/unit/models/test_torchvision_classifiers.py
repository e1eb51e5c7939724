import pytest
import torch
from torch import nn

from raypruning.errors import SpecError, UnknownNameError
from raypruning.models.layers import count_parameters, logits_shape
from raypruning.models.torchvision_classifiers import build
from raypruning.models.torchvision_import import import_torchvision

# One of every family that is built without waiting; those marked True also run, at 64 px.
FAMILIES = [
    ("resnet18", True),
    ("mobilenet_v2", True),
    ("mobilenet_v3_small", True),
    ("densenet121", True),
    ("efficientnet_b0", True),
    ("squeezenet1_0", True),
    ("shufflenet_v2_x0_5", True),
    ("mnasnet0_5", True),
    ("regnet_y_400mf", True),
    ("googlenet", True),
    ("vgg11", False),
    ("alexnet", False),
    ("convnext_tiny", False),
    ("vit_b_16", False),
    ("swin_t", False),
    ("swin_v2_t", False),
]


def make(name, *, num_classes=7, in_channels=3, image_size=64, **options):
    return build(name, num_classes=num_classes, in_channels=in_channels, image_size=image_size, options=options)


@pytest.mark.parametrize(("name", "is_run"), FAMILIES)
def test_head_and_first_convolution_are_those_of_the_dataset(name, is_run):
    if is_run:
        model = make(name, in_channels=1)
        # In training, where auxiliary heads would answer too.
        logits = model.train()(torch.randn(2, 1, 64, 64))
        assert isinstance(logits, torch.Tensor)
        assert logits.shape == (2, 7)
        assert logits.isfinite().all()
    else:
        with torch.device("meta"):
            model = make(name, in_channels=1)
        assert logits_shape(model, 1, 64) == (1, 7)


def test_transformers_are_built_for_the_size_of_the_images():
    with torch.device("meta"):
        model = make("vit_b_16", image_size=224)
    assert logits_shape(model, 3, 224) == (1, 7)
    assert model.encoder.pos_embedding.shape[1] == 14 * 14 + 1


def test_with_colour_images_and_no_options_the_weights_are_torchvisions_own():
    torch.manual_seed(0)
    ours = make("resnet18", num_classes=1000).state_dict()
    torch.manual_seed(0)
    theirs = import_torchvision().models.resnet18().state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_same_seed_gives_the_same_weights_when_the_first_convolution_is_replaced():
    states = []
    for _ in range(2):
        torch.manual_seed(5)
        states.append(make("shufflenet_v2_x0_5", in_channels=1).state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@pytest.mark.parametrize(("in_channels", "stem", "px"), [(1, "imagenet", 7), (3, "cifar", 3), (1, "cifar", 3)])
def test_a_replaced_first_convolution_starts_with_he_fan_out_as_torchvisions_does(in_channels, stem, px):
    torch.manual_seed(0)
    weight = make("resnet18", in_channels=in_channels, stem=stem).conv1.weight
    assert weight.shape == (64, in_channels, px, px)
    # The spread of n normal numbers is off by 1 / sqrt(2n) of itself; n is at least 576, twice (old and new).
    assert weight.std().item() == pytest.approx((2 / (64 * px * px)) ** 0.5, rel=5 * (2 / (2 * 576)) ** 0.5)


def test_cifar_stem_keeps_small_images_from_shrinking_early():
    sizes = {}
    for stem in ("imagenet", "cifar"):
        model = make("resnet18", image_size=32, stem=stem).eval()
        model.layer1.register_forward_hook(
            lambda _module, _inputs, maps, stem=stem: sizes.update({stem: maps.shape[2]})
        )
        assert model(torch.randn(1, 3, 32, 32)).shape == (1, 7)
    assert sizes == {"imagenet": 8, "cifar": 32}


def test_cifar_stem_is_refused_where_it_means_nothing():
    with pytest.raises(SpecError, match=r"mobilenet_v2 has no stem 'cifar': only resnet101, .*wide_resnet50_2 have"):
        make("mobilenet_v2", stem="cifar")


def test_a_stem_that_does_not_exist_is_refused():
    with pytest.raises(SpecError, match="'stem' of the model resnet18 is imagenet or cifar, got 'mnist'"):
        make("resnet18", stem="mnist")


def test_zero_init_residual_starts_every_branch_at_zero():
    model = make("resnet18", zero_init_residual=True)
    last_norms = [block.bn2.weight for stage in (model.layer1, model.layer4) for block in stage]
    assert all(weight.eq(0).all() for weight in last_norms)


def test_zero_init_residual_is_an_option_of_residual_networks_only():
    with pytest.raises(SpecError, match="no option 'zero_init_residual': its options are stem, weights"):
        make("vgg11", zero_init_residual=True)


def test_an_unknown_classifier_is_refused_with_near_ones():
    with pytest.raises(UnknownNameError, match=r"did you mean .*resnet101"):
        make("resnet102")


@pytest.mark.parametrize(("name", "image_size"), [("alexnet", 32), ("inception_v3", 32), ("vit_b_16", 50)])
def test_an_image_that_does_not_fit_is_refused_in_one_line(name, image_size):
    with pytest.raises(SpecError, match=f"{name} cannot .* {image_size} px: ") as caught:
        make(name, image_size=image_size)
    assert "\n" not in str(caught.value)


def test_a_transformer_whose_windows_do_not_divide_the_image_is_refused_in_one_line():
    with pytest.raises(SpecError, match="maxvit_t cannot be built for images of 32 px: ") as caught:
        make("maxvit_t", image_size=32)
    assert "\n" not in str(caught.value)


def test_auxiliary_heads_are_no_part_of_the_model():
    model = make("googlenet", num_classes=1000)
    # 6 624 904 is what torchvision states for googlenet, which is without them.
    assert count_parameters(model) == 6_624_904
    assert isinstance(model.fc, nn.Linear)
