"""What there is: models, methods, datasets, tasks, sweeps, and the sweeps that were run. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from raypruning import registry
from raypruning.app.results import read_record
from raypruning.app.sweep_files import read_target, sweep_names
from raypruning.errors import RaypruningError, SpecError, unknown_name_message
from raypruning.models.resolve import model_names
from raypruning.runtime.store import open_store
from raypruning.tasks.task import task_names

KINDS = ("models", "methods", "datasets", "tasks", "sweeps", "runs")


class Entry(NamedTuple):
    """One line of a list."""

    name: str
    note: str = ""


def entries(kind: str, *, storage: str, dataset: str | None = None) -> list[Entry]:
    """All of a kind. A plugin that cannot be found is listed with the reason, and harms no other.

    Args:
        dataset: lists every task of it by its whole name, families spelt out.
    """
    if dataset is not None:
        if kind != "tasks":
            raise SpecError(f"only tasks belong to a dataset: prune-cli list tasks {dataset}")
        registry.datasets.check(dataset)
        return [Entry(name) for name in task_names(dataset)]
    match kind:
        case "models":
            return [Entry(name) for name in model_names()]
        case "sweeps":
            return [Entry(name, _sweep_note(name)) for name in sweep_names()]
        case "runs":
            return _runs(storage)
        case "methods" | "datasets" | "tasks":
            known = {"methods": registry.methods, "datasets": registry.datasets, "tasks": registry.tasks}[kind]
            return [Entry(name + ("…" if name.endswith("/") else ""), known.owner(name)) for name in known.names()]
    raise SpecError(unknown_name_message("list", kind, KINDS))


def _sweep_note(name: str) -> str:
    raw = read_target(name).raw
    return f"{raw['model'] if isinstance(raw['model'], str) else raw['model']['name']} on {raw['dataset']}"


def _runs(storage: str) -> list[Entry]:
    store = open_store(storage, read_only=True)
    found = []
    for name in store.sweep_names():
        try:
            record = read_record(store, name)
        except RaypruningError as error:
            found.append(Entry(name, str(error)))
            continue
        spec, run = record.spec, record.run
        state = "finished" if "wall_seconds" in run else "interrupted: the same command continues it"
        found.append(Entry(name, f"{spec.model.name} on {spec.data.name}, {_deltas(spec.deltas)}, {state}"))
    return found


def _deltas(deltas: Sequence[float]) -> str:
    return "delta " + ", ".join(f"{delta:g}" for delta in deltas)
