"""Batches of a split that stays on disk, decoded ahead of the network: by processes, or by threads of this one."""

# N images, B of a batch, C channels, H W height and width

from __future__ import annotations

import functools
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from raypruning.core.identity import derive_seed
from raypruning.datasets.base import ImageArrays, Split
from raypruning.datasets.masked_files import MaskedFiles
from raypruning.errors import DataError
from raypruning.training.augmentation import Part, augment
from raypruning.training.batches import Batch, classes_of_masks, pieces_of, to_unit
from raypruning.training.data_parallel import WHOLE, Share
from raypruning.training.robust import corrupt_at_random

NUM_THREADS = 2
BATCHES_AHEAD = 2  # of each process

Decoded = tuple[Tensor, Tensor | None]  # images, and masks where pixels have classes


class StreamedImages:
    """A split that stays on disk.

    Args:
        decoders: None for a thread of this process that decodes one batch ahead. Arrays need no decoding, and are read
            by that thread.
    """

    def __init__(self, split: Split, device: torch.device, *, decoders: Decoders | None = None) -> None:
        self.seconds_waited = 0.0
        self._split = split
        self._device = device
        self._decoders = None if isinstance(split, ImageArrays) else decoders

    def __len__(self) -> int:
        return len(self._split)

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
        pieces = pieces_of(len(order), batch_size, share)
        ids = [order[piece.places].numpy() for piece in pieces]
        asked = [
            _Asked(self._split, ids_B, piece.part, augmentation, seed, index)
            for index, (ids_B, piece) in enumerate(zip(ids, pieces, strict=True))
        ]
        for ids_B, piece, (raw_BCHW, masks_BHW) in zip(ids, pieces, self._decoded(asked), strict=True):
            images_BCHW = raw_BCHW.to(self._device)
            truth = self._labels(ids_B) if masks_BHW is None else classes_of_masks(masks_BHW)
            if corruptions:
                places_B = torch.arange(piece.places.start, piece.places.stop, device=self._device)
                images_BCHW = corrupt_at_random(images_BCHW, places_B, names=corruptions, seed=seed)
            yield Batch(to_unit(images_BCHW), truth.to(self._device), torch.from_numpy(ids_B).to(self._device))

    def _labels(self, ids_B: np.ndarray) -> Tensor:
        assert not isinstance(self._split, MaskedFiles)
        return torch.from_numpy(self._split.labels_N[ids_B])

    def _decoded(self, asked: Sequence[_Asked]) -> Iterator[Decoded]:
        ahead = _by_thread(asked) if self._decoders is None else self._decoders.decode(asked)
        for _ in asked:
            began = time.perf_counter()
            decoded = next(ahead)
            self.seconds_waited += time.perf_counter() - began
            if isinstance(decoded, DataError):
                raise decoded
            yield decoded


class _Asked(NamedTuple):
    """A batch, or a part of one."""

    split: Split
    ids_B: np.ndarray
    part: Part
    augmentation: str
    seed: int
    index: int


def _decode(asked: _Asked, *, num_threads: int) -> Decoded | DataError:
    """Images, augmented, and what is true of them, on the CPU.

    Returns: an error as it is: a loader of processes would put a traceback into its message.
    """
    split, ids_B, part, augmentation, seed, index = asked
    is_random = augmentation in ("resized_crop_flip", "scaled_crop_flip")  # by the picture, while it is decoded
    try:
        if isinstance(split, MaskedFiles):
            images_BCHW, masks_BHW = split.load(ids_B, train=is_random, seed=seed, num_threads=num_threads)
            return torch.from_numpy(images_BCHW), torch.from_numpy(masks_BHW)
        if isinstance(split, ImageArrays):
            raw_BCHW = torch.from_numpy(np.array(split.images_NCHW[ids_B]))
        else:
            raw_BCHW = torch.from_numpy(split.load(ids_B, train=is_random, seed=seed, num_threads=num_threads))
            augmentation = "none" if is_random else augmentation
    except DataError as error:
        return error
    generator = torch.Generator().manual_seed(derive_seed(seed, "batch", index))
    return augment(raw_BCHW, augmentation=augmentation, generator=generator, part=part), None


def _by_thread(asked: Sequence[_Asked]) -> Iterator[Decoded | DataError]:
    decode = functools.partial(_decode, num_threads=NUM_THREADS)
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="decode") as ahead:
        pending = [ahead.submit(decode, one) for one in asked[:1]]
        for index in range(len(asked)):
            decoded = pending.pop().result()
            pending = [ahead.submit(decode, one) for one in asked[index + 1 : index + 2]]
            yield decoded


class Decoders:
    """Processes that decode for all splits of one process, one read at a time. They start with the first read.

    They end with this object, and soon after this process when that is killed.
    """

    def __init__(self, num: int) -> None:
        self._num = num
        self._asked: Sequence[_Asked] = ()
        self._loader: DataLoader[Decoded | DataError] | None = None

    def decode(self, asked: Sequence[_Asked]) -> Iterator[Decoded | DataError]:
        """In that order. What an earlier read left is given up."""
        self._asked = asked
        if self._loader is None:
            self._loader = DataLoader(
                _Decode(),
                batch_size=None,  # An item is a batch.
                sampler=self,
                collate_fn=_as_it_is,
                num_workers=self._num,
                prefetch_factor=BATCHES_AHEAD,
                persistent_workers=True,
                # No thread, lock or GPU of this process in them; and they see when it is gone, which children of a
                # fork server do not.
                multiprocessing_context="spawn",
            )
        return iter(self._loader)

    def __iter__(self) -> Iterator[_Asked]:
        """What the loader hands out: of a split's files, those of the batch."""
        for one in self._asked:
            yield one if isinstance(one.split, ImageArrays) else one._replace(split=one.split.only(one.ids_B))


class _Decode(Dataset[Decoded]):
    def __getitem__(self, asked: _Asked) -> Decoded | DataError:
        return _decode(asked, num_threads=1)


def _as_it_is(decoded: Decoded | DataError) -> Decoded | DataError:
    return decoded
