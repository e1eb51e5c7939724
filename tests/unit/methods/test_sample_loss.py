from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from raypruning.methods.method import UNCOUNTED
from raypruning.methods.sample_loss import mean_loss, summed_loss

NUM_CLASSES = 4


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Conv2d(3, NUM_CLASSES, 3, padding=1)


def pictures(num: int = 5) -> tuple[Tensor, Tensor]:
    """Images with a class for each pixel; half of them have none, nor has any of the last image."""
    generator = torch.Generator().manual_seed(1)
    labels_NHW = torch.randint(NUM_CLASSES, (num, 6, 6), generator=generator)
    labels_NHW[torch.rand(labels_NHW.shape, generator=generator) < 0.5] = UNCOUNTED
    labels_NHW[-1] = UNCOUNTED
    return torch.randn(num, 3, 6, 6, generator=generator), labels_NHW


@torch.no_grad()
def losses_by_image(model: nn.Module, images_NCHW: Tensor, labels_NHW: Tensor) -> list[list[float]]:
    """Of each image's pixels that count, one after the other."""
    found = []
    for logits_CHW, labels_HW in zip(model(images_NCHW), labels_NHW, strict=True):
        places = (labels_HW != UNCOUNTED).nonzero().tolist()
        found.append([-float(logits_CHW[:, y, x].log_softmax(0)[labels_HW[y, x]]) for y, x in places])
    return found


def test_sum_is_over_images_of_the_mean_over_their_pixels_that_count(model):
    images_NCHW, labels_NHW = pictures()
    losses = losses_by_image(model, images_NCHW, labels_NHW)
    assert losses[-1] == []
    expected = sum(sum(own) / len(own) for own in losses if own)
    assert float(summed_loss(model, images_NCHW, labels_NHW).detach()) == pytest.approx(expected, rel=1e-5)


def test_mean_is_over_all_pixels_that_count(model):
    images_NCHW, labels_NHW = pictures()
    losses = [loss for own in losses_by_image(model, images_NCHW, labels_NHW) for loss in own]
    assert float(mean_loss(model, images_NCHW, labels_NHW).detach()) == pytest.approx(
        sum(losses) / len(losses), rel=1e-5
    )


@pytest.mark.parametrize("loss_of", [summed_loss, mean_loss])
def test_images_without_any_class_teach_nothing(model, loss_of):
    images_NCHW, labels_NHW = pictures()
    loss = loss_of(model, images_NCHW, torch.full_like(labels_NHW, UNCOUNTED))
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert model.weight.grad.count_nonzero() == 0  # A NaN would count.


@pytest.mark.parametrize(("loss_of", "reduction"), [(summed_loss, "sum"), (mean_loss, "mean")])
def test_loss_of_labels_of_images_is_torchs_to_the_bit(loss_of, reduction):
    torch.manual_seed(0)
    model = nn.Linear(8, NUM_CLASSES)
    images, labels_N = torch.randn(7, 8), torch.arange(7) % NUM_CLASSES
    gradients = []
    for loss in (loss_of(model, images, labels_N), F.cross_entropy(model(images), labels_N, reduction=reduction)):
        gradients.append(torch.autograd.grad(loss, list(model.parameters())))
    assert all(torch.equal(own, torchs) for own, torchs in zip(*gradients, strict=True))


@pytest.mark.parametrize("loss_of", [summed_loss, mean_loss])
def test_an_auxiliary_head_adds_half_of_its_loss(loss_of):
    class TwoHeads(nn.Module):
        logit_layers = ("main", "auxiliary")

        def __init__(self) -> None:
            super().__init__()
            self.main, self.auxiliary = nn.Conv2d(3, NUM_CLASSES, 1), nn.Conv2d(3, NUM_CLASSES, 1)

        def forward(self, images: Tensor) -> Tensor:
            return self.main(images)

        def all_logits(self, images: Tensor) -> tuple[Tensor, ...]:
            return self.main(images), self.auxiliary(images)

    torch.manual_seed(0)
    model = TwoHeads().eval()
    images_NCHW, labels_NHW = pictures()
    with torch.no_grad():
        main, auxiliary, both = (
            float(loss_of(network, images_NCHW, labels_NHW)) for network in (model.main, model.auxiliary, model)
        )
    assert auxiliary > 0
    assert both == pytest.approx(main + 0.5 * auxiliary, rel=1e-6)
