"""What can be refused before the first training.

A model that does not fit the data, a method that does not fit the network, a ratio beyond its reach.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence

from raypruning.core.plan import Plan
from raypruning.core.records import Kind, SweepSpec
from raypruning.core.search.grid import grid_ratios
from raypruning.datasets.base import Dataset
from raypruning.errors import SpecError
from raypruning.models.resolve import model_kind

# Enough for a score to be a number; how good it is does not matter yet.
NUM_IMAGES = 2
_ANSWERS: Mapping[Kind, str] = {"classification": "a class for each image", "segmentation": "a class for each pixel"}
_INSTEAD: Mapping[Kind, str] = {
    "classification": "such as lenet5 or resnet101",
    "segmentation": "such as deeplabv3_resnet50",
}
_AUGMENTATIONS: Mapping[Kind, Sequence[str]] = {
    "classification": ("default", "none", "crop_flip", "resized_crop_flip"),
    "segmentation": ("default", "none", "scaled_crop_flip"),
}


def check_data(spec: SweepSpec, dataset: Dataset) -> None:
    """Whether model and recipe are for this kind of data. Raises SpecError."""
    kind, found = dataset.kind, model_kind(spec.model.name)
    if found != kind:
        raise SpecError(
            f"the model {spec.model.name} gives {_ANSWERS[found]}, and {dataset.name} has {_ANSWERS[kind]}: "
            f"take a model {_INSTEAD[kind]}, or another --dataset"
        )
    if spec.recipe.augmentation not in _AUGMENTATIONS[kind]:
        raise SpecError(
            f"recipe.augmentation for {dataset.name} must be one of {', '.join(_AUGMENTATIONS[kind])}, "
            f"got {spec.recipe.augmentation}"
        )
    if kind == "segmentation" and spec.recipe.train_corruptions:
        raise SpecError("recipe.train_corruptions are for labels of images: leave them out where pixels have classes")


def check_methods(plan: Plan, dataset: Dataset) -> None:
    """Try every method on a fresh network and images of noise, at the largest ratio the search may ask for.

    Raises: SpecError with one line; nothing has been written.
    """
    import torch

    from raypruning.bench import build_network
    from raypruning.methods.method import Samples
    from raypruning.methods.prune import check_method, resolve_method
    from raypruning.training.objective import any_truth

    spec = plan.spec
    check_data(spec, dataset)
    shape = (NUM_IMAGES, dataset.channels, dataset.image_size, dataset.image_size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build_network(spec.model, dataset)
        images_NCHW = torch.randn(shape)
        samples = Samples(images_NCHW, any_truth(dataset.kind, images_NCHW, num_classes=dataset.num_classes))
    _check_resolution(plan, num_params=sum(value.numel() for value in model.parameters()))
    for choice in spec.methods:
        # A driver may have less memory than its workers; they say so themselves.
        with contextlib.suppress(MemoryError, torch.OutOfMemoryError):
            check_method(
                resolve_method(choice),
                model,
                _highest_ratio(plan),
                example_NCHW=torch.zeros_like(samples.images_NCHW[:1]),
                samples=samples,
            )


def _check_resolution(plan: Plan, *, num_params: int) -> None:
    """A step of the resolution must be one parameter at least, if only at the smallest ratio, where most is kept."""
    search = plan.search
    finest = 1 / ((1 - search.low) * num_params)
    if search.strategy in ("bisect", "model") and search.resolution < finest:
        raise SpecError(
            f"search.resolution {search.resolution:g} is finer than one of the network's {num_params} parameters: "
            f"write --resolution {math.ceil(finest * 1e4) / 1e4:g} or more"
        )


def _highest_ratio(plan: Plan) -> float:
    if plan.links:
        return plan.links[-1].ratio
    return grid_ratios(plan.search)[-1] if plan.search.strategy == "grid" else plan.search.high
