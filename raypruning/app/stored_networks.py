"""A sweep's networks and test images back in memory, for commands that look at what a network does."""

# N images, C channels, H W height and width

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from raypruning.app.request import resolve_data_dir
from raypruning.app.results import SweepRecord
from raypruning.core.records import DataChoice, ModelChoice, Probe
from raypruning.errors import DataError, StoreError
from raypruning.runtime.store import ObjectStore

if TYPE_CHECKING:
    import torch
    from torch import nn

    from raypruning.datasets.base import Dataset
    from raypruning.training.batches import Images
    from raypruning.training.inputs import Normalisation


class Stage(NamedTuple):
    """What networks of a sweep are looked at on.

    Attributes:
        images: the dataset's own test images.
    """

    device: torch.device
    dataset: Dataset
    images: Images
    normalise: Normalisation


def open_stage(record: SweepRecord, *, data_dir: Path | None) -> Stage:
    """The test images of a sweep, on a GPU if there is one.

    Raises: DataError: they are missing here, or others than those of the sweep.
    """
    import torch

    from raypruning.training.images import open_images
    from raypruning.training.inputs import Normalisation

    spec = record.spec
    dataset = swept_dataset(spec.plugins, spec.data, str(record.run["data_fingerprint"]), data_dir=data_dir)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return Stage(device, dataset, open_images(dataset.split("test"), device), Normalisation.of(dataset, device))


def swept_dataset(plugins: Sequence[str], choice: DataChoice, fingerprint: str, *, data_dir: Path | None) -> Dataset:
    """The dataset that a sweep was run on. Raises DataError where it is missing, or another one on this machine."""
    from raypruning import registry
    from raypruning.datasets.resolve import open_dataset

    registry.import_stored_plugins(plugins, where="the stored sweep")
    dataset = open_dataset(choice, data_dir=resolve_data_dir(data_dir), download=False)
    if dataset.fingerprint != fingerprint:
        raise DataError(
            f"{choice.name} on this machine has the fingerprint {dataset.fingerprint}, the sweep has {fingerprint}"
        )
    return dataset


def staged_network(store: ObjectStore, probe: Probe, stage: Stage) -> nn.Module:
    """A stored network on the stage's device, in evaluation mode, without gradients of its weights.

    Raises: StoreError: its weights are gone or damaged.
    """
    import torch

    dataset = stage.dataset
    model = stored_network(
        store,
        probe,
        num_classes=dataset.num_classes,
        in_channels=dataset.channels,
        image_size=dataset.image_size,
    )
    model.to(device=stage.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model


def stored_network(
    store: ObjectStore, probe: Probe, *, num_classes: int, in_channels: int, image_size: int
) -> nn.Module:
    """A stored network, its pruned weights zero; in evaluation mode, without gradients of its weights.

    Raises: StoreError: its weights are gone or damaged.
    """
    import torch

    from raypruning.compaction.plan import build_bare, set_transform_input
    from raypruning.models.weights import load_weights

    choice: ModelChoice = probe.training.model
    model = build_bare(choice, num_classes=num_classes, in_channels=in_channels, image_size=image_size)
    if choice.options.get("weights") == "cache" and hasattr(model, "transform_input"):
        # As torchvision's published weights of these networks want it; see models.torchvision_classifiers.
        set_transform_input(model)
    weights = {name: torch.from_numpy(value.copy()) for name, value in store.weights(probe.id).items()}
    try:
        load_weights(model, weights)
    except RuntimeError as error:
        raise StoreError(f"the weights of {probe.id} do not fit the model: {str(error).splitlines()[0]}") from error
    return model
