"""Reports as files a person asked for by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from raypruning.core.records import SweepResults
from raypruning.errors import ResourceError
from raypruning.reporting.drawing import Panel, standalone


def write_documents(
    results: SweepResults, *, html: Path | None = None, csv: Path | None = None, markdown: Path | None = None
) -> list[Path]:
    """Write what was asked for; the paths written. CSV tables go into a folder, which is made if need be.

    Raises: ResourceError: a place that cannot be written.
    """
    written: list[Path] = []
    if html is not None:
        from raypruning.reporting.html import render_html

        write_text(html, lambda: render_html(results))
        written.append(html)
    if markdown is not None:
        from raypruning.reporting.documents import to_markdown

        write_text(markdown, lambda: to_markdown(results))
        written.append(markdown)
    if csv is not None:
        from raypruning.reporting.frames import write_csv

        try:
            csv.mkdir(parents=True, exist_ok=True)
            written += write_csv(results, csv)
        except OSError as error:
            raise ResourceError(f"{csv}: cannot be written: {error.strerror}") from error
    return written


def write_figures(folder: Path, figures: Mapping[str, Panel]) -> list[Path]:
    """Write figures as `NAME.svg` into a folder, which is made if need be; the paths written.

    Raises: ResourceError: a place that cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError(f"{folder}: cannot be written: {error.strerror}") from error
    paths = [folder / f"{name}.svg" for name in figures]
    for path, one in zip(paths, figures.values(), strict=True):
        write_text(path, lambda one=one: standalone(one))  # type: ignore[misc]
    return paths


def numbered(name: str, figures: Iterable[Panel]) -> dict[str, Panel]:
    """Figures by the names `NAME_1`, `NAME_2` and so on."""
    return {f"{name}_{number}": one for number, one in enumerate(figures, start=1)}


def write_text(path: Path, render: Callable[[], str]) -> None:
    """Write a rendered text. Raises ResourceError in one line where the path cannot be written."""
    text = render()
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ResourceError(f"{path}: cannot be written: {error.strerror}") from error
