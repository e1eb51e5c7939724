"""What a storage holds, in forms that can be compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from raypruning.runtime.store import open_store


def commits(storage: Path) -> dict[str, int]:
    """When each finished training was committed, nanoseconds by id: one that ran again would have another time."""
    return {path.parent.name: path.stat().st_mtime_ns for path in storage.glob("trainings/*/training.json")}


def evaluations(storage: Path) -> dict[str, int]:
    """The same for evaluations."""
    paths = storage.glob("trainings/*/evaluations/*.json")
    return {f"{path.parts[-3]}/{path.stem}": path.stat().st_mtime_ns for path in paths}


def weights_sha256(storage: Path) -> dict[str, str]:
    """The checksum of the weights of every training."""
    store = open_store(str(storage), read_only=True)
    found = {key: store.training(key) for key in store.training_ids()}
    return {key: result.checkpoint.sha256 for key, result in found.items() if result is not None}


def all_predictions(storage: Path) -> dict[str, dict[str, bytes]]:
    """Every stored prediction, to the bit."""
    store = open_store(str(storage), read_only=True)
    found = {}
    for key in store.training_ids():
        for fingerprint in store.evaluation_fingerprints(key):
            evaluation = store.evaluation(key, fingerprint)
            assert evaluation is not None
            arrays = store.predictions(evaluation)
            found[f"{key}/{fingerprint}"] = {name: np.asarray(value).tobytes() for name, value in arrays.items()}
    return found
