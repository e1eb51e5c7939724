"""What the networks of a sweep look at, in the sweep's folder.

sweeps/<name>/features.json                      what was asked, of which networks
sweeps/<name>/features.safetensors               orders of pixels, confidences, the pictures that are shown
sweeps/<name>/features-unfinished.safetensors    orders of the networks that are through, until all are
"""

# N images, K of them pictures, P pixels, S sources of pixels, M networks

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from raypruning.analysis.features import Features, FeaturesRecord, Question
from raypruning.core.records import Record
from raypruning.errors import StoreError
from raypruning.runtime.store import ObjectStore

RECORD_FILE, ARRAYS_FILE = "features.json", "features.safetensors"
UNFINISHED_FILE = "features-unfinished.safetensors"
_ORDER, _QUESTION = "order/", "question"

Orders = dict[str, np.ndarray]  # by training, (N, P)


class _Document(Record):
    """Content of features.json."""

    arrays_sha256: str
    record: FeaturesRecord


def read_features(store: ObjectStore, sweep: str) -> Features | None:
    """What `features` found last; None if it never ran.

    Raises: StoreError: it is damaged.
    """
    text, data = (store.read_sweep_file(sweep, name) for name in (RECORD_FILE, ARRAYS_FILE))
    if text is None:
        return None
    try:
        document = _Document.model_validate_json(text)
        if data is None or hashlib.sha256(data).hexdigest() != document.arrays_sha256:
            raise ValueError(f"{ARRAYS_FILE} {'is gone' if data is None else 'does not match its checksum'}")
        arrays = load(data)
        return Features(
            record=document.record,
            orders_MNP=_orders_in(arrays),
            labels_N=arrays["labels"],
            confidence_SMN=arrays["confidence"],
            predicted_SMN=arrays["predicted"],
            top_SMN=arrays["top"],
            pictures_KCHW=arrays["pictures"],
        )
    except (ValueError, KeyError, SafetensorError) as error:
        reason = str(error).partition("\n")[0]
        raise StoreError(
            f"what the networks of the sweep {sweep} look at is damaged in {store.uri} ({reason}): "
            f"prune-cli features {sweep} --fresh computes it anew"
        ) from error


def write_features(store: ObjectStore, found: Features) -> None:
    """Replace what was found before."""
    sweep = found.record.sweep
    data = save(
        {
            **_order_arrays(found.orders_MNP),
            "labels": found.labels_N,
            "confidence": found.confidence_SMN,
            "predicted": found.predicted_SMN,
            "top": found.top_SMN,
            "pictures": np.ascontiguousarray(found.pictures_KCHW),
        }
    )
    document = _Document(arrays_sha256=hashlib.sha256(data).hexdigest(), record=found.record)
    store.write_sweep_file(sweep, ARRAYS_FILE, data)
    store.write_sweep_file(sweep, RECORD_FILE, document.model_dump_json(indent=1).encode())
    store.blobs.delete(f"sweeps/{sweep}/{UNFINISHED_FILE}")


def write_unfinished(store: ObjectStore, sweep: str, question: Question, orders: Orders) -> None:
    """Keep the orders of the networks that are through. What was found before stays as it is."""
    asked = np.frombuffer(question.model_dump_json().encode(), np.uint8)
    store.write_sweep_file(sweep, UNFINISHED_FILE, save({**_order_arrays(orders), _QUESTION: asked}))


def unfinished_orders(store: ObjectStore, sweep: str, question: Question) -> Orders:
    """Orders that a run which did not end left behind, by the same way on the same images."""
    data = store.read_sweep_file(sweep, UNFINISHED_FILE)
    if data is None:
        return {}
    try:
        arrays = load(data)
        is_same = Question.model_validate_json(arrays[_QUESTION].tobytes()) == question
    except (ValueError, KeyError, SafetensorError):
        return {}  # they are found again
    return _orders_in(arrays) if is_same else {}


def _order_arrays(orders: Mapping[str, np.ndarray]) -> Orders:
    return {f"{_ORDER}{training}": orders_NP for training, orders_NP in sorted(orders.items())}


def _orders_in(arrays: Mapping[str, np.ndarray]) -> Orders:
    return {name.removeprefix(_ORDER): array for name, array in arrays.items() if name.startswith(_ORDER)}
