"""Which layers can reach which readers, followed through all operations of one run: never too few, maybe too many.

What is tracked is memory, not values: whatever is computed of a tensor holds all that the tensor held. Two layers that
cannot both reach one reader need not be told apart by labels.
"""

# C channels, H W height and width, L layers

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from raypruning.compaction.channels import Layer
from raypruning.compaction.cut import compute_depthwise, run_cut, spread


def find_reach(
    model: nn.Module, image_CHW: Tensor, tensors: Mapping[str, Tensor], layers: Sequence[str]
) -> dict[str, Tensor]:
    """By reader of `run_cut`, the layers whose outputs may be in its inputs, shape (L,).

    Args:
        tensors: used in place of the network's own, by name.
        layers: names, in the order of the result.
    """
    tracking = _Tracking([image_CHW, *tensors.values()], num_layers=len(layers))
    probe = _Reaching(tracking, {name: i for i, name in enumerate(layers)})
    with tracking:
        run_cut(model, probe, image_CHW[None], tensors)
    return {
        name: torch.tensor([held >> i & 1 for i in range(len(layers))], dtype=torch.bool)
        for name, held in probe.reach.items()
    }


def colours(reach: Mapping[str, Tensor]) -> Tensor:
    """A number for each layer, as few as a greedy choice finds, so that no two that reach one reader are equal."""
    reach_RL = torch.stack(list(reach.values()))
    meets_LL = (reach_RL.float().T @ reach_RL.float()).bool()
    found_L = torch.full((len(meets_LL),), -1)
    for i, meets_L in enumerate(meets_LL):
        taken = set(found_L[meets_L].tolist())
        found_L[i] = next(colour for colour in range(len(taken) + 1) if colour not in taken)
    return found_L


class _Tracking(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees each operation, below autograd, and notes what the memory that it writes then holds, a bit for each layer.

    Memory that no operation made and that is not known from the start may hold anything.
    """

    def __init__(self, known: Sequence[Tensor], *, num_layers: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._anything = (1 << num_layers) - 1
        self._held = {_memory(tensor): 0 for tensor in known}

    def held(self, tensor: Tensor) -> int:
        return self._held.get(_memory(tensor), self._anything)

    def mark(self, tensor: Tensor, held: int) -> None:
        self._held[_memory(tensor)] = held

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        inputs = [value for value in tree_iter((args, kwargs)) if isinstance(value, Tensor)]
        held = 0
        for tensor in inputs:
            held |= self.held(tensor)
        result = func(*args, **kwargs)
        outputs = [value for value in tree_iter(result) if isinstance(value, Tensor)]
        # Some operations write one of their inputs and return nothing.
        is_writing = not outputs or func._schema.is_mutable  # type: ignore[attr-defined]
        for tensor in (*outputs, *inputs) if is_writing else outputs:
            self.mark(tensor, held)
        return result


class _Reaching:
    """The probe: every layer puts out ones, which hold that layer alone."""

    num_samples = 1

    def __init__(self, tracking: _Tracking, index: Mapping[str, int]) -> None:
        self._tracking, self._index = tracking, index
        self.reach: dict[str, int] = {}

    def see(self, name: str, inputs: Tensor, axis: int) -> None:
        self.reach[name] = self.reach.get(name, 0) | self._tracking.held(inputs)

    def put_out(self, name: str, shape: tuple[int, ...], axis: int) -> Tensor:
        output = spread(torch.ones(1, shape[axis], dtype=torch.float64), shape, axis)
        self._tracking.mark(output, 1 << self._index[name])
        return output

    def norm(self, name: str, compute: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
        return inputs

    def pass_on(self, layer: Layer, inputs: Tensor) -> Tensor:
        return compute_depthwise(layer, inputs)

    def without_samples(self, name: str, inputs: Tensor) -> None:
        raise AssertionError("any number of rows is so many of one sample")


def _memory(tensor: Tensor) -> int:
    address: int = tensor.untyped_storage()._cdata
    return address
