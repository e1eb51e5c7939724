"""A split of pictures on disk whose pixels have classes, one mask a picture.

Legend of shape suffixes: B images of a batch, C channels, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from raypruning.datasets.decoding import decode, map_threads, to_array
from raypruning.datasets.random_bits import raw_bits, unit_floats
from raypruning.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

# The value of a pixel that counts neither in training nor in a test.
VOID = 255
# The recipe makes the short side 256 to 1024 px and takes 513 px of it; other sizes keep these proportions.
_RECIPE_SHORT, _RECIPE_SIZE = (256, 1024), 513


class MaskedBatch(NamedTuple):
    """Pictures uint8 (B, C, H, W), and the class of each of their pixels uint8 (B, H, W), VOID where it has none."""

    images_BCHW: np.ndarray
    masks_BHW: np.ndarray


class _Pair(NamedTuple):
    """A picture and its mask, of the same size; the mask in mode L, its grey levels are classes."""

    image: Image.Image
    mask: Image.Image


@dataclass(frozen=True, kw_only=True, eq=False)
class MaskedFiles:
    """A split that stays on disk, two files an image, decoded when a batch is asked for.

    A mask is a PNG, grey or with a palette; its values (of the palette: the indices, not the colours) are classes, and
    VOID.

    Attributes:
        paths: of the pictures; absolute, or relative to the working folder. A mapping has those of some positions.
        mask_paths: of their masks, likewise.
        image_size: side of the squares that `load` returns, pixels.
        num_classes: the values of masks are below it, or VOID.
        channels: 3, or 1 to load grey.
    """

    paths: tuple[str, ...] | Mapping[int, str]
    mask_paths: tuple[str, ...] | Mapping[int, str]
    image_size: int
    num_classes: int
    channels: int = 3

    def __post_init__(self) -> None:
        if len(self.paths) != len(self.mask_paths):
            raise DataError(f"{len(self.paths)} pictures have {len(self.mask_paths)} masks")

    def __len__(self) -> int:
        return len(self.paths)

    def only(self, indices: np.ndarray) -> MaskedFiles:
        """What it takes to load some images, by the same indices: small enough to be sent to another process."""
        chosen = indices.tolist()
        return replace(
            self,
            paths={index: self.paths[index] for index in chosen},
            mask_paths={index: self.mask_paths[index] for index in chosen},
        )

    def load(self, indices: Sequence[int] | np.ndarray, *, train: bool, seed: int, num_threads: int = 4) -> MaskedBatch:
        """Decode the pictures and masks at `indices`, in that order; a mask undergoes what its picture does.

        Pictures are resized with bilinear, masks with nearest neighbours.

        Args:
            indices: positions in `paths`; may repeat.
            train: True makes the short side 256 / 513 to 1024 / 513 of image_size at random, flips half of the time,
                and takes a random square; what it lacks to the right and below is 0 in the picture and VOID in the
                mask. False makes the short side image_size and takes the centre.
            seed: with the index it decides all that is random, so the result depends neither on the batch nor on its
                order. Pass another seed each epoch.
            num_threads: decoders that run at once; no effect on the result.

        Raises:
            DataError: a file is missing or cannot be read, a mask has another size than its picture, or a value that
                is no class; the message names the file.

        Source: the code of Lost in Pruning (Liebenwein et al., 2021), which follows torchvision's references.
        """
        size = self.image_size
        images_BCHW = np.zeros((len(indices), self.channels, size, size), np.uint8)
        masks_BHW = np.full((len(indices), size, size), VOID, np.uint8)

        def load_into(position: int) -> None:
            index = int(indices[position])
            pair = self._decode(index)
            pair = _random_square(pair, size, seed=seed, index=index) if train else _centre_square(pair, size)
            width, height = pair.image.size
            images_BCHW[position, :, :height, :width] = to_array(pair.image)
            masks_BHW[position, :height, :width] = np.asarray(pair.mask)

        map_threads(load_into, range(len(indices)), num_threads=num_threads)
        return MaskedBatch(images_BCHW, masks_BHW)

    def _decode(self, index: int) -> _Pair:
        path, mask_path = self.paths[index], self.mask_paths[index]
        pair = _Pair(decode(path, self.channels), _decode_mask(mask_path, self.num_classes))
        if pair.image.size != pair.mask.size:
            sizes = [f"{image.width} x {image.height} px" for image in pair]
            raise DataError(f"{mask_path} is {sizes[1]}, but {path} is {sizes[0]}: a mask has the size of its picture")
        return pair


def _decode_mask(path: str, num_classes: int) -> Image.Image:
    from PIL import Image

    try:
        with Image.open(path, formats=("PNG",)) as image:
            if image.mode not in ("P", "L"):
                raise DataError(
                    f"{path} is a picture of mode {image.mode}: a mask is a PNG with a palette or in 8-bit grey, and "
                    "its values are classes"
                )
            image.load()
            # Not convert: it would turn the indices of a palette into grey levels of their colours.
            mask_HW = np.asarray(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} cannot be read as a mask: {error}") from error
    values = np.flatnonzero(np.bincount(mask_HW.ravel(), minlength=256))
    unknown = values[(values >= num_classes) & (values != VOID)]
    if len(unknown):
        raise DataError(
            f"{path} has the value {unknown[0]}: a mask of {num_classes} classes holds 0 to {num_classes - 1}, and "
            f"{VOID} where a pixel does not count"
        )
    return Image.fromarray(mask_HW)


def _centre_square(pair: _Pair, size: int) -> _Pair:
    pair = _resized(pair, size)
    width, height = pair.image.size
    return _cropped(pair, (width - size) // 2, (height - size) // 2, size)


def _random_square(pair: _Pair, size: int, *, seed: int, index: int) -> _Pair:
    """A square, or less where the resized picture is smaller than that."""
    from PIL import Image

    short_random, flip_random, x_random, y_random = unit_floats(raw_bits(4, seed=seed, stream=index))
    shortest, longest = (max(1, round(size * side / _RECIPE_SIZE)) for side in _RECIPE_SHORT)
    pair = _resized(pair, shortest + int(short_random * (longest - shortest + 1)))
    if flip_random < 0.5:
        pair = _Pair(*(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for image in pair))
    width, height = pair.image.size
    left, top = int(x_random * (max(width - size, 0) + 1)), int(y_random * (max(height - size, 0) + 1))
    return _cropped(pair, left, top, size)


def _resized(pair: _Pair, short: int) -> _Pair:
    """Both with a short side of `short` px, the long one rounded down as torchvision does."""
    from PIL import Image

    size = (pair.image.width * short // min(pair.image.size), pair.image.height * short // min(pair.image.size))
    image = pair.image.resize(size, Image.Resampling.BILINEAR)
    return _Pair(image, pair.mask.resize(size, Image.Resampling.NEAREST))


def _cropped(pair: _Pair, left: int, top: int, size: int) -> _Pair:
    box = (left, top, min(left + size, pair.image.width), min(top + size, pair.image.height))
    return _Pair(*(image.crop(box) for image in pair))
