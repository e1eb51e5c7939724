"""From a method and a ratio to masks: scores, units, their order, and how far it is followed."""

# C channels, O out, I in channels

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from raypruning import registry
from raypruning.core.records import MethodChoice
from raypruning.errors import MethodError, RatioError, RaypruningError, SpecError, unknown_name_message
from raypruning.methods.method import Masks, Method, Network, Samples
from raypruning.methods.paper_rules import paper_masks, try_paper_rules
from raypruning.methods.ranking import num_true
from raypruning.methods.samples import sample_set_size
from raypruning.methods.selection import Selection, num_removed
from raypruning.models.layers import prunable_layers


def resolve_method(choice: MethodChoice) -> Method:
    """The method of that name with those parameters. Raises UnknownNameError, or SpecError for a parameter."""
    method = registry.methods.get(choice.name).value(choice.parameters)
    if not isinstance(method, Method):
        raise MethodError(f"method {choice.name} gave a {type(method).__name__} where a Method was expected")
    return dataclasses.replace(method, name=choice.label)


def num_samples(method: Method, model: nn.Module, example_NCHW: Tensor) -> int:
    """How many images the method wants to look at; 0 if it looks at weights alone."""
    if not method.needs_samples:
        return 0
    return method.num_samples or sample_set_size(model, example_NCHW)


def enforced(method: Method, model: nn.Module, masks: Masks) -> Masks:
    """The masks that hold while retraining: all of them, but for the norms' under the paper's rules."""
    if method.rules != "paper":
        return masks
    layers = prunable_layers(model)
    return {name: mask for name, mask in masks.items() if name.rpartition(".")[0] in layers}


def make_masks(
    method: Method,
    model: nn.Module,
    ratio: float,
    *,
    example_NCHW: Tensor,
    seed: int,
    alive: Mapping[str, Tensor] | None = None,
    samples: Samples | None = None,
) -> Masks:
    """Masks that remove the fraction `ratio` of all the model's parameters, as nearly as the method's rules allow.

    Args:
        model: left as it is; what an earlier prune removed is 0 in it.
        ratio: in [0, 1), of all parameters, what was removed earlier included; 0 removes nothing more.
        example_NCHW: any input of the right shape, on the model's device.
        seed: of the method's randomness.
        alive: masks of an earlier prune; what they removed stays removed.
        samples: images for the methods that look at some (see `num_samples`), on the model's device.

    Returns: boolean tensors by parameter name, True where kept, on the CPU; a parameter that is kept whole is left out.

    Raises:
        SpecError: the method does not fit this network: no prunable layer, an unknown one to skip.
        MethodError: a score of the wrong shape or not finite.
        RatioError: a ratio that cannot be reached, or masks that remove nothing although something was asked for.
    """
    if not 0.0 <= ratio < 1.0:
        raise SpecError(f"a ratio must be in [0, 1), got {ratio}")
    alive = dict(alive or {})
    if ratio == 0.0:
        return alive
    with _in_evaluation_mode(model):
        network, scores = score_layers(
            method, model, example_NCHW=example_NCHW, seed=seed, alive=alive, samples=samples
        )
        if method.paper_allocation is not None:
            masks = paper_masks(network, scores, ratio, allocate=method.paper_allocation)
        else:
            masks = _selection(method, network, scores).masks(_num_remove(model, ratio))
    if num_removed(masks) <= num_removed(alive):
        if method.rules == "paper" and num_removed(alive) >= _num_remove(model, ratio):
            return alive  # Its propagation took more than an earlier prune was asked for; the original goes on.
        raise RatioError(f"{method.name} removed nothing at a ratio of {ratio}: the network is too small for it")
    masks = {name: mask.cpu().contiguous() for name, mask in masks.items()}
    return {name: mask for name, mask in masks.items() if num_true(mask) < mask.numel()}


def check_method(
    method: Method, model: nn.Module, ratio: float, *, example_NCHW: Tensor, samples: Samples | None = None
) -> None:
    """Try a method on a network without any search: its scores, and whether it can remove so much at all.

    Raises: SpecError: the method does not fit the network, its scores are not what they must be, or `ratio` is beyond
        what it can remove.
    """
    try:
        with _in_evaluation_mode(model):
            network, scores = score_layers(method, model, example_NCHW=example_NCHW, seed=0, alive={}, samples=samples)
            if method.paper_allocation is not None:
                try_paper_rules(network, scores, ratio, allocate=method.paper_allocation)
            else:
                _selection(method, network, scores).check_reachable(_num_remove(model, ratio))
    except MethodError as error:
        raise SpecError(str(error)) from error
    except (RaypruningError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # Whatever a stranger's method raises.
        raise SpecError(
            f"{method.name} failed when it was tried: {type(error).__name__}: {' '.join(str(error).split())}"
        ) from error


class Scored(NamedTuple):
    """A network as its method saw it, and what the method said."""

    network: Network
    scores: dict[str, Tensor]


def score_layers(
    method: Method,
    model: nn.Module,
    *,
    example_NCHW: Tensor,
    seed: int,
    alive: Mapping[str, Tensor] | None = None,
    samples: Samples | None = None,
) -> Scored:
    """The scores of every layer, checked, on the CPU; -inf where an earlier prune removed all that one is of.

    Under the rules `paper` the network is a copy in the original's memory layout, and images go through it one by one
    as in the original's code: sums of float32 in another order would move scores by more than 1e-5.

    Raises: SpecError, MethodError: see `make_masks`.
    """
    if method.rules == "paper":
        model = copy.deepcopy(model).to(memory_format=torch.contiguous_format)
    network = _network(method, model, example_NCHW=example_NCHW, seed=seed, alive=alive or {}, samples=samples)
    return Scored(network, _scores(method, network))


@torch.no_grad()
def apply_masks(model: nn.Module, masks: Masks) -> None:
    """Set what the masks remove to 0, in place. Masks must be on the parameters' device."""
    parameters = dict(model.named_parameters())
    for name, mask in masks.items():
        parameters[name].mul_(mask)


def _network(
    method: Method,
    model: nn.Module,
    *,
    example_NCHW: Tensor,
    seed: int,
    alive: Mapping[str, Tensor],
    samples: Samples | None,
) -> Network:
    layers = prunable_layers(model)
    if not layers:
        raise SpecError("the model has no prunable layer: neither a linear one nor a convolution with one group")
    for name in method.skip:
        if name not in layers:
            raise SpecError(f"method {method.name}, skip: {unknown_name_message('prunable layer', name, layers)}")
    if set(method.skip) == set(layers):
        raise SpecError(f"method {method.name}: skip leaves no layer to prune")
    if method.needs_samples and (samples is None or len(samples.labels_N) < 2):
        raise MethodError(f"{method.name} looks at images, and got fewer than two")
    return Network(
        model=model,
        layers={name: layer for name, layer in layers.items() if name not in method.skip},
        example_NCHW=example_NCHW,
        generator=torch.Generator().manual_seed(seed),
        granularity=method.granularity,
        alive=alive,
        samples=samples,
        images_at_once=1 if method.rules == "paper" else None,
    )


def _num_remove(model: nn.Module, ratio: float) -> int:
    return round(ratio * sum(parameter.numel() for parameter in model.parameters()))


def _scores(method: Method, network: Network) -> dict[str, Tensor]:
    scores = method.score(network)
    _check_scores(method, network, scores)
    return {name: _of_what_is_left(network, name, score) for name, score in scores.items()}


def _selection(method: Method, network: Network, scores: dict[str, Tensor]) -> Selection:
    units = {name: method.granularity.units(network, name, score) for name, score in scores.items()}
    return Selection(
        network=network,
        scores=scores,
        units=units,
        times=method.scope(network, units),
        takes_along=method.rules == "corrected" and method.granularity.is_structured,
    )


@contextmanager
def _in_evaluation_mode(model: nn.Module) -> Iterator[None]:
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, is_training in modes.items():
            module.training = is_training


def _check_scores(method: Method, network: Network, scores: object) -> None:
    if not isinstance(scores, Mapping) or list(scores) != list(network.layers):
        found = ", ".join(scores) if isinstance(scores, Mapping) else type(scores).__name__
        raise MethodError(f"{method.name} must score every prunable layer, in order; it gave {found}")
    by = method.granularity.score_by
    for name in network.layers:
        weight = network.weight(name)
        shape = {"weight": weight.shape, "filter": weight.shape[:1], "channel": weight.shape[1:2]}[by]
        score = scores[name]
        if not isinstance(score, Tensor) or score.shape != shape:
            found = tuple(score.shape) if isinstance(score, Tensor) else type(score).__name__
            raise MethodError(
                f"{method.name} scored layer {name} with shape {found}; one score per {by} has shape {tuple(shape)}"
            )
        if not score.is_floating_point():
            kind = str(score.dtype).removeprefix("torch.")
            raise MethodError(f"{method.name} gave layer {name} scores of type {kind}; they must be floating")
        # One sum tells, unless it overflows: then every score is looked at.
        if not (bool(torch.isfinite(score.sum())) or bool(torch.isfinite(score).all())):
            raise MethodError(f"{method.name} gave layer {name} a score that is not finite, so there is no order")


def _of_what_is_left(network: Network, layer: str, score: Tensor) -> Tensor:
    """The score on the CPU, -inf where an earlier prune removed all that it is of."""
    score = score.detach().cpu()
    # Half precision has too few numbers for an order, and too few functions.
    score = score if score.dtype == torch.float64 else score.float()
    alive = network.alive.get(f"{layer}.weight")
    if alive is None:
        return score
    gone = ~alive.cpu()
    by = network.granularity.score_by
    if by != "weight":
        gone = (gone if by == "filter" else gone.transpose(0, 1)).flatten(1).all(1)
    return score.masked_fill(gone, -math.inf)
