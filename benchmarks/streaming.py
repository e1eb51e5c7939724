"""Images decoded from disk a second: by threads, by processes, and by torchvision's own folder with torch's loader.

    python benchmarks/streaming.py

JPEG of 500 x 375 px, as ImageNet's are on the average: random crops of 224 px, flipped half of the time, in batches of
64. The three take turns, each time over all pictures, on the same cores; the peer returns floats that are
normalised, ours bytes, which become floats on the device.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from raypruning.datasets.base import ImageFiles
from raypruning.models.torchvision_import import import_torchvision
from raypruning.training.streaming import Decoders, StreamedImages

BATCH, SIDE = 64, 224


def write_pictures(folder: Path, num: int) -> list[str]:
    """Smooth pictures with some noise: about 60 kB each, as photographs have."""
    random = np.random.default_rng(0)
    paths = []
    for index in range(num):
        coarse = Image.fromarray(random.integers(0, 256, (24, 32, 3), dtype=np.uint8)).resize((500, 375))
        noisy = np.asarray(coarse, np.int16) + random.integers(-12, 13, (375, 500, 3))
        path = folder / str(index % 10) / f"{index}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path, quality=90)
        paths.append(str(path))
    return sorted(paths)


def our_reader(paths: list[str], decoders: Decoders | None) -> Callable[[], None]:
    labels = np.array([int(Path(path).parent.name) for path in paths])
    split = ImageFiles(paths=tuple(paths), labels_N=labels, image_size=SIDE)
    images = StreamedImages(split, torch.device("cpu"), decoders=decoders)
    order = torch.randperm(len(paths), generator=torch.Generator().manual_seed(0))

    def read() -> None:
        num = sum(
            len(batch.ids_B) for batch in images.read(order, batch_size=BATCH, augmentation="resized_crop_flip", seed=1)
        )
        assert num == len(paths)

    return read


def peer_reader(folder: Path, num_workers: int) -> Callable[[], None]:
    torchvision = import_torchvision()
    from torchvision import datasets, transforms

    assert torchvision
    change = transforms.Compose(
        [
            transforms.RandomResizedCrop(SIDE),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    loader = torch.utils.data.DataLoader(
        datasets.ImageFolder(str(folder), change),
        batch_size=BATCH,
        shuffle=True,
        num_workers=num_workers,
        persistent_workers=True,
    )

    def read() -> None:
        for _ in loader:
            pass

    return read


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=1500)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = write_pictures(folder, given.pictures)
        readers = {
            "2 threads": our_reader(paths, None),
            f"{given.processes} processes": our_reader(paths, Decoders(given.processes)),
            f"torchvision, {given.processes} processes": peer_reader(folder, given.processes),
        }
        seconds: dict[str, list[float]] = {name: [] for name in readers}
        for read in readers.values():
            read()  # Processes start, files come into the page cache.
        for _ in range(given.rounds):
            for name, read in readers.items():
                began = time.perf_counter()
                read()
                seconds[name].append(time.perf_counter() - began)
    *_, peer = seconds
    print(
        f"Python {platform.python_version()}, torch {torch.__version__}, {platform.machine()}, {os.cpu_count()} cores"
    )
    print("\n| | images a second (median) | smallest to largest | times torchvision (median of rounds) |")
    print("|:--|--:|--:|--:|")
    for name, found in seconds.items():
        rates = sorted(given.pictures / one for one in found)
        ratio = statistics.median(other / one for one, other in zip(found, seconds[peer], strict=True))
        print(f"| {name} | {statistics.median(rates):.0f} | {rates[0]:.0f} to {rates[-1]:.0f} | {ratio:.2f} |")
    print(f"\nn = {given.rounds} rounds of {given.pictures} pictures")


if __name__ == "__main__":
    main()
