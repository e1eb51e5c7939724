"""What corrupting images takes, beside imagecorruptions, in one run with one thread.

    python benchmarks/corruptions.py --sizes 32 224 --runs 5

For each of the 19 corruptions the five severities of the same images by us (`corrupt`, random draws included) and by
imagecorruptions 1.1.2 (made importable, its numerics untouched), with ImageNet's constants for both. Ours and the peer
take turns. Times are seconds of the process's CPU for an image, mean over severities; the ratio is peer / ours, median
and spread over runs. The total is what 10 000 images x 5 severities x all corruptions take.

The peer is given fewer images, since an image costs it the same whatever their number; ours as many as fill its chunks.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from typing import NamedTuple

import cv2
import numpy as np
import torch

from raypruning.corruptions.corrupt import corrupt
from raypruning.corruptions.parameters import NAMES, NUM_SEVERITIES
from tests.unit.corruptions import oracle
from tests.unit.corruptions.parity import picture

SET = "imagenet"
NUM_OURS = {32: 2000, 224: 48}
# Of the peer, whose slowest corruption takes a fifth of a second for an image of 224 px.
NUM_THEIRS = {32: 20, 224: 2}
# Its elastic transform is another algorithm, which ours has under another name.
THEIRS = {"elastic_transform": "elastic_simple"}
SEVERITIES = range(1, NUM_SEVERITIES + 1)


class Row(NamedTuple):
    """CPU seconds for an image at the five severities, run by run."""

    name: str
    ours: list[float]
    theirs: list[float]

    @property
    def ratios(self) -> list[float]:
        return [theirs / ours for ours, theirs in zip(self.ours, self.theirs, strict=True)]

    def line(self) -> str:
        per_second = [NUM_SEVERITIES / statistics.median(seconds) for seconds in (self.ours, self.theirs)]
        ratios = self.ratios
        return (
            f"{self.name:<20} {per_second[0]:>10.0f} {per_second[1]:>10.0f} {statistics.median(ratios):>8.1f}  "
            f"({min(ratios):.1f} to {max(ratios):.1f})"
        )


def measure(name: str, *, size: int, num_runs: int) -> Row:
    pictures = [picture(size, size, seed=seed) for seed in range(8)]
    images_NCHW = torch.stack([torch.from_numpy(one.transpose(2, 0, 1).copy()) for one in pictures])
    images_NCHW = images_NCHW.repeat(NUM_OURS[size] // len(pictures), 1, 1, 1)
    ids_N = torch.arange(len(images_NCHW))
    row = Row(name, [], [])
    for severity in SEVERITIES:  # Tables are made once in a process.
        corrupt(name, severity, images_NCHW[:2], ids_N[:2], parameter_set=SET)
        oracle.reference(THEIRS.get(name, name), severity, pictures[0], seed=0, parameter_set=SET)
    for _ in range(num_runs):
        begin = time.process_time()
        for severity in SEVERITIES:
            corrupt(name, severity, images_NCHW, ids_N, parameter_set=SET)
        row.ours.append((time.process_time() - begin) / len(images_NCHW))
        begin = time.process_time()
        for severity in SEVERITIES:
            for index in range(NUM_THEIRS[size]):
                oracle.reference(
                    THEIRS.get(name, name), severity, pictures[index % len(pictures)], seed=index, parameter_set=SET
                )
        row.theirs.append((time.process_time() - begin) / NUM_THEIRS[size])
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 224], choices=sorted(NUM_OURS))
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--names", nargs="+", default=list(NAMES), choices=NAMES)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    print(f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, numpy {np.__version__}, ", end="")
    print(f"OpenCV {cv2.__version__}, one thread, {options.runs} runs\n")
    for size in options.sizes:
        print(f"{f'{size} px, images/s':<20} {'ours':>10} {'peer':>10} {'ratio':>8}")
        rows = []
        for name in options.names:
            rows.append(measure(name, size=size, num_runs=options.runs))
            print(rows[-1].line(), flush=True)
        totals = [
            [10_000 * sum(getattr(row, who)[run] for row in rows) for run in range(options.runs)]
            for who in ("ours", "theirs")
        ]
        ratios = [theirs / ours for ours, theirs in zip(*totals, strict=True)]
        print(
            f"all {len(rows)}, 10 000 images: {statistics.median(totals[0]):.0f} s and "
            f"{statistics.median(totals[1]):.0f} s of CPU, {statistics.median(ratios):.1f} times "
            f"({min(ratios):.1f} to {max(ratios):.1f}, n={options.runs})\n"
        )


if __name__ == "__main__":
    main()
