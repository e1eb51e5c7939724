from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raypruning.datasets.base import Dataset, ImageArrays


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("RAYPRUNING_CACHE_DIR", str(folder))
    return folder


@pytest.fixture
def make_dataset() -> Callable[..., Dataset]:
    """A dataset of three classes, whose images are their own number."""

    def make(*, num_images: int = 30, side: int = 8) -> Dataset:
        labels_N = np.arange(num_images) % 3
        images_NCHW = np.broadcast_to(
            np.arange(num_images, dtype=np.uint8)[:, None, None, None], (num_images, 1, side, side)
        )
        split = ImageArrays(images_NCHW=images_NCHW, labels_N=labels_N)
        return Dataset(
            name="numbers",
            num_classes=3,
            channels=1,
            image_size=side,
            mean=(0.5,),
            std=(0.5,),
            class_names=("a", "b", "c"),
            fingerprint="0123456789abcdef",
            augmentation="none",
            source="made here",
            loaders={name: lambda: split for name in ("train", "validation", "test")},
        )

    return make


@pytest.fixture
def write_pictures() -> Callable[..., None]:
    """Random pictures below root, `count` in each of the folders, of (width, height) `size`."""

    def write(
        root: Path, folders: list[str], *, count: int = 3, size: tuple[int, int] = (8, 8), mode: str = "RGB"
    ) -> None:
        random = np.random.default_rng(len(folders))
        channels = {"RGB": (3,), "RGBA": (4,), "L": ()}[mode]
        for folder in folders:
            (root / folder).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                pixels = random.integers(0, 256, (size[1], size[0], *channels), dtype=np.uint8)
                Image.fromarray(pixels).save(root / folder / f"{number:04d}.png")

    return write
