"""Batches of images on a device, with what is true of them, from a split in memory or from one on disk.

A split in memory lies on the device as uint8; augmentation and normalisation are batched operations there. A split on
disk is decoded by threads, one batch ahead of the network.
"""

# N images, B of a batch, C channels, H W height and width; what is true of a batch is (B,) or (B, H, W)

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from raypruning.core.identity import derive_seed
from raypruning.datasets.base import ImageArrays, Split
from raypruning.datasets.masked_files import VOID, MaskedFiles
from raypruning.methods.method import UNCOUNTED
from raypruning.training.robust import corrupt_at_random

# A split beyond this is streamed from its memory map instead of being copied to the device.
MAX_RESIDENT_BYTES = 4 << 30
# Images of robust training: some forty of each of 45 kinds.
CORRUPTED_AT_ONCE = 2048


class Batch(NamedTuple):
    """Images with values in [0, 1], what is true of them, and their positions in the split.

    Attributes:
        truth: int64; labels (B,), or classes of pixels (B, H, W), UNCOUNTED where a pixel has none.
    """

    pixels_BCHW: Tensor
    truth: Tensor
    ids_B: Tensor


class Images(Protocol):
    """One split, ready to be read in any order."""

    def __len__(self) -> int:
        """Number of images."""

    def read(
        self, order: Tensor, *, batch_size: int, augmentation: str, seed: int, corruptions: Sequence[str] = ()
    ) -> Iterator[Batch]:
        """Batches in that order. What is done to an image depends on the seed and its place in the order.

        Args:
            corruptions: of robust training; before the augmentation where the images lie in memory, after it where
                they are decoded from disk.
        """


class ResidentImages:
    """A split that lies on the device as uint8."""

    def __init__(self, split: ImageArrays, device: torch.device) -> None:
        # A copy: a memory map is read-only, and torch warns of that.
        self._images_NCHW = torch.from_numpy(np.array(split.images_NCHW)).to(device)
        self.labels_N = torch.from_numpy(np.array(split.labels_N, dtype=np.int64)).to(device)

    def __len__(self) -> int:
        return len(self.labels_N)

    def read(
        self, order: Tensor, *, batch_size: int, augmentation: str, seed: int, corruptions: Sequence[str] = ()
    ) -> Iterator[Batch]:
        """See Images."""
        generator = torch.Generator().manual_seed(seed)
        for ids_B, raw_BCHW in self._raw(order.to(self.labels_N.device), batch_size, corruptions, seed):
            images_BCHW = augment(raw_BCHW, augmentation=augmentation, generator=generator)
            yield Batch(_to_unit(images_BCHW), self.labels_N[ids_B], ids_B)

    def _raw(
        self, order: Tensor, batch_size: int, corruptions: Sequence[str], seed: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Ids and uint8 images of each batch. Corrupted many batches at a time: a batch has few images of each kind."""
        if not corruptions:
            for ids_B in order.split(batch_size):
                yield ids_B, self._images_NCHW[ids_B]
            return
        block = batch_size * max(1, CORRUPTED_AT_ONCE // batch_size)
        for start in range(0, len(order), block):
            ids = order[start : start + block]
            places = torch.arange(start, start + len(ids), device=ids.device)
            corrupted = corrupt_at_random(self._images_NCHW[ids], places, names=corruptions, seed=seed)
            yield from zip(ids.split(batch_size), corrupted.split(batch_size), strict=True)


class StreamedImages:
    """A split that stays on disk; batches are decoded by threads while the network is busy."""

    def __init__(self, split: Split, device: torch.device, *, num_threads: int = 2) -> None:
        self._split = split
        self._device = device
        self._num_threads = num_threads

    def __len__(self) -> int:
        return len(self._split)

    def read(
        self, order: Tensor, *, batch_size: int, augmentation: str, seed: int, corruptions: Sequence[str] = ()
    ) -> Iterator[Batch]:
        """See Images."""
        batches = order.split(batch_size)
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="decode") as ahead:
            pending = [ahead.submit(self._decode, batches[0], augmentation, seed, 0)] if batches else []
            for index, ids_B in enumerate(batches):
                images_BCHW, truth = (decoded.to(self._device) for decoded in pending.pop().result())
                if index + 1 < len(batches):
                    pending = [ahead.submit(self._decode, batches[index + 1], augmentation, seed, index + 1)]
                if corruptions:
                    places_B = torch.arange(len(ids_B), device=self._device) + index * batch_size
                    images_BCHW = corrupt_at_random(images_BCHW, places_B, names=corruptions, seed=seed)
                yield Batch(_to_unit(images_BCHW), truth, ids_B.to(self._device))

    def _decode(self, ids_B: Tensor, augmentation: str, seed: int, index: int) -> tuple[Tensor, Tensor]:
        """Images, augmented, and what is true of them, on the CPU."""
        ids = ids_B.numpy()
        if isinstance(self._split, MaskedFiles):
            is_train = augmentation == "scaled_crop_flip"
            images_BCHW, masks_BHW = self._split.load(ids, train=is_train, seed=seed, num_threads=self._num_threads)
            return torch.from_numpy(images_BCHW), classes_of_masks(torch.from_numpy(masks_BHW))
        if isinstance(self._split, ImageArrays):
            raw_BCHW = torch.from_numpy(np.array(self._split.images_NCHW[ids]))
        else:
            is_cropped = augmentation == "resized_crop_flip"
            loaded = self._split.load(ids, train=is_cropped, seed=seed, num_threads=self._num_threads)
            raw_BCHW = torch.from_numpy(loaded)
            augmentation = "none" if is_cropped else augmentation
        generator = torch.Generator().manual_seed(derive_seed(seed, "batch", index))
        labels_B = torch.from_numpy(self._split.labels_N[ids])
        return augment(raw_BCHW, augmentation=augmentation, generator=generator), labels_B


def classes_of_masks(masks_BHW: Tensor) -> Tensor:
    """What is true of pixels, int64, for masks as they are stored, uint8."""
    return masks_BHW.long().masked_fill_(masks_BHW == VOID, UNCOUNTED)


def masks_of_classes(truth_BHW: Tensor) -> Tensor:
    """The other way round."""
    return truth_BHW.masked_fill(truth_BHW == UNCOUNTED, VOID).to(torch.uint8)


def open_images(split: Split, device: torch.device, *, num_threads: int = 2) -> Images:
    """A split on a device."""
    if isinstance(split, ImageArrays) and split.images_NCHW.nbytes <= MAX_RESIDENT_BYTES:
        return ResidentImages(split, device)
    return StreamedImages(split, device, num_threads=num_threads)


def open_changed(labels_N: np.ndarray, changed_NCHW: np.ndarray, device: torch.device) -> Images:
    """A test set whose images were changed on disk. They are read from there, a batch at a time."""
    return StreamedImages(ImageArrays(images_NCHW=changed_NCHW, labels_N=labels_N), device)


def augment(images_BCHW: Tensor, *, augmentation: str, generator: torch.Generator) -> Tensor:
    """Random changes to uint8 images of a batch; the random numbers are drawn on the CPU, the same on every device.

    Args:
        augmentation: "none"; "crop_flip": zero padding of 4 px, a crop of the old size, and a horizontal flip for half
            of the images (the paper's for CIFAR); "resized_crop_flip": a crop of .08 to 1 of the area at an aspect
            ratio of 3/4 to 4/3, resized bilinearly, and the flip (the paper's for ImageNet).
    """
    if augmentation == "none":
        return images_BCHW
    if augmentation == "resized_crop_flip":
        return _flip(_resized_crop(images_BCHW, generator), generator)
    num, _, height, width = images_BCHW.shape
    padded = torch.nn.functional.pad(images_BCHW, (4, 4, 4, 4))
    top_B, left_B = torch.randint(0, 9, (2, num), generator=generator).to(images_BCHW.device)
    rows_BH = top_B[:, None] + torch.arange(height, device=images_BCHW.device)
    columns_BW = left_B[:, None] + torch.arange(width, device=images_BCHW.device)
    image_B = torch.arange(num, device=images_BCHW.device)
    cropped_BHWC = padded.permute(0, 2, 3, 1)[image_B[:, None, None], rows_BH[:, :, None], columns_BW[:, None, :]]
    return _flip(cropped_BHWC.permute(0, 3, 1, 2), generator)


def _flip(images_BCHW: Tensor, generator: torch.Generator) -> Tensor:
    flip_B = (torch.rand(len(images_BCHW), generator=generator) < 0.5).to(images_BCHW.device)
    return torch.where(flip_B[:, None, None, None], images_BCHW.flip(3), images_BCHW)


def _resized_crop(images_BCHW: Tensor, generator: torch.Generator) -> Tensor:
    """Crops as an affine sampling grid, so that a whole batch is one operation. Source: Szegedy et al. 2015."""
    area_B, aspect_B, x_B, y_B = torch.rand(4, len(images_BCHW), generator=generator).to(images_BCHW.device)
    area_B = 0.08 + 0.92 * area_B
    aspect_B = torch.exp((2.0 * aspect_B - 1.0) * np.log(4.0 / 3.0))
    width_B = (area_B * aspect_B).sqrt().clamp(max=1.0)
    height_B = (area_B / aspect_B).sqrt().clamp(max=1.0)
    zero_B = torch.zeros_like(area_B)
    theta_B23 = torch.stack(
        [width_B, zero_B, (2.0 * x_B - 1.0) * (1.0 - width_B), zero_B, height_B, (2.0 * y_B - 1.0) * (1.0 - height_B)],
        dim=1,
    ).view(-1, 2, 3)
    grid = torch.nn.functional.affine_grid(theta_B23, list(images_BCHW.shape), align_corners=False)
    resized = torch.nn.functional.grid_sample(images_BCHW.float(), grid, padding_mode="border", align_corners=False)
    return resized.round().to(torch.uint8)


def _to_unit(images_BCHW: Tensor) -> Tensor:
    return images_BCHW.to(torch.float32).div_(255.0)
