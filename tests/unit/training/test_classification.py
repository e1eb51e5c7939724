"""Predictions against a plain loop over the test images."""

# N images, C classes or channels, H W height and width

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from raypruning.analysis.metrics import metric_of
from raypruning.training.answers import Answers
from raypruning.training.classification import Classification

CPU = torch.device("cpu")
NUM, CLASSES = 53, 10
METRIC = metric_of("classification")


@pytest.fixture
def images_NCHW() -> Tensor:
    return torch.randn(NUM, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def labels_N() -> Tensor:
    return torch.randint(CLASSES, (NUM,), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(8 * 36, CLASSES)
    )


def of_logits(logits_NC: Tensor) -> nn.Module:
    """A network that answers with fixed logits, image by image."""

    class Fixed(nn.Module):
        def forward(self, ids: Tensor) -> Tensor:
            return logits_NC[ids]

    return Fixed()


def in_batches(labels_N: Tensor, *, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The number of each image in place of an image."""
    return zip(torch.arange(len(labels_N)).split(size), labels_N.split(size), strict=True)


def predict(model: nn.Module, inputs: Iterator[tuple[Tensor, Tensor]], *, precision: str = "float32", **fields):
    return Classification().predict(model, inputs, precision=precision, **fields)


def test_predictions_equal_a_plain_loop_over_single_images(images_NCHW, labels_N, model):
    found = predict(model.train(), zip(images_NCHW.split(8), labels_N.split(8), strict=True))
    model.eval()
    num_wrong = 0
    for index in range(NUM):
        with torch.no_grad():
            logits_C = model(images_NCHW[index : index + 1])[0].double().numpy()
        label = int(labels_N[index])
        ranking = sorted(range(CLASSES), key=lambda c: (-logits_C[c], c))
        assert found["predicted"][index] == ranking[0]
        assert found["is_top5"][index] == (label in ranking[:5])
        log_probability = logits_C[label] - np.log(np.exp(logits_C).sum())
        # float16 has 11 bits: a relative error of 2^-11; float32 arithmetic adds less.
        assert found["log_probability"][index] == pytest.approx(log_probability, rel=2**-10, abs=1e-4)
        num_wrong += ranking[0] != label
    assert METRIC.num_wrong(found) == num_wrong
    assert METRIC.error_of(found) == num_wrong / NUM
    assert METRIC.loss(found) == pytest.approx(-found["log_probability"].astype(np.float64).mean())
    assert np.array_equal(found["label"], labels_N.numpy())


def test_predictions_with_equal_logits_take_the_lower_class():
    logits_NC = torch.tensor([[1.0, 3.0, 3.0, 0.0], [2.0, 2.0, 2.0, 2.0], [0.0, 0.0, 0.0, 1.0]])
    found = predict(of_logits(logits_NC), in_batches(torch.tensor([2, 0, 3]), size=2))
    assert found["predicted"].tolist() == [1, 0, 3]
    assert METRIC.num_wrong(found) == 1


def test_top5_with_equal_logits_takes_the_lower_classes():
    # A network without any weights left: everything is equal, and the first five classes are 0 to 4.
    found = predict(of_logits(torch.zeros(10, 10)), in_batches(torch.arange(10), size=4))
    assert found["is_top5"].tolist() == [True] * 5 + [False] * 5


def test_top5_counts_the_classes_with_a_higher_logit():
    logits_NC = torch.arange(10.0).repeat(10, 1)
    found = predict(of_logits(logits_NC), in_batches(torch.arange(10), size=10))
    assert found["is_top5"].tolist() == [False] * 5 + [True] * 5


def test_log_probability_below_what_can_be_stored_stays_finite():
    logits_NC = torch.tensor([[0.0, 1e6], [0.0, 3e38], [0.0, 100.0]])
    found = predict(of_logits(logits_NC), in_batches(torch.tensor([0, 0, 0]), size=3))
    assert found["log_probability"].dtype == np.float16
    assert found["log_probability"].tolist() == [-60000.0, -60000.0, -100.0]
    assert METRIC.loss(found) == pytest.approx(120100 / 3)


def test_log_probability_of_outputs_that_are_not_numbers_is_not_a_number():
    found = predict(of_logits(torch.full((2, 3), torch.nan)), in_batches(torch.tensor([0, 1]), size=2))
    assert np.isnan(found["log_probability"]).all()


def test_bfloat16_predictions_are_near_the_float32_ones(images_NCHW, labels_N, model):
    both = [
        predict(model, zip(images_NCHW.split(16), labels_N.split(16), strict=True), precision=precision)
        for precision in ("float32", "bfloat16")
    ]
    difference = np.abs(both[0]["log_probability"] - both[1]["log_probability"]).max()
    # bfloat16 has 8 bits: inputs up to 3 in size, two layers, logits of about 1.
    assert 0 < difference < 0.1


# --- Which classes count, and which are right -------------------------------------------------------------------------


def test_only_the_classes_of_a_task_count():
    logits_NC = torch.tensor([[9.0, 1.0, 2.0, 9.0], [9.0, 2.0, 1.0, 9.0]])
    found = predict(of_logits(logits_NC), in_batches(torch.tensor([2, 2]), size=2), answers=Answers(classes=(1, 2)))
    assert found["predicted"].tolist() == [2, 1]
    # Among two classes: exp(1) / (exp(1) + exp(2)) and so on; float16 has 11 bits.
    share = np.exp(2) / (np.exp(1) + np.exp(2))
    assert found["log_probability"] == pytest.approx(np.log([share, 1 - share]), rel=2**-10)


def test_any_right_class_counts_as_the_label_and_no_other_does():
    # Right for label 0: 0 and 2. The first is 2, the second is 1, the third sums to more than 1 without being first.
    logits_NC = torch.tensor([[0.0, 1.0, 5.0, 0.0], [0.0, 5.0, 1.0, 0.0], [2.0, 2.1, 2.0, 0.0], [0.0, 0.0, 9.0, 0.0]])
    labels_N = torch.tensor([0, 0, 0, 3])
    found = predict(of_logits(logits_NC), in_batches(labels_N, size=3), answers=Answers(also_right={0: (2,)}))
    assert found["predicted"].tolist() == [0, 1, 1, 2]
    assert METRIC.num_wrong(found) == 3
    probability_NC = logits_NC.double().softmax(1)
    expected = [*(probability_NC[:3, 0] + probability_NC[:3, 2]).log().tolist(), float(probability_NC[3, 3].log())]
    assert found["log_probability"] == pytest.approx(expected, rel=2**-10)


def test_top5_looks_for_the_best_of_the_right_classes():
    logits_NC = torch.arange(10.0).flip(0).repeat(3, 1)  # Class 0 is first.
    labels_N = torch.tensor([9, 8, 4])
    found = predict(of_logits(logits_NC), in_batches(labels_N, size=3), answers=Answers(also_right={9: (7, 4)}))
    assert found["is_top5"].tolist() == [True, False, True]
