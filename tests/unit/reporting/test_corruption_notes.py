"""Errors over corruptions, of a sample whose shifted tasks are taken for corruptions."""

from __future__ import annotations

from statistics import fmean

import pytest

from raypruning.core.records import SweepResults
from raypruning.reporting.answer import parents
from raypruning.reporting.corruption_notes import corruption_notes, of_probe
from raypruning.reporting.severity_plots import severity_panels


def corrupted(results: SweepResults, *, kinds: tuple[str, ...] = ("fog", "snow", "frost")) -> SweepResults:
    shifted = [task for task in results.tasks if task.nominal != task.name]
    cells = dict(zip((task.name for task in shifted), zip(kinds, (3, 1, 5), strict=True), strict=True))
    tasks = [
        task.model_copy(
            update={"corruption": {"kind": cells[task.name][0], "severity": cells[task.name][1]}}
            if task.name in cells
            else {}
        )
        for task in results.tasks
    ]
    return results.model_copy(update={"tasks": tuple(tasks)})


def test_error_of_a_network_is_averaged_over_its_corruptions(results: SweepResults):
    sample = corrupted(results)
    parent = parents(sample)[0]
    shifted = [task.name for task in sample.tasks if task.nominal != task.name]
    found = of_probe(sample, parent)
    assert list(found) == ["noise"] and found["noise"].mce is None
    assert found["noise"].mean == pytest.approx(fmean(parent.evaluations[name].error for name in shifted))


def test_note_names_the_parent_and_every_method_with_a_nominal_potential(results: SweepResults):
    (note,) = corruption_notes(corrupted(results), delta=results.spec.deltas[0])
    assert note.startswith("Mean error over 3 corruptions, pruned to the nominal potential: parent ")
    assert all(f"{method.label} " in note for method in results.spec.methods)


def test_sweep_without_corruptions_has_no_note_and_no_severities(results: SweepResults):
    assert corruption_notes(results, delta=results.spec.deltas[0]) == []
    assert severity_panels(results, delta=results.spec.deltas[0]) == []


def test_sets_of_corruptions_are_kept_apart(results: SweepResults):
    sample = corrupted(results, kinds=("fog", "fog", "snow"))
    shifted = [task.name for task in sample.tasks if task.nominal != task.name]
    # The same corruption at the same severity, once ours and once as published.
    names = dict(zip(shifted, ("corruption/fog/3", "shift/cifar10_c/fog/3", "shift/cifar10_c/snow/3"), strict=True))

    def renamed(evaluations):
        return {names.get(name, name): one for name, one in evaluations.items()}

    tasks = tuple(task.model_copy(update={"name": names.get(task.name, task.name)}) for task in sample.tasks)
    probes = tuple(p.model_copy(update={"evaluations": renamed(p.evaluations)}) for p in sample.probes)
    sample = sample.model_copy(update={"tasks": tasks, "probes": probes})
    parent = parents(sample)[0]
    found = of_probe(sample, parent)
    assert set(found) == {"corruption", "shift/cifar10_c"}
    assert found["corruption"].mean == parent.evaluations["corruption/fog/3"].error
    theirs = [parent.evaluations[f"shift/cifar10_c/{kind}/3"].error for kind in ("fog", "snow")]
    assert found["shift/cifar10_c"].mean == pytest.approx(fmean(theirs))


def test_severities_are_drawn_for_corruptions_that_have_some(results: SweepResults):
    delta = results.spec.deltas[0]
    assert severity_panels(corrupted(results), delta=delta) == [], "one severity each is no curve"
    (panel,) = severity_panels(corrupted(results, kinds=("fog", "fog", "fog")), delta=delta)
    assert panel.title == "Error against severity of fog" and panel.svg.startswith("<svg")
    assert "parent" in panel.svg
