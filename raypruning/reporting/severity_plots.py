"""Error against the severity of each corruption: the parent, and each method pruned to its nominal potential."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from raypruning.core.records import ProbeResult, SweepResults, Task
from raypruning.reporting.answer import method_names
from raypruning.reporting.corruption_notes import corruption_sets, networks_at_potential
from raypruning.reporting.drawing import GRID, INK, SMALL, Panel, axes_at, heading, panel, series_colours

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Fewer severities are no curve.
MIN_SEVERITIES = 2
PARENT = "parent"


def severity_panels(results: SweepResults, *, delta: float) -> list[Panel]:
    """One panel for each corruption that was measured at several severities; severity 0 is the nominal task."""
    sets = corruption_sets(results)
    panels = []
    for (name, kind), tasks in _by_kind(sets).items():
        if len(tasks) < MIN_SEVERITIES:
            continue
        title = f"{kind} of {name}" if len(sets) > 1 else kind
        by_severity = {0: tasks[0].nominal} | {int(task.corruption["severity"]): task.name for task in tasks}
        groups = networks_at_potential(results, nominal=tasks[0].nominal, delta=delta)
        curves = {name: _curve(probes, by_severity) for name, probes in groups.items()}
        panels.append(
            panel(
                f"Error against severity of {title}",
                height=250,
                draw=lambda figure, title=title, curves=curves: _draw(
                    figure, title, curves, colours={PARENT: INK, **series_colours(method_names(results))}
                ),
            )
        )
    return panels


def _by_kind(sets: Mapping[str, Sequence[Task]]) -> dict[tuple[str, str], list[Task]]:
    """By set and corruption, in order of severity."""
    found: dict[tuple[str, str], list[Task]] = {}
    for name, tasks in sets.items():
        for task in sorted(tasks, key=lambda task: int(task.corruption["severity"])):
            found.setdefault((name, str(task.corruption["kind"])), []).append(task)
    return found


def _curve(probes: list[ProbeResult], tasks: Mapping[int, str]) -> dict[int, float]:
    """Mean error in percent by severity, where every network was measured."""
    return {
        severity: 100 * fmean(probe.evaluations[task].error for probe in probes)
        for severity, task in tasks.items()
        if probes and all(task in probe.evaluations for probe in probes)
    }


def _draw(figure: Figure, title: str, curves: Mapping[str, Mapping[int, float]], *, colours: Mapping[str, str]) -> None:
    heading(figure, title, left="error, %")
    axes = axes_at(figure, left=34, right=86, top=46, bottom=44)
    axes.set_xlim(-0.1, 5.1)
    axes.set_xticks(range(6), ["0", "1", "2", "3", "4", "5"])
    axes.set_xlabel("severity; 0 is the nominal task", fontsize=SMALL, color=axes.xaxis.get_ticklabels()[0].get_color())
    axes.yaxis.grid(visible=True, color=GRID, linewidth=0.8)
    top = max((error for curve in curves.values() for error in curve.values()), default=1.0)
    axes.set_ylim(0, 1.12 * top or 1.0)
    ends = sorted(((max(curve.items())[1], name) for name, curve in curves.items() if curve), reverse=True)
    # Names at the ends of the lines, pushed apart where they would overlap.
    least, at = axes.get_ylim()[1] * 0.09, float("inf")
    for error, name in ends:
        curve = curves[name]
        axes.plot(list(curve), list(curve.values()), "o-", color=colours[name], markersize=4, linewidth=1.8)
        at = min(error, at - least)
        axes.annotate(
            name, (max(curve), at), (6, 0), textcoords="offset points", va="center", fontsize=SMALL, color=colours[name]
        )
