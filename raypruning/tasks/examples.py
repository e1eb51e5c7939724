"""Images of a task's own, where it does not take the dataset's test images, and what counts as a right answer."""

# N images

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from raypruning.datasets.base import Split


@dataclass(frozen=True, kw_only=True, eq=False)
class Examples:
    """What a task tests on.

    Attributes:
        split: images and labels; a label is a class of the dataset that the network was trained on.
        fingerprint: hexadecimal hash of images, labels, `classes` and `also_right` (of names and sizes where images
            stay on disk).
        classes: the only ones whose logits count; None for all.
        also_right: label -> further classes that are right for it.
        positions_N: of each image in the dataset's test split; None where no image is from there. Two tasks with the
            same positions are compared image by image.
    """

    split: Split
    fingerprint: str
    classes: tuple[int, ...] | None = None
    also_right: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    positions_N: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.split)
