"""Pickled batches of a stranger: read, or refused in a line. Rebuilt by numpy, some of these would end the process."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raypruning.datasets.cifar_files import read_pickle
from raypruning.errors import DataError

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 3072), dtype=np.uint8)
BATCH = pickle.dumps({"data": PIXELS, "labels": [3, 1, 0, 2]}, protocol=2)


class Calls:
    """Pickled as a call, and a state that the result is given."""

    def __init__(self, *parts: Any) -> None:
        self.parts = parts

    def __reduce__(self) -> tuple[Any, ...]:
        return self.parts


def array(*, kind: Any = "|u1", state: Any = None, raw: Any = b"\0" * 3072, shape: Any = (1, 3072)) -> Calls:
    """An array as numpy pickles one, with parts of it replaced."""
    dtype = kind if isinstance(kind, Calls) else Calls(np.dtype, (kind[1:], False, True), state or (3, kind[0]))
    return Calls(np._core.multiarray._reconstruct, (np.ndarray, (0,), b"b"), (1, shape, dtype, False, raw))


def written(folder: Path, content: object) -> Path:
    path = folder / "batch"
    path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content, protocol=2))
    return path


def test_batch_reads_back(tmp_path: Path):
    found = read_pickle(written(tmp_path, BATCH), "labels")
    assert found.images_NCHW.tobytes() == PIXELS.tobytes()
    assert found.labels_N.tolist() == [3, 1, 0, 2]


@pytest.mark.parametrize("kind", ["<i8", ">i4", "|u1"])
def test_labels_may_be_an_array_of_any_integers(kind: str, tmp_path: Path):
    labels = np.array([3, 1, 0, 2], kind)
    path = written(tmp_path, {"data": np.asfortranarray(PIXELS), "labels": labels})
    found = read_pickle(path, "labels")
    assert found.labels_N.tolist() == [3, 1, 0, 2]
    assert found.images_NCHW.tobytes() == PIXELS.tobytes()


@pytest.mark.parametrize(
    "data",
    [
        array(kind="|O8"),  # 3072 bytes as pointers
        array(kind="|u1", state=(3, "|", None, None, None, 1 << 30, 1 << 30, 63)),
        array(shape=(1 << 40, 3072)),
        array(shape=(-1, 3072)),
        array(raw=b"\0"),
        array(raw=[np.nan]),
        array(kind=Calls(np.dtype, ("u1", False, True))),
        Calls(np._core.multiarray._reconstruct, (np.ndarray, (1 << 45,), b"b")),
        Calls(np.dtype, ("u1", False, True), (3, "|")),
        [[[0]]],
        "text",
        None,
    ],
    ids=[
        *(
            "pointers",
            "state too long",
            "too large",
            "negative shape",
            "too few bytes",
            "bytes of a list",
            "call for a kind",
        ),
        *("a call", "no array", "a list", "text", "none"),
    ],
)
def test_array_that_is_none_is_refused(data: object, tmp_path: Path):
    path = written(tmp_path, {"data": data, "labels": [0]})
    try:
        found = read_pickle(path, "labels")
    except DataError as error:
        assert "is not a CIFAR batch" in str(error)
        assert "\n" not in str(error)
    else:  # What a type says beside its name and byte order does not count.
        assert found.images_NCHW.shape == (1, 3, 32, 32)


def test_labels_that_hold_themselves_many_times_are_refused_unfolded(tmp_path: Path):
    labels: list[Any] = [0]
    for _ in range(50):
        labels = [labels, labels]
    with pytest.raises(DataError, match="no list of integers"):
        read_pickle(written(tmp_path, {"data": PIXELS, "labels": labels}), "labels")


def test_pickle_that_wants_memory_for_what_is_not_there_is_refused(tmp_path: Path):
    # Puts None into place 2^31 of the memo: 34 GB in the unpickler of the interpreter.
    path = written(tmp_path, b"\x80\x02Nr\xff\xff\xff\x7f.")
    with pytest.raises(DataError, match="is not a CIFAR batch"):
        read_pickle(path, "labels")


def test_pickle_cannot_change_what_the_next_one_is_read_with(tmp_path: Path):
    # Sets attributes of what it gets for `_reconstruct`.
    hostile = b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n}X\x05\x00\x00\x00_callNs\x86b."
    with pytest.raises(DataError):
        read_pickle(written(tmp_path, hostile), "labels")
    assert read_pickle(written(tmp_path, BATCH), "labels").labels_N.tolist() == [3, 1, 0, 2]


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.lists(
        st.tuples(st.integers(-150, 350), st.integers(0, 255)), min_size=1, max_size=4
    )  # of what stands around the pixels
)
def test_damaged_batch_is_read_or_refused(changes: list[tuple[int, int]], tmp_path: Path):
    content = bytearray(BATCH)
    for place, value in changes:
        content[place] = value
    try:
        found = read_pickle(written(tmp_path, bytes(content)), "labels")
    except DataError as error:
        assert "\n" not in str(error)
    else:
        assert found.images_NCHW.dtype == np.uint8
        assert len(found.images_NCHW) == len(found.labels_N)
