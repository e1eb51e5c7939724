"""Our store on a local folder and on S3 (a moto server on the loopback interface), against the shipped contract."""

from __future__ import annotations

import errno
import json
import logging
import os
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from raypruning.errors import ResourceError, SpecError, StoreError
from raypruning.runtime.blobs import Blobs, LocalBlobs, S3Blobs, open_blobs
from raypruning.runtime.store import ObjectStore, open_store
from raypruning.testing.store_contract import (
    DTYPES,
    OTHER_TASK,
    OTHER_TRAINING,
    TASK,
    TRAINING,
    StoreContract,
    assert_same_arrays,
    sample_evaluation,
    sample_masks,
    sample_predictions,
    sample_result,
    sample_weights,
)

BUCKET = "sweeps"


@pytest.fixture(scope="module")
def s3_address() -> Iterator[str]:
    """host:port of an S3 server in this process, with one empty bucket."""
    from moto.server import ThreadedMotoServer
    from pyarrow.fs import S3FileSystem

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server.start()
    try:
        host, port = server.get_host_and_port()
        S3FileSystem(
            access_key="testing",
            secret_key="testing",
            endpoint_override=f"{host}:{port}",
            scheme="http",
            region="us-east-1",
            allow_bucket_creation=True,
        ).create_dir(BUCKET)
        yield f"{host}:{port}"
    finally:
        server.stop()


@pytest.fixture
def s3_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def s3_uri(s3_address: str, s3_environment: None) -> str:
    options = f"endpoint_override={quote(f'http://{s3_address}', safe='')}&region=us-east-1"
    return f"s3://{BUCKET}/it's%20{uuid.uuid4().hex}?{options}"


class OurStoreContract(StoreContract):
    @pytest.fixture
    def blobs(self, store: ObjectStore) -> Blobs:
        return open_blobs(store.uri)


class TestLocalStore(OurStoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> ObjectStore:
        return open_store(str(tmp_path / "storage"))


class TestLocalStoreAtAnOddPath(OurStoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> ObjectStore:
        return open_store(str(tmp_path / 'it\'s a "store", 50%20 #1?x=ü\\'))


class TestS3Store(OurStoreContract):
    @pytest.fixture
    def store(self, s3_uri: str) -> ObjectStore:
        return open_store(s3_uri)


@pytest.fixture(params=["local", "s3"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    return open_blobs(str(tmp_path / "storage") if request.param == "local" else request.getfixturevalue("s3_uri"))


@pytest.fixture
def store(blobs: Blobs) -> ObjectStore:
    return ObjectStore(blobs)


def commit(store: ObjectStore, training_id: str = TRAINING) -> None:
    store.commit_training(sample_result(training_id), weights=sample_weights(), masks=sample_masks())
    store.commit_evaluation(sample_evaluation(training_id), predictions=sample_predictions())


# Bytes


def test_blobs_read_what_was_written_and_replaced(blobs: Blobs) -> None:
    blobs.write("a/b c/d'\".bin", b"one")
    blobs.write("a/b c/d'\".bin", b"two")
    assert blobs.read("a/b c/d'\".bin") == b"two"
    assert blobs.exists("a/b c/d'\".bin")
    assert not blobs.exists("a/b c")
    assert blobs.read("a/b c") is None
    assert blobs.read("absent") is None
    assert blobs.read("a/b c/d'\".bin/below") is None


def test_blobs_list_size_move_and_delete(blobs: Blobs) -> None:
    for path in ("a/x/1", "a/x/2", "a/y", "ab/z"):
        blobs.write(path, path.encode())
    assert blobs.list() == ["a/x/1", "a/x/2", "a/y", "ab/z"]
    assert blobs.list("a") == ["a/x/1", "a/x/2", "a/y"]
    assert blobs.list("absent") == []
    assert blobs.list_folders() == ["a", "ab"]
    assert blobs.list_folders("a") == ["x"]
    assert blobs.list_folders("absent") == []
    assert (blobs.size("a/y"), blobs.size("a"), blobs.size(), blobs.size("absent")) == (3, 13, 17, None)
    blobs.move("a/x/1", "moved/1")
    blobs.move("absent", "moved/2")
    blobs.delete("a/y")
    blobs.delete("absent")
    assert blobs.list() == ["a/x/2", "ab/z", "moved/1"]
    assert blobs.read("moved/1") == b"a/x/1"
    blobs.delete_tree("a")
    blobs.delete_tree("absent")
    assert blobs.list() == ["ab/z", "moved/1"]


@pytest.mark.parametrize("num_bytes", [0, 1, 11 * 2**20])  # pyarrow cuts uploads into parts of 10 MiB
def test_blobs_of_any_size_read_back(blobs: Blobs, num_bytes: int) -> None:
    data = np.random.default_rng(0).bytes(num_bytes)
    blobs.write("large", data)
    assert blobs.read("large") == data
    assert blobs.size("large") == num_bytes


@pytest.mark.parametrize("path", ["..", "../x", "/x", "a/../../x", "a//b", "./a", "a\0b", "a\\b", "a/", ".tmp-x"])
def test_blobs_refuse_paths_that_leave_the_root(blobs: Blobs, path: str) -> None:
    calls: list[Callable[[], object]] = [
        lambda: blobs.read(path),
        lambda: blobs.write(path, b""),
        lambda: blobs.delete(path),
        lambda: blobs.delete_tree(path),
        lambda: blobs.move(path, "x"),
        lambda: blobs.list(path),
    ]
    for call in calls:
        with pytest.raises(SpecError):
            call()


def test_whole_root_is_never_deleted(blobs: Blobs) -> None:
    blobs.write("x", b"")
    with pytest.raises(SpecError):
        blobs.delete_tree("")
    assert blobs.exists("x")


def test_links_that_leave_the_root_are_refused(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_bytes(b"secret")
    blobs = open_blobs(str(tmp_path / "storage"))
    Path(blobs.uri, "trainings").symlink_to(tmp_path / "outside")
    Path(blobs.uri, "file").symlink_to(tmp_path / "outside" / "secret")
    for call in (
        lambda: blobs.read("trainings/secret"),
        lambda: blobs.read("file"),
        lambda: blobs.write("trainings/new", b""),
        lambda: blobs.delete_tree("trainings"),
    ):
        with pytest.raises(SpecError, match="leaves the storage"):
            call()
    assert blobs.list("") == ["file"]  # a name only; folders behind links are not walked
    assert sorted(os.listdir(tmp_path / "outside")) == ["secret"]


def test_root_may_itself_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "storage").symlink_to(tmp_path / "disk")
    open_blobs(str(tmp_path / "storage")).write("x", b"1")
    assert (tmp_path / "disk" / "x").read_bytes() == b"1"


# Addresses


def test_local_addresses_name_absolute_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert open_blobs("relative").uri == str(tmp_path / "relative")
    assert open_blobs("~/sweeps").uri == str(tmp_path / "home" / "sweeps")
    assert open_blobs(f"file://{tmp_path}/with%20space").uri == str(tmp_path / "with space")
    assert open_blobs(f"{tmp_path}/with%20percent").uri == f"{tmp_path}/with%20percent"


@pytest.mark.parametrize(
    "uri",
    ["", "gs://bucket/x", "https://host/x", "file://host/x", "s3://", "s3://key:word@bucket/x", "s3://b/x?colour=red"],
)
def test_other_addresses_are_refused_in_one_line(uri: str) -> None:
    with pytest.raises(SpecError) as raised:
        open_blobs(uri)
    assert "\n" not in str(raised.value)
    assert "word" not in str(raised.value)


def test_s3_server_may_be_named_by_the_environment(
    s3_address: str, s3_environment: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{s3_address}")
    prefix = uuid.uuid4().hex
    open_blobs(f"s3://{BUCKET}/{prefix}").write("x", b"1")
    options = f"endpoint_override={quote(f'http://{s3_address}', safe='')}"
    assert open_blobs(f"s3://{BUCKET}/{prefix}?{options}").read("x") == b"1"
    assert open_blobs(f"s3://{BUCKET}?endpoint_override={s3_address}&scheme=http").read(f"{prefix}/x") == b"1"


def test_bucket_that_is_not_there_is_told_at_once(s3_address: str, s3_environment: None) -> None:
    with pytest.raises(ResourceError, match="cannot be written") as raised:
        open_blobs(f"s3://no-such-bucket/x?endpoint_override={quote(f'http://{s3_address}', safe='')}")
    assert "\n" not in str(raised.value)


def test_root_that_is_a_file_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ResourceError, match="not a folder") as raised:
            open_blobs(str(path))
        assert str(path) in str(raised.value)
        assert "\n" not in str(raised.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_root_without_permission_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(ResourceError, match="Permission denied"):
        open_blobs(str(tmp_path / "locked" / "storage"))


def test_full_disk_at_the_start_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", _no_space)
    with pytest.raises(ResourceError, match="No space left"):
        open_blobs(str(tmp_path))


def test_read_only_root_is_neither_made_nor_written(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "absent"), read_only=True)
    assert store.training(TRAINING) is None
    assert store.training_ids() == []
    assert not (tmp_path / "absent").exists()


# Writing that fails


def _no_space(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_full_disk_leaves_the_old_bytes_and_no_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blobs = open_blobs(str(tmp_path))
    blobs.write("folder/x", b"old")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", _no_space)
        with pytest.raises(StoreError, match="No space left") as raised:
            blobs.write("folder/x", b"new")
    assert str(tmp_path / "folder" / "x") in str(raised.value)
    assert os.listdir(tmp_path / "folder") == ["x"]
    assert blobs.read("folder/x") == b"old"


def test_leftovers_of_killed_writers_are_hidden_and_cleaned_when_old(tmp_path: Path) -> None:
    blobs = open_blobs(str(tmp_path))
    blobs.write("folder/x", b"123")
    (tmp_path / "folder" / ".tmp-killed").write_bytes(b"12345")
    (tmp_path / ".tmp-tree" / "below").mkdir(parents=True)
    (tmp_path / ".tmp-tree" / "below" / "y").write_bytes(b"1234567")
    assert blobs.list() == ["folder/x"]
    assert blobs.list_folders() == ["folder"]
    assert blobs.size() == 3
    assert blobs.clean() == 0  # young: perhaps of a writer at work
    assert blobs.clean(older_than_seconds=-1.0) == 12
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["folder", "x"]


def test_readers_of_a_file_that_is_being_replaced_see_one_of_its_versions(tmp_path: Path) -> None:
    blobs = open_blobs(str(tmp_path))
    versions = [bytes([index]) * 2**20 for index in range(10)]
    blobs.write("x", versions[0])
    with ThreadPoolExecutor(1) as thread:
        writing = thread.submit(lambda: [blobs.write("x", version) for version in versions * 5])
        while not writing.done():
            assert blobs.read("x") in versions
        writing.result()


class FlakyFilesystem:
    """A pyarrow file system whose first requests fail with a given message."""

    def __init__(self, inner: object, message: str, num_failures: int) -> None:
        self.inner, self.message, self.num_failures, self.num_requests = inner, message, num_failures, 0

    def __getattr__(self, name: str) -> Callable[..., object]:
        def request(*arguments: object, **options: object) -> object:
            self.num_requests += 1
            if self.num_requests <= self.num_failures:
                raise OSError(self.message)
            return getattr(self.inner, name)(*arguments, **options)

        return request


SLOW_DOWN = "When reading: AWS Error SLOW_DOWN during GetObject operation: Please reduce\nyour request rate."
DENIED = "When reading: AWS Error ACCESS_DENIED during GetObject operation: Access Denied"


@pytest.fixture
def inner() -> object:
    from pyarrow.fs import _MockFileSystem

    mock = _MockFileSystem()
    mock.create_dir("bucket")
    return mock


def test_s3_request_that_fails_once_is_sent_again(inner: object) -> None:
    flaky = FlakyFilesystem(inner, SLOW_DOWN, num_failures=1)
    blobs = S3Blobs("s3://bucket", filesystem=flaky)
    blobs.write("x", b"1")
    assert flaky.num_requests == 2
    assert blobs.read("x") == b"1"


def test_s3_request_that_keeps_failing_ends_in_one_line(inner: object) -> None:
    blobs = S3Blobs("s3://bucket", filesystem=FlakyFilesystem(inner, SLOW_DOWN, 1000), patience_seconds=0.3)
    with pytest.raises(StoreError, match="SLOW_DOWN") as raised:
        blobs.read("x")
    assert "\n" not in str(raised.value)


def test_s3_request_that_is_denied_is_not_sent_again(inner: object) -> None:
    flaky = FlakyFilesystem(inner, DENIED, num_failures=1000)
    with pytest.raises(ResourceError, match="ACCESS_DENIED"):
        S3Blobs("s3://bucket", filesystem=flaky).read("x")
    assert flaky.num_requests == 1


def test_s3_server_that_does_not_answer_is_a_store_error(s3_environment: None) -> None:
    blobs = S3Blobs("s3://bucket?endpoint_override=http%3A%2F%2F127.0.0.1%3A1", patience_seconds=0.1)
    with pytest.raises(StoreError, match="NETWORK_CONNECTION"):
        blobs.read("x")


# A kill at any moment


class KilledError(BaseException):
    """Stands for SIGKILL: nothing may catch it."""


class MortalBlobs:
    """Passes operations on, and dies before the one that follows `num_changes` changes."""

    CHANGES = ("write", "move", "delete", "delete_tree")

    def __init__(self, inner: Blobs, num_changes: int) -> None:
        self.inner, self.num_left, self.uri = inner, num_changes, inner.uri

    def __getattr__(self, name: str) -> Callable[..., object]:
        if name in self.CHANGES:
            if self.num_left == 0:
                raise KilledError
            self.num_left -= 1
        return getattr(self.inner, name)


def named_arrays(dtypes: tuple[str, ...]) -> st.SearchStrategy[dict[str, np.ndarray]]:
    names = st.text(st.characters(exclude_categories=["Cs"]), max_size=8).filter(lambda name: name != "__metadata__")
    arrays = st.sampled_from(dtypes).flatmap(
        lambda dtype: npst.arrays(dtype, npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
    )
    return st.dictionaries(names, arrays, max_size=3)


@settings(max_examples=60, deadline=None)
@given(
    num_changes=st.integers(0, 8),
    weights=named_arrays(DTYPES),
    masks=named_arrays(("bool",)),
    predictions=named_arrays(DTYPES),
    has_resume_state=st.booleans(),
)
def test_store_shows_nothing_or_the_whole_after_a_kill_at_any_write(
    num_changes: int,
    weights: dict[str, np.ndarray],
    masks: dict[str, np.ndarray],
    predictions: dict[str, np.ndarray],
    has_resume_state: bool,
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        blobs = open_blobs(folder)
        reopened = ObjectStore(blobs)
        if has_resume_state:
            reopened.save_resume_state(TRAINING, {"epoch": 2}, weights)
        mortal = ObjectStore(MortalBlobs(blobs, num_changes))
        try:
            mortal.commit_training(sample_result(), weights=weights, masks=masks)
            mortal.commit_evaluation(sample_evaluation(), predictions=predictions)
            is_killed = False
        except KilledError:
            is_killed = True
        result, evaluation = reopened.training(TRAINING), reopened.evaluation(TRAINING, TASK)
        if result is not None:
            assert_same_arrays(reopened.weights(TRAINING), weights)
            assert_same_arrays(reopened.masks(TRAINING), masks)
            assert reopened.resume_state(TRAINING) is None
        else:
            assert (reopened.resume_state(TRAINING) is not None) == has_resume_state
        if evaluation is not None:
            assert_same_arrays(reopened.predictions(evaluation), predictions)
        assert is_killed or (result is not None and evaluation is not None)
        reopened.commit_training(sample_result(), weights=weights, masks=masks)
        assert_same_arrays(reopened.weights(TRAINING), weights)
        assert blobs.list("damaged") == []


# Each child exits at the n-th call to the operating system; the parent opens what it left.
KILLED_IN_THE_SYSTEM = """
import itertools, os, sys
from raypruning.runtime.store import open_store
from raypruning.testing.store_contract import *

def mortal(name, count, last):
    whole = getattr(os, name)
    def call(*arguments, **options):
        if next(count) >= last:
            os._exit(9)
        return whole(*arguments, **options)
    return call

for last in range(200):
    folder = os.path.join(sys.argv[1], str(last))
    open_store(folder)
    child = os.fork()
    if child == 0:
        count = itertools.count()
        for name in ("fsync", "replace", "mkdir", "open", "unlink"):
            setattr(os, name, mortal(name, count, last))
        store = open_store(folder, read_only=True)
        store.commit_training(sample_result(), weights=sample_weights(), masks=sample_masks())
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    store = open_store(folder)
    if store.training(TRAINING) is not None:
        assert_same_arrays(store.weights(TRAINING), sample_weights())
        assert_same_arrays(store.masks(TRAINING), sample_masks())
    assert store.damaged_files() == []
    store.commit_training(sample_result(), weights=sample_weights(), masks=sample_masks())
    store.clean(older_than_seconds=-1.0)
    assert len(store.blobs.list()) == 3
    assert not [name for _, _, names in os.walk(folder) for name in names if name.startswith(".tmp-")]
    if code == 0:
        print(last)
        break
    assert code == 9
"""


def test_store_shows_nothing_or_the_whole_after_a_kill_at_any_system_call(tmp_path: Path) -> None:
    script = [sys.executable, "-c", KILLED_IN_THE_SYSTEM, str(tmp_path)]
    done = subprocess.run(script, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 10  # so many kills were tried before one child got through


# What ours does beyond the port


def test_half_written_training_is_invisible_and_overwritten(store: ObjectStore, blobs: Blobs) -> None:
    commit(store)
    for path in blobs.list():
        if path.endswith(".json"):
            blobs.delete(path)
        else:
            blobs.write(path, b"half")
    assert store.training(TRAINING) is None
    assert store.evaluation(TRAINING, TASK) is None
    assert (store.training_ids(), store.unfinished_ids()) == ([], [TRAINING])
    commit(store)
    assert_same_arrays(store.weights(TRAINING), sample_weights())
    assert store.damaged_files() == []


def test_same_arrays_make_the_same_bytes_in_any_order(tmp_path: Path) -> None:
    one, two = open_store(str(tmp_path / "one")), open_store(str(tmp_path / "two"))
    one.commit_training(sample_result(), weights=sample_weights(), masks=sample_masks())
    two.commit_training(
        sample_result(),
        weights=dict(reversed(sample_weights().items())),
        masks=dict(reversed(sample_masks().items())),
    )
    assert one.training_files(TRAINING) == two.training_files(TRAINING)


def test_masks_take_one_bit_each(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store.commit_training(sample_result(), weights={}, masks={"fc": np.ones((1000, 80), dtype=bool)})
    assert len(store.training_files(TRAINING)["masks.safetensors"]) < 10_000 + 500  # 80,000 bits and a header


def test_damage_is_warned_about_and_kept(store: ObjectStore, blobs: Blobs, caplog: pytest.LogCaptureFixture) -> None:
    commit(store)
    path = f"trainings/{TRAINING}/weights.safetensors"
    whole = blobs.read(path)
    assert whole is not None
    blobs.write(path, whole[:-1] + bytes([whole[-1] ^ 1]))
    with caplog.at_level(logging.WARNING, "raypruning.store"), pytest.raises(StoreError, match="checksum"):
        store.weights(TRAINING)
    assert [f"{blobs.uri}/{path}" in record.getMessage() for record in caplog.records] == [True]
    assert store.training(TRAINING) is None
    assert store.evaluation(TRAINING, TASK) is None  # it was of other weights than those to come
    names = sorted(name.split("/", 2)[2] for name in store.damaged_files())
    evaluations = [f"evaluations/{TASK}.json", f"evaluations/{TASK}.safetensors"]
    assert names == [*evaluations, "masks.safetensors", "training.json", "weights.safetensors"]


def test_training_in_the_folder_of_another_is_moved_away(store: ObjectStore, blobs: Blobs) -> None:
    commit(store)
    for path in blobs.list(f"trainings/{TRAINING}"):
        data = blobs.read(path)
        assert data is not None
        blobs.write(path.replace(TRAINING, OTHER_TRAINING), data)
    assert store.evaluation(OTHER_TRAINING, TASK) is None
    assert store.training(OTHER_TRAINING) is None
    assert store.training_ids() == [TRAINING]
    assert store.training(TRAINING) is not None


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"[" * 100_000, b"\xff", b'{"format": 2}', b'{"format": 1}'])
def test_strange_json_is_moved_away(tmp_path: Path, content: bytes) -> None:
    store = open_store(str(tmp_path))
    commit(store)
    store.blobs.write(f"trainings/{TRAINING}/evaluations/{TASK}.json", content)
    assert store.evaluation(TRAINING, TASK) is None
    store.blobs.write(f"trainings/{TRAINING}/training.json", content)
    assert store.training(TRAINING) is None
    assert store.training_ids() == []


def test_document_says_its_format_and_both_checksums(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    commit(store)
    document = json.loads((tmp_path / "trainings" / TRAINING / "training.json").read_text())
    assert sorted(document) == ["format", "masks_sha256", "result", "sha256"]
    assert document["format"] == 1


def test_kill_between_commit_and_its_tidying_leaves_no_resume_state(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    commit(store)
    store.save_resume_state(TRAINING, {"epoch": 1}, {})
    assert store.resume_state(TRAINING) is None
    assert store.clean() > 0
    assert not (tmp_path / "trainings" / TRAINING / "resume" / "state.safetensors").exists()


def test_listing_and_deleting_trainings_and_evaluations(store: ObjectStore) -> None:
    commit(store)
    commit(store, OTHER_TRAINING)
    store.commit_evaluation(sample_evaluation(TRAINING, OTHER_TASK), predictions=sample_predictions())
    store.save_resume_state("c" * 16, {}, {})
    assert store.training_ids() == [TRAINING, OTHER_TRAINING]
    assert store.unfinished_ids() == ["c" * 16]
    assert store.evaluation_fingerprints(TRAINING) == [TASK, OTHER_TASK]
    store.delete_evaluations(TRAINING)
    assert store.evaluation_fingerprints(TRAINING) == []
    assert store.training(TRAINING) is not None
    before = store.size()
    store.delete_training(TRAINING)
    store.delete_training("c" * 16)
    store.delete_training("d" * 16)
    assert store.size() < before
    assert store.training_ids() == [OTHER_TRAINING]
    assert store.unfinished_ids() == []
    assert store.evaluation(OTHER_TRAINING, TASK) is not None


def test_sweep_files_read_back_and_go_without_their_trainings(store: ObjectStore) -> None:
    commit(store)
    store.write_sweep_file("resnet20.v1", "spec.json", b"{}")
    store.write_sweep_file("resnet20.v1", "report/index.html", b"<html>")
    store.write_sweep_file("other", "spec.json", b"{}")
    assert store.read_sweep_file("resnet20.v1", "report/index.html") == b"<html>"
    assert store.read_sweep_file("resnet20.v1", "asked.json") is None
    assert store.sweep_names() == ["other", "resnet20.v1"]
    store.delete_sweep("resnet20.v1")
    store.delete_sweep("absent")
    assert store.sweep_names() == ["other"]
    assert store.training(TRAINING) is not None


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "-x", ".x", "a\n", "a b", "ü", "a\0", "a" * 101])
def test_sweep_names_that_are_no_folder_names_are_refused(tmp_path: Path, name: str) -> None:
    store = open_store(str(tmp_path))
    calls: list[Callable[[], object]] = [
        lambda: store.write_sweep_file(name, "spec.json", b""),
        lambda: store.read_sweep_file(name, "spec.json"),
        lambda: store.delete_sweep(name),
    ]
    for call in calls:
        with pytest.raises(SpecError):
            call()


@pytest.mark.parametrize("filename", ["", "..", "../spec.json", "/x", "a/../b", "a//b", "a\0", ".tmp-x"])
def test_sweep_file_names_that_leave_the_folder_are_refused(tmp_path: Path, filename: str) -> None:
    with pytest.raises(SpecError):
        open_store(str(tmp_path)).write_sweep_file("sweep", filename, b"")


def test_store_on_a_storage_that_cannot_be_written_still_reads_and_reports_damage(tmp_path: Path) -> None:
    class ReadOnlyBlobs(LocalBlobs):
        def move(self, path: str, target: str) -> None:
            raise ResourceError(f"{path} cannot be moved: Read-only file system")

    commit(open_store(str(tmp_path)))
    (tmp_path / "trainings" / TRAINING / "weights.safetensors").write_bytes(b"")
    store = ObjectStore(ReadOnlyBlobs(tmp_path))
    assert store.training(TRAINING) is None
    assert store.evaluation(TRAINING, TASK) is not None
