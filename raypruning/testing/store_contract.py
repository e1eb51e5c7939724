"""What every store must do. Subclass `StoreContract` in a test module, and give it your store.

class TestMyStore(StoreContract):
    @pytest.fixture
    def store(self, tmp_path):
        return MyStore(tmp_path)

    @pytest.fixture
    def blobs(self, store):                  # leave it out if the bytes cannot be reached: those tests are skipped
        return open_blobs(store.uri)
"""

# ruff: noqa: D102  (the name of a test is its description)

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pytest

from raypruning.core.ports import Store
from raypruning.core.records import (
    Checkpoint,
    DataChoice,
    Epoch,
    Evaluation,
    Mask,
    MethodChoice,
    ModelChoice,
    Provenance,
    Recipe,
    Training,
    TrainingResult,
)
from raypruning.errors import SpecError, StoreError
from raypruning.runtime.blobs import Blobs

if TYPE_CHECKING:
    from raypruning.core.ports import Arrays

TRAINING = "0123456789abcdef" * 2
OTHER_TRAINING = "fedcba9876543210" * 2
TASK = "a" * 16
OTHER_TASK = "b" * 16

DTYPES = ("bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "int64", "float16", "float32", "float64")
HOSTILE_IDS = (
    "",
    ".",
    "..",
    "../" + TRAINING,
    "/etc/passwd",
    TRAINING + "/..",
    TRAINING + "\n",
    TRAINING.upper(),
    "a" * 15,
    "a" * 65,
    "%2e%2e" * 4,
    "..\\" * 6,
    TRAINING + "\0",
)


def sample_result(training_id: str = TRAINING) -> TrainingResult:
    """The record of a pruned training whose uri, checksum and size the store has to fill in."""
    recipe = Recipe(epochs=3, learning_rate=0.1, milestones=(1.5, 2.25))
    method = MethodChoice(name="wt", parameters={"scope": "global", "rounds": 2, "power": 1.0, "is_signed": True})
    return TrainingResult(
        training=Training(
            id=training_id,
            model=ModelChoice(name="lenet5"),
            data=DataChoice(name="digits", train_images=100),
            data_fingerprint="d" * 64,
            recipe=recipe,
            epochs=3,
            seed=7,
            mask=Mask(method=method, ratio=0.9),
            start=OTHER_TRAINING,
        ),
        checkpoint=Checkpoint(
            uri="",
            sha256="",
            num_bytes=0,
            ratio_asked=0.9,
            ratio_reached=0.1 + 0.2,  # no short decimal: shows that floats are stored to the bit
            num_nonzero=10,
            num_params=100,
            num_prunable=90,
            macs=1000,
            macs_dense=5000,
        ),
        history=(Epoch(epoch=1, learning_rate=0.1, train_loss=1 / 3, validation_error=0.5),),
        seconds={"train": 1.5},
        provenance=Provenance(versions={"torch": "2.13.0"}, host="höst", created="2026-01-01T00:00:00Z"),
    )


def sample_weights(seed: int = 0) -> Arrays:
    """One array of each dtype with random bits; then a number, an empty array, and views out of memory order."""
    generator = np.random.default_rng(seed)
    arrays = {f"{dtype}.weight": _random_array(generator, dtype, (3, 4, 2)) for dtype in DTYPES}
    arrays["scalar"] = np.array(2.5, dtype=np.float32)
    arrays["empty"] = np.zeros((0, 3), dtype=np.float32)
    arrays["transposed"] = generator.normal(size=(4, 3)).astype(np.float32).T
    arrays["strided"] = np.arange(20, dtype=np.int64)[::-2]
    arrays["special"] = np.array([np.nan, np.inf, -np.inf, -0.0, 1e-45], dtype=np.float32)
    return arrays


def sample_masks(seed: int = 0) -> Arrays:
    """Masks whose sizes are and are not multiples of eight."""
    generator = np.random.default_rng(seed)
    shapes: Mapping[str, tuple[int, ...]] = {
        "conv.weight": (3, 2, 3, 3),
        "fc.weight": (8, 8),
        "one": (1,),
        "none": (0, 5),
    }
    masks = {name: generator.random(shape) < 0.5 for name, shape in shapes.items()}
    return {**masks, "transposed": (generator.random((5, 3)) < 0.5).T}


def sample_evaluation(training_id: str = TRAINING, task_fingerprint: str = TASK) -> Evaluation:
    """The record of an evaluation whose uri and checksum the store has to fill in."""
    return Evaluation(
        training=training_id,
        task="nominal",
        task_fingerprint=task_fingerprint,
        error=1 / 3,
        num_examples=9,
        num_wrong=3,
        loss=0.7,
        error_top5=0.0,
        predictions="",
        sha256="",
        seconds=0.1,
    )


def sample_predictions(seed: int = 0) -> Arrays:
    """What classification stores of nine images."""
    generator = np.random.default_rng(seed)
    return {
        "predicted_class": generator.integers(0, 1000, 9).astype(np.uint16),
        "log_probability": generator.normal(size=9).astype(np.float16),
        "is_in_top5": generator.random(9) < 0.9,
    }


def assert_same_arrays(found: Arrays, expected: Arrays) -> None:
    """Fail unless names, dtypes, shapes and all bits agree."""
    assert sorted(found) == sorted(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype, name
        assert found[name].shape == array.shape, name
        assert found[name].tobytes() == array.tobytes(), name  # in C order, whatever the order in memory


class StoreContract:
    """Subclass it and override the fixture `store`; and `blobs`, if the bytes of the store can be reached."""

    @pytest.fixture
    def store(self) -> Store:
        """An empty store."""
        raise NotImplementedError("override the fixture `store` with your store")

    @pytest.fixture
    def blobs(self, store: Store) -> Blobs:
        """The bytes of the same store, which tests damage."""
        pytest.skip("the bytes of this store cannot be reached")

    def test_training_reads_back_as_committed(self, store: Store) -> None:
        committed = _commit(store)
        assert store.training(TRAINING) == committed
        assert committed.checkpoint.uri
        assert len(committed.checkpoint.sha256) == 64
        assert committed.checkpoint.num_bytes > 0
        given = sample_result()
        stated = {name: getattr(committed.checkpoint, name) for name in ("uri", "sha256", "num_bytes")}
        assert committed == given.model_copy(update={"checkpoint": given.checkpoint.model_copy(update=stated)})

    def test_weights_of_every_dtype_and_memory_order_read_back_to_the_bit(self, store: Store) -> None:
        _commit(store)
        assert_same_arrays(store.weights(TRAINING), sample_weights())

    def test_masks_read_back_to_the_bit(self, store: Store) -> None:
        _commit(store)
        assert_same_arrays(store.masks(TRAINING), sample_masks())

    def test_masks_of_a_dense_training_are_empty(self, store: Store) -> None:
        store.commit_training(sample_result(), weights=sample_weights(), masks={})
        assert dict(store.masks(TRAINING)) == {}

    def test_masks_that_are_not_boolean_are_refused(self, store: Store) -> None:
        with pytest.raises(ValueError, match="boolean"):
            store.commit_training(sample_result(), weights={}, masks={"fc": np.ones(3, dtype=np.float32)})
        assert store.training(TRAINING) is None

    def test_arrays_that_are_read_may_be_changed_without_changing_the_store(self, store: Store) -> None:
        _commit(store)
        store.weights(TRAINING)["float32.weight"][...] = 0
        assert_same_arrays(store.weights(TRAINING), sample_weights())

    def test_nothing_is_known_of_what_was_never_committed(self, store: Store) -> None:
        assert store.training(TRAINING) is None
        assert store.evaluation(TRAINING, TASK) is None
        assert store.resume_state(TRAINING) is None
        with pytest.raises(StoreError):
            store.weights(TRAINING)
        with pytest.raises(StoreError):
            store.masks(TRAINING)
        with pytest.raises(StoreError):
            store.predictions(sample_evaluation())

    def test_trainings_are_kept_apart(self, store: Store) -> None:
        _commit(store)
        store.commit_training(sample_result(OTHER_TRAINING), weights=sample_weights(1), masks=sample_masks(1))
        assert_same_arrays(store.weights(TRAINING), sample_weights())
        assert_same_arrays(store.weights(OTHER_TRAINING), sample_weights(1))
        assert_same_arrays(store.masks(OTHER_TRAINING), sample_masks(1))

    def test_training_committed_twice_stays_the_first(self, store: Store) -> None:
        first = _commit(store)
        later = sample_result().model_copy(update={"seconds": {"train": 99.0}})
        assert store.commit_training(later, weights=sample_weights(), masks=sample_masks()) == first
        assert store.training(TRAINING) == first
        assert_same_arrays(store.weights(TRAINING), sample_weights())

    def test_evaluation_reads_back_as_committed(self, store: Store) -> None:
        committed = store.commit_evaluation(sample_evaluation(), predictions=sample_predictions())
        assert committed.predictions
        assert len(committed.sha256) == 64
        stated = {"predictions": committed.predictions, "sha256": committed.sha256}
        assert committed == sample_evaluation().model_copy(update=stated)
        assert store.evaluation(TRAINING, TASK) == committed
        assert_same_arrays(store.predictions(committed), sample_predictions())

    def test_evaluations_are_kept_apart(self, store: Store) -> None:
        for seed, (training_id, task) in enumerate([(TRAINING, TASK), (TRAINING, OTHER_TASK), (OTHER_TRAINING, TASK)]):
            given = sample_evaluation(training_id, task)
            store.commit_evaluation(given, predictions=sample_predictions(seed))
        for seed, (training_id, task) in enumerate([(TRAINING, TASK), (TRAINING, OTHER_TASK), (OTHER_TRAINING, TASK)]):
            stored = store.evaluation(training_id, task)
            assert stored is not None
            assert (stored.training, stored.task_fingerprint) == (training_id, task)
            assert_same_arrays(store.predictions(stored), sample_predictions(seed))
        assert store.evaluation(OTHER_TRAINING, OTHER_TASK) is None

    def test_evaluation_committed_twice_stays_the_first(self, store: Store) -> None:
        first = store.commit_evaluation(sample_evaluation(), predictions=sample_predictions())
        later = sample_evaluation().model_copy(update={"seconds": 99.0})
        assert store.commit_evaluation(later, predictions=sample_predictions()) == first
        assert_same_arrays(store.predictions(first), sample_predictions())

    def test_predictions_of_another_measurement_are_refused(self, store: Store) -> None:
        committed = store.commit_evaluation(sample_evaluation(), predictions=sample_predictions())
        with pytest.raises(StoreError):
            store.predictions(committed.model_copy(update={"sha256": "0" * 64}))
        assert store.evaluation(TRAINING, TASK) == committed

    def test_writers_of_one_id_at_once_leave_one_whole_training_and_evaluation(self, store: Store) -> None:
        def write(_: int) -> tuple[TrainingResult, Evaluation]:
            evaluation = store.commit_evaluation(sample_evaluation(), predictions=sample_predictions())
            return _commit(store), evaluation

        def read(_: int) -> None:
            if store.training(TRAINING) is not None:
                assert_same_arrays(store.weights(TRAINING), sample_weights())

        with ThreadPoolExecutor(8) as threads:
            writing = [threads.submit(write, index) for index in range(4)]
            reading = [threads.submit(read, index) for index in range(4)]
            outcomes = [future.result() for future in writing]
            for future in reading:
                future.result()
        stored = store.evaluation(TRAINING, TASK)
        assert stored is not None
        assert {training.checkpoint.sha256 for training, _ in outcomes} == {_commit(store).checkpoint.sha256}
        assert {evaluation.sha256 for _, evaluation in outcomes} == {stored.sha256}
        assert_same_arrays(store.weights(TRAINING), sample_weights())
        assert_same_arrays(store.masks(TRAINING), sample_masks())
        assert_same_arrays(store.predictions(stored), sample_predictions())

    def test_resume_state_is_replaced_as_a_whole(self, store: Store) -> None:
        state = {"epoch": 1, "best": None, "losses": [0.1 + 0.2, 1e-300], "name": "ü", "nested": {"is_on": True}}
        store.save_resume_state(TRAINING, {"epoch": 0}, {"old": np.zeros(3)})
        store.save_resume_state(TRAINING, state, sample_weights())
        found = store.resume_state(TRAINING)
        assert found is not None
        assert found[0] == state
        assert_same_arrays(found[1], sample_weights())
        assert store.training(TRAINING) is None
        assert store.resume_state(OTHER_TRAINING) is None

    def test_resume_state_goes_when_its_training_commits(self, store: Store) -> None:
        store.save_resume_state(TRAINING, {"epoch": 1}, sample_weights())
        store.save_resume_state(OTHER_TRAINING, {"epoch": 2}, {})
        _commit(store)
        assert store.resume_state(TRAINING) is None
        other = store.resume_state(OTHER_TRAINING)
        assert other is not None
        assert other[0] == {"epoch": 2}

    @pytest.mark.parametrize("hostile", HOSTILE_IDS)
    def test_ids_that_are_no_hash_are_refused(self, store: Store, hostile: str) -> None:
        calls: list[Callable[[], object]] = [
            lambda: store.training(hostile),
            lambda: store.weights(hostile),
            lambda: store.masks(hostile),
            lambda: store.commit_training(sample_result(hostile), weights={}, masks={}),
            lambda: store.evaluation(hostile, TASK),
            lambda: store.evaluation(TRAINING, hostile),
            lambda: store.predictions(sample_evaluation(hostile)),
            lambda: store.commit_evaluation(sample_evaluation(hostile), predictions={}),
            lambda: store.commit_evaluation(sample_evaluation(TRAINING, hostile), predictions={}),
            lambda: store.resume_state(hostile),
            lambda: store.save_resume_state(hostile, {}, {}),
        ]
        for call in calls:
            with pytest.raises(SpecError):
                call()

    def test_training_with_any_damaged_file_is_computed_again(self, store: Store, blobs: Blobs) -> None:
        committed = _commit(store)
        num_seen = 0
        for path, damaged in _damaged_files(blobs):
            _put(blobs, path, damaged)
            num_seen += _is_seen(partial(_read_training, store, committed))
            again = _commit(store)
            _read_training(store, again)  # as good as new, wherever the damage was
            committed = again
        assert num_seen > 0

    def test_evaluation_with_any_damaged_file_is_computed_again(self, store: Store, blobs: Blobs) -> None:
        committed = store.commit_evaluation(sample_evaluation(), predictions=sample_predictions())
        num_seen = 0
        for path, damaged in _damaged_files(blobs):
            _put(blobs, path, damaged)
            num_seen += _is_seen(partial(_read_evaluation, store, committed))
            committed = store.commit_evaluation(sample_evaluation(), predictions=sample_predictions())
            _read_evaluation(store, committed)
        assert num_seen > 0

    def test_damaged_resume_state_counts_as_absent(self, store: Store, blobs: Blobs) -> None:
        arrays = sample_weights()
        store.save_resume_state(TRAINING, {"epoch": 1}, arrays)
        num_absent = 0
        for path, damaged in _damaged_files(blobs):
            _put(blobs, path, damaged)
            found = store.resume_state(TRAINING)
            if found is None:
                num_absent += 1
            else:
                assert found[0] == {"epoch": 1}
                assert_same_arrays(found[1], arrays)
            store.save_resume_state(TRAINING, {"epoch": 1}, arrays)
        assert num_absent > 0


def _random_array(generator: np.random.Generator, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    if dtype == "bool":
        return generator.random(shape) < 0.5
    if dtype.startswith("float"):
        return generator.normal(size=shape).astype(dtype)
    limits = np.iinfo(dtype)
    return generator.integers(limits.min, limits.max, shape, dtype=dtype, endpoint=True)


def _commit(store: Store) -> TrainingResult:
    return store.commit_training(sample_result(), weights=sample_weights(), masks=sample_masks())


def _read_training(store: Store, expected: TrainingResult) -> None:
    """Read all of a training; whatever is returned must be right."""
    found = store.training(TRAINING)
    if found is None:
        raise StoreError("absent")
    assert found == expected
    assert_same_arrays(store.weights(TRAINING), sample_weights())
    assert_same_arrays(store.masks(TRAINING), sample_masks())


def _read_evaluation(store: Store, expected: Evaluation) -> None:
    found = store.evaluation(TRAINING, TASK)
    if found is None:
        raise StoreError("absent")
    assert found == expected
    assert_same_arrays(store.predictions(found), sample_predictions())


def _is_seen(read: Callable[[], None]) -> bool:
    """True if the store said that something is wrong, false if all that it returned was right."""
    try:
        read()
    except StoreError:
        return True
    return False


def _damaged_files(blobs: Blobs) -> Iterator[tuple[str, bytes | None]]:
    """Each file that lies there now: gone, empty, cut in two, and with a bit flipped early, amid and late."""
    for path in blobs.list():
        whole = blobs.read(path)
        assert whole is not None
        yield path, None
        yield path, b""
        yield path, whole[: len(whole) // 2]
        for position in sorted({0, len(whole) // 2, len(whole) - 1} - {-1}):
            yield path, whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :]


def _put(blobs: Blobs, path: str, data: bytes | None) -> None:
    if data is None:
        blobs.delete(path)
    else:
        blobs.write(path, data)
