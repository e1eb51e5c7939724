"""What each way to order pixels costs, and how near it comes to exact backward selection: LeNet-5 on MNIST.

    python benchmarks/features.py --data-dir ../shared/data --images 24 [--storage FOLDER] [--ratio 0.95]

A LeNet-5 is trained for three epochs by the ordinary sweep (kept in --storage, if given); with --ratio, the pruned one
is looked at. Every way orders the 784 pixels of the same test images, spread evenly over the test set. Of each:

- own: the network's confidence (softmax) in the class that it sees in the whole image, when the last tenth of the
  pixels in the order is all it gets; log-odds: the same as log(p / (1 - p)), which does not end at 1; true: confidence
  in the true class. Means over images; `to exact` is the mean difference of `own` to the exact way with its standard
  error over the same images.
- shared: the fraction of the kept pixels that the exact way keeps as well, mean and standard deviation over images.
- forwards: forward passes for an image, a backward pass counted as two; saving: those of the exact way over them.
- seconds: of the process's CPU for an image, one thread.

Wanted: screened within .01 of exact's `own` at 15 times fewer forwards. Lines come as they are measured; the exact way
takes 307 720 forwards an image, a quarter of a minute.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import torch
from rich.console import Console
from torch import Tensor, nn

from raypruning.analysis.features import Selector, forwards_of, num_kept_of
from raypruning.app.read import read_sweep
from raypruning.app.request import SweepRequest, resolve_request
from raypruning.app.results import read_record
from raypruning.app.stored_networks import open_stage, staged_network
from raypruning.app.sweep import run_sweep
from raypruning.inspection.backselect import judge, kept_of, log_odds, pixel_orders
from raypruning.reporting.live import LiveReport
from raypruning.runtime.store import open_store
from raypruning.training.inputs import batch_size_for

NAME = "features-benchmark"
KEEP = 0.1
EXACT = Selector(mode="exact")
SELECTORS = (
    EXACT,
    Selector(mode="gradient"),
    Selector(mode="gradient", pixels_per_step=8),
    Selector(mode="screened", candidates=8),
    Selector(mode="screened", candidates=16),
    Selector(mode="screened", candidates=32),
    Selector(mode="screened", candidates=16, pixels_per_step=2),
    Selector(mode="screened", candidates=32, pixels_per_step=2),
    Selector(mode="screened", candidates=64, pixels_per_step=4),
    Selector(mode="exact", pixels_per_step=16),
    Selector(mode="exact", pixels_per_step=4),
)


class Measured(NamedTuple):
    """Of one way: over the images, N of them, and seconds of CPU for one."""

    kept_NP: Tensor
    own_N: Tensor
    odds_N: Tensor
    true_N: Tensor
    seconds: float


class Bench(NamedTuple):
    """A network and the images it looks at."""

    model: nn.Module
    images_NCHW: Tensor
    labels_N: Tensor
    batch_size: int

    def measure(self, selector: Selector) -> Measured:
        begin = time.process_time()
        orders_NP = pixel_orders(self.model, self.images_NCHW, selector, batch_size=self.batch_size)
        seconds = (time.process_time() - begin) / len(orders_NP)
        kept_NP = kept_of(orders_NP, num_kept_of(KEEP, orders_NP.shape[1]))
        whole_NL = judge(self.model, self.images_NCHW, batch_size=self.batch_size)
        shown_NL = judge(self.model, self.images_NCHW, batch_size=self.batch_size, kept_NP=kept_NP)
        own_N = shown_NL.gather(1, whole_NL.argmax(1, keepdim=True))[:, 0]
        with torch.inference_mode():
            masked_NCHW = self.images_NCHW * kept_NP.view(-1, 1, *self.images_NCHW.shape[2:])
            odds_N = log_odds(self.model(masked_NCHW), whole_NL.argmax(1))
        return Measured(kept_NP, own_N, odds_N, shown_NL.gather(1, self.labels_N[:, None])[:, 0], seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--storage", type=Path)
    parser.add_argument("--ratio", type=float, help="look at the network pruned to this ratio")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        bench = prepared(options.storage or Path(folder), options.data_dir, options.images, options.ratio)
        network = "dense network" if options.ratio is None else f"network at ratio {options.ratio:g}"
        whole_NL = judge(bench.model, bench.images_NCHW, batch_size=bench.batch_size)
        num_right = int((whole_NL.argmax(1) == bench.labels_N).sum())
        print(f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, one thread")
        print(f"LeNet-5 on MNIST, {network}, {options.images} images, {num_right} of them right\n")
        report(bench)


def prepared(storage: Path, data_dir: Path, num_images: int, ratio: float | None) -> Bench:
    request = SweepRequest(
        target="lenet5",
        name=NAME,
        dataset="mnist",
        data_dir=data_dir,
        storage=str(storage),
        tracking_uri="none",
        executor="inline",
        methods=["wt"],
        tasks=["nominal"],
        seeds=[0],
        budgets=[1],
        ratios=[0.95 if ratio is None else ratio],
        settings=["recipe.epochs=3"],
    )
    with LiveReport(Console(stderr=True)) as watcher:
        run_sweep(resolve_request(request), watcher=watcher)
    store = open_store(str(storage), read_only=True)
    stage = open_stage(read_record(store, NAME), data_dir=data_dir)
    results = read_sweep(store, NAME).probes
    network = next(one for one in results if one.probe.curve.is_parent is (ratio is None))
    ids_N = torch.arange(num_images) * len(stage.images) // num_images
    (batch,) = stage.images.read(ids_N, batch_size=num_images, augmentation="none", seed=0)
    return Bench(
        model=staged_network(store, network.probe, stage),
        images_NCHW=stage.normalise(batch.pixels_BCHW),
        labels_N=batch.truth,
        batch_size=batch_size_for(stage.dataset, stage.device),
    )


def report(bench: Bench) -> None:
    num_images, num_pixels = len(bench.labels_N), bench.images_NCHW.shape[2] * bench.images_NCHW.shape[3]
    heads = ("forwards", "saving", "seconds")
    print(
        f"{'way':<35}{'own':>7}{'to exact':>17}{'log-odds':>10}{'true':>7}{'shared with exact':>19}"
        + "".join(f"{head:>{width}}" for head, width in zip(heads, (10, 9, 9), strict=True))
    )
    exact = bench.measure(EXACT)
    for selector in SELECTORS:
        found = exact if selector == EXACT else bench.measure(selector)
        to_exact_N = (found.own_N - exact.own_N).tolist()
        error = statistics.stdev(to_exact_N) / num_images**0.5
        shared_N = ((found.kept_NP & exact.kept_NP).sum(1) / found.kept_NP.sum(1)).tolist()
        forwards = forwards_of(selector, num_pixels)
        print(
            f"{selector.label:<35}{float(found.own_N.mean()):>7.4f}"
            f"{statistics.mean(to_exact_N):>+9.4f} ± {error:.4f}{float(found.odds_N.mean()):>10.2f}"
            f"{float(found.true_N.mean()):>7.3f}"
            f"{statistics.mean(shared_N):>13.2f} ± {statistics.stdev(shared_N):.2f}{forwards:>10}"
            f"{forwards_of(EXACT, num_pixels) / forwards:>9.1f}{found.seconds:>9.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
