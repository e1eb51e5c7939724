"""What makes a training or a task itself: a hash of the canonical JSON of whatever changes the numbers."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence

from raypruning.core.records import DataChoice, Gradual, Mask, ModelChoice, Recipe, Training

# Raised when the same inputs would give other weights, so that old results are not taken for new ones.
TRAINING_VERSION = 2


def canonical_json(value: object) -> str:
    """The one JSON text of a value: sorted keys, no spaces, shortest floats.

    Raises:
        TypeError: a value without a stable text, such as NaN or an object. There is no fall-back to str().
    """
    _check_stable(value, path="$")
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def fingerprint(value: object, *, length: int = 20) -> str:
    """First `length` hex digits of the SHA-256 of the canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:length]


def make_training(
    *,
    model: ModelChoice,
    data: DataChoice,
    data_fingerprint: str,
    recipe: Recipe,
    epochs: int,
    seed: int,
    mask: Mask | None = None,
    start: str | None = None,
    rewind_epochs: int | None = None,
    stop_epochs: int | None = None,
    gradual: Gradual | None = None,
) -> Training:
    """A training with its id. The dataset's name and place are no part of the id: its fingerprint is."""
    # Only what is asked for, so that a field added later leaves the ids of old results alone.
    extra = {
        "rewind_epochs": rewind_epochs,
        "stop_epochs": stop_epochs,
        "gradual": gradual.model_dump(mode="json") if gradual else None,
    }
    identity = {
        "version": TRAINING_VERSION,
        "model": model.model_dump(mode="json"),
        "data": data_fingerprint,
        "recipe": _without_defaults(recipe),
        "epochs": epochs,
        "seed": seed,
        "mask": mask.model_dump(mode="json") if mask else None,
        "start": start,
        **{key: value for key, value in extra.items() if value is not None},
    }
    return Training(
        id=fingerprint(identity),
        model=model,
        data=data,
        data_fingerprint=data_fingerprint,
        recipe=recipe,
        epochs=epochs,
        seed=seed,
        mask=mask,
        start=start,
        rewind_epochs=rewind_epochs,
        stop_epochs=stop_epochs,
        gradual=gradual,
    )


def rewind_point(training: Training) -> Training:
    """What a rewinding training goes back to: the dense training of its recipe and seed, broken off there."""
    return make_training(
        model=training.model,
        data=training.data,
        data_fingerprint=training.data_fingerprint,
        recipe=training.recipe,
        epochs=training.recipe.epochs,
        seed=training.seed,
        stop_epochs=training.rewind_epochs,
    )


def derive_seed(master: int, *role: str | int) -> int:
    """A seed in [0, 2^63) for one role of one training, such as ("order", epoch).

    Seeds of other roles or masters are unrelated, so that adding a role changes none that exist.
    """
    digest = hashlib.sha256(canonical_json([master, *role]).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _without_defaults(recipe: Recipe) -> dict[str, object]:
    """Fields that differ from their default: a field added later leaves the ids of old results alone."""
    return recipe.model_dump(mode="json", exclude_defaults=True)


def _check_stable(value: object, *, path: str) -> None:
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"{path}: keys must be strings, got {key!r}")
            _check_stable(item, path=f"{path}.{key}")
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        for index, item in enumerate(value):
            _check_stable(item, path=f"{path}[{index}]")
    elif isinstance(value, float) and not math.isfinite(value):
        raise TypeError(f"{path}: {value} has no stable text")
    elif value is not None and not isinstance(value, str | int | float | bool):
        raise TypeError(f"{path}: {type(value).__name__} has no stable text")
