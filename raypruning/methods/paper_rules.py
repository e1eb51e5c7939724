"""How the code of Lost in Pruning turns scores into masks: its budgets, its search for the ratio, its propagation.

For comparison with published numbers. It differs from what most people want in four ways, which the default rules
correct: layers are taken for a chain also where skip connections are; bias and norm of a removed filter stay, although
the constant that they put out is dropped from what reads it; the channels of the images can be removed; and the reached
ratio may be a tenth beside the asked one.

Source: Lost in Pruning and its code (torchprune), as `BaseCompressedNet.compress`, `WeightNet`, `FilterNet` have it.
"""

# L layers, O out, I in channels; U units of a layer; N images, B of a batch, C channels

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import brentq
from torch import Tensor, nn

from raypruning.methods.layer_inputs import check_all_seen
from raypruning.methods.method import Masks, Network, Scores
from raypruning.methods.ranking import keep_highest
from raypruning.methods.sample_loss import mean_loss
from raypruning.models.layers import layer_positions, prunable_layers

# Of the search for the ratio: where a miss counts as a hit, and how the root is looked for.
RATIO_TOLERANCE = 0.005  # of the kept fraction
SEARCH_TOLERANCE = 5e-3
SEARCH_ITERATIONS = 20
LOWEST_FRACTION = 0.4  # of the kept fraction asked for: the bracket's lower end
HIGHEST_FRACTION = 0.999  # of the kept fraction before the prune: its upper end
SAMPLE_BATCH = 4
KEEP_DIGITS = 12  # of the kept fraction: what a person can have asked for

# Of the error bound that distributes channels: a coreset's chance to fail, and its constant.
FAILURE_PROBABILITY = 1e-16
BOUND_CONSTANT = 3


class LayerShape(NamedTuple):
    """What an allocation knows of a layer: filters and channels that are not all zero, weights of a kernel."""

    num_out: int
    num_in: int
    kernel: int


Keep = dict[str, Tensor]  # layer -> bool, True where kept, of a shape that multiplies the weight
Allocate = Callable[[Network, Scores, Sequence[LayerShape], int], Keep]


def paper_masks(network: Network, scores: Scores, ratio: float, *, allocate: Allocate) -> Masks:
    """Masks over all parameters that are near a ratio by the paper's rules; norms are in them too.

    Args:
        network: with samples; its weights are what an earlier prune left, what that removed being 0.
        scores: by layer, of the units that `allocate` chooses among.
        ratio: asked; the reached one may differ.
        allocate: a budget of weights to what each layer keeps.
    """
    assert network.samples is not None
    prune = _Prune(network, scores, allocate)
    # Where the kept share of all parameters is a whole number, the last bit of a difference would cost a weight.
    keep_ratio = round(1.0 - ratio, KEEP_DIGITS)
    tried: dict[float, float] = {}

    def miss(asked: float) -> float:
        gap = prune.size_at(asked) / prune.num_params - keep_ratio
        tried[asked] = gap = 0.0 if abs(gap) < RATIO_TOLERANCE * keep_ratio else gap
        return gap

    if (first := miss(keep_ratio)) != 0.0:
        lowest = LOWEST_FRACTION * keep_ratio
        highest = max(keep_ratio, HIGHEST_FRACTION * prune.size_before / prune.num_params)
        low, high = (lowest, keep_ratio) if first > 0 else (keep_ratio, highest)
        try:
            best = brentq(miss, low, high, maxiter=SEARCH_ITERATIONS, xtol=SEARCH_TOLERANCE, rtol=SEARCH_TOLERANCE)
        except (ValueError, RuntimeError):  # No sign change, or too many steps.
            best = min(tried, key=lambda asked: abs(tried[asked]))
        prune.size_at(best)
    return prune.masks()


def try_paper_rules(network: Network, scores: Scores, ratio: float, *, allocate: Allocate) -> None:
    """Prune a copy of the network once, without a search. Raises MethodError: the rules do not fit the network."""
    _Prune(network, scores, allocate).size_at(1.0 - ratio)


class _Prune:
    """One prune of a copy of the network, done again from the start for each fraction that the search tries."""

    def __init__(self, network: Network, scores: Scores, allocate: Allocate) -> None:
        self._network, self._scores, self._allocate = network, scores, allocate
        self._model = copy.deepcopy(network.model).eval().to(memory_format=torch.contiguous_format)
        self._start = {name: value.detach().clone() for name, value in self._model.named_parameters()}
        layers = prunable_layers(self._model)
        self._weights = {name: layers[name].weight for name in network.layers}
        self._shapes = [_shape_of(weight) for weight in self._weights.values()]
        self._gone = {name: ~mask.to(self._start[name].device) for name, mask in network.alive.items()}
        # The original takes its fractions of the parent's parameters that are not 0, so without biases that begin at 0.
        self.num_params = sum(int(is_of_parent.count_nonzero()) for is_of_parent in self._of_parent().values())
        self.size_before = self._size()
        self._prunable_before = sum(int(weight.count_nonzero()) for weight in self._weights.values())

    def size_at(self, asked: float) -> int:
        """Prune to a kept fraction; the parameters that are not 0 then."""
        budget = int(asked * self.num_params) - (self.size_before - self._prunable_before)
        budget = min(max(budget, 0), self._prunable_before)
        keep = self._allocate(self._network, self._scores, self._shapes, budget)
        with torch.no_grad():
            for name, value in self._model.named_parameters():
                value.copy_(self._start[name])
            for name, weight in self._weights.items():
                weight.mul_(keep[name].to(weight.device))
        if self._network.granularity.is_structured:
            self._propagate_channels()
        else:
            self._propagate_weights()
        return self._size()

    def masks(self) -> Masks:
        """False where a prune made a parameter 0: this one, or an earlier one."""
        of_parent = self._of_parent()
        return {name: ((value != 0) | ~of_parent[name]).detach() for name, value in self._model.named_parameters()}

    def _of_parent(self) -> dict[str, Tensor]:
        """Where the parent was not 0; what an earlier prune removed was not."""
        return {
            name: (value != 0) | self._gone[name] if name in self._gone else value != 0
            for name, value in self._start.items()
        }

    def _size(self) -> int:
        return sum(int(value.count_nonzero()) for value in self._model.parameters())

    def _propagate_weights(self) -> None:
        """Whatever the loss on the samples does not feel becomes 0."""
        self._accumulate_gradients()
        with torch.no_grad():
            for value in self._model.parameters():
                value.mul_(value.grad != 0)

    def _propagate_channels(self) -> None:
        """Filters that the loss does not feel become 0, and so do weights that read a constant."""
        constants: dict[str, Tensor] = {}

        def recorder(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
            def record(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
                # Channels stand last for a linear layer.
                x = inputs[0].detach().movedim(-1 if isinstance(module, nn.Linear) else 1, 1)
                is_constant_C = (x[1:] == x[:1]).transpose(0, 1).flatten(1).all(1)
                constants[name] = constants[name] & is_constant_C if name in constants else is_constant_C

            return record

        layers = prunable_layers(self._model)
        hooks = [layers[name].register_forward_pre_hook(recorder(name)) for name in self._weights]
        try:
            self._accumulate_gradients()
        finally:
            for hook in hooks:
                hook.remove()
        check_all_seen(self._network, constants)
        with torch.no_grad():
            for name, weight in self._weights.items():
                assert weight.grad is not None
                weight[~(weight.grad != 0).flatten(1).any(1)] = 0.0
                weight[:, constants[name]] = 0.0

    @torch.enable_grad()  # A gradual schedule prunes between the steps of a training.
    def _accumulate_gradients(self) -> None:
        samples = self._network.samples
        assert samples is not None
        for value in self._model.parameters():
            value.grad = torch.zeros_like(value)
        batches = zip(samples.images_NCHW.split(SAMPLE_BATCH), samples.labels_N.split(SAMPLE_BATCH), strict=True)
        for images_BCHW, labels_B in batches:
            if len(labels_B) >= 2:
                mean_loss(self._model, images_BCHW.contiguous(), labels_B).backward()


def highest_weights(network: Network, scores: Scores, shapes: Sequence[LayerShape], budget: int) -> Keep:
    """The `budget` highest weights of all layers together."""
    sizes = [score.numel() for score in scores.values()]
    keep = keep_highest(torch.cat([score.flatten() for score in scores.values()]), budget).split(sizes)
    return {name: part.view_as(scores[name]) for name, part in zip(scores, keep, strict=True)}


def uniform_filters(network: Network, scores: Scores, shapes: Sequence[LayerShape], budget: int) -> Keep:
    """The same fraction of the filters of every layer but the last, sized as if the layers were a chain."""
    num_out_L = torch.tensor([shape.num_out for shape in shapes])

    def counts(fraction: float) -> list[int]:
        # In float32, as the original: layers of 33 and of 165 filters are at their halves together only there.
        kept = (num_out_L * fraction).round().int().clamp(min=1).tolist()
        return [*kept[:-1], shapes[-1].num_out]

    def excess(fraction: float) -> float:
        num_out = counts(fraction)
        lost = [0, *(shape.num_out - kept for shape, kept in zip(shapes, num_out, strict=True))]
        num_in = [max(1, shape.num_in - gone) for shape, gone in zip(shapes, lost[:-1], strict=True)]
        return _size(shapes, num_out, num_in) - budget

    kept = counts(_root(excess, 1e-12, 1.0))
    return {
        name: keep_highest(score_O, num).view(-1, *[1] * (network.weight(name).ndim - 1))
        for (name, score_O), num in zip(scores.items(), kept, strict=True)
    }


def error_bound_channels(network: Network, scores: Scores, shapes: Sequence[LayerShape], budget: int) -> Keep:
    """Channels so that all layers have the same bound on their relative error; sized as a chain.

    Source: Liebenwein et al. 2020 (PFP), Theorem 4 and section 4.
    """
    example = network.example_NCHW
    positions = layer_positions(network.model, example.shape[1], example.shape[2])
    sensitivities = [score_I.double().clamp(min=0.0).numpy() for score_I in scores.values()]
    factors = [bound_factor(positions[name], shape.kernel) for name, shape in zip(scores, shapes, strict=True)]

    def counts(epsilon: float) -> list[int]:
        kept = [num_distinct(score_I, factor, epsilon) for score_I, factor in zip(sensitivities, factors, strict=True)]
        return [max(1, min(shape.num_in, num)) for shape, num in zip(shapes, kept, strict=True)]

    def excess(epsilon: float) -> float:
        num_in = counts(epsilon)
        lost = [*(shape.num_in - kept for shape, kept in zip(shapes, num_in, strict=True)), 0]
        num_out = [max(1, shape.num_out - gone) for shape, gone in zip(shapes, lost[1:], strict=True)]
        return _size(shapes, num_out, num_in) - budget

    kept = counts(_root(excess, 1e-300, 1e150))
    return {
        name: keep_highest(score_I, num).view(1, -1, *[1] * (network.weight(name).ndim - 2))
        for (name, score_I), num in zip(scores.items(), kept, strict=True)
    }


def bound_factor(num_positions: int, kernel: int) -> float:
    """The alpha of the error bound: how it grows with the places where a kernel is applied.

    Source: Lost in Pruning's code, with failure probability 1e-16 and constant 3.
    """
    return float(2 * BOUND_CONSTANT * np.log(8 * (num_positions + 1) * kernel / FAILURE_PROBABILITY))


def num_distinct(sensitivity_I: np.ndarray, factor: float, epsilon: float) -> int:
    """Channels that a sample of the size which bounds the relative error by `epsilon` is expected to hold.

    Source: Liebenwein et al. 2020 (PFP), Theorem 4, with the constants of Lost in Pruning's code.
    """
    total = float(sensitivity_I.sum())
    if total == 0.0:
        return 0
    with np.errstate(over="ignore", divide="ignore"):
        draws = BOUND_CONSTANT * (6 + 2 * epsilon) * total * factor / np.square(np.float64(epsilon))
        num_draws = np.maximum(np.ceil(draws), 1)
        missed_I = np.power(1.0 - sensitivity_I / total, num_draws)
    return int(np.ceil(np.sum(1.0 - missed_I)))


def _root(function: Callable[[float], float], low: float, high: float) -> float:
    at_low, at_high = function(low), function(high)
    if np.sign(at_low) * np.sign(at_high) > 0:
        return low if abs(at_low) < abs(at_high) else high
    return float(brentq(function, low, high, xtol=1e-249, maxiter=1000, disp=False))


def _size(shapes: Sequence[LayerShape], num_out: Sequence[int], num_in: Sequence[int]) -> int:
    return sum(o * i * shape.kernel for shape, o, i in zip(shapes, num_out, num_in, strict=True))


def _shape_of(weight: Tensor) -> LayerShape:
    alive_OI = (weight != 0).flatten(2).any(2) if weight.ndim > 2 else weight != 0
    return LayerShape(int(alive_OI.any(1).sum()), int(alive_OI.any(0).sum()), weight[0, 0].numel())
