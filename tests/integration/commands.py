"""`prune-cli sweep` in this process."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

import cli


@dataclasses.dataclass(frozen=True)
class Ran:
    """What a command left behind."""

    exit_code: int
    stdout: str
    stderr: str
    storage: Path

    @property
    def answer(self) -> dict[str, Any]:
        return json.loads(self.stdout)


def run_sweep(target: str | Path, *options: str, storage: Path, executor: str = "inline") -> Ran:
    """Without tracking, with JSON as the answer. An exception that the command should have caught is raised."""
    arguments = ["sweep", str(target), "--storage", str(storage), "--tracking-uri", "none", "--json"]
    result = CliRunner().invoke(cli.app, [*arguments, "--executor", executor, *options])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Ran(result.exit_code, result.stdout, result.stderr, storage)
