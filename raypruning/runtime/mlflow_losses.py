"""How what was lost looks in MLflow: numbers of populations as lines beside their curves, and pages as artifacts.

run per method and budget   over all seeds: impact_..., pie_..., similarity_... and so on; step as that of curves
run "what was lost"         pages and pictures
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

from raypruning.core.identity import fingerprint
from raypruning.core.populations import PopulationNumber
from raypruning.core.records import Curve, SweepResults
from raypruning.runtime.mlflow_layout import (
    CURVE_KEY,
    SOURCE_TAGS,
    Point,
    RunContent,
    curve_content,
    curve_name,
    last_ms,
    metric_name,
    step_of,
)

PAGES_KEY = "pages_of"
ALL_SEEDS = "all"


def population_contents(results: SweepResults, numbers: Iterable[PopulationNumber]) -> Iterable[RunContent]:
    """A run for each method and budget that there are numbers of, drawn beside its curves and in their colour."""
    groups: dict[tuple[str, int], list[PopulationNumber]] = {}
    for number in numbers:
        groups.setdefault((number.method, number.budget), []).append(number)
    for (method, budget), found in groups.items():
        probe = next(one.probe for one in results.probes if _key(one.probe.curve) == (method, budget))
        content = curve_content(probe, sweep=results.spec.name)
        key = fingerprint({"population": content.identity[1]})
        at_ms = last_ms(results, probe.curve)
        points = [
            Point(metric_name(*_section_and_chart(n.name)), n.value, step_of(n.ratio_reached), at_ms)
            for n in found
            if math.isfinite(n.value)
        ]
        yield replace(
            content,
            identity=(CURVE_KEY, key),
            name=f"{curve_name(probe.curve).rpartition(' · ')[0]} · all seeds",
            params=dict(content.params) | {"seed": ALL_SEEDS},
            tags=dict(content.tags) | {CURVE_KEY: key},
            points=tuple(points),
            end_ms=at_ms or None,
        )


def _section_and_chart(name: str) -> tuple[str, str]:
    """`pie/noise/uniform/0.1` is the chart `noise/uniform/0.1` of the section `pie`."""
    section, _, chart = name.partition("/")
    return section, chart or section


def pages_content(sweep: str) -> RunContent:
    """The run that pages and pictures are kept by."""
    tags = {"kind": "pages", "sweep": sweep, PAGES_KEY: sweep} | SOURCE_TAGS
    return RunContent(identity=(PAGES_KEY, sweep), name="what was lost", params={}, tags=tags, status="FINISHED")


def _key(curve: Curve) -> tuple[str, int]:
    return curve.method, curve.budget
