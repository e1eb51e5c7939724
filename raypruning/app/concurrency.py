"""How many probes run at once, where that decides something: an estimate, or how many ratios a round asks for."""

from __future__ import annotations

import os

from raypruning.app.results import read_record
from raypruning.core.records import Resources, SweepSpec
from raypruning.errors import RaypruningError
from raypruning.runtime.store import open_store


def local_room(resources: Resources) -> int:
    """Probes that this machine holds at once."""
    by_cpu = int((os.cpu_count() or 1) / resources.cpus_per_probe)
    if not resources.gpus_per_probe:
        return by_cpu
    import torch

    return min(by_cpu, int(torch.cuda.device_count() / resources.gpus_per_probe + 1e-9))


def probes_per_round(spec: SweepSpec, *, storage: str, address: str | None, max_concurrent: int | None) -> int:
    """Ratios of a round for which every curve has a worker: those that the sweep began with, if it was begun before.

    Taken once and recorded, so that a sweep continued on another cluster asks for the same probes.
    """
    try:
        return read_record(open_store(storage, read_only=True), spec.name).spec.search.probes_per_round
    except RaypruningError:  # no such sweep yet
        pass
    if address is None:
        room = local_room(spec.resources)
    else:
        from raypruning.runtime.ray_tune import cluster_room

        room = cluster_room(address, spec.resources)
    num_curves = len(spec.methods) * len(spec.budgets) * len(spec.seeds)
    return max(1, min(room, max_concurrent or room) // num_curves)
