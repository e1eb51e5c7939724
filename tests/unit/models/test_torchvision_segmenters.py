import pytest
import torch
from safetensors.torch import save_file

from raypruning.errors import SpecError, UnknownNameError
from raypruning.models.heads import all_logits, logit_layers
from raypruning.models.layers import count_macs, count_parameters, prunable_layers
from raypruning.models.torchvision_import import import_torchvision
from raypruning.models.torchvision_names import TORCHVISION_SEGMENTERS
from raypruning.models.torchvision_segmenters import build

LRASPP, DEEPLAB = "lraspp_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large"
SMALL = [LRASPP, DEEPLAB]


def make(name, *, num_classes=7, in_channels=3, **options):
    return build(name, num_classes=num_classes, in_channels=in_channels, image_size=33, options=options)


def torchvisions(name, *, num_classes=7):
    auxiliary = {} if name == LRASPP else {"aux_loss": True}
    return import_torchvision().models.get_model(
        name, weights=None, weights_backbone=None, num_classes=num_classes, **auxiliary
    )


@pytest.mark.parametrize("name", TORCHVISION_SEGMENTERS)
def test_size_and_multiply_adds_are_those_that_torchvision_publishes(name):
    """For 21 classes and 520 px, with auxiliary heads: in torchvision they count in evaluation as well."""
    published = import_torchvision().models.get_model_weights(name).DEFAULT.meta
    with torch.device("meta"):
        model = make(name, num_classes=21)
    assert count_parameters(model) == published["num_params"]
    assert round(count_macs(model, 3, 520) / 1e9, 3) == published["_ops"]


@pytest.mark.parametrize("name", TORCHVISION_SEGMENTERS)
def test_logit_layers_are_those_that_have_an_output_for_each_class(name):
    with torch.device("meta"):
        model = make(name, num_classes=7)
    assert list(logit_layers(model)) == [
        layer_name for layer_name, layer in prunable_layers(model).items() if layer.out_channels == 7
    ]


@pytest.mark.parametrize("name", SMALL)
def test_logits_are_torchvisions_and_so_are_the_weights_of_a_seed(name):
    torch.manual_seed(0)
    ours = make(name).eval()
    torch.manual_seed(0)
    theirs = torchvisions(name).eval()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    images_NCHW = torch.randn(2, 3, 33, 40)
    expected = list(theirs(images_NCHW).values())
    assert torch.equal(ours(images_NCHW), expected[0])
    assert all(torch.equal(*pair) for pair in zip(all_logits(ours, images_NCHW), expected, strict=True))


def test_training_also_gives_the_logits_of_an_auxiliary_head():
    logits = make(DEEPLAB).train()(torch.randn(2, 3, 33, 40))
    assert [tuple(one.shape) for one in logits] == [(2, 7, 33, 40)] * 2


def test_a_segmenter_without_auxiliary_head_gives_one_tensor_in_training_too():
    assert make(LRASPP).train()(torch.randn(2, 3, 33, 40)).shape == (2, 7, 33, 40)


@pytest.mark.parametrize("name", SMALL)
def test_grey_images_and_the_smallest_ones_fit(name):
    assert make(name, in_channels=1).eval()(torch.randn(1, 1, 1, 1)).shape == (1, 7, 1, 1)


def test_an_unknown_segmenter_is_refused_with_near_ones():
    with pytest.raises(UnknownNameError, match=r"did you mean .*deeplabv3_resnet50"):
        make("deeplabv3_resnet51")


# --- Weights --------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    return tmp_path / "hub" / "checkpoints"


def is_equal(state, other, *, but=()):
    return state.keys() == other.keys() and all(
        torch.equal(value, other[key]) for key, value in state.items() if not key.startswith(but)
    )


@pytest.mark.parametrize(
    ("name", "backbone", "file"),
    [
        (LRASPP, "mobilenet_v3_large", "mobilenet_v3_large-8738ca79.pth"),
        # Of two that torchvision has, the one that its segmenters and the study began with.
        ("fcn_resnet50", "resnet50", "resnet50-0676ba61.pth"),
    ],
)
def test_a_backbone_begins_with_the_weights_of_a_classifier_and_heads_at_random(hub, name, backbone, file):
    published = import_torchvision().models.get_model(backbone, weights=None)
    with torch.no_grad():
        for value in published.state_dict().values():
            value.fill_(3)
    torch.save(published.state_dict(), hub / file)
    state = make(name, weights="backbone").state_dict()
    is_loaded = {key.partition(".")[0]: set() for key in state}
    for key, value in state.items():
        is_loaded[key.partition(".")[0]].add(bool((value == 3).all()))
    assert is_loaded.pop("backbone") == {True}
    assert set.union(*is_loaded.values()) == {False}


@pytest.mark.parametrize(("weights", "file"), [("backbone", "mobilenet_v3_large-"), ("cache", DEEPLAB + "-")])
def test_weights_that_are_not_there_are_refused_with_their_place_and_not_fetched(hub, weights, file):
    with pytest.raises(SpecError, match=rf"there is no .*checkpoints.{file}\w+\.pth; put https://"):
        make(DEEPLAB, weights=weights)
    assert not list(hub.iterdir())


def test_published_weights_of_as_many_classes_are_loaded_whole(hub):
    published = torchvisions(DEEPLAB, num_classes=21).state_dict()
    torch.save(published, hub / "deeplabv3_mobilenet_v3_large-fc3c493d.pth")
    assert is_equal(make(DEEPLAB, num_classes=21, weights="cache").state_dict(), published)


def test_heads_of_other_classes_stay_random_and_the_rest_is_loaded(tmp_path):
    published = torchvisions(DEEPLAB, num_classes=21).state_dict()
    save_file(published, tmp_path / "weights.safetensors")
    state = make(DEEPLAB, weights=str(tmp_path / "weights.safetensors")).state_dict()
    assert is_equal(state, published, but=("classifier.4.", "aux_classifier.4."))
    assert state["classifier.4.weight"].shape == (7, 256, 1, 1)
    assert state["aux_classifier.4.weight"].shape == (7, 10, 1, 1)


def test_weights_for_colour_are_refused_for_grey_images(hub):
    torch.save(torchvisions(LRASPP, num_classes=21).state_dict(), hub / "lraspp_mobilenet_v3_large-d234d4ea.pth")
    with pytest.raises(SpecError, match=r"1 of another shape \(such as backbone.0.0.weight \(16, 3, 3, 3\) for"):
        make(LRASPP, in_channels=1, weights="cache")
