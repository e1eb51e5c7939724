"""What every model function shares: reading its options, refusing images it cannot take, drawing its first weights.

A model is a function `name(argument, *, num_classes, in_channels, image_size, options) -> torch.nn.Module` that maps
images (N, in_channels, image_size, image_size) to logits (N, num_classes).
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from raypruning.errors import SpecError

Option = str | bool | int | float


def read_options(model: str, options: Mapping[str, object], defaults: Mapping[str, Option]) -> dict[str, Option]:
    """Values of all options of `model`: the user's where given, the default elsewhere.

    Args:
        model: name of the model, for the messages.
        options: what a sweep's file says.
        defaults: every option the model has. A value must have the type of its default; an integer passes as a float.

    Raises:
        SpecError: an option that does not exist, or a value of another type.
    """
    values = dict(defaults)
    for key, value in options.items():
        if key not in defaults:
            allowed = f"its options are {', '.join(sorted(defaults))}" if defaults else "it has none"
            raise SpecError(f"the model {model} has no option {key!r}: {allowed}")
        kind = type(defaults[key])
        # bool is an int to Python, and a sweep that says dropout = true means something else.
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if type(value) is not kind:
            raise SpecError(f"the option {key!r} of the model {model} takes a {kind.__name__}, got {value!r}")
        values[key] = value
    return values


def check_image_size(model: str, image_size: int, *, at_least: int) -> None:
    """Raise SpecError if images of `image_size` px would shrink to nothing inside `model`."""
    if image_size < at_least:
        raise SpecError(f"the model {model} takes images of at least {at_least} px, got {image_size} px")


def initialise_convolutions(model: nn.Module) -> None:
    """Draw every convolution's weights from a normal with variance 2 / (kernel height * width * out channels).

    Source: He et al. 2015, section 2.2, backward form ("fan out"), as in the CIFAR codebases of the networks here.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
