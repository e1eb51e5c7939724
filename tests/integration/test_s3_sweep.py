"""A sweep whose storage is a bucket: an S3 server on the loopback interface in place of Amazon's."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

BUCKET = "sweeps"
LARGE_DELTA = ("--delta", "0.1")


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """An address of the server, as a storage carries it."""
    from moto.server import ThreadedMotoServer
    from pyarrow.fs import S3FileSystem

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server.start()
    host, port = server.get_host_and_port()
    try:
        S3FileSystem(
            endpoint_override=f"{host}:{port}", scheme="http", region="us-east-1", allow_bucket_creation=True
        ).create_dir(BUCKET)
        yield f"endpoint_override={quote(f'http://{host}:{port}', safe='')}&region=us-east-1"
    finally:
        server.stop()


@pytest.fixture
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_sweep_into_a_bucket_finishes_continues_and_is_read_like_any_other(
    endpoint: str, prune_cli: Callable, tiny: list[str], own_folder: Path
):
    storage = f"s3://{BUCKET}/inline?{endpoint}"
    command = ("sweep", "lenet5", *tiny, *LARGE_DELTA, "--json", "--storage")
    first = prune_cli(*command, storage)
    assert first.code == 0, first.err
    assert f"report   s3://{BUCKET}/inline/sweeps/lenet5/report.html" in first.err
    assert f"again    prune-cli report lenet5 --storage '{storage}'" in first.err, "as a shell takes it"

    second = prune_cli(*command, storage)
    assert second.answer["cost"]["num_trained"] == 0
    local = prune_cli(*command, own_folder / "local")
    assert first.answer["potentials"] == second.answer["potentials"] == local.answer["potentials"]

    shown = prune_cli("report", "lenet5", "--storage", storage, "--json")
    assert shown.answer["potentials"] == first.answer["potentials"]
    status = prune_cli("status", "lenet5", "--storage", storage, "--json").answer
    assert (status["state"], status["num_done"]) == ("finished", len(first.answer["probes"]))
    assert "finished" in prune_cli("list", "runs", "--storage", storage).out
    assert prune_cli("clean", "--storage", storage).out.startswith("deleted 0 stored networks")


def test_bucket_that_does_not_exist_is_one_line(endpoint: str, prune_cli: Callable, tiny: list[str], own_folder: Path):
    ran = prune_cli("sweep", "lenet5", *tiny, "--storage", f"s3://missing-bucket/x?{endpoint}")
    assert ran.code == 2
    assert "cannot be written" in ran.error_line
    assert list(own_folder.iterdir()) == []


@pytest.mark.ray
def test_workers_write_into_the_bucket_by_themselves(
    endpoint: str, ray_cluster: None, prune_cli: Callable, tiny_data: list[str], own_folder: Path
):
    import ray

    storage = f"s3://{BUCKET}/ray?{endpoint}"
    command = ("sweep", "lenet5", *tiny_data, *LARGE_DELTA, "--tracking-uri", "none", "--json", "--storage")
    assert ray.is_initialized()
    first = prune_cli(*command, storage)
    assert first.code == 0, first.err
    assert prune_cli(*command, storage).answer["cost"]["num_trained"] == 0
    inline = prune_cli(*command, own_folder / "local", "--executor", "inline")
    assert first.answer["potentials"] == inline.answer["potentials"]
    assert (own_folder / "raypruning-store" / "sweeps" / "lenet5" / "ray.log").is_file(), (
        "a log has no place in a bucket"
    )
