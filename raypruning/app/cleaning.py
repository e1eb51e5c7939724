"""Free disk: trainings that no sweep needs any more, resume states, what crashes left behind."""

from __future__ import annotations

from typing import NamedTuple

from raypruning.app.results import collect, read_record, stored_results, write_record
from raypruning.app.sweep import asked_ids
from raypruning.runtime.store import ObjectStore


class Cleaned(NamedTuple):
    """What was, or would be, deleted."""

    trainings: list[str]
    num_bytes: int


def clean(store: ObjectStore, *, keep: str, dry_run: bool) -> Cleaned:
    """Delete trainings from the store.

    Args:
        keep: `asked`: all that the search of any sweep asked for; `potential`: of these, the parents, those at a
            potential and those that close its bracket, so that reports show the same potentials. Predictions go with
            their trainings, and with them the errors of the probes that are deleted.
        dry_run: delete nothing.
    """
    needed: set[str] = set()
    for name in store.sweep_names():
        needed |= _at_potentials(store, name) if keep == "potential" else asked_ids(store, name)
    doomed = [training_id for training_id in store.training_ids() if training_id not in needed]
    num_bytes = sum(store.blobs.size(f"trainings/{training_id}") or 0 for training_id in doomed)
    if not dry_run:
        for name in store.sweep_names():
            record = read_record(store, name)
            if not asked_ids(store, name).isdisjoint(doomed):
                write_record(store, record.plan, {**record.run, "is_cleaned": True})
        for training_id in doomed:
            store.delete_training(training_id)
        store.clean()
    return Cleaned(doomed, num_bytes)


def _at_potentials(store: ObjectStore, name: str) -> set[str]:
    record = read_record(store, name)
    results = stored_results(store, record)
    answer = collect(record.plan, results, store, run=record.run, all_probes=record.is_cleaned)
    parents = {record.plan.parent(seed).id for seed in record.spec.seeds}
    at_potential = {one.training for one in answer.potentials if one.training}
    next_ones = {(one.curve, one.next_ratio) for one in answer.potentials}
    closing = {p.probe.id for p in answer.probes if (p.probe.curve, p.ratio_reached) in next_ones}
    return parents | at_potential | closing
