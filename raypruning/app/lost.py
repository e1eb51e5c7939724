"""What was lost on the way of a sweep, all that is known of it in one place: for its page, and for MLflow."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from raypruning.app.exemplars import ExemplarsRequest, exemplars_of
from raypruning.app.features_files import read_features
from raypruning.app.impact import ImpactRequest, impact_of
from raypruning.app.read import read_sweep
from raypruning.app.results import read_record
from raypruning.app.similarity import read_similarity
from raypruning.core.populations import Losses, PopulationNumber
from raypruning.core.records import SweepResults
from raypruning.errors import SpecError, StoreError
from raypruning.runtime.store import ObjectStore

if TYPE_CHECKING:
    from raypruning.reporting.drawing import Panel
    from raypruning.reporting.lost_page import Part

PAGE_FILE, REPORT_FILE = "lost.html", "report.html"
Found = TypeVar("Found")


class Lost(NamedTuple):
    """What a sweep lost, for its page and for a tracker."""

    parts: Sequence[Part]
    numbers: Sequence[PopulationNumber]


def lost(store: ObjectStore, results: SweepResults) -> Lost:
    """What the stored predictions tell, and what `similarity` and `features` left in the sweep's folder."""
    looked = [look(store, results) for look in (_classes, _examples, _function, _pixels)]
    return Lost([one.part for one in looked], [number for one in looked for number in one.numbers])


def losses_of(results: SweepResults, found: Lost) -> Losses:
    """The numbers, the page and its figures, for a tracker."""
    from raypruning.reporting.drawing import standalone
    from raypruning.reporting.lost_page import render_lost_html

    files = {PAGE_FILE: render_lost_html(results, found.parts).encode()}
    for part in found.parts:
        files |= {f"figures/{_stem(panel.title)}.svg": standalone(panel).encode() for panel in part.panels}
    return Losses(found.numbers, files)


def write_lost(store: ObjectStore, results: SweepResults) -> Lost:
    """Put the page into the sweep's folder, beside its report. Returns what it shows."""
    from raypruning.reporting.lost_page import render_lost_html

    found = lost(store, results)
    page = render_lost_html(results, found.parts, report_page=REPORT_FILE)
    store.write_sweep_file(results.spec.name, PAGE_FILE, page.encode())
    return found


def write_lost_page(store: ObjectStore, results: SweepResults, path: Path) -> Path:
    """Write the page to a file of its own. Returns the path. Raises ResourceError where it cannot be written."""
    from raypruning.reporting.files import write_text
    from raypruning.reporting.lost_page import render_lost_html

    write_text(path, lambda: render_lost_html(results, lost(store, results).parts))
    return path


def publish(store: ObjectStore, sweep: str) -> Sequence[str]:
    """Renew the page of a sweep and what its MLflow has, if it has one. Returns what could not be written there."""
    results = read_sweep(store, sweep)
    found = write_lost(store, results)
    return _track(store, results, losses_of(results, found)) if results.tracking_uri else ()


def publish_files(
    store: ObjectStore, sweep: str, folder: Path, numbers: Sequence[PopulationNumber], *, name: str
) -> Sequence[str]:
    """Let a sweep's MLflow keep a folder of files as `name`, and numbers. Returns what could not be written."""
    if not read_record(store, sweep).run.get("tracking_uri"):
        return ()
    files = {
        f"{name}/{path.relative_to(folder).as_posix()}": path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    return _track(store, read_sweep(store, sweep), Losses(numbers, files))


def _track(store: ObjectStore, results: SweepResults, losses: Losses) -> Sequence[str]:
    from raypruning.runtime.mlflow_tracker import track_sweep

    return track_sweep(results.tracking_uri, results, read=store.training_files, losses=losses)


def _stem(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


class _Looked(NamedTuple):
    """One part of the page, and its numbers."""

    part: Part
    numbers: Sequence[PopulationNumber] = ()


def _classes(store: ObjectStore, results: SweepResults) -> _Looked:
    from raypruning.reporting import impact, impact_plots

    name = results.spec.name
    return _part(
        lambda: impact_of(store, results, ImpactRequest(name)),
        title="Classes",
        how="Recall of each class before and after: a hollow dot is the mean of dense networks, a full one of pruned "
        "ones. Colour marks classes that fell by more than accuracy did, or by less.",
        command=f"prune-cli impact {name}",
        conclude=impact.conclusion,
        draw=impact_plots.panels,
        count=impact.numbers,
    )


def _examples(store: ObjectStore, results: SweepResults) -> _Looked:
    from raypruning.reporting import exemplar_plots, exemplars

    name = results.spec.name
    return _part(
        lambda: exemplars_of(store, results, ExemplarsRequest(name)),
        title="Examples",
        how="Images that most pruned networks answer otherwise than most dense ones, and as many as luck alone makes "
        "between dense networks.",
        command=f"prune-cli pie gallery {name} --html forgotten.html",
        conclude=exemplars.conclusion,
        draw=exemplar_plots.panels,
        count=exemplars.numbers,
    )


def _function(store: ObjectStore, results: SweepResults) -> _Looked:
    from raypruning.reporting import similarity, similarity_plots

    name = results.spec.name
    return _part(
        lambda: _of_this_sweep(
            results,
            read_similarity(store, name),
            lambda found: [key for one in found.populations for key in one.networks],
        ),
        title="Answers",
        how="How often pruned networks answer as their parent does, under noise and on every task, beside "
        "networks that were trained separately: one that is no closer than those is another network.",
        command=f"prune-cli similarity {name}",
        conclude=similarity.conclusion,
        draw=similarity_plots.panels,
        count=similarity.numbers,
    )


def _pixels(store: ObjectStore, results: SweepResults) -> _Looked:
    from raypruning.reporting import features, features_plots

    name = results.spec.name
    return _part(
        lambda: _of_this_sweep(
            results, read_features(store, name), lambda found: [one.training for one in found.record.networks]
        ),
        title="Pixels",
        how="Each network is shown only the pixels that another one chose as those its own answer rests on; a cell is "
        "its confidence in the true class.",
        command=f"prune-cli features {name} --html pixels.html",
        conclude=features.conclusion,
        draw=features_plots.panels,
        count=features.numbers,
    )


def _of_this_sweep(
    results: SweepResults, found: Found | None, networks: Callable[[Found], Sequence[str]]
) -> Found | None:
    """What was found; None if it is of networks that a changed sweep of the same name has no more."""
    known = {one.probe.id for one in results.probes if one.is_done}
    return found if found is not None and known.issuperset(networks(found)) else None


def _part(
    find: Callable[[], Found | None],
    *,
    title: str,
    how: str,
    command: str,
    conclude: Callable[[Found], str],
    draw: Callable[[Found], Sequence[Panel]],
    count: Callable[[Found], Sequence[PopulationNumber]],
) -> _Looked:
    """One that was not looked at, or cannot be, says why."""
    from raypruning.reporting.lost_page import Part

    try:
        found = find()
    except (SpecError, StoreError) as error:  # A damaged file costs its part, and not the sweep that ends here.
        return _Looked(Part(title=title, how=f"{how} Not here: {error}.", conclusion="", panels=(), command=command))
    if found is None:
        return _Looked(Part(title=title, how=how, conclusion="", panels=(), command=command))
    part = Part(title=title, how=how, conclusion=conclude(found), panels=draw(found), command=command)
    return _Looked(part, count(found))
