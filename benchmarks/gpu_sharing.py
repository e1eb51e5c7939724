"""How well a GPU is used by several probes side by side: as many processes on one store, without Ray.

    python -m benchmarks.gpu_sharing --data-dir DIR --gpus 1 --at-once 1 2 4 8 16

Each process trains ResNet-20 on CIFAR-10 from a seed of its own with `--executor inline`, in its share of the GPU. For
each number of processes: networks an hour against those of one alone, and what the GPU says of its use meanwhile. The
first process of all is not counted: it fills caches. `--gpus 0` tries the script on a machine without a GPU.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from typing import NamedTuple

QUERY = ["nvidia-smi", "--query-gpu=utilization.gpu,memory.used", "--format=csv,noheader,nounits"]


class Sampled(NamedTuple):
    """What a GPU said of itself, once a second."""

    busy_percent: float
    memory_mb: float


class Sampler:
    """Asks the GPU while it is entered; nothing where there is none."""

    def __init__(self) -> None:
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self.samples: list[Sampled] = []

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *about: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _ask(self) -> None:
        while shutil.which(QUERY[0]) and not self._is_over.wait(1.0):
            said = subprocess.run(QUERY, capture_output=True, text=True, check=True).stdout.splitlines()[0]
            self.samples.append(Sampled(*map(float, said.split(","))))


def command(seed: int, *, gpus: float, words: Sequence[str]) -> list[str]:
    """One process: a dense network, and one that is pruned without retraining."""
    own = ["--name", f"share-{seed}", "--seed", str(seed), "--gpus-per-probe", str(gpus)]
    what = ["--method", "wt", "--task", "nominal", "--budget", "0", "--ratio", "0.5", "--executor", "inline", "--quiet"]
    return [sys.executable, "-m", "cli", "sweep", "resnet20", "--tracking-uri", "none", *own, *what, *words]


def side_by_side(num: int, *, first_seed: int, gpus: int, words: Sequence[str]) -> float:
    """Seconds that so many processes take together."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    began = time.perf_counter()
    running = [
        subprocess.Popen(
            command(first_seed + index, gpus=gpus / num, words=words),
            env=environment,
            stdout=subprocess.DEVNULL,
        )
        for index in range(num)
    ]
    for process in running:
        # 3: a potential stayed open, which is no matter here.
        if process.wait() not in (0, 3):
            raise SystemExit(f"a process of {num} ended with {process.returncode}")
    return time.perf_counter() - began


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True, help="with CIFAR-10")
    parser.add_argument("--gpus", type=int, default=1, choices=(0, 1))
    parser.add_argument("--at-once", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--set", dest="settings", nargs="*", default=["recipe.epochs=10", "recipe.milestones=[5,8]"])
    given = parser.parse_args()
    print(f"Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as name:
        words = ["--storage", name, "--data-dir", given.data_dir]
        words += [word for one in given.settings for word in ("--set", one)]
        side_by_side(1, first_seed=0, gpus=given.gpus, words=words)
        seed = 1
        alone = None
        print("\n| processes | seconds | networks an hour | against one | GPU busy, % | GPU memory, MB |")
        print("|--:|--:|--:|--:|--:|--:|")
        for num in given.at_once:
            with Sampler() as sampler:
                seconds = side_by_side(num, first_seed=seed, gpus=given.gpus, words=words)
            seed += num
            rate = 3600 * num / seconds
            alone = alone or rate
            busy = statistics.mean(one.busy_percent for one in sampler.samples) if sampler.samples else float("nan")
            memory = max((one.memory_mb for one in sampler.samples), default=float("nan"))
            print(
                f"| {num} | {seconds:.1f} | {rate:.0f} | {rate / alone:.2f} | {busy:.0f} | {memory:.0f} |", flush=True
            )


if __name__ == "__main__":
    main()
