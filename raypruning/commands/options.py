"""What commands share: options of the same meaning, the console, and how an error ends one."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from raypruning.errors import RaypruningError

if TYPE_CHECKING:
    from rich.console import Console

# A backslash before a bracket: rich would take what stands in it for markup, and show nothing.
Storage = Annotated[
    str | None,
    typer.Option(
        "--storage",
        help="Folder or s3:// address of the store. \\[env: RAYPRUNING_STORAGE] \\[default: raypruning-store]",
    ),
]
TrackingUri = Annotated[
    str | None,
    typer.Option(
        "--tracking-uri",
        help="MLflow: a server, sqlite:///FILE, or none. "
        "\\[env: MLFLOW_TRACKING_URI] \\[default: SQLite in the storage]",
    ),
]
DataDir = Annotated[Path | None, typer.Option(help="Folder that holds datasets. \\[env: RAYPRUNING_DATA_DIR]")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]
Deltas = Annotated[
    list[float] | None,
    typer.Option("--delta", help="Accuracy that may be lost, a fraction: 0.005 is half a point. Repeatable."),
]
AllProbes = Annotated[
    bool, typer.Option("--all-probes", help="Use all the store knows of these curves, not only what the search asked.")
]
SweepName = Annotated[str, typer.Argument(help="Name of a sweep that was run.")]
Tasks = Annotated[
    list[str] | None,
    typer.Option("--task", help="Task or pattern, such as 'corruption/*/3'. Repeatable. \\[default: all]"),
]
Methods = Annotated[list[str] | None, typer.Option("--method", help="Pruning method. Repeatable. \\[default: all]")]
Budgets = Annotated[list[int] | None, typer.Option("--budget", help="Retraining epochs. Repeatable. \\[default: all]")]
Ratios = Annotated[
    list[float] | None, typer.Option("--ratio", help="Ratio as it was asked for. Repeatable. \\[default: all]")
]


def console(*, stderr: bool = False) -> Console:
    """Where tables are printed."""
    from rich.console import Console

    # A pipe or a log has no width of its own: 80 columns would fold tables that nobody needs folded.
    is_terminal = (sys.stderr if stderr else sys.stdout).isatty()
    return Console(stderr=stderr, soft_wrap=False, width=None if is_terminal else 110)


def storage_flag(storage: str) -> str:
    """What a command needs to find a storage again; nothing for the one that is found without."""
    from raypruning.app.request import resolve_storage

    return "" if storage == resolve_storage(None) else f" --storage {shlex.quote(storage)}"


@contextmanager
def errors_in_one_line(*, retype: bool = False) -> Iterator[None]:
    """A user's mistake or the world's ends in one line and its exit code; a signal says how to go on."""
    from raypruning.runtime.signals import Interrupted

    try:
        yield
    except RaypruningError as error:
        typer.echo(f"prune-cli: {error}", err=True)
        raise typer.Exit(error.exit_code) from None
    except Interrupted as stop:
        hint = "; what is finished is kept: the same command continues" if retype else ""
        typer.echo(f"prune-cli: {stop}{hint}", err=True)
        raise typer.Exit(stop.exit_code) from None
