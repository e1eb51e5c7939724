"""From a method and a ratio to masks, with what they leave counted."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from raypruning import registry
from raypruning.core.records import MethodChoice
from raypruning.errors import MethodError
from raypruning.methods.method import Masks, Method, Network
from raypruning.methods.scopes import num_removed
from raypruning.models.layers import prunable_layers


def resolve_method(choice: MethodChoice) -> Method:
    """The method of that name with those parameters. Raises UnknownNameError, or SpecError for a parameter."""
    method = registry.methods.get(choice.name).value(choice.parameters)
    if not isinstance(method, Method):
        raise MethodError(f"method {choice.name} gave a {type(method).__name__} where a Method was expected")
    return method


def make_masks(method: Method, model: nn.Module, ratio: float, *, example_NCHW: Tensor, seed: int) -> Masks:
    """Masks that remove the fraction `ratio` of all the model's parameters, as nearly as the granularity allows.

    Args:
        model: left as it is.
        ratio: in [0, 1); 0 removes nothing and returns no masks.
        example_NCHW: any input of the right shape, on the model's device.
        seed: of the method's randomness.

    Returns: boolean tensors by parameter name, True where kept, on the CPU; a parameter that is kept whole is left out.

    Raises:
        MethodError: no prunable layer, a score of the wrong shape or not finite, a ratio that cannot be reached, or
            masks that remove nothing although something was asked for.
    """
    layers = prunable_layers(model)
    if not layers:
        raise MethodError("the model has no prunable layer: neither a linear one nor a convolution with one group")
    if ratio == 0.0:
        return {}
    num_params = sum(parameter.numel() for parameter in model.parameters())
    modes = {module: module.training for module in model.modules()}
    network = Network(
        model=model.eval(),
        layers=layers,
        example_NCHW=example_NCHW,
        generator=torch.Generator().manual_seed(seed),
    )
    try:
        scores = method.score(network, method.granularity)
        _check_scores(method, network, scores)
        masks = method.scope(network, {name: score.cpu() for name, score in scores.items()}, round(ratio * num_params))
    finally:
        for module, is_training in modes.items():
            module.training = is_training
    if num_removed(masks) == 0:
        raise MethodError(f"{method.name} removed nothing at a ratio of {ratio}: the network is too small for it")
    return {name: mask.cpu().contiguous() for name, mask in masks.items()}


@torch.no_grad()
def apply_masks(model: nn.Module, masks: Masks) -> None:
    """Set what the masks remove to 0, in place. Masks must be on the parameters' device."""
    parameters = dict(model.named_parameters())
    for name, mask in masks.items():
        parameters[name].mul_(mask)


def _check_scores(method: Method, network: Network, scores: dict[str, Tensor]) -> None:
    if list(scores) != list(network.layers):
        raise MethodError(f"{method.name} must score every prunable layer, in order; it scored {', '.join(scores)}")
    for name, layer in network.layers.items():
        shape = tuple(layer.weight.shape) if method.granularity == "weight" else (layer.weight.shape[0],)
        if tuple(scores[name].shape) != shape:
            raise MethodError(
                f"{method.name} scored layer {name} with shape {tuple(scores[name].shape)}; one score per "
                f"{method.granularity} has shape {shape}"
            )
        if not bool(torch.isfinite(scores[name]).all()):
            raise MethodError(f"{method.name} gave layer {name} a score that is not finite, so there is no order")
