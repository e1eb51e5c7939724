"""How far a sweep is, from the store alone: whoever runs it, wherever."""

from __future__ import annotations

from typing import Any, NamedTuple

from raypruning.app.results import read_record, stored_results
from raypruning.core.plan import next_probes
from raypruning.core.progress import CurveProgress, curves_progress
from raypruning.runtime import leases
from raypruning.runtime.store import ObjectStore


class Status(NamedTuple):
    """A sweep's state.

    Attributes:
        state: `finished`, `running`, `cleaned`: probes were deleted, or `interrupted`: nothing runs it and probes are
            missing.
        num_waiting: probes that the search wants now.
    """

    name: str
    state: str
    holder: str
    num_done: int
    num_failed: int
    num_waiting: int
    curves: tuple[CurveProgress, ...]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        curves = [
            {
                "method": row.curve.method,
                "budget": row.curve.budget,
                "seed": row.curve.seed,
                "num_open": row.num_open,
                "num_probes": row.num_done,
                "weakest_task": row.weakest_task,
                "low": row.bracket.low if row.bracket else None,
                "high": row.bracket.high if row.bracket else None,
            }
            for row in self.curves
        ]
        return {**self._asdict(), "curves": curves}

    def as_text(self) -> str:
        """For a terminal."""
        lines = [
            f"{self.name}: {self.state}{f' by {self.holder}' if self.holder else ''}; "
            f"{self.num_done} probes done, {self.num_failed} failed, {self.num_waiting} waiting"
        ]
        width = max((len(row.curve.label) for row in self.curves), default=0)
        for row in self.curves:
            between = (
                f"{row.weakest_task} between {row.bracket.low:.4f} and {row.bracket.high:.4f}" if row.bracket else ""
            )
            state = f"{row.num_open} open" if row.num_open else "closed" if row.num_done else "not begun"
            lines.append(f"  {row.curve.label:<{width}} {row.num_done:>3} probes  {state:<10} {between}".rstrip())
        return "\n".join(lines)


def sweep_status(store: ObjectStore, name: str) -> Status:
    """The state of a sweep. Raises SpecError when there is none of that name."""
    import time

    record = read_record(store, name)
    results = stored_results(store, record)
    plan = record.plan
    waiting = next_probes(plan, results)
    holder = leases.current(store.blobs, f"sweeps/{name}", now=time.time)
    state = "running" if holder else "finished" if not waiting else "cleaned" if record.is_cleaned else "interrupted"
    return Status(
        name=name,
        state=state,
        holder=f"process {holder.owner.pid} on {holder.owner.host}" if holder else "",
        num_done=sum(result.is_done for result in results.values()),
        num_failed=sum(not result.is_done for result in results.values()),
        num_waiting=len(waiting),
        curves=tuple(curves_progress(plan, results)),
    )
