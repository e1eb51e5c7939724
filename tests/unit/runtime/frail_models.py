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
    """Fails in training, on rank 0 or on every other worker."""

    def __init__(self, fail: Callable[[], None], *, on_first: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(28 * 28, 10)
        self._fail = fail
        self._on_first = on_first

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.training and self._on_first == (multiprocessing.parent_process() is None):
            self._fail()
        return self.linear(images.flatten(1))


def _no_memory() -> None:
    raise torch.OutOfMemoryError("of the device")


def _unforeseen() -> None:
    raise ZeroDivisionError("of a plugin")


def _killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _own() -> None:
    raise RuntimeError("shapes do not fit")


FAILS = {
    "test-worker-no-memory": (_no_memory, False),
    "test-worker-unforeseen": (_unforeseen, False),
    "test-worker-killed": (_killed, False),
    "test-first-own": (_own, True),
}

for name, (fail, on_first) in FAILS.items():
    registry.models.register(name)(
        lambda argument, *, fail=fail, on_first=on_first, **about: _Frail(fail, on_first=on_first)
    )
