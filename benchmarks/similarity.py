"""How many forward passes a similarity under noise takes to be known to a standard error, on networks of a sweep.

    python benchmarks/similarity.py fashion --storage STORE --data-dir ../shared/data --ratio 0.95

The study lays 100 draws of noise on each of 1 000 test images. `prune-cli similarity` lays one on each of all 10 000.
What both estimate is the mean over all images that might have been tested on, and over all draws. So the standard error
of an estimator is the spread of its value over test sets of its size and draws of their own.

Here a pruned network and its parent answer every test image under every one of 100 draws, at each level. Three
measurements of each standard error:

- resampled: images with replacement, and for each image draws with replacement, `--resamples` times;
- by variance components: images / N + draws / (N K), from the table's analysis of variance;
- disjoint (of the study's design): the spread over the ten parts of 1 000 images that the test set can be cut into.
"""

# N images, K draws

from __future__ import annotations

import argparse
import platform
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from raypruning.app.choosing import chosen_populations
from raypruning.app.read import read_sweep
from raypruning.app.results import read_record
from raypruning.app.stored_networks import open_stage, staged_network
from raypruning.core.populations import dense_population
from raypruning.inspection.noise_similarity import batch_likeness
from raypruning.runtime.store import open_store
from raypruning.training.inputs import batch_size_for

STUDY_IMAGES, STUDY_DRAWS, STUDY_LEVELS = 1000, 100, 15


class Table(NamedTuple):
    """Of every image under every draw, at one level."""

    matching_NK: np.ndarray
    distance_NK: np.ndarray


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sweep")
    parser.add_argument("--storage", required=True)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--method", default="wt")
    parser.add_argument("--ratio", type=float, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--level", type=float, action="append")
    parser.add_argument("--resamples", type=int, default=2000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    began = time.monotonic()
    levels = options.level or [0.1, 0.4, 0.7]
    tables = measured(options, levels)
    num = len(tables[0].matching_NK)
    print(f"{platform.machine()}, torch {torch.__version__}, one thread")
    print(f"{options.method} at {options.ratio:g}, seed {options.seed}: {num} images, {STUDY_DRAWS} draws\n")
    heads = ("level", "quantity", "value", "variance of images", "of draws", "study", "parts", "disjoint", "1 draw")
    print(f"| {' | '.join([*heads, 'parts', '2 draws', 'smaller by'])} |")
    print("|--:|:--|" + "--:|" * (len(heads) + 1))
    for level, table in zip(levels, tables, strict=True):
        for quantity, values_NK in zip(("matching", "distance"), table, strict=True):
            print(row(level, quantity, values_NK, num_resamples=options.resamples))
    print()
    study = STUDY_LEVELS * STUDY_IMAGES * STUDY_DRAWS
    for draws in (1, 2):
        # Without noise there is nothing to draw.
        ours = num * (1 + (STUDY_LEVELS - 1) * draws)
        print(
            f"draws {draws}: {ours} forward passes a network at {STUDY_LEVELS} levels, {study / ours:.1f} times fewer"
        )
    print(f"\n{time.monotonic() - began:.0f} s")


def measured(options: argparse.Namespace, levels: list[float]) -> list[Table]:
    """A table for each level. Each draw is asked for by itself, as the first one of images moved on by it."""
    store = open_store(options.storage, read_only=True)
    results = read_sweep(store, options.sweep)
    stage = open_stage(read_record(store, options.sweep), data_dir=options.data_dir)
    parents = dense_population(results)
    (pruned,) = chosen_populations(results, methods=[options.method], ratios=[options.ratio])
    assert parents is not None
    pair = [
        one for population in (parents, pruned) for one in population.networks if one.probe.curve.seed == options.seed
    ]
    networks = [staged_network(store, one.probe, stage) for one in pair]
    order = torch.arange(len(stage.images))
    batch_size = batch_size_for(stage.dataset, stage.device)
    tables = [Table(*np.empty((2, len(order), STUDY_DRAWS))) for _ in levels]
    for draw in range(STUDY_DRAWS):
        read = stage.images.read(order, batch_size=batch_size, augmentation="none", seed=0)
        batches = ((stage.normalise(batch.pixels_BCHW), batch.ids_B + (draw << 24)) for batch in read)
        start = 0
        for batch in batch_likeness(networks, [(0, 1)], batches, amplitudes=levels, num_draws=1):
            end = start + batch.matching_LPB.shape[2]
            for level, table in enumerate(tables):
                table.matching_NK[start:end, draw] = batch.matching_LPB[level, 0]
                table.distance_NK[start:end, draw] = batch.distance_LPB[level, 0]
            start = end
    return tables


def row(level: float, quantity: str, values_NK: np.ndarray, *, num_resamples: int) -> str:
    num, num_draws = values_NK.shape
    generator = np.random.default_rng(0)
    within = values_NK.var(axis=1, ddof=1).mean()
    between = values_NK.mean(axis=1).var(ddof=1) - within / num_draws
    study = resampled(values_NK, STUDY_IMAGES, STUDY_DRAWS, num_resamples, generator)
    ours = [resampled(values_NK, num, draws, num_resamples, generator) for draws in (1, 2)]
    parts = values_NK[generator.permutation(num)].reshape(num // STUDY_IMAGES, STUDY_IMAGES, num_draws)
    disjoint = parts.mean(axis=(1, 2)).std(ddof=1)
    cells = [
        f"{level:g}",
        quantity,
        f"{values_NK.mean():.4f}",
        f"{between:.4f}",
        f"{within:.4f}",
        f"{study:.5f}",
        f"{by_parts(between, within, STUDY_IMAGES, STUDY_DRAWS):.5f}",
        f"{disjoint:.5f}",
        f"{ours[0]:.5f}",
        f"{by_parts(between, within, num, 1):.5f}",
        f"{ours[1]:.5f}",
        f"{study / ours[0]:.2f}",
    ]
    return f"| {' | '.join(cells)} |"


def by_parts(between: float, within: float, num_images: int, num_draws: int) -> float:
    """The standard error that variances of images and of draws within an image make."""
    return float(np.sqrt(between / num_images + within / (num_images * num_draws)))


def resampled(
    values_NK: np.ndarray, num_images: int, num_draws: int, num_resamples: int, generator: np.random.Generator
) -> float:
    """The spread of the mean over test sets of so many images, with so many draws each."""
    num, most = values_NK.shape
    means = np.empty(num_resamples)
    for index in range(num_resamples):
        images_N = generator.integers(num, size=num_images)
        draws_NK = generator.integers(most, size=(num_images, num_draws))
        means[index] = values_NK[images_N[:, None], draws_NK].mean()
    return float(means.std(ddof=1))


if __name__ == "__main__":
    main()
