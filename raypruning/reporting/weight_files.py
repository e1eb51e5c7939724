"""The folder that `prune-cli weights` writes: a page that needs nothing else, figures, animations and tables."""

from __future__ import annotations

import base64
import csv
import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from markupsafe import Markup

from raypruning.analysis.weights import CurveWeights, NetworkWeights, SweepWeights, shown_layers
from raypruning.reporting import wording
from raypruning.reporting.drawing import DARK, LIGHT, Panel, standalone
from raypruning.reporting.pages import environment
from raypruning.reporting.weight_animation import animation
from raypruning.reporting.weight_plots import (
    KIND_TITLES,
    Drawing,
    Kind,
    histogram_drawings,
    history_drawings,
    layer_ratio_drawing,
)
from raypruning.reporting.weights import conclusion, layer_row, method_colours, notes

PAGE, LAYERS, RESULTS = "index.html", "layers.csv", "results.csv"
KINDS: tuple[Kind, ...] = ("weights", "unit_norms")
Row = Mapping[str, object]


def write_files(found: SweepWeights, folder: Path, *, on_step: Callable[[str], None]) -> tuple[str, ...]:
    """Write everything into an empty folder. Returns names below it, in order; the same weights give the same bytes.

    Args:
        on_step: told what is being done.
    """
    shown, colours = shown_layers(found.curves), method_colours(found)
    names = _folder_names(found.curves)
    sections = []
    for step, (one, name) in enumerate(zip(found.curves, names, strict=True), start=1):
        on_step(f"drawing {step} of {len(found.curves)} curves")
        drawn = _draw(one, shown=shown, task=found.task, colour=colours[one.curve.method])
        (folder / name).mkdir()
        _write_curve(drawn, folder / name)
        sections.append(_section(one, drawn, task=found.task))
    _write_csv(folder / LAYERS, (row for one in _networks(found) for row in _layer_rows(*one)))
    _write_csv(folder / RESULTS, (_result_row(*one, task=found.task) for one in _networks(found)))
    (folder / PAGE).write_text(_page(found, sections), encoding="utf-8")
    paths = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return tuple(path.as_posix() for path in sorted(paths, key=lambda path: (len(path.parts), path)))


def _folder_names(curves: Sequence[CurveWeights]) -> list[str]:
    """A folder for each curve, such as `wt-2-epochs-seed-0`: letters that any system and MLflow take."""
    names: list[str] = []
    for one in curves:
        name = re.sub(r"[^A-Za-z0-9._]+", "-", one.curve.label).strip("-._")
        names.append(name if name not in names else f"{name}-{len(names)}")
    return names


# -- figures ---------------------------------------------------------------------------------------------------------


class _Drawn(NamedTuple):
    """The figures of a curve. Histograms are in the order of ratios, the parent's 0 first."""

    ratios: Drawing
    history: list[Drawing]
    histograms: dict[Kind, list[Drawing]]
    animations: dict[Kind, bytes]
    places: list[str]


def _draw(one: CurveWeights, *, shown: Sequence[int], task: str, colour: str) -> _Drawn:
    histograms = {kind: histogram_drawings(one, kind, shown=shown, task=task, colour=colour) for kind in KINDS}
    return _Drawn(
        ratios=layer_ratio_drawing(one),
        history=history_drawings(one, colour=colour),
        histograms=histograms,
        animations={kind: animation([frame.png for frame in drawn]) for kind, drawn in histograms.items()},
        places=[f"{network.result.probe.ratio:.6f}" for network in one.all_networks],
    )


def _write_curve(drawn: _Drawn, folder: Path) -> None:
    _write_drawing(drawn.ratios, folder / "layer_ratios")
    for one in drawn.history:
        measure = one.panel.title.partition(",")[0].lower().replace(" ", "_")
        _write_drawing(one, folder / measure)
    for kind, drawings in drawn.histograms.items():
        # Names of one length, so that files lie in the order of their ratios.
        for place, one in zip(drawn.places, drawings, strict=True):
            _write_drawing(one, folder / f"{kind}_{place}")
        (folder / f"{kind}.gif").write_bytes(drawn.animations[kind])


def _write_drawing(one: Drawing, path: Path) -> None:
    path.with_name(f"{path.name}.png").write_bytes(one.png)
    path.with_name(f"{path.name}.svg").write_text(standalone(one.panel), encoding="utf-8")


# -- the page --------------------------------------------------------------------------------------------------------


class _Shown(NamedTuple):
    """Figures of one kind."""

    title: str
    figures: list[Markup]
    gif: str


class _Section(NamedTuple):
    """A curve on the page."""

    title: str
    heads: list[str]
    rows: list[list[str]]
    overview: list[Markup]
    kinds: list[_Shown]


def _section(one: CurveWeights, drawn: _Drawn, *, task: str) -> _Section:
    kinds = [
        _Shown(
            KIND_TITLES[kind],
            [_markup(drawing.panel) for drawing in drawn.histograms[kind]],
            base64.b64encode(drawn.animations[kind]).decode(),
        )
        for kind in KINDS
    ]
    networks = one.all_networks
    return _Section(
        title=one.curve.label,
        heads=["dense", *(f"{wording.percent(network.ratio)} removed" for network in one.networks)],
        rows=[
            [f"error on {task}", *(wording.percent(network.result.evaluations[task].error) for network in networks)],
            ["loss", *(f"{network.result.evaluations[task].loss:.3f}" for network in networks)],
            ["parameters left", *(wording.thousands(_num_nonzero(network)) for network in networks)],
            ["units without a weight", *(wording.thousands(network.num_dead) for network in networks)],
            ["layers without a weight", *(wording.listing(network.removed_layers) or "none" for network in networks)],
        ],
        overview=[_markup(drawing.panel) for drawing in (drawn.ratios, *drawn.history)],
        kinds=kinds,
    )


def _markup(panel: Panel) -> Markup:
    return Markup(panel.svg)  # Safe: matplotlib escapes the texts it is given, and `panel` the title.


def _num_nonzero(network: NetworkWeights) -> int:
    return network.result.result.checkpoint.num_nonzero if network.result.result else 0


def _page(found: SweepWeights, sections: Sequence[_Section]) -> str:
    return (
        environment()
        .get_template("weights.html.j2")
        .render(
            light=LIGHT,
            dark=DARK,
            name=found.sweep,
            conclusion=conclusion(found),
            notes=notes(found),
            sections=sections,
            command=f"prune-cli weights {shlex.quote(found.sweep)}",
            storage=found.storage,
        )
    )


# -- tables ----------------------------------------------------------------------------------------------------------


def _networks(found: SweepWeights) -> Iterable[tuple[CurveWeights, NetworkWeights]]:
    """Each parent once, before the networks that were pruned from it."""
    known: set[str] = set()
    for one in found.curves:
        for network in one.all_networks:
            if network.result.probe.id not in known:
                known.add(network.result.probe.id)
                yield one, network


def _identity(network: NetworkWeights) -> Row:
    probe = network.result.probe
    return {
        **probe.curve.model_dump(mode="json"),
        "ratio_asked": probe.ratio,
        "ratio_reached": network.ratio,
    }


def _layer_rows(one: CurveWeights, network: NetworkWeights) -> Iterable[Row]:
    training = {"training": network.result.probe.id}
    return ({**_identity(network), **layer_row(layer), **training} for layer in network.layers)


def _result_row(one: CurveWeights, network: NetworkWeights, *, task: str) -> Row:
    """A network with its error and loss on the nominal task, and where its training ended."""
    result = network.result
    evaluation, checkpoint = result.evaluations[task], result.checkpoint
    last = result.result.history[-1] if result.result and result.result.history else None
    return {
        **_identity(network),
        "num_params": checkpoint.num_params if checkpoint else None,
        "num_nonzero": checkpoint.num_nonzero if checkpoint else None,
        "num_dead_units": network.num_dead,
        "removed_layers": " ".join(network.removed_layers),
        "dead_layers": " ".join(checkpoint.dead_layers) if checkpoint else "",
        "task": task,
        "error": evaluation.error,
        "accuracy": 1.0 - evaluation.error,
        "loss": evaluation.loss,
        "epochs": result.probe.training.epochs,
        "train_loss": last.train_loss if last else None,
        "validation_loss": last.validation_loss if last else None,
        "validation_error": last.validation_error if last else None,
        "training": result.probe.id,
    }


def _write_csv(path: Path, rows: Iterable[Row]) -> None:
    """Rows that all have the same fields; what does not exist is empty."""
    table = list(rows)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(table[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)
