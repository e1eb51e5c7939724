"""Models that fail on one worker of a probe: a plugin, so that the other workers have them too."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable

import torch
from torch import nn

from raypruning import registry


class _Frail(nn.Module):
    """Fails in training, on every worker but rank 0."""

    def __init__(self, fail: Callable[[], None]) -> None:
        super().__init__()
        self.linear = nn.Linear(28 * 28, 10)
        self._fail = fail

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.training and multiprocessing.parent_process() is not None:
            self._fail()
        return self.linear(images.flatten(1))


def _no_memory() -> None:
    raise torch.OutOfMemoryError("of the device")


def _unforeseen() -> None:
    raise ZeroDivisionError("of a plugin")


def _killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


FAILS = {"test-worker-no-memory": _no_memory, "test-worker-unforeseen": _unforeseen, "test-worker-killed": _killed}

for name, fail in FAILS.items():
    registry.models.register(name)(lambda argument, *, fail=fail, **about: _Frail(fail))
