"""Copies of a network, some of whose tensors are others."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn


def copy_with(model: nn.Module, others: Mapping[int, Tensor]) -> nn.Module:
    """A copy without gradients. It has `others` in place of the parameters and buffers of these ids.

    The same as `copy.deepcopy`, which takes several times as long with the hundreds of tensors and the thousands of
    empty dictionaries (for hooks) that a network consists of.
    """
    known: dict[int, Any] = {}
    for parameter in model.parameters():
        values = others.get(id(parameter))
        known[id(parameter)] = nn.Parameter(parameter.detach().clone() if values is None else values, False)
    for buffer in model.buffers():
        known[id(buffer)] = others[id(buffer)] if id(buffer) in others else buffer.detach().clone()
    for module in model.modules():
        for value in vars(module).values():
            if type(value) in (dict, OrderedDict, set) and not value:
                known[id(value)] = type(value)()
    return copy.deepcopy(model, known)
