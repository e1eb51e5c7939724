"""The truth of all sweeps: trainings and evaluations by their identity, each committed by one small JSON file.

trainings/<id>/weights.safetensors
trainings/<id>/masks.safetensors                      bit-packed
trainings/<id>/training.json                          written last: commits the three
trainings/<id>/evaluations/<fingerprint>.safetensors
trainings/<id>/evaluations/<fingerprint>.json         written last: commits the two
trainings/<id>/resume/state.safetensors               until the training commits
sweeps/<name>/...                                     what belongs to one sweep only
damaged/<id>-<random>/...                             what did not match its checksum
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np
from pydantic import ValidationError

from raypruning.core.records import Evaluation, Record, TrainingResult
from raypruning.errors import ResourceError, SpecError, StoreError
from raypruning.runtime.array_files import Contents, decode, decode_masks, encode, encode_masks
from raypruning.runtime.blobs import Blobs, open_blobs
from raypruning.runtime.untrusted import MAX_FILE_BYTES, MAX_JSON_BYTES, TooLargeError, parse_json

if TYPE_CHECKING:
    from raypruning.core.ports import Arrays

log = logging.getLogger("raypruning.store")

FORMAT = 1  # of the JSON documents and of resume states
WEIGHTS, MASKS, COMMIT = "weights.safetensors", "masks.safetensors", "training.json"
RESUME = "resume/state.safetensors"


class _TrainingDocument(Record):
    """Content of training.json, beside its own checksum."""

    format: Literal[1] = 1
    masks_sha256: str
    result: TrainingResult


class _EvaluationDocument(Record):
    """Content of evaluations/<fingerprint>.json, beside its own checksum."""

    format: Literal[1] = 1
    predictions_num_bytes: int
    evaluation: Evaluation


DocumentT = TypeVar("DocumentT", bound=Record)


class _DamagedError(Exception):
    """A file that is not what was written. Never leaves this module."""


def open_store(uri: str, *, read_only: bool = False) -> ObjectStore:
    """Open the store at an address; see `open_blobs` for addresses, `read_only` and errors."""
    return ObjectStore(open_blobs(uri, read_only=read_only))


class ObjectStore:
    """`core.ports.Store` over bytes. Holds nothing in memory, so that processes and machines may share one place."""

    def __init__(self, blobs: Blobs) -> None:
        self.blobs = blobs
        self.uri = blobs.uri

    # Trainings

    def training(self, training_id: str) -> TrainingResult | None:
        """See `core.ports.Store`. The weights are known by their size here; reading them checks every bit."""
        document = self._training_document(training_id)
        return document.result if document else None

    def weights(self, training_id: str) -> Arrays:
        """See `core.ports.Store`. Damaged ones move the training out of the way, so that it is computed again."""
        result = self._committed(training_id).result
        return self._training_arrays(training_id, WEIGHTS, result.checkpoint.sha256).arrays

    def masks(self, training_id: str) -> Arrays:
        """See `core.ports.Store`. Damaged ones move the training out of the way, so that it is computed again."""
        packed = self._training_arrays(training_id, MASKS, self._committed(training_id).masks_sha256)
        try:
            return decode_masks(packed)
        except ValueError as error:
            raise StoreError(f"{self._at(_training_folder(training_id))}/{MASKS}: {error}") from error

    def commit_training(self, result: TrainingResult, *, weights: Arrays, masks: Arrays) -> TrainingResult:
        """See `core.ports.Store`. Returns the stored one where the training is committed already.

        Raises:
            ValueError: a mask is not boolean, or an array has no plain numbers in it.
        """
        training_id = result.training.id
        folder = _training_folder(training_id)
        stored = self.training(training_id)
        if stored is None:
            weights_bytes, masks_bytes = encode(weights), encode_masks(masks)
            checkpoint = result.checkpoint.model_copy(
                update={"uri": f"{folder}/{WEIGHTS}", "sha256": _sha256(weights_bytes), "num_bytes": len(weights_bytes)}
            )
            stored = result.model_copy(update={"checkpoint": checkpoint})
            document = _TrainingDocument(masks_sha256=_sha256(masks_bytes), result=stored)
            self.blobs.write(f"{folder}/{WEIGHTS}", weights_bytes)
            self.blobs.write(f"{folder}/{MASKS}", masks_bytes)
            self.blobs.write(f"{folder}/{COMMIT}", _sealed(document))
        self.blobs.delete(f"{folder}/{RESUME}")
        return stored

    def training_ids(self) -> list[str]:
        """Sorted ids of the committed trainings; their files are not looked into."""
        return sorted(path.split("/")[1] for path in self.blobs.list("trainings") if _is_commit(path))

    def unfinished_ids(self) -> list[str]:
        """Sorted ids of trainings that have files but are not committed: at work somewhere, or interrupted."""
        paths = [path for path in self.blobs.list("trainings") if _ID.fullmatch(path.split("/")[1])]
        return sorted(
            {path.split("/")[1] for path in paths} - {path.split("/")[1] for path in paths if _is_commit(path)}
        )

    def training_files(self, training_id: str) -> dict[str, bytes]:
        """The checked files of a committed training by name, for whoever keeps a copy elsewhere.

        Raises:
            StoreError: there is no such training, or it is damaged.
        """
        document = self._committed(training_id)
        return {
            WEIGHTS: self._checked_bytes(training_id, WEIGHTS, document.result.checkpoint.sha256),
            MASKS: self._checked_bytes(training_id, MASKS, document.masks_sha256),
            COMMIT: _sealed(document),
        }

    def delete_training(self, training_id: str) -> None:
        """Remove a training with its evaluations and resume state; nothing happens if it is absent."""
        folder = _training_folder(training_id)
        self.blobs.delete(f"{folder}/{COMMIT}")  # first, so that no reader finds a committed half
        self.delete_evaluations(training_id)
        self.blobs.delete_tree(folder)

    # Evaluations

    def evaluation(self, training_id: str, task_fingerprint: str) -> Evaluation | None:
        """See `core.ports.Store`. The predictions are known by their size here; reading them checks every bit."""
        stem = _evaluation_stem(training_id, task_fingerprint)
        try:
            document = self._document(f"{stem}.json", _EvaluationDocument)
            if document is None:
                return None
            evaluation = document.evaluation
            if (evaluation.training, evaluation.task_fingerprint) != (training_id, task_fingerprint):
                raise _DamagedError("it belongs to another training or task")
            if evaluation.predictions != f"{stem}.safetensors":
                raise _DamagedError(f"its predictions are said to be elsewhere: {evaluation.predictions!r}")
            self._check_size(f"{stem}.safetensors", document.predictions_num_bytes)
        except _DamagedError as error:
            self._set_aside(training_id, [f"{stem}.json", f"{stem}.safetensors"], f"{stem}.json: {error}")
            return None
        return evaluation

    def predictions(self, evaluation: Evaluation) -> Arrays:
        """See `core.ports.Store`. Damaged ones move the evaluation out of the way, so that it is computed again.

        Raises:
            StoreError: they are gone, damaged, or others than those the given evaluation was made of.
        """
        stem = _evaluation_stem(evaluation.training, evaluation.task_fingerprint)
        data = self.blobs.read(f"{stem}.safetensors")
        if data is not None and _sha256(data) == evaluation.sha256:
            return self._arrays(f"{stem}.safetensors", data).arrays
        stored = self.evaluation(evaluation.training, evaluation.task_fingerprint)
        if stored is None:
            raise StoreError(f"{self._at(stem)}.json: no committed evaluation")
        if stored.sha256 != evaluation.sha256:
            raise StoreError(f"{self._at(stem)}.json: was measured again since; read it anew")
        message = f"{stem}.safetensors: does not match its checksum"
        self._set_aside(stored.training, [f"{stem}.json", f"{stem}.safetensors"], message)
        raise StoreError(self._at(message))

    def commit_evaluation(self, evaluation: Evaluation, *, predictions: Arrays) -> Evaluation:
        """See `core.ports.Store`. Returns the stored one where the evaluation is committed already.

        Raises:
            ValueError: an array has no plain numbers in it.
        """
        stem = _evaluation_stem(evaluation.training, evaluation.task_fingerprint)
        if (stored := self.evaluation(evaluation.training, evaluation.task_fingerprint)) is not None:
            return stored
        data = encode(predictions)
        stored = evaluation.model_copy(update={"predictions": f"{stem}.safetensors", "sha256": _sha256(data)})
        self.blobs.write(f"{stem}.safetensors", data)
        document = _EvaluationDocument(predictions_num_bytes=len(data), evaluation=stored)
        self.blobs.write(f"{stem}.json", _sealed(document))
        return stored

    def evaluation_fingerprints(self, training_id: str) -> list[str]:
        """Sorted task fingerprints of the committed evaluations of a training; their files are not looked into."""
        paths = self.blobs.list(f"{_training_folder(training_id)}/evaluations")
        names = [path.rpartition("/")[2].removesuffix(".json") for path in paths if path.endswith(".json")]
        return sorted(name for name in names if _ID.fullmatch(name))

    def delete_evaluations(self, training_id: str) -> None:
        """Remove all evaluations of a training; nothing happens if there are none."""
        folder = f"{_training_folder(training_id)}/evaluations"
        for path in self.blobs.list(folder):
            if path.endswith(".json"):  # first, so that no reader finds a committed half
                self.blobs.delete(path)
        self.blobs.delete_tree(folder)

    # Where an interrupted training stopped

    def resume_state(self, training_id: str) -> tuple[Mapping[str, object], Arrays] | None:
        """See `core.ports.Store`. None as well once the training is committed."""
        folder = _training_folder(training_id)
        data = self.blobs.read(f"{folder}/{RESUME}")
        if data is None or self.blobs.exists(f"{folder}/{COMMIT}"):
            return None
        try:
            arrays, note = decode(data)
            if note.get("format") != FORMAT or note.get("sha256") != _resume_sha256(note.get("state"), arrays):
                raise _DamagedError("does not match its checksum")
        except (_DamagedError, ValueError) as error:
            self._set_aside(training_id, [f"{folder}/{RESUME}"], f"{folder}/{RESUME}: {error}")
            return None
        return note["state"], arrays

    def save_resume_state(self, training_id: str, state: Mapping[str, object], arrays: Arrays) -> None:
        """See `core.ports.Store`. One file, so that one atomic write replaces both parts.

        Raises:
            ValueError: an array has no plain numbers in it.
            TypeError: the state has values that JSON lacks.
        """
        values = json.loads(_canonical(dict(state)))  # as they will be read: lists for tuples, text for keys
        note = {"format": FORMAT, "state": values, "sha256": _resume_sha256(values, arrays)}
        self.blobs.write(f"{_training_folder(training_id)}/{RESUME}", encode(arrays, note))

    # Sweeps

    def write_sweep_file(self, sweep: str, filename: str, data: bytes) -> None:
        """Replace a file in the folder of a sweep, such as `spec.json` or `report/index.html`."""
        self.blobs.write(f"{_sweep_folder(sweep)}/{_checked_filename(filename)}", data)

    def read_sweep_file(self, sweep: str, filename: str, *, at_most: int = MAX_FILE_BYTES) -> bytes | None:
        """A file of a sweep's folder, None if it is absent. Raises StoreError for one of more bytes than `at_most`."""
        return self.blobs.read(f"{_sweep_folder(sweep)}/{_checked_filename(filename)}", at_most=at_most)

    def sweep_names(self) -> list[str]:
        """Sorted names of the sweeps that have files here. A folder that no sweep can be called is passed over."""
        names = {path.split("/")[1] for path in self.blobs.list("sweeps") if path.count("/") > 1}
        return sorted(name for name in names if _SWEEP_NAME.fullmatch(name))

    def delete_sweep(self, name: str) -> None:
        """Remove the folder of a sweep. Its trainings stay: other sweeps may share them."""
        self.blobs.delete_tree(_sweep_folder(name))

    # The whole

    def size(self) -> int:
        """Bytes of everything under the root, damaged and half-written things included."""
        return self.blobs.size() or 0

    def damaged_files(self) -> list[str]:
        """Sorted paths of what was moved out of the way."""
        return self.blobs.list("damaged")

    def clean(self, *, older_than_seconds: float = 3600.0) -> int:
        """Remove damaged things, resume states of committed trainings, and what interrupted writes left behind.

        Returns: how many bytes that freed.
        """
        before = self.size()
        for training_id in self.training_ids():
            self.blobs.delete(f"{_training_folder(training_id)}/{RESUME}")
        self.blobs.delete_tree("damaged")
        freed = before - self.size()  # temporary files are no part of a size
        return max(0, freed) + self.blobs.clean(older_than_seconds=older_than_seconds)

    # Reading with suspicion

    def _training_document(self, training_id: str) -> _TrainingDocument | None:
        folder = _training_folder(training_id)
        try:
            document = self._document(f"{folder}/{COMMIT}", _TrainingDocument)
            if document is None:
                return None
            if document.result.training.id != training_id:
                raise _DamagedError(f"it belongs to training {document.result.training.id}")
            if document.result.checkpoint.uri != f"{folder}/{WEIGHTS}":
                raise _DamagedError(f"its weights are said to be elsewhere: {document.result.checkpoint.uri!r}")
            self._check_size(f"{folder}/{WEIGHTS}", document.result.checkpoint.num_bytes)
        except _DamagedError as error:
            self._set_aside_training(training_id, f"{folder}/{COMMIT}: {error}")
            return None
        return document

    def _document(self, path: str, kind: type[DocumentT]) -> DocumentT | None:
        try:
            data = self.blobs.read(path, at_most=MAX_JSON_BYTES)
        except TooLargeError as error:
            raise _DamagedError(str(error)) from error
        return None if data is None else _unsealed(data, kind)

    def _committed(self, training_id: str) -> _TrainingDocument:
        document = self._training_document(training_id)
        if document is None:
            raise StoreError(f"{self._at(_training_folder(training_id))}: no committed training")
        return document

    def _training_arrays(self, training_id: str, name: str, sha256: str) -> Contents:
        data = self._checked_bytes(training_id, name, sha256)
        return self._arrays(f"{_training_folder(training_id)}/{name}", data)

    def _arrays(self, path: str, data: bytes) -> Contents:
        try:
            return decode(data)
        except ValueError as error:  # as it was written, by another version: its checksum matches
            raise StoreError(f"{self._at(path)}: {error}") from error

    def _checked_bytes(self, training_id: str, name: str, sha256: str) -> bytes:
        path = f"{_training_folder(training_id)}/{name}"
        data = self.blobs.read(path)
        if data is None or _sha256(data) != sha256:
            message = f"{path}: {'is gone' if data is None else 'does not match its checksum'}"
            self._set_aside_training(training_id, message)
            raise StoreError(self._at(message))
        return data

    def _check_size(self, path: str, num_bytes: int) -> None:
        found = self.blobs.size(path)
        if found != num_bytes:
            raise _DamagedError(f"{path} has {'no' if found is None else found} bytes, expected {num_bytes}")

    def _set_aside_training(self, training_id: str, message: str) -> None:
        """Move a training with its evaluations: those would be of other weights than the ones computed next."""
        folder = _training_folder(training_id)
        others = [path for path in self.blobs.list(folder) if not path.startswith(f"{folder}/resume/")]
        self._set_aside(training_id, sorted(others, key=lambda path: not path.endswith(".json")), message)

    def _set_aside(self, training_id: str, paths: list[str], message: str) -> None:
        """Move files out of the way, those that commit first. A store that cannot be written only warns."""
        place = f"damaged/{training_id}-{uuid.uuid4().hex[:8]}"
        log.warning("%s; counts as absent, moved to %s", self._at(message), place)
        folder = _training_folder(training_id)
        try:
            for path in paths:
                self.blobs.move(path, f"{place}/{path.removeprefix(f'{folder}/')}")
        except (StoreError, ResourceError, SpecError) as error:  # The last for names that no file of ours has.
            log.warning("%s", error)

    def _at(self, path: str) -> str:
        return f"{self.uri}/{path}"


# Names

_ID = re.compile(r"[0-9a-f]{16,64}")
_SWEEP_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def _training_folder(training_id: str) -> str:
    return f"trainings/{_checked_id(training_id, 'training id')}"


def _evaluation_stem(training_id: str, task_fingerprint: str) -> str:
    return f"{_training_folder(training_id)}/evaluations/{_checked_id(task_fingerprint, 'task fingerprint')}"


def _sweep_folder(name: str) -> str:
    if not _SWEEP_NAME.fullmatch(name):
        raise SpecError(
            f"sweep name {name!r}: at most 100 letters, digits, dots, dashes, underscores; a letter or digit first"
        )
    return f"sweeps/{name}"


def _checked_id(text: str, what: str) -> str:
    if not _ID.fullmatch(text):
        raise SpecError(f"{what} {text!r}: 16 to 64 lowercase hexadecimal digits are allowed")
    return text


def _checked_filename(name: str) -> str:
    if not all(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", part) for part in name.split("/")):
        raise SpecError(f"file name {name!r}: letters, digits, dots, dashes and underscores are allowed")
    return name


def _is_commit(path: str) -> bool:
    return re.fullmatch(rf"trainings/[0-9a-f]{{16,64}}/{COMMIT}", path) is not None


# JSON that knows its own checksum


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _sealed(document: Record) -> bytes:
    body = document.model_dump(mode="json")
    return json.dumps({"sha256": _sha256(_canonical(body)), **body}, indent=1).encode() + b"\n"


def _unsealed(data: bytes, kind: type[DocumentT]) -> DocumentT:
    try:
        body = parse_json(data)
        if not isinstance(body, dict):
            raise _DamagedError("is not a JSON object")
        if body.get("format") != FORMAT:
            raise _DamagedError(f"has format {body.get('format')!r}; this version knows {FORMAT}")
        if body.pop("sha256", None) != _sha256(_canonical(body)):
            raise _DamagedError("does not match its checksum")
        return kind.model_validate(body)
    except ValidationError as error:
        raise _DamagedError(f"does not fit: {error.errors()[0]['msg']} at {error.errors()[0]['loc']}") from error
    except ValueError as error:
        raise _DamagedError(f"is not JSON: {error}") from error


def _resume_sha256(state: object, arrays: Arrays) -> str:
    digest = hashlib.sha256(_canonical(state))
    for name, array in sorted(arrays.items()):
        digest.update(_canonical([name, array.dtype.str, list(array.shape)]))
        digest.update(np.asarray(array, order="C").tobytes())
    return digest.hexdigest()
