"""`prune-cli features`."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from raypruning.commands.options import (
    DataDir,
    Json,
    Ratios,
    Storage,
    SweepName,
    errors_in_one_line,
    storage_flag,
)
from raypruning.commands.progress import progress

if TYPE_CHECKING:
    from raypruning.app.features import Work


def features(
    sweep: SweepName,
    method: Annotated[str | None, typer.Option(help="Pruning method. \\[default: the sweep's first]")] = None,
    budget: Annotated[int | None, typer.Option(help="Retraining epochs. \\[default: the largest]")] = None,
    ratio: Ratios = None,
    seed: Annotated[
        int | None, typer.Option(help="Random seed of the networks. \\[default: the sweep's first]")
    ] = None,
    mode: Annotated[
        str,
        typer.Option(
            help="How the pixel that goes next is found: exact tries all that are left, screened those that the "
            "gradient picks, gradient believes it."
        ),
    ] = "screened",
    pixels_per_step: Annotated[
        int | None,
        typer.Option(help="Pixels that go before any is tried again. \\[default: 2 if screened, else 1]"),
    ] = None,
    candidates: Annotated[
        int | None, typer.Option(help="Pixels tried at each step when screened. \\[default: 32]")
    ] = None,
    images: Annotated[int, typer.Option(help="Test images, evenly over the test set.")] = 64,
    keep: Annotated[float, typer.Option(help="Fraction of the pixels that a network is shown.")] = 0.1,
    data_dir: DataDir = None,
    html: Annotated[Path | None, typer.Option(help="Write a page with the pixels themselves to this file.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write the heat map to this file, a line for each cell.")] = None,
    plots: Annotated[Path | None, typer.Option(help="Write the figures as SVG into this folder.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Order the pixels again even where that was done.")] = False,
    json: Json = False,
    storage: Storage = None,
) -> None:
    """Show which pixels networks rely on, and whether a pruned network looks where its parent looks."""
    from raypruning.runtime.signals import StopOnSignal

    with errors_in_one_line(retype=True), StopOnSignal():
        from raypruning.app.features import FeaturesRequest
        from raypruning.app.features import features as find_features
        from raypruning.app.lost import publish
        from raypruning.app.request import resolve_storage
        from raypruning.app.results import read_record
        from raypruning.reporting.features import features_csv, features_json, features_text
        from raypruning.reporting.features_page import render_features_html
        from raypruning.reporting.features_plots import panels
        from raypruning.reporting.files import numbered, write_figures, write_text
        from raypruning.runtime.store import open_store

        address = resolve_storage(storage)
        # Read only at first, so that no folder is made for a storage that is not there.
        spec = read_record(open_store(address, read_only=True), sweep).spec
        request = FeaturesRequest(
            sweep=sweep,
            method=method,
            budget=budget,
            ratios=ratio or (),
            seed=seed,
            mode=mode,
            pixels_per_step=pixels_per_step,
            candidates=candidates,
            images=images,
            keep=keep,
            data_dir=data_dir,
            fresh=fresh,
        )
        store = open_store(address)
        with progress() as tell:

            def watch(work: Work) -> None:
                what = f"pixels of {work.network}, network {work.num_done + 1} of {work.num}"
                tell(what, work.forwards_done, work.forwards)

            found = find_features(store, request, watch=watch)
        flag = storage_flag(address)
        written = []
        if html is not None:
            write_text(html, lambda: render_features_html(found, model=spec.model, data=spec.data, storage_flag=flag))
            written.append(html)
        if csv is not None:
            write_text(csv, lambda: features_csv(found))
            written.append(csv)
        if plots is not None:
            written += write_figures(plots, numbered("features", panels(found)))
        for path in written:
            typer.echo(f"wrote {path}", err=True)
        for problem in publish(store, sweep):
            typer.echo(problem, err=True)
        if json:
            typer.echo(json_module.dumps(features_json(found), indent=1))
        else:
            typer.echo(features_text(found, storage_flag=flag))
