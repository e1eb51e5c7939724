"""What a corruption is: random draws apart from what they do to images, so that recorded draws can be replayed."""

# N images of a set, B of a batch, C channels, H W height and width

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from raypruning.corruptions.parameters import Parameters
from raypruning.corruptions.stream import Stream

Draws = Mapping[str, Tensor]  # by name; the first axis is that of the images

# (stream, images, parameters) -> draws. Most look at the images' shape and device alone.
Draw = Callable[[Stream, Tensor, Parameters], Draws]
# (uint8 images, draws, parameters) -> uint8 images of the same shape, in a new tensor.
Apply = Callable[[Tensor, Draws, Parameters], Tensor]
# (masks (B, 1, H, W) uint8, draws, parameters) -> masks of the same shape.
Move = Callable[[Tensor, Draws, Parameters], Tensor]


def no_draws(_stream: Stream, _images_BCHW: Tensor, _parameters: Parameters) -> Draws:
    """Nothing is left to chance."""
    return {}


@dataclass(frozen=True, kw_only=True)
class Corruption:
    """One corruption for batches of uint8 images (B, C, H, W), square or not, on any device.

    Attributes:
        draw: makes the random draws of a batch.
        apply: deterministic given draws; an image's result does not depend on the others of its batch.
        move: what it does to the classes of pixels; None where what is in an image stays where it is.
        needs_colour: three channels; grey images are passed as three equal ones, and their result's luma is taken.
            Others take one channel as well.
        chunk_bytes: of a chunk of images as float32, which is what is handled at once on a CPU.
    """

    draw: Draw = no_draws
    apply: Apply
    move: Move | None = None
    needs_colour: bool = False
    chunk_bytes: int = 1 << 20


# Where each is defined, under its own name in capitals.
_MODULES: Mapping[str, str] = {
    **dict.fromkeys(("gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise"), "noise"),
    **dict.fromkeys(("brightness", "contrast", "saturate"), "colour"),
    **dict.fromkeys(("gaussian_blur", "defocus_blur"), "blur"),
    **dict.fromkeys(("elastic_transform", "elastic_simple"), "elastic"),
    "glass_blur": "glass",
    "motion_blur": "motion",
    "zoom_blur": "zoom",
    "snow": "snow",
    "frost": "frost",
    "fog": "fog",
    "spatter": "spatter",
    "pixelate": "pixelate",
    "jpeg_compression": "jpeg",
}


def get_corruption(name: str) -> Corruption:
    """The corruption of that name, one of `parameters.NAMES` or `VARIANTS`."""
    module = importlib.import_module(f"raypruning.corruptions.{_MODULES[name]}")
    found = getattr(module, name.upper())
    assert isinstance(found, Corruption)
    return found
