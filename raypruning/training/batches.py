"""What is read of a split: batches of images with what is true of them, or a worker's share of each."""

# N images, B of a batch, C channels, H W height and width; what is true of a batch is (B,) or (B, H, W)

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from raypruning.datasets.masked_files import VOID
from raypruning.methods.method import UNCOUNTED
from raypruning.training.augmentation import Part
from raypruning.training.data_parallel import WHOLE, Share


class Batch(NamedTuple):
    """Images with values in [0, 1], what is true of them, and their positions in the split.

    Attributes:
        truth: int64; labels (B,), or classes of pixels (B, H, W), UNCOUNTED where a pixel has none.
    """

    pixels_BCHW: Tensor
    truth: Tensor
    ids_B: Tensor


class Images(Protocol):
    """One split, ready to be read in any order.

    Attributes:
        seconds_waited: for images that were not there yet, in all reads so far; 0 where none are decoded.
    """

    seconds_waited: float

    def __len__(self) -> int:
        """Number of images."""

    def read(
        self,
        order: Tensor,
        *,
        batch_size: int,
        augmentation: str,
        seed: int,
        corruptions: Sequence[str] = (),
        share: Share = WHOLE,
    ) -> Iterator[Batch]:
        """Batches in that order. What is done to an image depends on the seed and its place in the order.

        Args:
            corruptions: of robust training; before the augmentation where the images lie in memory, after it where
                they are decoded from disk.
            share: of each batch (see `Share.to_read`), whose images are the same as if all were read.
        """


@dataclass(frozen=True)
class Piece:
    """What is read of a batch.

    Attributes:
        start: of the batch, in the order.
        part: of the batch that is read.
    """

    start: int
    part: Part

    @property
    def places(self) -> slice:
        """In the order."""
        return slice(self.start + self.part.span.start, self.start + self.part.span.stop)

    def __len__(self) -> int:
        return len(self.part.span)


def pieces_of(num: int, batch_size: int, share: Share) -> list[Piece]:
    """What a share reads of each batch of `num` images."""
    starts = range(0, num, batch_size)
    sizes = [min(batch_size, num - start) for start in starts]
    return [Piece(start, Part(share.to_read(size), size)) for start, size in zip(starts, sizes, strict=True)]


def blocks_of(pieces: Sequence[Piece], *, num_images: int) -> Iterator[Sequence[Piece]]:
    """Pieces in groups of about so many images."""
    at_once = max(1, num_images // max((len(piece) for piece in pieces), default=1))
    for first in range(0, len(pieces), at_once):
        yield pieces[first : first + at_once]


def classes_of_masks(masks_BHW: Tensor) -> Tensor:
    """What is true of pixels, int64, for masks as they are stored, uint8."""
    return masks_BHW.long().masked_fill_(masks_BHW == VOID, UNCOUNTED)


def masks_of_classes(truth_BHW: Tensor) -> Tensor:
    """The other way round."""
    return truth_BHW.masked_fill(truth_BHW == UNCOUNTED, VOID).to(torch.uint8)


def to_unit(images_BCHW: Tensor) -> Tensor:
    """Values in [0, 1] for bytes."""
    return images_BCHW.to(torch.float32).div_(255.0)
