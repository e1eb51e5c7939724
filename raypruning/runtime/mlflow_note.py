"""The text on top of a sweep's experiment in MLflow, in Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from raypruning.core.records import PotentialSummary, SweepResults, SweepSpec

STEPS_PER_UNIT = 10_000  # MLflow's steps are integers: a hundredth of a percent is finer than most brackets
NOTE_ROWS = 60
HEADLINE_ROWS = 4


def experiment_note(spec: SweepSpec, results: SweepResults | None, *, charts: str) -> str:
    """What an experiment's page says above its runs, with the answer as soon as there is one.

    Args:
        charts: link to the page of charts; none if empty.
    """
    link = f"[All curves as charts]({charts})" if charts else ""
    lines = [
        # Only the first paragraph is seen until the note is unfolded.
        f"**How far can {spec.model.name} be pruned on {spec.data.name} before it loses more than delta?** "
        f"{_headline(spec, results)}",
        "",
        f"{spec.note} {link}".strip(),
        "",
        "One run per curve (method, budget, seed); its probes are nested in it. In the charts, *step* is the "
        f"fraction of parameters removed x {STEPS_PER_UNIT}: 9000 is 90 %, 0 is the dense parent.",
        "",
        "- `error`: fraction wrong on each task. `excess_error`: what is lost on a shifted task beyond what is lost on "
        "its nominal one, compared with the parent.",
        "- `potential_<delta>`: the largest fraction that can be removed for at most delta more error than the "
        "parent's. Longer bars are better.",
        "- `dense retrained` is the control: the parent, trained as much longer as the pruned networks were.",
    ]
    if results is not None:
        lines += ["", *_table(results.summaries)]
        failed = sum(not probe.is_done for probe in results.probes)
        lines += ["", f"{len(results.probes)} probes, {failed} failed."]
    return "\n".join(lines)


def _headline(spec: SweepSpec, results: SweepResults | None) -> str:
    if results is None:
        return ""
    task, delta = results.spec.tasks[0], min(spec.deltas)
    rows = [row for row in results.summaries if (row.task, row.delta) == (task, delta)][:HEADLINE_ROWS]
    if not rows:
        return ""
    budgets = len({row.budget for row in rows}) > 1
    return f"By {delta:g} on {task}: " + ", ".join(
        f"{row.method}{f' ({row.budget} epochs)' if budgets else ''} {_mean(row)}" for row in rows
    )


def _mean(row: PotentialSummary) -> str:
    return "open" if row.mean is None else f"{'≥ ' if row.num_at_top else ''}{row.mean:.3f}"


def _table(summaries: Sequence[PotentialSummary]) -> list[str]:
    lines = ["| task | delta | method | budget | potential | seeds |", "|---|---|---|---|---|---|"]
    for row in summaries[:NOTE_ROWS]:
        spread = f" ± {row.sd:.3f}" if row.sd is not None and row.n > 1 else ""
        lines.append(f"| {row.task} | {row.delta:g} | {row.method} | {row.budget} | {_mean(row)}{spread} | {row.n} |")
    if len(summaries) > NOTE_ROWS:
        lines.append(f"| and {len(summaries) - NOTE_ROWS} more | | | | | |")
    return lines
