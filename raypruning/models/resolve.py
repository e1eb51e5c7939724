"""From a model's name to the model. Listing and checking names imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from raypruning import registry
from raypruning.core.records import Kind
from raypruning.errors import UnknownNameError, unknown_name_message
from raypruning.models.torchvision_names import TORCHVISION_CLASSIFIERS, TORCHVISION_SEGMENTERS

if TYPE_CHECKING:
    from torch import nn

FAMILY = "torchvision/"
TORCHVISION = (*TORCHVISION_CLASSIFIERS, *TORCHVISION_SEGMENTERS)
PACKAGE = "raypruning"


def model_names() -> list[str]:
    """Every name a sweep can give as its model, sorted.

    A network of torchvision goes by its own name, `resnet101`, unless a registered model has that name: then only
    `torchvision/vgg16` means torchvision's.
    """
    registered = {name for name in registry.models.names() if name != FAMILY}
    return sorted(registered | {f"{FAMILY}{name}" if name in registered else name for name in TORCHVISION})


def check_model(name: str) -> None:
    """Raise UnknownNameError, with near names, if no model is called `name`. Imports nothing."""
    known = model_names()
    if name.startswith(FAMILY):
        known = [FAMILY + own for own in TORCHVISION]
        is_known = name in known
    else:
        is_known = name in known or name in registry.models
    if not is_known:
        raise UnknownNameError(unknown_name_message("model", name, known))


def model_kind(name: str) -> Kind:
    """Whether the model called `name` gives a class for each image or for each pixel.

    Known by name for all models of this package, without importing anything. Another package's is imported: it is for
    images, unless its function has the attribute `kind = "segmentation"`.

    Raises:
        UnknownNameError: no such model. SpecError: its module cannot be imported.
    """
    check_model(name)
    if name.startswith(FAMILY) or name not in registry.models:
        return "segmentation" if name.removeprefix(FAMILY) in TORCHVISION_SEGMENTERS else "classification"
    if name in registry.models.names() and registry.models.owner(name) == PACKAGE:
        return "classification"
    kind = getattr(registry.models.get(name).value, "kind", None)
    return "segmentation" if kind == "segmentation" else "classification"


def build_model(
    name: str, *, num_classes: int, in_channels: int, image_size: int, options: Mapping[str, object]
) -> nn.Module:
    """The model called `name`, with fresh weights drawn from torch's global generator, which the caller seeds.

    Args:
        name: one of `model_names()`, or a member of a registered family.
        num_classes: logits per image.
        in_channels: channels of an image.
        image_size: height and width of an image in pixels.
        options: the model's own options, as a sweep gives them.

    Raises:
        UnknownNameError: no such model.
        SpecError: an option or an image size that the model does not take.
    """
    check_model(name)
    # check_model has let through nothing but registered names and torchvision's own.
    found = registry.models.get(name if name in registry.models else FAMILY + name)
    return found.value(
        found.argument, num_classes=num_classes, in_channels=in_channels, image_size=image_size, options=options
    )
