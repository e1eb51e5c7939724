"""Batches of images on a device: from a split that lies there as uint8, or from one that is streamed."""

# N images, B of a batch, C channels, H W height and width; what is true of a batch is (B,) or (B, H, W)

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from raypruning.datasets.base import ImageArrays, Split
from raypruning.training.augmentation import augment
from raypruning.training.batches import Batch, Images, Piece, blocks_of, pieces_of, to_unit
from raypruning.training.data_parallel import WHOLE, Share
from raypruning.training.robust import corrupt_at_random
from raypruning.training.streaming import Decoders, StreamedImages

# A split beyond this is streamed from its memory map instead of being copied to the device.
MAX_RESIDENT_BYTES = 4 << 30
# Images of robust training: some forty of each of 45 kinds.
CORRUPTED_AT_ONCE = 2048


class ResidentImages:
    """A split that lies on the device as uint8."""

    seconds_waited = 0.0

    def __init__(self, split: ImageArrays, device: torch.device) -> None:
        # A copy: a memory map is read-only, and torch warns of that.
        self._images_NCHW = torch.from_numpy(np.array(split.images_NCHW)).to(device)
        self.labels_N = torch.from_numpy(np.array(split.labels_N, dtype=np.int64)).to(device)

    def __len__(self) -> int:
        return len(self.labels_N)

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
        """See Images."""
        generator = torch.Generator().manual_seed(seed)
        pieces = pieces_of(len(order), batch_size, share)
        order = order.to(self.labels_N.device)
        for piece, (ids_B, raw_BCHW) in zip(pieces, self._raw(order, pieces, corruptions, seed), strict=True):
            images_BCHW = augment(raw_BCHW, augmentation=augmentation, generator=generator, part=piece.part)
            yield Batch(to_unit(images_BCHW), self.labels_N[ids_B], ids_B)

    def _raw(
        self, order: Tensor, pieces: Sequence[Piece], corruptions: Sequence[str], seed: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Ids and uint8 images of each piece. Corrupted many at a time: a batch has few images of each kind."""
        if not corruptions:
            for piece in pieces:
                ids_B = order[piece.places]
                yield ids_B, self._images_NCHW[ids_B]
            return
        for block in blocks_of(pieces, num_images=CORRUPTED_AT_ONCE):
            places = torch.cat([torch.arange(piece.places.start, piece.places.stop) for piece in block])
            places = places.to(order.device)
            ids = order[places]
            corrupted = corrupt_at_random(self._images_NCHW[ids], places, names=corruptions, seed=seed)
            lengths = [len(piece) for piece in block]
            yield from zip(ids.split(lengths), corrupted.split(lengths), strict=True)


def open_images(split: Split, device: torch.device, *, decoders: Decoders | None = None) -> Images:
    """A split on a device.

    Args:
        decoders: of a split that is streamed; None for threads of this process.
    """
    if isinstance(split, ImageArrays) and split.images_NCHW.nbytes <= MAX_RESIDENT_BYTES:
        return ResidentImages(split, device)
    return StreamedImages(split, device, decoders=decoders)


def open_changed(labels_N: np.ndarray, changed_NCHW: np.ndarray, device: torch.device) -> Images:
    """A test set whose images were changed on disk. They are read from there, a batch at a time."""
    return StreamedImages(ImageArrays(images_NCHW=changed_NCHW, labels_N=labels_N), device)
