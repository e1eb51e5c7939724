"""From a choice of data to an open dataset."""

from __future__ import annotations

from pathlib import Path

from raypruning import registry
from raypruning.core.records import DataChoice
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
