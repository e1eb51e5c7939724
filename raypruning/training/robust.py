"""Robust training: images are seen clean or corrupted at random, drawn anew at every access."""

# B images of a batch, C channels, H W height and width

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from raypruning.corruptions.corrupt import corrupt
from raypruning.corruptions.parameters import NUM_SEVERITIES, parameter_set_for
from raypruning.corruptions.stream import Stream


def corrupt_at_random(images_BCHW: Tensor, places_B: Tensor, *, names: Sequence[str], seed: int) -> Tensor:
    """Each image clean with probability 1/6, otherwise by one of `names` at a severity from 1 to 5, all equally likely.

    Args:
        images_BCHW: uint8.
        places_B: of each access in its epoch; with the seed they decide everything, so that what an image gets depends
            neither on the batch nor on who reads it.
        seed: another one for every epoch.

    Source: Lost in Pruning, section 6; unlike its code, no two epochs draw alike.
    """
    stream = Stream(f"train/{seed}", places_B.to(images_BCHW.device))
    severity_B = stream.integers("severity", low=0, high=NUM_SEVERITIES + 1)
    choice_B = stream.integers("corruption", low=0, high=len(names))
    parameter_set = parameter_set_for(*images_BCHW.shape[2:])
    changed_BCHW = images_BCHW.clone()
    group_B = torch.where(severity_B == 0, -1, choice_B * (NUM_SEVERITIES + 1) + severity_B)
    for group in group_B.unique().tolist():
        if group < 0:
            continue
        index, severity = divmod(group, NUM_SEVERITIES + 1)
        members = torch.nonzero(group_B == group)[:, 0]
        changed_BCHW[members] = corrupt(
            names[index],
            severity,
            images_BCHW[members],
            places_B[members.to(places_B.device)],
            parameter_set=parameter_set,
            key=f"train/{seed}",
        )
    return changed_BCHW
