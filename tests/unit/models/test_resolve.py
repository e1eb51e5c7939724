import subprocess
import sys

import pytest
import torch

from raypruning.errors import UnknownNameError
from raypruning.models.resolve import build_model, check_model, model_names


def test_names_are_sorted_and_a_taken_one_is_torchvisions_only_with_its_family():
    names = model_names()
    assert names == sorted(set(names))
    assert {"lenet5", "resnet20", "vgg16", "torchvision/vgg16", "resnet101", "vit_b_16"} <= set(names)
    assert not {"torchvision/", "torchvision/resnet101"} & set(names)


@pytest.mark.parametrize("name", ["resnet20", "resnet101", "torchvision/resnet101", "vgg16", "torchvision/vgg16"])
def test_existing_names_pass(name):
    check_model(name)


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("resnet21", "resnet20"),
        ("resnet102", "resnet101"),
        ("torchvision/resnet102", "torchvision/resnet101"),
        ("torchvision/", "torchvision/vgg16"),
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


def test_listing_and_checking_imports_no_torch():
    code = (
        "import sys; from raypruning.models.resolve import check_model, model_names; "
        "model_names(); check_model('resnet101'); check_model('lenet5'); "
        "sys.exit('torch' in sys.modules or 'torchvision' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
