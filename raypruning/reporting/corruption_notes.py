"""Errors over all corruptions together, of the parent and of each method at its nominal potential."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from raypruning.core.corruption_error import CorruptionErrors, corruption_errors
from raypruning.core.records import ProbeResult, SweepResults, Task
from raypruning.reporting import wording
from raypruning.reporting.answer import largest_budget, method_names, parents


def of_probe(results: SweepResults, probe: ProbeResult) -> dict[str, CorruptionErrors]:
    """A network's errors over the corruptions it was measured on, by set; none without a nominal error."""
    found = {}
    for name, tasks in corruption_sets(results).items():
        nominal = probe.evaluations.get(tasks[0].nominal)
        errors = {
            (str(task.corruption["kind"]), int(task.corruption["severity"])): probe.evaluations[task.name].error
            for task in tasks
            if task.name in probe.evaluations
        }
        over = corruption_errors(errors, clean_error=nominal.error) if nominal else None
        if over is not None:
            found[name] = over
    return found


def corruption_sets(results: SweepResults) -> dict[str, list[Task]]:
    """Tasks that are a corruption at a severity, by the set they belong to: `corruption` or `shift/cifar10_c`."""
    sets: dict[str, list[Task]] = {}
    for task in results.tasks:
        if "severity" in task.corruption:
            sets.setdefault(task.name.rsplit("/", 2)[0], []).append(task)
    return sets


def networks_at_potential(results: SweepResults, *, nominal: str, delta: float) -> dict[str, list[ProbeResult]]:
    """By `parent` and by method, the networks of each seed: the method's at its potential on the nominal task given.

    Of the largest budget.
    """
    by_id = {probe.probe.id: probe for probe in results.probes if probe.is_done}
    groups = {"parent": list(parents(results).values())}
    for method in method_names(results):
        ids = [
            p.training
            for p in results.potentials
            if (p.curve.method, p.curve.budget, p.delta, p.task) == (method, largest_budget(results), delta, nominal)
            and p.training
        ]
        groups[method] = [by_id[key] for key in ids if key in by_id]
    return groups


def corruption_notes(results: SweepResults, *, delta: float) -> list[str]:
    """A line for each set of several, such as `Mean error over 19 corruptions: parent 4.1 %, wt 5.0 %, …`."""
    sets = {name: tasks for name, tasks in corruption_sets(results).items() if len(tasks) > 1}
    lines = []
    for name, tasks in sets.items():
        texts = []
        for group, probes in networks_at_potential(results, nominal=tasks[0].nominal, delta=delta).items():
            found = [over[name] for probe in probes if name in (over := of_probe(results, probe))]
            if found:
                texts.append(f"{group} {wording.percent(fmean(one.mean for one in found))}{_mce(found)}")
        if texts:
            scope = wording.count(len({task.corruption["kind"] for task in tasks}), "corruption")
            where = f" of {name}" if len(sets) > 1 else ""
            lines.append(f"Mean error over {scope}{where}, pruned to the nominal potential: {', '.join(texts)}.")
    return lines


def _mce(found: Sequence[CorruptionErrors]) -> str:
    values = [one.mce for one in found if one.mce is not None]
    return f" (mCE {100 * fmean(values):.1f})" if len(values) == len(found) else ""
