"""Several sweeps side by side: what they have in common, where they differ. For the terminal and for the page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from raypruning.core.records import SweepResults
from raypruning.reporting import wording
from raypruning.reporting.answer import Standing, largest_budget, method_names, standing


class ComparedRow(NamedTuple):
    """A method on a task in every sweep; None where a sweep has no such method, task or delta."""

    method: str
    task: str
    standings: tuple[Standing | None, ...]

    @property
    def change(self) -> str:
        """From the first sweep to the last, in points of the ratio; empty unless both are known."""
        first, last = self.standings[0], self.standings[-1]
        if first is None or last is None or first.ratio is None or last.ratio is None:
            return ""
        if "known" not in (first.status, last.status) or "open" in (first.status, last.status):
            return ""  # the difference of two lower bounds bounds nothing
        bound = {"known": "", "at_top": f"{wording.AT_LEAST} "}[last.status]
        if first.status == "at_top":
            bound = "\N{LESS-THAN OR EQUAL TO} "
        return bound + wording.signed_points(last.ratio - first.ratio)


class Difference(NamedTuple):
    """A field of the spec that is not the same in all sweeps."""

    field: str
    values: tuple[str, ...]


def sweep_labels(sweeps: Sequence[SweepResults]) -> list[str]:
    """A name for each sweep; those of the same name are numbered."""
    counts = Counter(results.spec.name for results in sweeps)
    seen: Counter[str] = Counter()
    labels = []
    for results in sweeps:
        name = results.spec.name
        seen[name] += 1
        labels.append(name if counts[name] == 1 else f"{name} ({seen[name]})")
    return labels


def compared_deltas(sweeps: Sequence[SweepResults]) -> list[float]:
    """All deltas of the sweeps, those that most of them have first."""
    counts = Counter(delta for results in sweeps for delta in dict.fromkeys(results.spec.deltas))
    return [delta for delta, _ in counts.most_common()]


def compared_rows(sweeps: Sequence[SweepResults], *, delta: float) -> list[ComparedRow]:
    """Every method and task of any sweep, each sweep at its own largest budget; rows nobody has are left out."""
    methods = dict.fromkeys(method for results in sweeps for method in method_names(results))
    tasks = dict.fromkeys(task.name for results in sweeps for task in results.tasks)
    rows = [
        ComparedRow(method, task, tuple(_standing(results, method, task, delta) for results in sweeps))
        for method in methods
        for task in tasks
    ]
    return [row for row in rows if any(row.standings)]


def _standing(results: SweepResults, method: str, task: str, delta: float) -> Standing | None:
    has_all = (
        delta in results.spec.deltas and method in method_names(results) and task in [one.name for one in results.tasks]
    )
    if not has_all:
        return None
    return standing(results, method=method, task=task, delta=delta, budget=largest_budget(results))


def spec_differences(sweeps: Sequence[SweepResults]) -> list[Difference]:
    """Where the specs differ, field by field, such as `recipe.epochs`; the name and the data's content included."""
    flats = [
        {**_flattened(results.spec.model_dump(mode="json")), "data fingerprint": results.data_fingerprint[:16]}
        for results in sweeps
    ]
    fields = dict.fromkeys(field for flat in flats for field in flat)
    rows = [Difference(field, tuple(flat.get(field, "") for flat in flats)) for field in fields if field != "name"]
    return [row for row in rows if len(set(row.values)) > 1]


def _flattened(values: Mapping[str, object], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flattened(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = _written(value)
    return flat


def _written(value: object) -> str:
    if isinstance(value, Mapping):
        name = str(value.get("name", ""))
        rest = ", ".join(f"{key}={_written(item)}" for key, item in value.get("parameters", {}).items())
        return f"{name} ({rest})" if rest else name
    if isinstance(value, list):
        return ", ".join(map(_written, value))
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
