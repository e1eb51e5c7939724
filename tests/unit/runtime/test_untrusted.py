"""A store that somebody else wrote: refused or set aside, never believed, and nothing outside it touched."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from raypruning.errors import RaypruningError, SpecError, StoreError
from raypruning.runtime import untrusted
from raypruning.runtime.array_files import decode, decode_masks, encode, encode_masks
from raypruning.runtime.blobs import open_blobs
from raypruning.runtime.store import ObjectStore, open_store
from raypruning.runtime.untrusted import TooLargeError, parse_json
from raypruning.testing.store_contract import (
    OTHER_TRAINING,
    TASK,
    TRAINING,
    assert_same_arrays,
    sample_evaluation,
    sample_masks,
    sample_predictions,
    sample_result,
    sample_weights,
)

FOLDER = f"trainings/{TRAINING}"
COMMIT, EVALUATION = f"{FOLDER}/training.json", f"{FOLDER}/evaluations/{TASK}.json"
WEIGHTS, MASKS = f"{FOLDER}/weights.safetensors", f"{FOLDER}/masks.safetensors"
PREDICTIONS = f"{FOLDER}/evaluations/{TASK}.safetensors"
RESUME = f"trainings/{OTHER_TRAINING}/resume/state.safetensors"
FILES = [COMMIT, EVALUATION, WEIGHTS, MASKS, PREDICTIONS, RESUME]
RESUMED = {"epoch": 3}
# Where a sync costs nothing: each example has a copy of a store.
MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None


def write_store(root: Path) -> ObjectStore:
    store = open_store(str(root))
    store.commit_training(sample_result(), weights=sample_weights(), masks=sample_masks())
    store.commit_evaluation(sample_evaluation(), predictions=sample_predictions())
    store.save_resume_state(OTHER_TRAINING, RESUMED, sample_weights())
    store.write_sweep_file("mine", "spec.json", b"{}")
    return store


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A storage with one of everything, to be copied."""
    root = tmp_path_factory.mktemp("valid") / "storage"
    write_store(root)
    assert all((root / path).is_file() for path in FILES)
    return root


@pytest.fixture
def root(valid: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(valid, tmp_path / "storage"))


def readings(store: ObjectStore) -> list[Callable[[], object]]:
    """Everything that reads a store."""

    def predictions() -> object:
        evaluation = store.evaluation(TRAINING, TASK)
        return evaluation and store.predictions(evaluation)

    return [
        store.training_ids,
        store.unfinished_ids,
        store.sweep_names,
        lambda: store.evaluation_fingerprints(TRAINING),
        lambda: store.training(TRAINING),
        lambda: store.evaluation(TRAINING, TASK),
        predictions,
        lambda: store.weights(TRAINING),
        lambda: store.masks(TRAINING),
        lambda: store.resume_state(OTHER_TRAINING),
        lambda: store.training_files(TRAINING),
        lambda: store.read_sweep_file("mine", "spec.json"),
        store.damaged_files,
        store.size,
        lambda: store.clean(older_than_seconds=-1.0),
    ]


def read_all(store: ObjectStore) -> list[object]:
    """What each reading gives; None where it raised an error of ours, in one line."""
    found: list[object] = []
    for read in readings(store):
        try:
            found.append(read())
        except RaypruningError as error:
            assert "\n" not in str(error)
            found.append(None)
    return found


def as_read(value: object) -> object:
    """Comparable to the bit, also where there are arrays and NaN in it."""
    if isinstance(value, np.ndarray):
        return (value.dtype.str, value.shape, value.tobytes())
    if isinstance(value, dict):
        return {key: as_read(one) for key, one in value.items()}
    return tuple(map(as_read, value)) if isinstance(value, tuple | list) else value


# What stands in the readings of a whole store, up to those that tell of the folder rather than of its content.
CONTENT = slice(4, 11)


@pytest.fixture(scope="module")
def original(valid: Path) -> Iterator[list[object]]:
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        found = read_all(open_store(shutil.copytree(valid, f"{folder}/storage")))
        assert None not in found
        yield [as_read(one) for one in found[CONTENT]]


def sealed(body: dict[str, Any]) -> bytes:
    """A document whose checksum is right, as whoever can write to the storage can make it."""
    body = {key: value for key, value in body.items() if key != "sha256"}
    text = json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
    return json.dumps({"sha256": hashlib.sha256(text).hexdigest(), **body}).encode()


# -- damage: never believed


positions = st.floats(0, 1, exclude_max=True)
damages = st.one_of(
    st.tuples(st.just("flip"), positions, st.integers(1, 255)),
    st.tuples(st.just("cut"), positions, st.just(0)),
    st.tuples(st.just("insert"), positions, st.binary(min_size=1, max_size=20)),
    st.tuples(st.just("replace"), st.just(0.0), st.binary(max_size=200)),
)


def damaged(data: bytes, damage: tuple[str, float, Any]) -> bytes:
    kind, where, what = damage
    place = int(where * len(data))
    if kind == "flip":
        return data[:place] + bytes([data[place] ^ what]) + data[place + 1 :]
    return {"cut": data[:place], "insert": data[:place] + bytes(what or b"") + data[place:], "replace": what}[kind]


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.sampled_from(FILES), damage=damages)
def test_damaged_file_gives_what_was_written_or_nothing(
    path: str, damage: tuple[str, float, Any], valid: Path, original: list[object]
):
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        place = Path(shutil.copytree(valid, f"{folder}/storage"), path)
        place.write_bytes(damaged(place.read_bytes(), damage))
        found = [as_read(one) for one in read_all(open_store(f"{folder}/storage"))[CONTENT]]
    assert all(one is None or one == whole for one, whole in zip(found, original, strict=True))


# -- forgery: whoever can write can also make checksums fit


strange = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**80), 2**80),
    st.floats(),  # NaN and the infinities with them
    st.sampled_from(["../../outside", "/etc/passwd", "s3://elsewhere/x", "\x1b[2J", "\ud800", "NaN", "", "x" * 5000]),
    st.just([]),
    st.just({}),
    st.just({"..": {"..": []}}),
)


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of all values in a JSON value, containers with them."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path] * bool(path) + [one for key, item in inside for one in leaves(item, (*path, key))]


def put(value: Any, path: tuple[Any, ...], new: object) -> None:
    for key in path[:-1]:
        value = value[key]
    value[path[-1]] = new


def numbers(value: object) -> list[float]:
    if isinstance(value, dict):
        return [one for item in value.values() for one in numbers(item)]
    if isinstance(value, tuple | list):
        return [one for item in value for one in numbers(item)]
    return [value] if isinstance(value, float) else []


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.sampled_from([COMMIT, EVALUATION]), choice=positions, new=strange)
def test_forged_document_is_refused_or_has_numbers_and_no_other_place(path: str, choice: float, new: Any, valid: Path):
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        place = Path(shutil.copytree(valid, f"{folder}/storage"), path)
        body = json.loads(place.read_text())
        places = leaves(body)
        put(body, places[int(choice * len(places))], new)
        place.write_bytes(sealed(body))
        store = open_store(f"{folder}/storage")
        result, evaluation = store.training(TRAINING), store.evaluation(TRAINING, TASK)
        if result is not None:
            assert result.checkpoint.uri == WEIGHTS
            assert all(map(math.isfinite, numbers(result.model_dump())))
        if evaluation is not None:
            assert evaluation.predictions == PREDICTIONS
            assert 0 <= evaluation.error <= 1
            assert all(map(math.isfinite, numbers(evaluation.model_dump())))
        read_all(store)
        assert os.listdir(folder) == ["storage"]


sizes = st.one_of(st.integers(-2, 20), st.sampled_from([2**31, 2**62, 2**63, 2**64, 2**70]))
headers = st.dictionaries(
    st.one_of(st.sampled_from(["__metadata__", "fc.weight", "note"]), st.text(max_size=5)),
    st.one_of(
        st.fixed_dictionaries(
            {
                "dtype": st.sampled_from(["F32", "U8", "BOOL", "BF16", "F8_E4M3", "F4", "X"]),
                "shape": st.lists(sizes, max_size=4),
                "data_offsets": st.lists(sizes, min_size=2, max_size=2),
            }
        ),
        st.dictionaries(st.sampled_from(["note", "format"]), st.text(max_size=10), max_size=2),
    ),
    max_size=3,
)


@settings(max_examples=300)
@given(header=headers, length=st.one_of(st.none(), st.integers(0, 2**64 - 1)), body=st.binary(max_size=64))
def test_any_header_of_arrays_is_decoded_or_refused(header: dict[str, Any], length: int | None, body: bytes):
    text = json.dumps(header).encode()
    data = (len(text) if length is None else length).to_bytes(8, "little") + text + body
    try:
        contents = decode(data)
    except ValueError as error:
        assert "is not a safetensors file" in str(error)
    else:
        assert sum(array.nbytes for array in contents.arrays.values()) <= len(body)


@settings(max_examples=200)
@given(
    shapes=st.dictionaries(st.sampled_from(["a", "b"]), st.one_of(st.lists(sizes, max_size=4), strange), max_size=2),
    num_bytes=st.integers(0, 4),
)
def test_masks_of_any_shape_are_as_many_bits_as_there_are_or_refused(shapes: dict[str, Any], num_bytes: int):
    contents = decode(encode({"a": np.full(num_bytes, 255, np.uint8)}))._replace(note={"shapes": shapes})
    try:
        masks = decode_masks(contents)
    except ValueError:
        return
    (mask,) = masks.values()
    assert (mask.size + 7) // 8 == num_bytes
    assert mask.all()


def test_masks_read_back():
    masks = sample_masks()
    assert_same_arrays(decode_masks(decode(encode_masks(masks))), masks)


def test_masks_with_bits_of_another_type_are_refused():
    contents = decode(encode({"a": np.full(1, 255, np.int64)}, {"shapes": {"a": [8]}}))
    with pytest.raises(ValueError, match="has other bits"):
        decode_masks(contents)


def test_forged_masks_that_would_fill_the_memory_are_refused(root: Path):
    forged = save(
        {"fc": np.zeros(1, np.uint8)}, metadata={"note": json.dumps({"shapes": {"fc": [2**20, 2**20, 2**10]}})}
    )
    (root / MASKS).write_bytes(forged)
    body = json.loads((root / COMMIT).read_text())
    body["masks_sha256"] = hashlib.sha256(forged).hexdigest()
    (root / COMMIT).write_bytes(sealed(body))
    with pytest.raises(StoreError, match="has other bits"):
        open_store(str(root)).masks(TRAINING)


# -- JSON


@pytest.mark.parametrize(
    "text",
    [
        "NaN",
        "[-Infinity]",
        '{"a": Infinity}',
        "1e999",
        "[" * 100_000,
        "9" * 5000,
        '"\\ud800"',
        "",
        "{",
        "nul",
    ],
)
def test_text_that_is_no_json_of_the_standard_is_refused(text: str):
    with pytest.raises(ValueError):
        parse_json(text.encode())


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=10,
    )
)
def test_json_of_the_standard_reads_back(value: object):
    assert parse_json(json.dumps(value).encode()) == value
    assert parse_json(json.dumps(value, ensure_ascii=False).encode()) == value


def test_json_that_is_too_long_is_not_parsed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(untrusted, "MAX_JSON_BYTES", 5)
    assert parse_json(b"[1,2]") == [1, 2]
    with pytest.raises(ValueError, match="6 bytes of JSON are more than 5"):
        parse_json(b"[1,2] ")


# -- files that are none, or too many bytes


@pytest.mark.parametrize("path", [COMMIT, EVALUATION])
def test_enormous_document_is_set_aside_unread(path: str, root: Path, caplog: pytest.LogCaptureFixture):
    os.truncate(root / path, untrusted.MAX_JSON_BYTES + 1)  # A file with a hole: it takes no space.
    store = open_store(str(root))
    found = store.training(TRAINING) if path == COMMIT else store.evaluation(TRAINING, TASK)
    assert found is None
    assert "it is not read; counts as absent, moved to damaged/" in caplog.text
    assert not (root / path).exists()


@pytest.mark.parametrize("where", ["local", "s3"])
def test_file_beyond_its_limit_is_not_read(where: str, tmp_path: Path):
    if where == "local":
        blobs = open_blobs(str(tmp_path))
    else:
        from pyarrow.fs import _MockFileSystem

        from raypruning.runtime.blobs import S3Blobs

        filesystem = _MockFileSystem()
        filesystem.create_dir("bucket")
        blobs = S3Blobs("s3://bucket", filesystem=filesystem)
    blobs.write("x", b"12345")
    assert blobs.read("x", at_most=5) == b"12345"
    with pytest.raises(TooLargeError, match=r"x has 5 bytes, and no such file has more than 4: it is not read"):
        blobs.read("x", at_most=4)


@pytest.mark.parametrize("path", [COMMIT, EVALUATION, WEIGHTS, RESUME])
def test_pipe_in_place_of_a_file_is_not_waited_for(path: str, root: Path):
    (root / path).unlink()
    os.mkfifo(root / path)
    read_all(open_store(str(root)))
    assert open_blobs(str(root)).read(path) is None


@pytest.mark.parametrize("target", ["outside/secret", "outside", "storage", "nowhere", "{self}"])
@pytest.mark.parametrize("path", [COMMIT, EVALUATION, WEIGHTS, RESUME, FOLDER, "sweeps/mine", "damaged"])
def test_link_in_a_store_reads_and_changes_nothing_outside_it(path: str, target: str, root: Path, tmp_path: Path):
    secret = tmp_path / "outside" / "secret"
    secret.parent.mkdir()
    secret.write_bytes((root / COMMIT).read_bytes())
    place = root / path
    shutil.rmtree(place, ignore_errors=True)
    place.unlink(missing_ok=True)
    place.symlink_to(place if target == "{self}" else tmp_path / target)
    store = open_store(str(root))
    before = secret.stat()
    read_all(store)
    for write in (
        lambda: store.commit_training(sample_result(), weights=sample_weights(), masks=sample_masks()),
        lambda: store.write_sweep_file("mine", "report.html", b""),
        lambda: store.delete_training(TRAINING),
        lambda: store.delete_sweep("mine"),
    ):
        try:
            write()
        except RaypruningError as error:
            assert "\n" not in str(error)
    assert [path.name for path in secret.parent.iterdir()] == ["secret"]
    assert (secret.stat().st_size, secret.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def test_link_that_leaves_the_store_is_named(root: Path, tmp_path: Path):
    (tmp_path / "elsewhere.json").write_bytes((root / COMMIT).read_bytes())
    (root / COMMIT).unlink()
    (root / COMMIT).symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(SpecError, match=r"training\.json is a link that leaves the storage"):
        open_store(str(root)).training(TRAINING)


def test_cleaning_unlinks_a_leftover_link_and_leaves_its_folder_alone(root: Path, tmp_path: Path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_bytes(bytes(1_000_000))
    (root / ".tmp-link").symlink_to(tmp_path / "outside")
    assert open_store(str(root)).clean(older_than_seconds=-1.0) < 1_000_000
    assert not (root / ".tmp-link").is_symlink()
    assert (tmp_path / "outside" / "file").stat().st_size == 1_000_000


# -- names


def test_names_that_nothing_of_ours_has_are_passed_over(root: Path):
    for name in ("a\nb", "\x1b[2J", "-rf", "x" * 150, "..."):
        (root / "sweeps" / name).mkdir()
        (root / "sweeps" / name / "spec.json").write_text("{}")
        (root / FOLDER / "evaluations" / f"{name}.json").write_text("{}")
        (root / "trainings" / name).mkdir()
        (root / "trainings" / name / "training.json").write_text("{}")
    store = open_store(str(root))
    assert store.sweep_names() == ["mine"]
    assert store.training_ids() == [TRAINING]
    assert store.unfinished_ids() == [OTHER_TRAINING]
    assert store.evaluation_fingerprints(TRAINING) == [TASK]


@pytest.mark.parametrize("name", ["../../x", "..", "a/b", "/x", "a\0b", "", "a\nb"])
def test_sweep_by_a_name_that_leads_out_is_refused(name: str, root: Path):
    store = open_store(str(root))
    for call in (
        lambda: store.read_sweep_file(name, "spec.json"),
        lambda: store.write_sweep_file(name, "spec.json", b""),
        lambda: store.delete_sweep(name),
        lambda: store.read_sweep_file("mine", f"../{name}"),
    ):
        with pytest.raises(SpecError):
            call()
    assert [path.name for path in root.parent.iterdir()] == ["storage"]


def test_stray_file_with_a_name_of_no_kind_does_not_stop_what_is_damaged_from_counting_as_absent(root: Path):
    (root / FOLDER / "a\\b").write_bytes(b"")
    (root / COMMIT).write_bytes(b"{}")
    store = open_store(str(root))
    assert store.training(TRAINING) is None
    assert not (root / COMMIT).exists()


@pytest.mark.parametrize(
    ("path", "keys", "value"),
    [
        (COMMIT, ("result", "checkpoint", "uri"), "trainings/../../outside/weights.safetensors"),
        (COMMIT, ("result", "checkpoint", "uri"), "s3://elsewhere/weights.safetensors"),
        (EVALUATION, ("evaluation", "predictions"), "/etc/passwd"),
    ],
)
def test_document_that_names_another_place_counts_as_damaged(
    path: str, keys: tuple[str, ...], value: str, root: Path, caplog: pytest.LogCaptureFixture
):
    body = json.loads((root / path).read_text())
    put(body, keys, value)
    (root / path).write_bytes(sealed(body))
    store = open_store(str(root))
    assert (store.training(TRAINING) if path == COMMIT else store.evaluation(TRAINING, TASK)) is None
    assert f"are said to be elsewhere: {value!r}" in caplog.text
