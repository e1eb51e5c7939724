"""Figures of ascending ratios as one animation."""

# H W height and width, 3 red green blue, U colours of a frame, P of the palette

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence

import numpy as np

FRAME_SECONDS = 1.0  # of the MLP study, whose frames come in the order of their file names
_COLOURS = 128  # of flat figures: a few, and what lies between two of them at edges
_STRIP = 6  # pixels below a frame that tell how far the animation is
_STRIP_DONE, _STRIP_LEFT = (102, 107, 118), (227, 229, 233)


def animation(frames_png: Sequence[bytes]) -> bytes:
    """A GIF that shows the frames in the order given, a second each, over and over.

    A strip at the foot is filled as it goes on: it shows where one is, and no frame equals the one before it, which a
    GIF would merge with it.

    Args:
        frames_png: at least one, all of one size.
    """
    from PIL import Image

    num = len(frames_png)
    frames = [_with_strip(_pixels(data), share=place / num) for place, data in enumerate(frames_png, start=1)]
    counts: Counter[int] = Counter()
    for frame_HW in frames:
        colours_U, counts_U = np.unique(frame_HW, return_counts=True)
        counts.update(dict(zip(colours_U.tolist(), counts_U.tolist(), strict=True)))
    # The most frequent are those of the figures, as they are, and one palette for all: no colour is off, none flickers.
    palette_P = np.array(sorted(counts, key=lambda colour: (-counts[colour], colour))[:_COLOURS], np.int64)
    images = []
    for frame_HW in frames:
        image = Image.fromarray(_nearest(frame_HW, palette_P), "P")
        image.putpalette(_levels(palette_P).astype(np.uint8).tobytes())
        images.append(image)
    gif = io.BytesIO()
    milliseconds = round(1000 * FRAME_SECONDS)
    images[0].save(gif, "GIF", save_all=True, append_images=images[1:], duration=milliseconds, loop=0, disposal=1)
    return gif.getvalue()


def _pixels(png: bytes) -> np.ndarray:
    """Colours as one number each, (H, W)."""
    from PIL import Image

    with Image.open(io.BytesIO(png)) as image:
        levels_HW3 = np.asarray(image.convert("RGB"), np.int64)
    return levels_HW3 @ _PLACES


_PLACES = np.array([1 << 16, 1 << 8, 1], np.int64)


def _levels(colours: np.ndarray) -> np.ndarray:
    """Red, green and blue of colours that are one number each, along a last axis."""
    return colours[..., None] // _PLACES % 256


def _with_strip(frame_HW: np.ndarray, *, share: float) -> np.ndarray:
    strip_HW = np.full((_STRIP, frame_HW.shape[1]), _STRIP_LEFT @ _PLACES)
    strip_HW[:, : round(share * frame_HW.shape[1])] = _STRIP_DONE @ _PLACES
    return np.concatenate([frame_HW, strip_HW])


def _nearest(frame_HW: np.ndarray, palette_P: np.ndarray) -> np.ndarray:
    """The place in the palette of the colour that is nearest to each pixel's, as bytes."""
    colours_U, places = np.unique(frame_HW, return_inverse=True)
    apart_UP = np.square(_levels(colours_U)[:, None] - _levels(palette_P)[None]).sum(axis=2)
    return apart_UP.argmin(axis=1).astype(np.uint8)[places].reshape(frame_HW.shape)
