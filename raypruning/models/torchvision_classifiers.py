"""Torchvision's image classifiers, with the head and the first convolution that a dataset needs.

Weights start as torchvision draws them; see `first_convolution` for one that is replaced.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from raypruning.errors import SpecError, UnknownNameError, unknown_name_message
from raypruning.models.base import Option, read_options
from raypruning.models.first_convolution import replace_first_convolution
from raypruning.models.layers import logits_shape
from raypruning.models.pretrained import cached_weights, load_weights
from raypruning.models.torchvision_import import import_torchvision
from raypruning.models.torchvision_names import TORCHVISION_CLASSIFIERS

# Those of class torchvision.models.ResNet: `conv1`, `maxpool` and `zero_init_residual` mean the same in all of them.
RESIDUAL_PREFIXES = ("resnet", "resnext", "wide_resnet")
# In training, their auxiliary heads would make the output a tuple. Their published weights want images in [-1, 1]: with
# `transform_input`, the forward makes these from images in ImageNet's normalisation.
AUXILIARY_HEADED = ("googlenet", "inception_v3")
STEMS = ("imagenet", "cifar")


def build(
    argument: str, *, num_classes: int, in_channels: int, image_size: int, options: Mapping[str, object]
) -> nn.Module:
    """Torchvision's classifier called `argument`; always one tensor of logits, without auxiliary heads.

    Options:
        stem: "imagenet", as torchvision has it, or, for residual networks, "cifar": a 3x3 convolution of stride 1 and
            no pooling after it, so that images of 32 px keep their size.
        zero_init_residual: for residual networks, start every branch at zero (Goyal et al. 2017, section 5.1).
        weights: "" for random ones; "cache" for torchvision's default ones, which must be in torch's local cache
            already (nothing is downloaded); or the path of a .safetensors, .pt or .pth file with a state dict. A head
            of another number of classes is left random; everything else must fit.

    Args:
        argument: one of `TORCHVISION_CLASSIFIERS`.
        num_classes: logits per image.
        in_channels: channels of an image.
        image_size: height and width of an image; the transformers are built for it.
        options: see above.

    Raises:
        UnknownNameError: torchvision has no such classifier.
        SpecError: an option, a weights file or an image size that the classifier does not take.
    """
    if argument not in TORCHVISION_CLASSIFIERS:
        raise UnknownNameError(unknown_name_message("torchvision classifier", argument, TORCHVISION_CLASSIFIERS))
    values = _read_classifier_options(argument, options)
    is_cached = values["weights"] == "cache"
    # Found before the network is built: a missing file should cost no waiting.
    weights = cached_weights(argument) if is_cached else values["weights"]
    model = _construct(argument, num_classes=num_classes, image_size=image_size, values=values)
    if in_channels != 3:
        replace_first_convolution(model, in_channels=in_channels)
    if values["stem"] == "cifar":
        replace_first_convolution(model, kernel_size=3, stride=1, padding=1)
        model.maxpool = nn.Identity()
    _check_forward(argument, model, in_channels=in_channels, image_size=image_size)
    if weights:
        load_weights(model, weights, head=_head_keys(model))
        if is_cached and argument in AUXILIARY_HEADED:
            model.transform_input = True
    return model


def _read_classifier_options(name: str, options: Mapping[str, object]) -> dict[str, Option]:
    is_residual = name.startswith(RESIDUAL_PREFIXES)
    defaults: dict[str, Option] = {"stem": "imagenet", "weights": ""}
    if is_residual:
        defaults["zero_init_residual"] = False
    values = read_options(name, options, defaults)
    if values["stem"] not in STEMS:
        raise SpecError(f"the option 'stem' of the model {name} is {' or '.join(STEMS)}, got {values['stem']!r}")
    if values["stem"] == "cifar" and not is_residual:
        residual = ", ".join(name for name in TORCHVISION_CLASSIFIERS if name.startswith(RESIDUAL_PREFIXES))
        raise SpecError(f"the model {name} has no stem 'cifar': only {residual} have")
    return values


def _construct(name: str, *, num_classes: int, image_size: int, values: Mapping[str, Option]) -> nn.Module:
    arguments: dict[str, object] = {"num_classes": num_classes}
    if "zero_init_residual" in values:
        arguments["zero_init_residual"] = values["zero_init_residual"]
    if name.startswith("vit_"):
        arguments["image_size"] = image_size
    if name.startswith("maxvit_"):
        arguments["input_size"] = (image_size, image_size)
    if name in AUXILIARY_HEADED:
        # Said aloud because torchvision warns otherwise; True is its own initialisation, and takes 0.3 s at most.
        arguments |= {"aux_logits": False, "init_weights": True}
    try:
        return import_torchvision().models.get_model(name, weights=None, **arguments)
    except (ValueError, AssertionError) as error:  # transformers whose patches or windows do not divide the image
        reason = str(error).splitlines()[0]
        raise SpecError(f"the model {name} cannot be built for images of {image_size} px: {reason}") from error


def _check_forward(name: str, model: nn.Module, *, in_channels: int, image_size: int) -> None:
    """Raise SpecError if an image shrinks to nothing inside the model; torchvision states no smallest size."""
    try:
        logits_shape(model, in_channels, image_size)
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise SpecError(f"the model {name} cannot take images of {image_size} px: {reason}") from error


def _head_keys(model: nn.Module) -> frozenset[str]:
    """State-dict keys of the layer that gives the logits: in every classifier, the last one registered."""
    name, head = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)][-1]
    return frozenset(f"{name}.{key}" for key in head.state_dict())
