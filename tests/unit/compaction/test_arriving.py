from __future__ import annotations

import pytest
import torch
from torch import nn

from raypruning.compaction import constants
from raypruning.compaction.arriving import measure_arriving
from tests.unit.compaction.networks import assert_equal_outputs, images, randomise

MASK = torch.tensor([False, False, True, True, True, True])


def compacted(monkeypatch: pytest.MonkeyPatch, between: nn.Module, masks: dict[str, torch.Tensor]) -> tuple[int, int]:
    """Channels that are left of six, and how often constants were measured on images."""
    torch.manual_seed(0)
    model = randomise(
        nn.Sequential(
            nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), between, nn.Conv2d(6, 4, 3), nn.Flatten(), nn.Linear(4 * 16, 3)
        )
    )
    measured = []

    def measure(*args: object) -> object:
        measured.append(args)
        return measure_arriving(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(constants, "measure_arriving", measure)
    whole = {"0.weight": MASK[:, None, None, None].expand(6, 3, 3, 3), **masks}
    found = assert_equal_outputs(model, whole, images(3, 3, 8, 8))
    return found.model[0].out_channels, len(measured)


def test_zeros_are_known_without_any_image(monkeypatch: pytest.MonkeyPatch):
    masks = dict.fromkeys(["0.bias", "1.weight", "1.bias"], MASK)
    assert compacted(monkeypatch, nn.ReLU(), masks) == (4, 0)


@pytest.mark.parametrize(
    ("between", "masked"),
    [
        (nn.ReLU(), ["1.weight", "1.bias"]),  # a bias
        (nn.ReLU(), ["0.bias"]),  # a norm
        (nn.Sigmoid(), ["0.bias", "1.weight", "1.bias"]),  # something made of nothing
    ],
    ids=["bias", "norm", "activation"],
)
def test_constants_that_are_not_zero_everywhere_are_measured(
    monkeypatch: pytest.MonkeyPatch, between: nn.Module, masked: list[str]
):
    left, num_measured = compacted(monkeypatch, between, dict.fromkeys(masked, MASK))
    assert left == 4
    assert num_measured > 0
