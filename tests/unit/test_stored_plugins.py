"""Modules that a stored sweep names are imported only if the user has named them too."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from raypruning import registry
from raypruning.errors import SpecError

MODULE = "hostile_plugin_of_a_store"


@pytest.fixture
def trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that the module makes when it is imported. The module itself lies where imports look."""
    made = tmp_path / "made"
    (tmp_path / f"{MODULE}.py").write_text(f"import pathlib\npathlib.Path({str(made)!r}).touch()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield made
    sys.modules.pop(MODULE, None)


def test_module_that_only_a_store_names_is_refused_and_does_not_run(trace: Path):
    with pytest.raises(SpecError) as raised:
        registry.import_stored_plugins(["json", MODULE], where="the sweep mine")
    assert str(raised.value) == (
        f"the sweep mine names the plugin {MODULE}, which would run as code of yours: "
        f"if you trust it, set RAYPRUNING_PLUGINS={MODULE}"
    )
    assert not trace.exists()


def test_module_that_is_refused_keeps_those_before_it_from_running(trace: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RAYPRUNING_PLUGINS", MODULE)
    with pytest.raises(SpecError, match="names the plugin another,"):
        registry.import_stored_plugins([MODULE, "another"], where="the sweep mine")
    assert not trace.exists()


def test_module_that_the_user_names_runs(trace: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RAYPRUNING_PLUGINS", f"others, {MODULE}")
    registry.import_stored_plugins([MODULE], where="the sweep mine")
    assert trace.exists()


def test_module_that_the_user_has_imported_is_taken_as_it_is(trace: Path):
    registry.import_plugins([MODULE])
    trace.unlink()
    registry.import_stored_plugins([MODULE], where="the sweep mine")
    assert not trace.exists()


def test_module_of_an_installed_plugin_is_imported():
    registry.import_stored_plugins(["raypruning.tasks.nominal"], where="the sweep mine")
    assert "raypruning.tasks.nominal" in sys.modules


def test_part_of_a_name_is_not_that_name(trace: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RAYPRUNING_PLUGINS", f"{MODULE}.below,{MODULE[:-1]}")
    with pytest.raises(SpecError):
        registry.import_stored_plugins([MODULE], where="the sweep mine")
    assert not trace.exists()


@pytest.mark.parametrize("name", ["a\nb", "\x1b[2J", ""])
def test_name_that_is_none_is_refused_in_one_line(name: str):
    with pytest.raises(SpecError) as raised:
        registry.import_stored_plugins([name], where="the sweep mine")
    assert str(raised.value).isprintable()
