"""What a sweep costs beyond training, evaluating and pruning, and what a second worker gains.

    python benchmarks/overhead.py --dataset mnist --data-dir ../shared/data

Sixteen pruned LeNet-5 networks on a fixed grid, one epoch of retraining each, on a local Ray with one thread a worker.
The parent is trained once beforehand. One worker and two take turns, so that a noisy machine disturbs both alike.

overhead  1 - (train + prune + evaluate) / wall, for one worker, from the moment the first probe begins
speed-up  wall with one worker / wall with two, pair by pair
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from raypruning.app.request import Resolved, SweepRequest, resolve_request
from raypruning.app.sweep import run_sweep
from raypruning.core.plan import Plan
from raypruning.core.records import ProbeResult

WORK = ("train", "prune", "evaluate")
NUM_PROBES = 16
METHODS = ("wt", "random")


class Run(NamedTuple):
    """One sweep after its start-up: wall seconds, and seconds of work in all workers."""

    wall: float
    work: float

    @property
    def overhead(self) -> float:
        return 1.0 - self.work / self.wall


class Stopwatch:
    """Notes when each probe is finished, and from its phases when it began."""

    def __init__(self) -> None:
        self.begun: list[float] = []
        self.ended: list[float] = []
        self.work = 0.0

    def begin(self, plan: Plan) -> None:
        pass

    def say(self, line: str) -> None:
        print(line)

    def update(self, result: ProbeResult, results: Mapping[str, ProbeResult], *, num_running: int) -> None:
        if result.attempts == 0:
            return  # Stored already: the parent and its control.
        now = time.monotonic()
        self.begun.append(now - sum(result.seconds.values()))
        self.ended.append(now)
        self.work += sum(result.seconds.get(phase, 0.0) for phase in WORK)

    def run(self) -> Run:
        assert len(self.ended) == NUM_PROBES, f"{len(self.ended)} probes ran, not {NUM_PROBES}"
        return Run(max(self.ended) - min(self.begun), self.work)


def request(storage: Path, arguments: argparse.Namespace, *, num_workers: int, ratios: list[float]) -> Resolved:
    return resolve_request(
        SweepRequest(
            target="lenet5",
            dataset=arguments.dataset,
            data_dir=arguments.data_dir,
            storage=str(storage),
            methods=METHODS,
            seeds=[0],
            budgets=[1],
            search="grid",
            max_concurrent=num_workers,
            settings=[f"search.ratios={ratios}", "recipe.epochs=2", *_fewer(arguments.train_images)],
        )
    )


def _fewer(train_images: int | None) -> list[str]:
    return [f"data.train_images={train_images}"] if train_images else []


def prepared(folder: Path, arguments: argparse.Namespace) -> Path:
    """A store that holds the parent, its control and one probe of each method that is not measured."""
    storage = folder / "prepared"
    run_sweep(request(storage, arguments, num_workers=1, ratios=[0.05]), watcher=Unwatched())
    return storage


class Unwatched(Stopwatch):
    """For runs that are not measured."""

    def update(self, result: ProbeResult, results: Mapping[str, ProbeResult], *, num_running: int) -> None:
        pass


def measured(storage: Path, folder: Path, arguments: argparse.Namespace, *, num_workers: int) -> Run:
    # A folder of its own for each run: MLflow holds on to the database of a place it has seen.
    copy = Path(tempfile.mkdtemp(dir=folder)) / "store"
    shutil.copytree(storage, copy)
    each = NUM_PROBES // len(METHODS)
    ratios = [round(0.2 + 0.75 * index / each, 4) for index in range(each)]
    watch = Stopwatch()
    run_sweep(request(copy, arguments, num_workers=num_workers, ratios=ratios), watcher=watch)
    return watch.run()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="strokes")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--train-images", type=int, help="fewer make shorter probes, which overhead weighs more on")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    arguments = parser.parse_args()
    one, two = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        storage = prepared(folder, arguments)
        for pair in range(arguments.pairs):
            one.append(measured(storage, folder, arguments, num_workers=1))
            two.append(measured(storage, folder, arguments, num_workers=2))
            print(
                f"pair {pair + 1}: one worker {one[-1].wall:.1f} s ({one[-1].overhead:.1%} overhead), "
                f"two workers {two[-1].wall:.1f} s, {one[-1].wall / two[-1].wall:.2f} times",
                flush=True,
            )
    speedups = [a.wall / b.wall for a, b in zip(one, two, strict=True)]
    overheads = [run.overhead for run in one]
    print(
        f"\n{NUM_PROBES} probes on {arguments.dataset}, {len(one)} pairs, {platform.machine()}, {os.cpu_count()} cores"
    )
    for name, values, wanted in (("overhead", overheads, "below 0.10"), ("speed-up", speedups, "at least 1.6")):
        middle, low, high = statistics.median(values), min(values), max(values)
        print(f"{name}  median {middle:.3f}  ({low:.3f} to {high:.3f})  wanted: {wanted}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"overheads": overheads, "speedups": speedups}, indent=1) + "\n")


if __name__ == "__main__":
    main()
