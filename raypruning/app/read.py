"""Read a sweep that was run: for reports, comparisons, and notebooks."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from raypruning.app.request import resolve_storage
from raypruning.app.results import collect, read_record, stored_results, with_deltas
from raypruning.core.records import SweepResults
from raypruning.runtime.store import ObjectStore, open_store

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


def read_sweep(
    store: ObjectStore, name: str, *, deltas: Sequence[float] = (), all_probes: bool = False
) -> SweepResults:
    """The answer of a sweep as the store has it now.

    Args:
        deltas: other losses to read the same probes at; those of the sweep when empty.
        all_probes: use everything the store knows of the sweep's curves.
    """
    record = read_record(store, name)
    searched = record.plan
    with _garbage_left_alone():
        results = stored_results(store, record, searched)
        plan = with_deltas(record, deltas).plan if deltas else searched
        uses_all = all_probes or record.is_cleaned
        return collect(plan, results, store, run=record.run, all_probes=uses_all, searched=searched)


@contextmanager
def _garbage_left_alone() -> Iterator[None]:
    """Records have no cycles, and looking for some among all of them, over and over, takes a tenth of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


class Sweep:
    """A sweep as tidy pandas frames.

    Example:
        >>> sweep = raypruning.open_sweep("lenet5")
        >>> sweep.potentials.pivot_table(index="method", columns="task", values="ratio")
    """

    def __init__(self, store: ObjectStore, results: SweepResults) -> None:
        self._store = store
        self.results = results

    @property
    def potentials(self) -> pd.DataFrame:
        """One row for each curve, task and delta."""
        from raypruning.reporting.frames import potentials_frame

        return potentials_frame(self.results)

    @property
    def summaries(self) -> pd.DataFrame:
        """Potentials over seeds."""
        from raypruning.reporting.frames import summaries_frame

        return summaries_frame(self.results)

    @property
    def errors(self) -> pd.DataFrame:
        """One row for each probe and task."""
        from raypruning.reporting.frames import errors_frame

        return errors_frame(self.results)

    @property
    def excess_errors(self) -> pd.DataFrame:
        """One row for each probe and shifted task."""
        from raypruning.reporting.frames import excess_errors_frame

        return excess_errors_frame(self.results)

    @property
    def probes(self) -> pd.DataFrame:
        """One row for each probe: size, multiply-adds, seconds, where its checkpoint lies."""
        from raypruning.reporting.frames import probes_frame

        return probes_frame(self.results)

    def predictions(self, training: str, task: str) -> pd.DataFrame:
        """Per image: predicted and true class, log-probability of the true class, whether it is among the first five.

        Args:
            training: a value of the column `training` of the other frames.
            task: a task's name.
        """
        import pandas as pd

        for result in self.results.probes:
            if result.probe.id == training and task in result.evaluations:
                arrays: dict[str, np.ndarray] = dict(self._store.predictions(result.evaluations[task]))
                return pd.DataFrame(arrays).rename_axis("image")
        raise KeyError(f"no evaluation of {training} on {task} in this sweep")

    def weights(self, training: str) -> dict[str, np.ndarray]:
        """The stored weights of a training, as numpy arrays by name."""
        return dict(self._store.weights(training))


def open_sweep(
    name: str, *, storage: str | None = None, deltas: Sequence[float] = (), all_probes: bool = False
) -> Sweep:
    """Open a sweep that was run, for a notebook. See `read_sweep`; `storage` is found as the commands find it."""
    store = open_store(resolve_storage(storage), read_only=True)
    return Sweep(store, read_sweep(store, name, deltas=deltas, all_probes=all_probes))
