"""The table of all probes in the page: what was trained, what it lost, where it lies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import quote, urlsplit

from raypruning.core.records import ProbeResult, SweepResults
from raypruning.reporting import wording


class ProbeHead(NamedTuple):
    """Of a column."""

    text: str
    is_text: bool = False


class ProbeCell(NamedTuple):
    """A cell of the table of probes; `value` is what it is sorted by, its text by default."""

    text: str
    value: float | None = None
    is_number: bool = False
    title: str = ""
    href: str = ""


class ProbeRow(NamedTuple):
    """A line of the table of probes."""

    cells: Sequence[ProbeCell]
    is_failed: bool


def probe_heads(results: SweepResults) -> list[ProbeHead]:
    """The columns, with one for each task."""
    texts = [ProbeHead("method", is_text=True), ProbeHead("epochs"), ProbeHead("seed")]
    texts += [ProbeHead("in the chain", is_text=True)] if _has_chain(results) else []
    texts.append(ProbeHead("removed"))
    tasks = [ProbeHead(task.name) for task in results.tasks]
    return [
        *texts,
        *tasks,
        ProbeHead("multiply-adds"),
        ProbeHead("time"),
        ProbeHead("tries"),
        ProbeHead("checkpoint", is_text=True),
    ]


def probe_row(results: SweepResults, result: ProbeResult) -> ProbeRow:
    """A probe of the sweep. What failed has empty cells, not zeros."""
    curve, checkpoint = result.probe.curve, result.checkpoint
    name = curve.method
    if curve.is_dense:
        name = "parent, retrained" if curve.budget else "parent"
    seconds = sum((result.seconds or (result.result.seconds if result.result else {})).values())
    errors = [result.evaluations.get(task.name) for task in results.tasks]
    cells = [
        ProbeCell(name),
        _number(str(result.probe.training.epochs), result.probe.training.epochs),
        _number(str(curve.seed), curve.seed),
        *([ProbeCell(result.probe.place or "")] if _has_chain(results) else []),
        _ratio_cell(result),
        *(_number(wording.percent(one.error), one.error) if one else _number("", 2.0) for one in errors),
        _number(f"{wording.magnitude(checkpoint.macs)}", checkpoint.macs) if checkpoint else _number("", -1),
        _number(wording.duration(seconds), round(seconds, 3)),
        _number(str(result.attempts or ""), result.attempts),
        _checkpoint_cell(results, result),
    ]
    return ProbeRow(cells, not result.is_done)


def _has_chain(results: SweepResults) -> bool:
    return results.spec.schedule.kind == "iterative"


def _number(text: str, value: float) -> ProbeCell:
    return ProbeCell(text, value, is_number=True)


def _ratio_cell(result: ProbeResult) -> ProbeCell:
    asked = wording.percent(result.probe.ratio)
    if result.checkpoint is None:
        return ProbeCell(f"failed at {asked}", result.probe.ratio, is_number=True, title=failure_text(result))
    reached = wording.percent(result.checkpoint.ratio_reached)
    text = reached if reached == asked else f"{reached} (asked {asked})"
    return ProbeCell(text, result.checkpoint.ratio_reached, is_number=True)


def failure_text(result: ProbeResult) -> str:
    """Why a probe failed, such as `TrainingError: loss is NaN`."""
    failure = result.failure
    return f"{failure.kind}: {failure.message}" if failure else "no reason was recorded"


def _checkpoint_cell(results: SweepResults, result: ProbeResult) -> ProbeCell:
    if result.checkpoint is None:
        return ProbeCell("")
    uri = result.checkpoint.uri
    whole = uri if "://" in uri or uri.startswith("/") else f"{results.storage.rstrip('/')}/{uri}"
    return ProbeCell(result.probe.id[:10], title=whole, href=_address(whole))


def _address(place: str) -> str:
    """What a browser can open: a web address, or a local path as file://; empty for anything else, such as s3://."""
    if place.startswith("/"):
        return "file://" + quote(place)
    return place if urlsplit(place).scheme in ("http", "https", "file") else ""


def web_address(place: str) -> str:
    """The address if it is one of the web; empty otherwise, so that no script gets into a link."""
    return place if urlsplit(place).scheme in ("http", "https") else ""
