"""How fast this machine trains and evaluates a network: a second or two of the real thing, for an estimate."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn

from raypruning.core.records import Kind, Recipe
from raypruning.training.inputs import autocast
from raypruning.training.objective import any_truth, objective_of

MIN_SECONDS = 0.4


class Speed(NamedTuple):
    """Seconds per image, one process with the recipe's number of threads."""

    train: float
    evaluate: float


def measure_speed(
    model: nn.Module,
    recipe: Recipe,
    *,
    kind: Kind,
    shape_CHW: tuple[int, int, int],
    num_classes: int,
    device: torch.device,
) -> Speed:
    """Time steps on random images. Moves the model to the device; its weights change."""
    model.to(device=device, memory_format=torch.channels_last)
    torch.set_num_threads(recipe.numerics.threads)
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-6, momentum=0.9)
    images = torch.rand(recipe.batch_size, *shape_CHW, device=device).contiguous(memory_format=torch.channels_last)
    truth = any_truth(kind, images, num_classes=num_classes)
    objective = objective_of(kind)

    def train() -> None:
        with autocast(device, recipe.numerics.precision):
            loss = objective.loss(model(images), truth, label_smoothing=recipe.label_smoothing)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()

    @torch.inference_mode()
    def evaluate() -> None:
        with autocast(device, recipe.numerics.precision):
            float(model(images).sum())

    model.train()
    train_seconds = _seconds(train) / recipe.batch_size
    model.eval()
    return Speed(train_seconds, _seconds(evaluate) / recipe.batch_size)


def _seconds(step: Callable[[], None]) -> float:
    """Seconds of one step, after one to warm up."""
    step()
    begin, count = time.perf_counter(), 0
    while time.perf_counter() - begin < MIN_SECONDS or count < 2:
        step()
        count += 1
    return (time.perf_counter() - begin) / count
