"""What can be refused before the first training: a method that does not fit the network, a ratio beyond its reach."""

from __future__ import annotations

import contextlib

from raypruning.app.request import Setting
from raypruning.core.plan import Plan
from raypruning.core.search.grid import grid_ratios
from raypruning.datasets.resolve import open_dataset

# Enough for a score to be a number; how good it is does not matter yet.
NUM_IMAGES = 2


def check_methods(plan: Plan, setting: Setting) -> None:
    """Try every method on a fresh network and images of noise, at the largest ratio the search may ask for.

    Raises: SpecError with one line; nothing has been written.
    """
    import torch

    from raypruning.methods.method import Samples
    from raypruning.methods.prune import check_method, resolve_method
    from raypruning.probe import build_network

    spec = plan.spec
    dataset = open_dataset(spec.data, data_dir=setting.data_dir, download=setting.download)
    shape = (NUM_IMAGES, dataset.channels, dataset.image_size, dataset.image_size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build_network(spec.model, dataset)
        samples = Samples(torch.randn(shape), torch.arange(NUM_IMAGES) % dataset.num_classes)
    for choice in spec.methods:
        # A driver may have less memory than its workers; they say so themselves.
        with contextlib.suppress(MemoryError, torch.OutOfMemoryError):
            check_method(
                resolve_method(choice),
                model,
                _highest_ratio(plan),
                example_NCHW=torch.zeros_like(samples.images_NCHW[:1]),
                samples=samples,
            )


def _highest_ratio(plan: Plan) -> float:
    if plan.links:
        return plan.links[-1].ratio
    return grid_ratios(plan.search)[-1] if plan.search.strategy == "grid" else plan.search.high
