"""The common corruptions of a test set as tasks: `corruption/NAME/SEVERITY`, 19 names and severities from 1 to 5.

The constants are those made for 32 px images (CIFAR-10-C) up to 96 px, and those made for 224 px (ImageNet-C) beyond;
`corruption_cifar/` and `corruption_imagenet/` choose one whatever the size. Where pixels have classes, masks move with
their pictures; `corruption_unmoved/` leaves them where they are, as Lost in Pruning did.

Source: Hendrycks and Dietterich 2019; Lost in Pruning, section 5, looks at severity 3.
"""

# N images, C channels, H W height and width

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from typing import TYPE_CHECKING

from raypruning.core.identity import fingerprint
from raypruning.corruptions.parameters import NAMES, NUM_SEVERITIES, VARIANTS, parameter_set_for, parameters_of
from raypruning.errors import SpecError
from raypruning.tasks.task import TaskDefinition, members

if TYPE_CHECKING:
    from torch import Tensor

# The severity that studies look at first comes first.
_SEVERITIES = sorted(range(1, NUM_SEVERITIES + 1), key=lambda severity: (severity != 3, severity))
MEMBERS = tuple(f"{name}/{severity}" for severity in _SEVERITIES for name in NAMES)


@members(*MEMBERS)
def corruption(argument: str) -> TaskDefinition:
    """A corruption with the constants that fit the images' size."""
    return _definition(argument, parameter_set="by size")


@members(*MEMBERS)
def corruption_cifar(argument: str) -> TaskDefinition:
    """A corruption with the constants of CIFAR-10-C."""
    return _definition(argument, parameter_set="cifar")


@members(*MEMBERS)
def corruption_imagenet(argument: str) -> TaskDefinition:
    """A corruption with the constants of ImageNet-C."""
    return _definition(argument, parameter_set="imagenet")


@members(*MEMBERS)
def corruption_unmoved(argument: str) -> TaskDefinition:
    """A corruption under which masks stay where they are, also where what they show has moved."""
    definition = _definition(argument, parameter_set="by size")
    return replace(
        definition,
        corruption={**definition.corruption, "masks": "unmoved"},
        on_masks=None,
        kind="segmentation",
        source="Lost in Pruning, section 5",
    )


def _definition(argument: str, *, parameter_set: str) -> TaskDefinition:
    name, _, severity_text = argument.partition("/")
    if not severity_text.isdecimal():
        raise SpecError(
            f"the task corruption/{argument}: what follows corruption/ must be a name and a severity from 1 to "
            f"{NUM_SEVERITIES}, such as corruption/{name if name in (*NAMES, *VARIANTS) else NAMES[0]}/3"
        )
    severity = int(severity_text)
    known_set = "cifar" if parameter_set == "by size" else parameter_set
    parameters_of(name, severity, parameter_set=known_set)  # Raises for what there is not.

    def set_for(height: int, width: int) -> str:
        return parameter_set_for(height, width) if parameter_set == "by size" else parameter_set

    def corrupt_images(images_NCHW: Tensor, ids_N: Tensor) -> Tensor:
        from raypruning.corruptions.corrupt import corrupt

        return corrupt(name, severity, images_NCHW, ids_N, parameter_set=set_for(*images_NCHW.shape[2:]))

    def move(masks_NHW: Tensor, ids_N: Tensor) -> Tensor:
        from raypruning.corruptions.moved_masks import move_masks

        return move_masks(name, severity, masks_NHW, ids_N, parameter_set=set_for(*masks_NHW.shape[1:]))

    return TaskDefinition(
        # The images, and so their size, are part of a task's fingerprint by themselves.
        corruption={"kind": name, "severity": severity, "parameters": parameter_set}
        | (_own_pictures() if name == "frost" else {}),
        on_bytes=corrupt_images,
        on_masks=move,
        source="Hendrycks and Dietterich 2019",
    )


def _own_pictures() -> dict[str, str]:
    """What stands for the frost pictures of a user's own; nothing for ours. Raises DataError for an empty folder."""
    from raypruning.corruptions.frost_textures import FOLDER_VARIABLE, paths_in

    folder = os.environ.get(FOLDER_VARIABLE)
    if not folder:
        return {}
    return {"pictures": fingerprint([hashlib.sha256(path.read_bytes()).hexdigest() for path in paths_in(folder)])}
