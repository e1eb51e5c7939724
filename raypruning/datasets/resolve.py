"""From a choice of data to an open dataset."""

from __future__ import annotations

from pathlib import Path

from raypruning import registry
from raypruning.core.records import DataChoice, Kind
from raypruning.datasets.base import Dataset, derive


def open_dataset(choice: DataChoice, *, data_dir: Path | None, download: bool) -> Dataset:
    """The dataset chosen, cut and resized as chosen.

    Raises: UnknownNameError; DataError when it is missing or damaged; SpecError for a choice it cannot give.
    """
    found = registry.datasets.get(choice.name)
    dataset: Dataset = found.value(found.argument, data_dir=data_dir, download=download)
    return derive(
        dataset,
        train_images=choice.train_images,
        test_images=choice.test_images,
        image_size=choice.image_size,
    )


def dataset_kind(name: str) -> Kind:
    """Whether the dataset of that name has a class for each image or for each pixel, without opening it.

    A dataset's function says so by the attribute `kind = "segmentation"`; without one it is for images.

    Raises: UnknownNameError: no such dataset. SpecError: its module cannot be imported.
    """
    kind = getattr(registry.datasets.get(name).value, "kind", None)
    return "segmentation" if kind == "segmentation" else "classification"
