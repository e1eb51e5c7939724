"""A sweep whose answer is known because it is built to have one. Named as a plugin, by driver and workers alike.

100 weights of 1, one for each of 100 pixels. A test image has one bright pixel, and is told from a dark one only while
the weight of that pixel is there. Pixels 60 to 99 are bright in 10 of 1000 images each, so that

    in order      k weights removed, lowest first, cost max(0, k - 60) points, on the shifted task max(0, k - 55)
    backwards     highest first: min(k, 40) points, on the shifted task max(0, min(k - 5, 40))
"""

# N images, C classes or channels, H W height and width

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from raypruning import registry
from raypruning.datasets.base import Dataset, ImageArrays
from raypruning.methods.axes import method
from raypruning.methods.method import Network
from raypruning.tasks.task import TaskDefinition

SIDE = 10
NUM_WEIGHTS = SIDE * SIDE
NUM_TEST, FIRST_BRIGHT, IMAGES_PER_PIXEL = 1000, 60, 10
SHIFT = 5

SWEEP = """
name = "known"
model = "known-pixels"
dataset = "known-pixels"
methods = ["known-in-order", "known-backwards"]
tasks = ["nominal", "known-shift"]
deltas = [0.05]
budgets = [0]
plugins = ["tests.integration.known_answer"]

[search]
low = 0.02
high = 0.9
resolution = 0.0103  # of 98 weights: one and a bit

# At this rate a weight of 1 stays 1.
[recipe]
epochs = 1
learning_rate = 1e-30
momentum = 0.0
batch_size = 10
"""


def error(method: str, task: str, num_removed: int) -> float:
    """The error by construction."""
    shift = SHIFT if task == "known-shift" else 0
    first, last = FIRST_BRIGHT - shift, NUM_WEIGHTS - 1 - shift
    removed = range(num_removed) if method == "known-in-order" else range(NUM_WEIGHTS - num_removed, NUM_WEIGHTS)
    return sum(first <= pixel <= last for pixel in removed) * IMAGES_PER_PIXEL / NUM_TEST


@registry.models.register("known-pixels")
def model(argument: str, *, num_classes: int, in_channels: int, image_size: int, options: Mapping[str, object]):
    return Pixels(is_broken=bool(options.get("is_broken", False)))


class Pixels(nn.Module):
    """Class 1 where the sum of pixels, by weights of 1, is above a half; no number at all when broken."""

    def __init__(self, *, is_broken: bool) -> None:
        super().__init__()
        self.factor = torch.nan if is_broken else 1.0
        self.sum = nn.Linear(NUM_WEIGHTS, 1, bias=False)
        nn.init.ones_(self.sum.weight)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        sum_N1 = self.factor * self.sum(images_NCHW.flatten(1))
        return torch.cat([torch.full_like(sum_N1, 0.5), sum_N1], dim=1)


@registry.methods.register("known-in-order")
@method(source="this test")
def in_order(network: Network) -> dict[str, Tensor]:
    """The first pixel goes first."""
    return {name: torch.arange(NUM_WEIGHTS, dtype=torch.float32)[None] for name in network.layers}


@registry.methods.register("known-backwards")
@method(source="this test")
def backwards(network: Network) -> dict[str, Tensor]:
    """The last pixel goes first."""
    return {name: -torch.arange(NUM_WEIGHTS, dtype=torch.float32)[None] for name in network.layers}


@registry.tasks.register("known-shift")
def shift(argument: str) -> TaskDefinition:
    def move(images_NCHW: Tensor, ids_N: Tensor) -> Tensor:
        return images_NCHW.flatten(1).roll(-SHIFT, dims=1).view_as(images_NCHW)

    return TaskDefinition(corruption={"kind": "shift", "pixels": SHIFT}, on_pixels=move, source="this test")


@registry.datasets.register("known-pixels")
def dataset(argument: str, *, data_dir: Path | None, download: bool) -> Dataset:
    images_NK = np.zeros((NUM_TEST, NUM_WEIGHTS), np.uint8)
    bright = np.repeat(np.arange(FIRST_BRIGHT, NUM_WEIGHTS), IMAGES_PER_PIXEL)
    images_NK[np.arange(len(bright)), bright] = 255
    labels_N = (np.arange(NUM_TEST) < len(bright)).astype(np.int64)
    test = ImageArrays(images_NCHW=images_NK.reshape(-1, 1, SIDE, SIDE), labels_N=labels_N)
    few = ImageArrays(images_NCHW=test.images_NCHW[390:410], labels_N=labels_N[390:410])
    return Dataset(
        name="known-pixels",
        num_classes=2,
        channels=1,
        image_size=SIDE,
        mean=(0.0,),
        std=(1.0,),
        class_names=("dark", "bright"),
        fingerprint="0123456789abcdef" * 4,
        augmentation="none",
        source="this test",
        loaders={"train": lambda: few, "validation": lambda: few, "test": lambda: test},
    )
