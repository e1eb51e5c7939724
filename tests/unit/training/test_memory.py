"""A trial step finds out whether there is memory, and leaves no trace; a process keeps to its share."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from raypruning.training import memory
from tests.unit.training.test_loop import CLASSES, SIDE, bits, network, setting

HOW = {"kind": "classification", "shape_CHW": (3, SIDE, SIDE), "num_classes": CLASSES}


class Limited(nn.Module):
    """Has memory for so many images at once: in training, and in an evaluation."""

    def __init__(self, *, train: int, evaluate: int) -> None:
        super().__init__()
        self.net = network()
        self.room = {True: train, False: evaluate}

    def forward(self, images):
        if len(images) > self.room[self.training]:
            raise torch.OutOfMemoryError
        return self.net(images)


def test_a_trial_step_changes_neither_network_nor_random_numbers():
    model = network()
    before, random = bits(model), torch.get_rng_state()
    memory.try_step(model, setting(), **HOW)
    assert bits(model) == before
    assert torch.equal(torch.get_rng_state(), random)
    assert all(value.grad is None for value in model.parameters()) and model.training


# Batches of 16, of 10 in an evaluation.
@pytest.mark.parametrize(
    ("room", "at_once", "fits"),
    [((16, 10), None, True), ((15, 99), None, False), ((15, 99), 15, True), ((99, 9), None, False)],
)
def test_a_trial_step_needs_what_training_and_evaluation_need(room, at_once: int | None, fits: bool):
    model = Limited(train=room[0], evaluate=room[1])
    if fits:
        memory.try_step(model, setting(images_at_once=at_once), **HOW)
        return
    with pytest.raises(torch.OutOfMemoryError):
        memory.try_step(model, setting(images_at_once=at_once), **HOW)


@pytest.mark.parametrize(("share", "limit"), [(0.5, 0.5 - 600 / 80_000), (0.01, 0.005), (1.0, 1.0)])
def test_a_process_is_limited_to_its_share_less_what_it_takes_beside(monkeypatch, share: float, limit: float):
    limits = []
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=80_000 << 20))
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda share, device: limits.append(share))
    memory.keep_to_share(torch.device("cuda"), share)
    memory.keep_to_share(torch.device("cpu"), share)
    assert limits == [pytest.approx(limit, rel=1e-9)]
