from __future__ import annotations

import pytest
import torch
from torch import nn

from raypruning.compaction.labels import LabelReader, draw_labels


@pytest.mark.parametrize("num", [1, 20, 3000])
def test_labels_are_different_and_none_is_part_of_another(num: int):
    labels_QK = draw_labels(num)
    assert len(labels_QK) == num
    # Equally many bits of each: a label that held another would be the same.
    assert (labels_QK.sum(1) == labels_QK.shape[1] // 2).all()
    assert len(labels_QK.unique(dim=0)) == num
    assert torch.equal(labels_QK, draw_labels(num))


def test_readers_see_the_labels_of_what_they_are_given_and_the_network_stays():
    model = nn.Sequential(nn.Conv2d(3, 6, 1), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.Conv2d(6, 4, 1))
    model.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    labels = {"0": draw_labels(6), "3": torch.zeros(4, draw_labels(6).shape[1], dtype=torch.bool)}
    seen = LabelReader(model, torch.zeros(3, 2, 2)).read(labels)
    assert not seen["0"].any()
    assert torch.equal(seen["1"], labels["0"])
    assert torch.equal(seen["3"], labels["0"])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all("forward" not in vars(module) for module in model.modules())


@pytest.mark.parametrize(
    "settings",
    [
        {"kernel_size": 3, "padding": 1},
        {"kernel_size": 5, "padding": 8, "dilation": 4},
        {"kernel_size": (5, 3), "padding": (3, 2), "dilation": (2, 3), "stride": (2, 1)},
        {"kernel_size": 3, "padding": 2, "stride": 2},
        {"kernel_size": 3, "padding": "same", "dilation": 2},
        {"kernel_size": 3, "padding": 2, "dilation": 2, "padding_mode": "circular"},
    ],
)
def test_labels_pass_a_depthwise_convolution_whatever_its_settings(settings):
    """Every place of the output, of which a linear layer insists on its own number, has its channel's label."""
    features = nn.Sequential(nn.Conv2d(3, 6, 1), nn.Conv2d(6, 6, groups=6, **settings), nn.Flatten())
    num = features(torch.zeros(1, 3, 9, 9)).shape[1]
    model = nn.Sequential(features, nn.Linear(num, 2)).eval()
    labels_QK = draw_labels(6)
    unlabelled = torch.zeros(2, labels_QK.shape[1], dtype=torch.bool)
    seen = LabelReader(model, torch.zeros(3, 9, 9)).read({"0.0": labels_QK, "1": unlabelled})
    assert torch.equal(seen["1"], labels_QK.repeat_interleave(num // 6, 0))


class MeanOfBatch(nn.Module):
    """One row of the whole batch goes through a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.table = nn.Linear(4, 6), nn.Linear(6, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        return x + self.table(x.mean(0, keepdim=True))


def test_a_layer_that_is_given_one_row_made_of_all_images_is_noticed():
    reader = LabelReader(MeanOfBatch(), torch.zeros(4))
    reader.read({"first": torch.eye(6, dtype=torch.bool), "table": torch.zeros(6, 6, dtype=torch.bool)})
    labels_QK = draw_labels(6)
    with pytest.raises(RuntimeError, match="table"):
        reader.read({"first": labels_QK, "table": torch.zeros_like(labels_QK)})
