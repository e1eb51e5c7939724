from __future__ import annotations

import torch
from torch import nn

from raypruning.compaction.latency import measure_latencies


def test_a_network_of_more_work_takes_longer_and_threads_are_put_back():
    small, large = nn.Linear(8, 8), nn.Sequential(*[nn.Linear(512, 512) for _ in range(8)])

    class Padded(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return large(images.repeat(1, 64))

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        first, second = measure_latencies([small, Padded()], torch.randn(16, 8), threads=1)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert (first.threads, first.batch_size) == (1, 16)
    assert first.runs == second.runs >= 10
    assert 0 < first.low_ms <= first.median_ms <= first.high_ms
    # 33 million multiply-adds against a thousand: no load of the machine turns that round.
    assert first.median_ms < second.median_ms
