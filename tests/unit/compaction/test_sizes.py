from __future__ import annotations

import zlib

import torch
from torch import nn

from raypruning.compaction.sizes import size_of


def test_sizes_of_a_small_network_are_those_counted_by_hand():
    model = nn.Sequential(nn.Conv2d(1, 2, 3, bias=False), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2 * 16, 3)).eval()
    with torch.no_grad():
        model[0].weight.fill_(1.0)
        model[0].weight[0] = 0.0
        model[1].bias.fill_(0.5)
        model[3].weight.fill_(1.0)
        model[3].weight[:, :16] = 0.0
        model[3].bias.fill_(1.0)
    found = size_of(model, in_channels=1, image_size=6)
    # Weights 2*9 and 3*32, norm 2+2, bias 3; buffers: mean, variance, and an eight-byte counter.
    assert found.parameters == 18 + 4 + 96 + 3
    assert found.nonzeros == 9 + 4 + 48 + 3
    assert found.macs == 18 * 16 + 96
    assert found.effective_macs == 9 * 16 + 48
    assert found.bytes_dense == 4 * (121 + 4) + 8
    # A bit per number, rounded up to bytes per tensor: 3 + 1 + 1 + 12 + 1.
    assert found.bytes_sparse == 18 + 4 * 64 + 4 * 4 + 8
    payload = b"".join(value.numpy().tobytes() for value in model.state_dict().values())
    assert found.bytes_zipped == len(zlib.compress(payload, 6))
