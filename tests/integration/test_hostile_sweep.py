"""A sweep's record that somebody else wrote, and one that names code: read, or refused in a line."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raypruning.app.read import read_sweep
from raypruning.app.status import sweep_status
from raypruning.errors import RaypruningError, SpecError, StoreError
from raypruning.runtime.store import open_store
from raypruning.runtime.untrusted import MAX_JSON_BYTES
from tests.integration.made_up_sweep import NAME, store_sweep, wrong
from tests.unit.runtime.test_untrusted import MEMORY, leaves, put, strange


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("stored")
    store_sweep(
        root,
        lambda curve, ratio, task: wrong(1000, lost=0 if curve.is_dense else 5),
        num_images=1000,
        ratios=[0.5, 0.9],
    )
    run = root / "sweeps" / NAME / "run.json"
    more = {"class_names": ["a"], "num_trained": 3, "wall_seconds": 1.5, "experiment_url": "http://a", "asked": ["b"]}
    run.write_text(json.dumps({**json.loads(run.read_text()), **more}))
    return root


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(choice=st.floats(0, 1, exclude_max=True), new=strange)
def test_forged_record_is_read_or_refused_in_a_line(choice: float, new: Any, stored: Path):
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        place = Path(shutil.copytree(stored, f"{folder}/storage"), "sweeps", NAME, "run.json")
        body = json.loads(place.read_text())
        places = leaves(body)
        put(body, places[int(choice * len(places))], new)
        place.write_text(json.dumps(body))
        store = open_store(f"{folder}/storage", read_only=True)
        try:
            sweep_status(store, NAME)
            read_sweep(store, NAME)
        except RaypruningError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize("content", [b"[" * 100_000, b"[]", b'{"tasks": NaN}', b"\xff", b""])
@pytest.mark.parametrize("file", ["spec.json", "run.json"])
def test_strange_record_is_refused_as_damaged(file: str, content: bytes, stored: Path, tmp_path: Path):
    root = Path(shutil.copytree(stored, tmp_path / "storage"))
    (root / "sweeps" / NAME / file).write_bytes(content)
    with pytest.raises(StoreError, match="is damaged"):
        read_sweep(open_store(str(root), read_only=True), NAME)


def test_enormous_record_is_refused_unread(stored: Path, tmp_path: Path):
    root = Path(shutil.copytree(stored, tmp_path / "storage"))
    os.truncate(root / "sweeps" / NAME / "run.json", MAX_JSON_BYTES + 1)
    with pytest.raises(StoreError, match="it is not read"):
        read_sweep(open_store(str(root), read_only=True), NAME)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Path]:
    """A module where imports look, and the file that it makes when it runs."""
    made = tmp_path / "made"
    (tmp_path / "named_by_a_store.py").write_text(f"import pathlib\npathlib.Path({str(made)!r}).touch()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return "named_by_a_store", made


def test_export_of_a_stored_sweep_runs_no_module_that_only_the_sweep_names(
    module: tuple[str, Path], stored: Path, tmp_path: Path, prune_cli: Callable
):
    name, made = module
    root = Path(shutil.copytree(stored, tmp_path / "storage"))
    spec = root / "sweeps" / NAME / "spec.json"
    spec.write_text(json.dumps({**json.loads(spec.read_text()), "plugins": [name]}))
    ran = prune_cli("export", NAME, "--storage", root, "--output", tmp_path / "out", "--task", "nominal")
    assert ran.code == 2
    assert (
        f"names the plugin {name}, which would run as code of yours: if you trust it, set RAYPRUNING" in ran.error_line
    )
    assert not made.exists()


def test_exported_network_runs_no_module_that_only_its_plan_names(module: tuple[str, Path]):
    from raypruning.compaction.plan import ChannelPlan, rebuild

    name, made = module
    with pytest.raises(SpecError, match="the exported network names the plugin named_by_a_store"):
        rebuild(ChannelPlan.model_construct(plugins=(name,)))
    assert not made.exists()
