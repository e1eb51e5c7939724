import pytest
import torch

from raypruning.errors import SpecError
from raypruning.models.lenet5 import lenet5


def build(**options):
    torch.manual_seed(0)
    return lenet5("", num_classes=10, in_channels=1, image_size=28, options=options)


def test_dropout_acts_in_training_only():
    images_NCHW = torch.randn(4, 1, 28, 28)
    model = build(dropout=0.5)
    assert not torch.equal(model.train()(images_NCHW), model(images_NCHW))
    assert torch.equal(model.eval()(images_NCHW), model(images_NCHW))


def test_without_dropout_training_and_evaluation_give_the_same():
    images_NCHW = torch.randn(4, 1, 28, 28)
    assert torch.equal(build().train()(images_NCHW), build().eval()(images_NCHW))


@pytest.mark.parametrize("dropout", [-0.1, 1.0, 2])
def test_dropout_outside_its_range_is_refused(dropout):
    with pytest.raises(SpecError, match=r"must be in \[0, 1\)"):
        build(dropout=dropout)
