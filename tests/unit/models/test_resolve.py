import subprocess
import sys

import pytest
import torch

from raypruning import registry
from raypruning.errors import UnknownNameError
from raypruning.models.resolve import build_model, check_model, model_kind, model_names


def test_names_are_sorted_and_a_taken_one_is_torchvisions_only_with_its_family():
    names = model_names()
    assert names == sorted(set(names))
    assert {"lenet5", "resnet20", "vgg16", "torchvision/vgg16", "resnet101", "vit_b_16", "fcn_resnet50"} <= set(names)
    assert not {"torchvision/", "torchvision/resnet101"} & set(names)


@pytest.mark.parametrize(
    "name",
    [
        *("resnet20", "resnet101", "torchvision/resnet101", "vgg16", "torchvision/vgg16"),
        *("deeplabv3_resnet50", "torchvision/deeplabv3_resnet50"),
    ],
)
def test_existing_names_pass(name):
    check_model(name)


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("resnet21", "resnet20"),
        ("resnet102", "resnet101"),
        ("torchvision/resnet102", "torchvision/resnet101"),
        ("torchvision/", "torchvision/vgg16"),
        ("deeplab_resnet50", "deeplabv3_resnet50"),
    ],
)
def test_a_name_that_does_not_exist_is_met_with_near_ones(name, suggestion):
    with pytest.raises(UnknownNameError, match=f"no model is called '{name}': did you mean .*{suggestion}"):
        check_model(name)


def test_vgg16_is_ours_and_torchvisions_on_request():
    size = {"num_classes": 3, "in_channels": 3, "image_size": 32, "options": {}}
    with torch.device("meta"):  # torchvision's has 134 million weights
        ours = build_model("vgg16", **size)
        theirs = build_model("torchvision/vgg16", **size)
    assert len([m for m in ours.modules() if isinstance(m, torch.nn.Linear)]) == 1
    assert len([m for m in theirs.modules() if isinstance(m, torch.nn.Linear)]) == 3


@pytest.mark.parametrize("name", ["deeplabv3_resnet50", "torchvision/deeplabv3_resnet50"])
def test_torchvisions_segmenters_are_built_under_both_of_their_names(name):
    with torch.device("meta"):
        model = build_model(name, num_classes=3, in_channels=3, image_size=33, options={})
    assert model.eval()(torch.empty(1, 3, 33, 33, device="meta")).shape == (1, 3, 33, 33)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("lenet5", "classification"),
        ("vgg16", "classification"),
        ("resnet101", "classification"),
        ("torchvision/vgg16", "classification"),
        ("deeplabv3_resnet50", "segmentation"),
        ("torchvision/lraspp_mobilenet_v3_large", "segmentation"),
    ],
)
def test_kind_of_a_model_is_what_it_answers(name, kind):
    assert model_kind(name) == kind


def test_kind_of_a_plugin_is_the_attribute_of_its_function(monkeypatch):
    def net(argument, **about):
        raise NotImplementedError

    monkeypatch.setattr(registry.models, "_registered", {})
    registry.models.register("my_net")(net)
    registry.models.register("my_nets/")(net)
    assert model_kind("my_net") == model_kind("my_nets/tiny") == "classification"
    net.kind = "segmentation"
    assert model_kind("my_net") == model_kind("my_nets/tiny") == "segmentation"


def test_kind_of_a_model_that_does_not_exist_is_refused():
    with pytest.raises(UnknownNameError, match="no model is called 'resnet21'"):
        model_kind("resnet21")


def test_listing_checking_and_asking_for_the_kind_imports_no_torch():
    code = (
        "import sys; from raypruning.models.resolve import check_model, model_kind, model_names; "
        "[model_kind(name) for name in model_names()]; check_model('resnet101'); check_model('lenet5'); "
        "sys.exit('torch' in sys.modules or 'torchvision' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
