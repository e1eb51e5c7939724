"""`prune-cli similarity`."""

from __future__ import annotations

import json as json_module
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from raypruning.commands.options import (
    Budgets,
    DataDir,
    Json,
    Methods,
    Ratios,
    Storage,
    SweepName,
    console,
    errors_in_one_line,
    storage_flag,
)

PLAIN_SECONDS = 20.0  # between lines where there is no terminal


def similarity(
    sweep: SweepName,
    method: Methods = None,
    budget: Budgets = None,
    ratio: Ratios = None,
    noise: Annotated[
        list[float] | None,
        typer.Option(
            help="Noise level, in units of normalised pixels. Repeatable; 0 is always measured. "
            "\\[default: 0.05 to 0.7 in steps of 0.05]"
        ),
    ] = None,
    images: Annotated[int | None, typer.Option(help="Test images, a random part. \\[default: all]")] = None,
    draws: Annotated[int, typer.Option(help="Draws of noise for each image and level.")] = 1,
    data_dir: DataDir = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Measure again what was measured already.")] = False,
    csv: Annotated[Path | None, typer.Option(help="Write every number to this CSV file.")] = None,
    plots: Annotated[Path | None, typer.Option(help="Write the figures as SVG into this folder.")] = None,
    json: Json = False,
    storage: Storage = None,
) -> None:
    """Show how alike pruned networks and their parents answer, beside networks that were trained separately."""
    from raypruning.runtime.signals import StopOnSignal

    with errors_in_one_line(), StopOnSignal():
        from raypruning.app.lost import publish
        from raypruning.app.request import resolve_storage
        from raypruning.app.results import read_record
        from raypruning.app.similarity import SimilarityRequest
        from raypruning.app.similarity import similarity as measure_similarity
        from raypruning.reporting.similarity import (
            SimilarityReport,
            control_hint,
            similarity_json,
            write_similarity_csv,
            write_similarity_plots,
        )
        from raypruning.runtime.store import open_store

        address = resolve_storage(storage)
        # Read only at first, so that no folder is made for a storage that is not there.
        read_record(open_store(address, read_only=True), sweep)
        request = SimilarityRequest(
            sweep=sweep,
            methods=method or (),
            budgets=budget or (),
            ratios=ratio or (),
            amplitudes=noise or (),
            images=images,
            draws=draws,
            data_dir=data_dir,
            fresh=fresh,
        )
        with _progress() as tell:
            store = open_store(address)
            found = measure_similarity(store, request, tell=tell)
        written = [
            *([write_similarity_csv(found, csv)] if csv else []),
            *(write_similarity_plots(found, plots) if plots else []),
        ]
        for path in written:
            typer.echo(f"wrote {path}", err=True)
        for problem in publish(store, sweep):
            typer.echo(problem, err=True)
        flag = storage_flag(address)
        if json:
            typer.echo(json_module.dumps(similarity_json(found, storage_flag=flag), indent=1))
        else:
            console().print(SimilarityReport(found))
            if hint := control_hint(found, storage_flag=flag):
                typer.echo(f"\n{hint}")  # not folded, to be copied


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """What is told of every batch: a bar in a terminal, a line now and then elsewhere; on standard error."""
    import time

    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from raypruning.reporting.wording import count, duration, thousands

    place = console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:.0f} %"))
    with Progress(*columns, TimeRemainingColumn(), console=place, transient=True, disable=not place.is_terminal) as bar:
        task = bar.add_task("similarity", total=None)
        began = said = time.monotonic()

        def tell(done: int, total: int) -> None:
            nonlocal said
            bar.update(task, completed=done, total=total)
            now = time.monotonic()
            if not place.is_terminal and now - said >= PLAIN_SECONDS and done < total:
                said = now
                left = duration((now - began) / done * (total - done))
                place.print(f"{thousands(done)} of {count(total, 'image')}, about {left} left", highlight=False)

        yield tell
