"""What stands around the numbers: marks and what they mean, warnings, cost."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from raypruning.analysis.metrics import metric_of
from raypruning.core.potential import num_lost_allowed
from raypruning.core.records import ProbeResult, SweepResults
from raypruning.reporting import wording
from raypruning.reporting.answer import Excess, Standing

# Below so many images one image more or less moves a potential visibly (docs: "What users get told").
FEW_IMAGES = 10
# Of the time of a training.
MUCH_WAITING = 0.1
# That processes which decode take at first; a short training is not judged by these.
SECONDS_TO_BEGIN = 10.0

# Read where there is no colour; a line under the table explains them.
WEAKEST_MARK = "\N{BLACK DOWN-POINTING SMALL TRIANGLE}"
NOT_MONOTONE_MARK = "*"


# -- tables ----------------------------------------------------------------------------------------------------------


def marked_amount(one: Standing, *, is_weakest: bool) -> str:
    """Such as `▾ 86.9 %`. Marks stand before the number, so that numbers stay below each other."""
    marks = (WEAKEST_MARK if is_weakest else "") + (NOT_MONOTONE_MARK if one.is_not_monotone else "")
    return f"{marks} {one.amount}" if marks else one.amount


def images_note(results: SweepResults, *, delta: float) -> str:
    """What delta is in images, such as `0.5 points are 50 of 10 000 images.`; empty without tasks."""
    tasks_of: dict[str, list[str]] = {}
    for task in results.tasks:
        of = wording.count(task.num_examples, "image")
        if metric_of(task.metric).counts:
            amount = f"{wording.thousands(num_lost_allowed(delta, task.num_examples))} of {of}"
        else:
            amount = f"{delta:g} of the error, which is 1 - mean intersection over union, over {of}"
        tasks_of.setdefault(amount, []).append(task.name)
    amounts = [f"{amount} on {_named(tasks, num_all=len(results.tasks))}" for amount, tasks in tasks_of.items()]
    return f"{wording.points(delta)} = {'; '.join(amounts)}." if amounts else ""


def potential_notes(shown: Iterable[Standing], *, marks_weakest: bool = False) -> list[str]:
    """What the marks in a table of potentials mean: only those that appear in it."""
    cells = list(shown)
    notes = []
    if marks_weakest:
        notes.append(f"{WEAKEST_MARK} weakest task of the method.")
    confidences = sorted({one.confidence for one in cells if one.spread and one.confidence is not None})
    if confidences:
        named = wording.listing([f"{100 * confidence:g} %" for confidence in confidences])
        notes.append(
            f"Before the brackets: the largest measured ratio that passes. ( ) where the limit lies with {named} "
            "confidence, by a curve fitted to all measured networks."
        )
    if any(one.spread and one.interval_kind == "seeds" for one in cells):
        notes.append("[ ] smallest and largest over seeds.")
    if any(one.status == "at_top" for one in cells):
        notes.append(f"{wording.AT_LEAST} the largest ratio of the search still passes, for at least one seed.")
    if any(one.status == "open" for one in cells):
        notes.append("? or open: the search could not finish; a number is what passed so far.")
    if any(one.is_not_monotone for one in cells):
        notes.append(f"{NOT_MONOTONE_MARK} not monotone: some smaller ratio that was measured fails.")
    return notes


def excess_notes(columns: Iterable[Sequence[Excess]], *, num_seeds: int) -> list[str]:
    """How to read a table of excess errors over so many seeds."""
    cells = [one for column in columns for one in column]
    notes = []
    if any(one.spread for one in cells):
        notes.append("Above zero, pruning costs more there than on the nominal task.")
        notes.append("( ) interval" + ("; its ends are averaged over seeds." if num_seeds > 1 else "."))
    if any(one.value is None for one in cells):
        notes.append("open: no nominal potential was found to compare at.")
    return notes


def cost_lines(results: SweepResults) -> list[tuple[str, str]]:
    """What the sweep took, as (what, how much)."""
    cost = results.cost
    failed = f", {wording.thousands(cost.num_failed)} failed" if cost.num_failed else ""
    phases = [f"{phase} {wording.duration(seconds)}" for phase, seconds in cost.seconds.items() if seconds]
    total = sum(cost.seconds.values())
    lines = [
        ("probes", f"{wording.thousands(cost.num_probes)}{failed}"),
        ("trained in this run", f"{wording.count(cost.num_trained, 'network')}, {wording.count(cost.epochs, 'epoch')}"),
        ("evaluated in this run", wording.count(cost.num_evaluated, "evaluation")),
        ("wall time of this run", wording.duration(cost.wall_seconds)),
    ]
    if phases:
        lines.append(("time in probes", f"{wording.duration(total)}: {', '.join(phases)}"))
    return lines


# -- warnings --------------------------------------------------------------------------------------------------------


def report_warnings(results: SweepResults) -> list[str]:
    """What a reader must know before believing the numbers: the sweep's warnings, failures, and too few images."""
    # The note stands on top of every report already.
    lines = [line for line in results.warnings if line != results.spec.note]
    failed = [p for p in results.probes if not p.is_done]
    if failed:
        names = [f"{probe_label(p)} ({_reason(p)})" for p in failed[:3]]
        more = f", and {len(failed) - 3} more" if len(failed) > 3 else ""
        lines.append(f"{wording.count(len(failed), 'probe')} failed and measured nothing: {'; '.join(names)}{more}.")
    dead = [p for p in results.probes if p.checkpoint is not None and p.checkpoint.dead_layers]
    if dead:
        names = [f"{probe_label(p)} ({_dead_layers(p)})" for p in dead[:3]]
        more = f", and {len(dead) - 3} more" if len(dead) > 3 else ""
        lines.append(
            f"In {wording.count(len(dead), 'network')} whole layers have no part in the answer any more: "
            f"{'; '.join(names)}{more}."
        )
    lines += [*_waited(results), *_few_images(results)]
    return list(dict.fromkeys(lines))


def _waited(results: SweepResults) -> list[str]:
    """Networks whose training waited for images to be decoded."""
    trained = [one.result for one in results.probes if one.result is not None]
    waits = [
        one.data_wait
        for one in trained
        if one.data_wait >= MUCH_WAITING and one.data_wait * one.seconds.get("train", 0.0) >= SECONDS_TO_BEGIN
    ]
    if not waits:
        return []
    most = wording.percent(max(waits))
    return [
        f"{wording.count(len(waits), 'network')} waited for images to be decoded, for up to {most} of the training: "
        "more --cpus-per-probe decode faster."
    ]


def probe_label(result: ProbeResult) -> str:
    """Such as `wt, 2 epochs, seed 0 at 90.0 %`, `parent of seed 0`, `parent of seed 0 retrained for 2 epochs`."""
    curve = result.probe.curve
    if not curve.is_dense:
        return f"{curve.label} at {wording.percent(result.probe.ratio)}"
    retrained = f" retrained for {wording.count(curve.budget, 'epoch')}" if curve.budget else ""
    return f"parent of seed {curve.seed}{retrained}"


def _reason(result: ProbeResult) -> str:
    return result.failure.kind if result.failure else "no reason recorded"


def _dead_layers(result: ProbeResult) -> str:
    layers = result.checkpoint.dead_layers if result.checkpoint else ()
    return ", ".join([*layers[:3], *([f"{len(layers) - 3} more"] if len(layers) > 3 else [])])


def _named(tasks: Sequence[str], *, num_all: int) -> str:
    """The tasks by name when they are few."""
    if len(tasks) == num_all > 1:
        return "every task"
    shown = list(tasks[:3]) + ([f"{len(tasks) - 3} more"] if len(tasks) > 3 else [])
    return wording.listing(shown)


def _few_images(results: SweepResults) -> Sequence[str]:
    lines = []
    for delta in results.spec.deltas:
        few: dict[tuple[int, int], list[str]] = {}
        for task in results.tasks:
            allowed = num_lost_allowed(delta, task.num_examples)
            if metric_of(task.metric).counts and allowed < FEW_IMAGES:
                few.setdefault((allowed, task.num_examples), []).append(task.name)
        for (allowed, num_examples), tasks in few.items():
            named = _named(tasks, num_all=len(results.tasks))
            lines.append(
                f"A delta of {wording.points(delta)} is {wording.count(allowed, 'image')} of "
                f"{wording.thousands(num_examples)} on {named}: too few for a steady potential "
                f"(fewer than {FEW_IMAGES}). Take a larger delta or more test images."
            )
    return lines
