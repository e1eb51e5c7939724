"""Pictures and names that tiny sets are made of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

WNIDS = [f"n{number:08d}" for number in range(12)]


def write_picture(path: Path, *, seed: int, size: tuple[int, int] = (40, 30), mode: str = "RGB") -> None:
    """Random pixels of (width, height) `size`; lossless unless it is a JPEG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (size[1], size[0]) if mode == "L" else (size[1], size[0], 3)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)).save(path)


def whole(path: Path | str) -> np.ndarray:
    """What Pillow reads from a file, (C, H, W)."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).transpose(2, 0, 1)


def centre(path: Path | str, size: int, *, border: int = 0) -> np.ndarray:
    """What a network of ImageNet is tested on: short side to size * 256 / 224, then the centre, (C, H, W)."""
    with Image.open(path) as file:
        image = file.convert("RGB")
    image = image.crop((border, border, image.width - border, image.height - border))
    short = round(size * 256 / 224)
    scale = short / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return np.asarray(image)[top : top + size, left : left + size].transpose(2, 0, 1)
