"""How long one image takes, measured on this machine."""

# N images, C channels, H W height and width

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from raypruning.core.records import Record

_WARM_UPS = 3
_MIN_RUNS, _MAX_RUNS = 10, 100
# For all networks together, unless the fewest runs take longer.
_SECONDS = 10.0


class Latency(Record):
    """Wall time of a forward pass.

    Attributes:
        median_ms, low_ms, high_ms: median and quartiles, milliseconds.
        runs: passes that were timed.
        threads: of torch within a pass.
        batch_size: images at once.
    """

    median_ms: float
    low_ms: float
    high_ms: float
    runs: int
    threads: int
    batch_size: int


def measure_latencies(models: Sequence[nn.Module], images_NCHW: Tensor, *, threads: int = 1) -> list[Latency]:
    """Latency of each network on the same images, after a warm-up.

    The networks take turns, so that whatever else the machine does slows all of them alike.

    Args:
        models: in evaluation mode, on the CPU.
        images_NCHW: one batch.
        threads: that torch uses meanwhile; put back afterwards.
    """
    seconds: list[list[float]] = [[] for _ in models]
    with torch.inference_mode(), _threads(threads):
        warm_up = 0.0
        for _ in range(_WARM_UPS):
            warm_up = sum(_seconds(model, images_NCHW) for model in models)
        num_runs = max(_MIN_RUNS, min(_MAX_RUNS, int(_SECONDS / max(warm_up, 1e-9))))
        for _ in range(num_runs):
            for model, taken in zip(models, seconds, strict=True):
                taken.append(_seconds(model, images_NCHW))
    return [_latency(taken, threads=threads, batch_size=len(images_NCHW)) for taken in seconds]


def _seconds(model: nn.Module, images_NCHW: Tensor) -> float:
    begin = time.perf_counter()
    model(images_NCHW)
    return time.perf_counter() - begin


def _latency(seconds: Sequence[float], *, threads: int, batch_size: int) -> Latency:
    low, median, high = (1000 * value for value in statistics.quantiles(seconds, n=4, method="inclusive"))
    return Latency(
        median_ms=median, low_ms=low, high_ms=high, runs=len(seconds), threads=threads, batch_size=batch_size
    )


@contextmanager
def _threads(num: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(num)
    try:
        yield
    finally:
        torch.set_num_threads(before)
