"""What a sweep says of itself where there is no terminal."""

from __future__ import annotations

import io
import threading

import pytest
from rich.console import Console

from raypruning.reporting import live
from tests.unit.core.worlds import make_plan


class Log(io.StringIO):
    """A file that tells when a line with some words in it was written."""

    def __init__(self, words: str) -> None:
        super().__init__()
        self.words, self.has_come = words, threading.Event()

    def write(self, text: str) -> int:
        if self.words in text:
            self.has_come.set()
        return super().write(text)


def test_a_sweep_whose_first_result_takes_long_says_that_it_goes_on(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(live, "SILENT_SECONDS", 0.01)
    log = Log("0 probes done")
    with live.LiveReport(Console(file=log, width=110)) as watcher:
        watcher.begin(make_plan())
        assert log.has_come.wait(timeout=10)
    said = log.getvalue()
    assert "thresholds open" in said


def test_a_quiet_sweep_says_nothing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(live, "SILENT_SECONDS", 0.0)
    log = Log("")
    with live.LiveReport(Console(file=log, width=110), quiet=True) as watcher:
        watcher.begin(make_plan())
    assert not log.has_come.is_set()
