"""Errors over all corruptions together, of the parent and of each method at its nominal potential."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from raypruning.core.corruption_error import CorruptionErrors, corruption_errors
from raypruning.core.records import ProbeResult, SweepResults, Task
from raypruning.reporting import wording
from raypruning.reporting.answer import largest_budget, method_names, nominal_tasks, parents


def of_probe(results: SweepResults, probe: ProbeResult) -> CorruptionErrors | None:
    """A network's errors over the corruptions it was measured on; None without any, or without a nominal error."""
    nominal = [task.name for task in nominal_tasks(results) if task.name in probe.evaluations]
    if not nominal:
        return None
    errors = {
        (str(task.corruption["kind"]), int(task.corruption["severity"])): probe.evaluations[task.name].error
        for task in corrupted_tasks(results)
        if task.name in probe.evaluations
    }
    return corruption_errors(errors, clean_error=probe.evaluations[nominal[0]].error)


def corrupted_tasks(results: SweepResults) -> list[Task]:
    """Tasks that are a corruption at a severity."""
    return [task for task in results.tasks if "severity" in task.corruption]


def networks_at_potential(results: SweepResults, *, delta: float) -> dict[str, list[ProbeResult]]:
    """By `parent` and by method, the networks of each seed: the method's at its nominal potential, largest budget."""
    by_id = {probe.probe.id: probe for probe in results.probes if probe.is_done}
    nominal = {task.name for task in nominal_tasks(results)}
    groups = {"parent": list(parents(results).values())}
    for method in method_names(results):
        ids = [
            p.training
            for p in results.potentials
            if (p.curve.method, p.curve.budget, p.delta) == (method, largest_budget(results), delta)
            and p.task in nominal
            and p.training
        ]
        groups[method] = [by_id[key] for key in ids if key in by_id]
    return groups


def corruption_notes(results: SweepResults, *, delta: float) -> Sequence[str]:
    """A line such as `Mean error over 19 corruptions: parent 4.1 %, wt 5.0 %, …`; none with fewer than two."""
    if len(corrupted_tasks(results)) < 2:
        return ()
    groups = networks_at_potential(results, delta=delta)
    texts = []
    for name, probes in groups.items():
        found = [one for probe in probes if (one := of_probe(results, probe)) is not None]
        if found:
            texts.append(f"{name} {wording.percent(fmean(one.mean for one in found))}{_mce(found)}")
    if not texts:
        return ()
    scope = wording.count(len({task.corruption["kind"] for task in corrupted_tasks(results)}), "corruption")
    return (f"Mean error over {scope}, pruned to the nominal potential: {', '.join(texts)}.",)


def _mce(found: Sequence[CorruptionErrors]) -> str:
    values = [one.mce for one in found if one.mce is not None]
    return f" (mCE {100 * fmean(values):.1f})" if len(values) == len(found) else ""
