"""Classes of pixels: loss and counts against plain loops over pixels."""

# B images of a batch, C classes, H W height and width

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from raypruning.analysis.metrics import metric_of
from raypruning.core.records import DataChoice, Recipe
from raypruning.datasets.resolve import open_dataset
from raypruning.methods.method import UNCOUNTED
from raypruning.models.resolve import build_model
from raypruning.training.batches import classes_of_masks, masks_of_classes
from raypruning.training.images import open_images
from raypruning.training.inputs import Normalisation
from raypruning.training.loop import Setting, train
from raypruning.training.segmentation import Segmentation

CLASSES, SIDE = 4, 5


@pytest.fixture
def logits_BCHW() -> Tensor:
    return torch.randn(3, CLASSES, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def truth_BHW() -> Tensor:
    """With a third of the pixels uncounted, and no counted ones in the last image."""
    generator = torch.Generator().manual_seed(1)
    truth_BHW = torch.randint(CLASSES, (3, SIDE, SIDE), generator=generator)
    truth_BHW[torch.rand(3, SIDE, SIDE, generator=generator) < 1 / 3] = UNCOUNTED
    truth_BHW[2] = UNCOUNTED
    return truth_BHW


def pixel_losses(logits_CHW: Tensor, truth_HW: Tensor) -> list[float]:
    """Cross-entropy of every pixel that counts."""
    losses = []
    for row in range(SIDE):
        for column in range(SIDE):
            label = int(truth_HW[row, column])
            if label >= 0:
                values = logits_CHW[:, row, column].double()
                losses.append(float(values.exp().sum().log() - values[label]))
    return losses


def of_logits(logits_BCHW: Tensor) -> nn.Module:
    """A network that answers with fixed logits, image by image."""

    class Fixed(nn.Module):
        def forward(self, ids: Tensor) -> Tensor:
            return logits_BCHW[ids]

    return Fixed()


def test_loss_is_the_mean_over_counted_pixels_and_half_of_an_auxiliary_heads(logits_BCHW, truth_BHW):
    each = [loss for b in range(3) for loss in pixel_losses(logits_BCHW[b], truth_BHW[b])]
    segmentation = Segmentation()
    alone = segmentation.loss(logits_BCHW, truth_BHW, label_smoothing=0.0)
    assert float(alone) == pytest.approx(np.mean(each), rel=1e-5)
    both = segmentation.loss((logits_BCHW, logits_BCHW), truth_BHW, label_smoothing=0.0)
    assert float(both) == pytest.approx(1.5 * np.mean(each), rel=1e-5)


def test_batch_without_a_counted_pixel_teaches_nothing(logits_BCHW):
    logits_BCHW.requires_grad_()
    loss = Segmentation().loss(logits_BCHW, torch.full((3, SIDE, SIDE), UNCOUNTED), label_smoothing=0.1)
    loss.backward()
    assert loss.item() == 0.0
    assert not logits_BCHW.grad.any()


def test_stored_counts_are_those_of_a_loop_over_pixels(logits_BCHW, truth_BHW):
    inputs = [(torch.arange(2), truth_BHW[:2]), (torch.tensor([2]), truth_BHW[2:])]
    found = Segmentation().predict(of_logits(logits_BCHW), inputs, precision="float32")
    expected = {name: np.zeros((3, CLASSES), int) for name in ("both", "predicted", "true")}
    for b in range(3):
        for row in range(SIDE):
            for column in range(SIDE):
                label = int(truth_BHW[b, row, column])
                if label == UNCOUNTED:
                    continue
                guess = int(logits_BCHW[b, :, row, column].numpy().argmax())
                expected["predicted"][b, guess] += 1
                expected["true"][b, label] += 1
                expected["both"][b, label] += guess == label
    for name, counts_BC in expected.items():
        assert np.array_equal(found[name], counts_BC), name
    losses = [pixel_losses(logits_BCHW[b], truth_BHW[b]) for b in range(3)]
    assert found["loss"] == pytest.approx([np.mean(losses[0]), np.mean(losses[1]), 0.0], rel=1e-5)


def test_tally_over_batches_is_the_measure_of_all_images(logits_BCHW, truth_BHW):
    tally = Segmentation().tally()
    for images in (slice(0, 1), slice(1, 3)):
        tally.add(logits_BCHW[images], truth_BHW[images])
    loss, error = tally.result(tally.sums())
    stored = Segmentation().predict(of_logits(logits_BCHW), [(torch.arange(3), truth_BHW)], precision="float32")
    metric = metric_of("segmentation")
    assert error == metric.error_of(stored)
    assert loss == pytest.approx(metric.loss(stored), rel=1e-6)


def test_equal_logits_take_the_lower_class():
    found = Segmentation().predict(
        of_logits(torch.zeros(1, CLASSES, 2, 2)),
        [(torch.arange(1), torch.ones(1, 2, 2, dtype=torch.long))],
        precision="float32",
    )
    assert found["predicted"].tolist() == [[4, 0, 0, 0]]
    assert found["loss"] == pytest.approx([math.log(CLASSES)])


def test_masks_become_classes_and_classes_masks():
    masks_BHW = torch.tensor([[[0, 20, 255], [254, 1, 255]]], dtype=torch.uint8)
    truth_BHW = classes_of_masks(masks_BHW)
    assert truth_BHW.tolist() == [[[0, 20, UNCOUNTED], [254, 1, UNCOUNTED]]]
    assert torch.equal(masks_of_classes(truth_BHW), masks_BHW)


def write_coloured_squares(root: Path, *, side: int, num: int) -> None:
    """A set in the layout of VOC: on a dark background a square that is green, class 1, or blue, class 2."""
    random = np.random.default_rng(0)
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    for index in range(num):
        mask_HW = np.zeros((side, side), np.uint8)
        top, left = random.integers(0, side // 2, 2)
        mask_HW[top : top + side // 2, left : left + side // 2] = 1 + index % 2
        image_HW3 = random.integers(0, 90, (side, side, 3), dtype=np.uint8)
        for label in (1, 2):
            image_HW3[mask_HW == label, label] += 140
        Image.fromarray(image_HW3).save(root / f"JPEGImages/{index}.png")
        Image.fromarray(mask_HW).save(root / f"SegmentationClass/{index}.png")
    lists = {"train": range(num - 20), "val": range(num - 20, num - 10), "test": range(num - 10, num)}
    for name, indices in lists.items():
        (root / f"ImageSets/Segmentation/{name}.txt").write_text("\n".join(map(str, indices)))
    (root / "classes.txt").write_text("background\ngreen\nblue\n")


def test_the_studys_network_learns_a_small_set_in_the_layout_of_voc(tmp_path):
    """DeepLab with its ResNet-50 and auxiliary head, from nothing, in a minute of one core."""
    side = 32
    write_coloured_squares(tmp_path, side=side, num=68)
    dataset = open_dataset(DataChoice(name=f"voc_folder/{tmp_path}"), data_dir=None, download=False)
    torch.manual_seed(0)
    model = build_model("deeplabv3_resnet50", num_classes=3, in_channels=3, image_size=side, options={})
    model.to(memory_format=torch.channels_last)
    recipe = Recipe(epochs=5, batch_size=6, learning_rate=0.02, learning_rate_schedule="poly")
    device = torch.device("cpu")
    setting = Setting(
        objective=Segmentation(),
        recipe=recipe,
        epochs=recipe.epochs,
        seed=0,
        is_retraining=False,
        train=open_images(dataset.split("train"), device),
        validation=open_images(dataset.split("validation"), device),
        normalise=Normalisation.of(dataset, device),
        augmentation="none",
        eval_batch_size=10,
        device=device,
    )
    history = train(model, {}, setting).history
    # All background would be right on three quarters of the pixels and on one class of three: an error of 0.75.
    assert history[-1].validation_error < 0.5
    # Half of what guessing costs: the entropy of three classes, and half of it once more for the auxiliary head.
    assert history[-1].train_loss < 0.5 * 1.5 * math.log(3)
