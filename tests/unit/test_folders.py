"""A folder that appears whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from raypruning.errors import SpecError
from raypruning.folders import check_free, folder_at_once


def test_folder_appears_at_once_or_not_at_all(tmp_path: Path):
    with pytest.raises(KeyError), folder_at_once(tmp_path / "deep" / "out") as part:
        (part / "a").write_text("half")
        raise KeyError
    assert list((tmp_path / "deep").iterdir()) == []
    with folder_at_once(tmp_path / "deep" / "out") as part:
        (part / "a").write_text("whole")
        assert not (tmp_path / "deep" / "out").exists()
    assert [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*"))] == [
        "deep",
        "deep/out",
        "deep/out/a",
    ]


def test_folder_with_something_in_it_is_never_replaced(tmp_path: Path):
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(SpecError, match="not an empty folder"):
        check_free(tmp_path)
    with pytest.raises(SpecError, match="not an empty folder"):
        check_free(tmp_path / "mine")
    check_free(tmp_path / "absent")
