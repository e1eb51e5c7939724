"""How a sweep looks in MLflow: records in, names, params, tags and metric points out. Knows nothing of mlflow.

MLflow's chart page makes a section of everything before the last "/" of a metric's name, and a chart of the rest: a
line where some run has a step of 1 or more, a bar otherwise. Sections are sorted by name. It draws top-level runs only:

    run per curve    error/<task>, excess_error/<task>, size/macs_kept    step = fraction removed x 10 000: lines
                     potential_<delta>/<task>                             step 0: bars
    run per probe    nested in its curve's: evaluations, sizes, history, seconds, where the weights lie
    `mlflow_losses` adds runs of populations, which look as those of curves do, and one that has pages as artifacts
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import NamedTuple
from urllib.parse import quote

from raypruning.core.identity import fingerprint
from raypruning.core.records import (
    DENSE,
    Checkpoint,
    Curve,
    Potential,
    Probe,
    ProbeResult,
    Provenance,
    SweepResults,
    SweepSpec,
)
from raypruning.core.search.chain import chain_links
from raypruning.runtime.mlflow_note import STEPS_PER_UNIT, experiment_note

TAG_LIMIT = 5_000  # characters; MLflow refuses tags beyond 8 000 bytes on some stores
NOTE_LIMIT = 18_000  # MLflow refuses experiment tags beyond 20 000

# Okabe and Ito 2008, and two of Paul Tol's: told apart by colour-blind readers, and dark enough on white.
COLORS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#882255", "#332288")
DENSE_COLOR = "#7F7F7F"

COLOR = "mlflow.runColor"
CURVE_KEY = "curve_key"
PROBE_KEY = "training_id"


class Point(NamedTuple):
    """One value of a metric. Always finite: MLflow turns inf into 1.8e308, which wrecks a chart."""

    key: str
    value: float
    step: int
    time_ms: int


@dataclass(frozen=True, kw_only=True)
class RunContent:
    """What one MLflow run should hold.

    Attributes:
        identity: name and value of the tag by which the run is found again.
        params: never change for one identity, since MLflow refuses to change a param.
        points: measured, so that each (key, step, value) is written once.
        history: points that are complete as soon as the run has finished.
        answers: may change as a sweep goes on; the last one written counts.
        start_ms: None where no record says when.
    """

    identity: tuple[str, str]
    name: str
    params: Mapping[str, str]
    tags: Mapping[str, str]
    points: tuple[Point, ...] = ()
    history: tuple[Point, ...] = ()
    answers: tuple[Point, ...] = ()
    status: str = "RUNNING"
    start_ms: int | None = None
    end_ms: int | None = None


def experiment_name(sweep: str) -> str:
    """One experiment per sweep."""
    return f"raypruning/{sweep}"


def artifact_location(root: str, sweep: str) -> str:
    """Where a sweep's artifacts lie below `root`, whatever characters its name has."""
    return f"{root.rstrip('/')}/{re.sub(r'[^A-Za-z0-9._-]', '_', sweep)}"


def metric_name(section: str, chart: str) -> str:
    """A metric shown as `chart` in `section`: `error` and `noise/uniform/0.1` give `error/noise_uniform_0.1`.

    MLflow takes letters, digits and `_ - . : /` and blanks; a "/" in the chart would make a section of its own.
    """
    return f"{section}/{re.sub(r'[^A-Za-z0-9_.-]', '_', chart)}"


def step_of(ratio: float) -> int:
    """Where a ratio stands on the x-axis: 0.9 -> 9000."""
    return round(ratio * STEPS_PER_UNIT)


def time_ms(provenance: Provenance) -> int:
    """When a training was made, in ms since 1970, so that replaying a record gives the same point; 0 if unknown."""
    if not provenance.created:
        return 0
    try:
        created = datetime.fromisoformat(provenance.created)
    except ValueError:
        return 0
    return round((created if created.tzinfo else created.replace(tzinfo=UTC)).timestamp() * 1000)


def curve_key(probe: Probe) -> str:
    """Names a curve's run within the experiment: the curve, and all of the training that its points share.

    The same sweep started again with another recipe or other data gives other curves, not more points on these.
    """
    training = probe.training
    parts: dict[str, object] = {
        "curve": probe.curve.model_dump(mode="json"),
        "model": training.model.model_dump(mode="json"),
        "data": training.data.model_dump(mode="json"),
        "data_fingerprint": training.data_fingerprint,
        "recipe": training.recipe.model_dump(mode="json"),
        "method": training.mask.method.model_dump(mode="json") if training.mask else None,
    }
    if training.rewind_epochs is not None:
        parts["rewind_epochs"] = training.rewind_epochs
    if training.gradual is not None:
        parts["gradual"] = training.gradual.model_dump(mode="json")
    return fingerprint(parts)


def parent_of(probe: Probe, results: Mapping[str, ProbeResult]) -> ProbeResult | None:
    """The dense parent of a pruned probe, if it is among `results` (by training id); follows the links of a chain.

    What was pruned from scratch began from none: it is compared with that of its seed, model, data and recipe.
    """
    start = probe.training.start
    if start is None and probe.training.gradual is not None:
        same = (probe.training.seed, probe.training.model, probe.training.data_fingerprint, probe.training.recipe)
        dense = [result for result in results.values() if result.probe.curve.is_parent]
        trained = [(one, one.probe.training) for one in dense]
        return next((one for one, t in trained if (t.seed, t.model, t.data_fingerprint, t.recipe) == same), None)
    while start is not None and start in results:
        if results[start].probe.curve.is_parent:
            return results[start]
        start = results[start].probe.training.start
    return None


def curve_name(curve: Curve) -> str:
    """What the legend says: `wt · 2 epochs · seed 0`, `dense · seed 0`, `dense retrained · 2 epochs · seed 0`.

    A schedule other than one_shot is named: `wt · iterative · 2 epochs · seed 0`.
    """
    if curve.is_parent:
        return f"dense · seed {curve.seed}"
    epochs = f"{curve.budget} epoch{'' if curve.budget == 1 else 's'}"
    if curve.is_dense:
        return f"dense retrained · {epochs} · seed {curve.seed}"
    schedule = [] if curve.schedule == "one_shot" else [curve.schedule]
    return " · ".join([curve.method, *schedule, epochs, f"seed {curve.seed}"])


def color_family(params: Mapping[str, str]) -> tuple[str, ...]:
    """What makes two curves the same colour: all params but the seed, so that the seeds of a method make a band."""
    return tuple(f"{name}={value}" for name, value in sorted(params.items()) if name != "seed")


def color_of(params: Mapping[str, str], used: Mapping[tuple[str, ...], str]) -> str:
    """The colour of a new curve, given those of the families that have one. Dense ones are grey."""
    if params.get("method") == DENSE:
        return DENSE_COLOR
    num_used = sum(color in COLORS for color in used.values())
    return used.get(color_family(params), COLORS[num_used % len(COLORS)])


def curve_content(probe: Probe, *, sweep: str, start_ms: int | None = None) -> RunContent:
    """The run of a probe's curve, before anything is measured. "Group by" of MLflow works on its params."""
    training = probe.training
    params = _curve_params(probe.curve) | _flat("recipe", training.recipe.model_dump(mode="json"))
    params |= _flat("model", training.model.options) | _flat("data", training.data.model_dump(exclude={"name"}))
    if training.mask:
        params |= _flat("method", training.mask.method.parameters)
    if training.rewind_epochs is not None:
        params["rewind_epochs"] = str(training.rewind_epochs)
    if training.gradual:
        params |= _flat("gradual", training.gradual.model_dump(mode="json"))
    key = curve_key(probe)
    tags = {"kind": "curve", "sweep": sweep, CURVE_KEY: key, "data_fingerprint": training.data_fingerprint}
    return RunContent(
        identity=(CURVE_KEY, key),
        name=curve_name(probe.curve),
        params=params,
        tags=tags | SOURCE_TAGS,
        start_ms=start_ms,
    )


def curve_points(result: ProbeResult) -> tuple[Point, ...]:
    """What one probe adds to the lines of its curve; nothing when it failed. The dense parent's go to step 0."""
    if result.result is None or not result.is_done:
        return ()
    checkpoint, at_ms = result.result.checkpoint, time_ms(result.result.provenance)
    values = {metric_name("error", task): evaluation.error for task, evaluation in result.evaluations.items()}
    if checkpoint.macs_dense:
        values[metric_name("size", "macs_kept")] = checkpoint.macs / checkpoint.macs_dense
    return _points(values, step=step_of(checkpoint.ratio_reached), at_ms=at_ms)


def probe_content(result: ProbeResult, *, sweep: str) -> RunContent:
    """The nested run of a probe. A failed one has its failure, and no error."""
    probe, stored = result.probe, result.result if result.is_done else None
    tags = {"kind": "probe", "sweep": sweep, PROBE_KEY: probe.id, "probe_status": result.status}
    tags |= SOURCE_TAGS | {"attempts": str(result.attempts), CURVE_KEY: curve_key(probe)}
    if probe.training.start:
        tags["start"] = probe.training.start
    if probe.place:
        tags["place"] = probe.place
    if result.failure:
        tags |= {"failure.kind": result.failure.kind, "failure.message": result.failure.message[:TAG_LIMIT]}
    content = RunContent(
        identity=(PROBE_KEY, probe.id),
        name=f"{curve_name(probe.curve)} · ratio {result.ratio_reached:.4f}",
        params=_curve_params(probe.curve) | {"ratio_asked": repr(probe.ratio), "epochs": str(probe.training.epochs)},
        tags=tags,
        status="FINISHED" if result.is_done else "FAILED",
    )
    if stored is None:
        return content
    at_ms = time_ms(stored.provenance)
    train_ms = round(1000 * sum(stored.seconds.values()))
    return replace(
        content,
        tags=dict(content.tags) | _stored_tags(result),
        points=_probe_points(result, at_ms=at_ms),
        history=_history(result, start_ms=at_ms - train_ms, end_ms=at_ms),
        start_ms=at_ms - train_ms if at_ms > train_ms else None,
        end_ms=at_ms or None,
    )


def answer_content(results: SweepResults, curve: Curve) -> RunContent:
    """The run of a curve with its potentials, as bars. An unknown potential has none: unknown is not 0."""
    probe = next(result.probe for result in results.probes if result.probe.curve == curve)
    at_ms = last_ms(results, curve)
    values = {
        metric_name(f"potential_{potential.delta:g}", potential.task): potential.ratio
        for potential in results.potentials
        if potential.curve == curve
    }
    content = curve_content(probe, sweep=results.spec.name)
    return replace(
        content,
        tags=dict(content.tags) | _answer_tags(results, curve),
        answers=_points(values, step=0, at_ms=at_ms),
        end_ms=at_ms or None,
    )


def excess_points(results: SweepResults, curve: Curve) -> tuple[Point, ...]:
    """The excess errors of a curve, as lines that begin at the parent: 0 by definition."""
    at_ms = last_ms(results, curve)
    excess = [error for error in results.excess_errors if error.curve == curve]
    points: list[Point] = []
    for task in dict.fromkeys(error.task for error in excess):
        points += _points({metric_name("excess_error", task): 0.0}, step=0, at_ms=at_ms)
    for error in excess:
        points += _points(
            {metric_name("excess_error", error.task): error.value}, step=step_of(error.ratio), at_ms=at_ms
        )
    return tuple(dict.fromkeys(points))


def curve_status(results: Iterable[ProbeResult]) -> str:
    """FINISHED, or FAILED when no probe of the curve was measured."""
    return "FINISHED" if any(result.is_done for result in results) else "FAILED"


def experiment_tags(spec: SweepSpec, results: SweepResults | None = None, *, charts: str = "") -> dict[str, str]:
    """What an experiment says of itself: a note in Markdown, with the answer as soon as there is one.

    Args:
        charts: link to the page of charts; none if empty.
    """
    first = "nominal" if "nominal" in spec.tasks else spec.tasks[0]
    return {
        "mlflow.experimentKind": "custom_model_development",
        "mlflow.note.content": experiment_note(spec, results, charts=charts)[:NOTE_LIMIT],
        "mlflow.experiment.primaryMetric.name": metric_name("error", first),
        "mlflow.experiment.primaryMetric.greaterIsBetter": "False",
        "sweep": spec.name,
        "model": spec.model.name,
        "dataset": spec.data.name,
        "deltas": " ".join(f"{delta:g}" for delta in spec.deltas),
    }


def experiment_url(base_url: str, experiment_id: str) -> str:
    """The page with the charts of one sweep. Only curves are asked for: MLflow loads 100 runs, most of them probes."""
    only_curves = quote("tags.kind = 'curve'")
    query = f"searchFilter={only_curves}&compareRunsMode=CHART"
    return f"{base_url.rstrip('/')}/#/experiments/{experiment_id}/runs?{query}"


def compare_url(base_url: str, experiment_ids: Sequence[str]) -> str:
    """The page with the charts of several sweeps together."""
    only_curves, experiments = quote("tags.kind = 'curve'"), quote(json.dumps(list(experiment_ids)))
    query = f"experiments={experiments}&searchFilter={only_curves}&compareRunsMode=CHART"
    return f"{base_url.rstrip('/')}/#/compare-experiments/s?{query}"


SOURCE_TAGS = {"mlflow.source.name": "prune-cli", "mlflow.source.type": "LOCAL"}


def _answer_tags(results: SweepResults, curve: Curve) -> dict[str, str]:
    spec = results.spec
    tags = {f"potential.{_word(p.task)}.{p.delta:g}": _in_words(p) for p in results.potentials if p.curve == curve}
    return tags | {
        "deltas": " ".join(f"{delta:g}" for delta in spec.deltas),
        "search.strategy": spec.search.strategy,
        "search.range": _range_in_words(spec),
        "search.resolution": f"{spec.search.resolution:g}",
        "storage": results.storage,
    }


def _range_in_words(spec: SweepSpec) -> str:
    links = chain_links(spec.schedule, spec.search)
    if links:
        return f"a chain of {len(links)} links to {links[-1].ratio:g}"
    return f"{spec.search.low:g} to {spec.search.high:g}"


def _curve_params(curve: Curve) -> dict[str, str]:
    return {name: str(value) for name, value in curve.model_dump().items()}


def _flat(prefix: str, values: Mapping[str, object]) -> dict[str, str]:
    flat: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(f"{prefix}.{name}", value)
        elif value is not None and value != []:
            flat[f"{prefix}.{_word(name)}"] = str(value)
    return flat


def _word(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "_", name)


def _points(values: Mapping[str, float | None], *, step: int, at_ms: int) -> tuple[Point, ...]:
    return tuple(
        Point(key, float(value), step, at_ms)
        for key, value in values.items()
        if value is not None and math.isfinite(value)
    )


def _probe_points(result: ProbeResult, *, at_ms: int) -> tuple[Point, ...]:
    assert result.result is not None
    checkpoint = result.result.checkpoint
    values: dict[str, float | None] = {}
    for task, evaluation in result.evaluations.items():
        values[metric_name("error", task)] = evaluation.error
        values[metric_name("loss", task)] = evaluation.loss
        values[metric_name("error_top5", task)] = evaluation.error_top5
    values |= _sizes(checkpoint)
    # Seconds as stored, not as seen by this process, which saw none of a probe that the store already had.
    seconds = {"evaluate": sum(evaluation.seconds for evaluation in result.evaluations.values())} | dict(
        result.result.seconds
    )
    values |= {metric_name("seconds", phase): value for phase, value in seconds.items()}
    return _points(values, step=step_of(checkpoint.ratio_reached), at_ms=at_ms)


def _sizes(checkpoint: Checkpoint) -> dict[str, float | None]:
    return {
        "size/ratio_asked": checkpoint.ratio_asked,
        "size/ratio_reached": checkpoint.ratio_reached,
        "size/num_nonzero": checkpoint.num_nonzero,
        "size/num_bytes": checkpoint.num_bytes,
        "size/macs": checkpoint.macs,
        "size/macs_on_paths": checkpoint.macs_on_paths,
        "size/macs_kept": checkpoint.macs / checkpoint.macs_dense if checkpoint.macs_dense else None,
    }


def _history(result: ProbeResult, *, start_ms: int, end_ms: int) -> tuple[Point, ...]:
    assert result.result is not None
    epochs = result.result.history
    points: list[Point] = []
    for position, epoch in enumerate(epochs, start=1):
        # Records have no time per epoch; evenly spread is what a chart over time should show.
        at_ms = max(0, start_ms + round((end_ms - start_ms) * position / len(epochs)))
        values = epoch.model_dump(exclude={"epoch"})
        points += _points({f"history/{name}": value for name, value in values.items()}, step=epoch.epoch, at_ms=at_ms)
    return tuple(points)


def _stored_tags(result: ProbeResult) -> dict[str, str]:
    assert result.result is not None
    checkpoint, provenance = result.result.checkpoint, result.result.provenance
    tags = {
        "checkpoint.uri": checkpoint.uri,
        "checkpoint.sha256": checkpoint.sha256,
        "data_fingerprint": result.result.training.data_fingerprint,
        "provenance.device": provenance.device,
        "provenance.threads": str(provenance.threads),
        "provenance.host": provenance.host,
        "provenance.created": provenance.created,
        "mlflow.source.git.commit": provenance.git_commit,
    }
    tags |= {f"version.{_word(name)}": version for name, version in provenance.versions.items()}
    for task, evaluation in result.evaluations.items():
        wrong = "" if evaluation.num_wrong is None else f"{evaluation.num_wrong} of {evaluation.num_examples} wrong; "
        tags[f"evaluation.{_word(task)}"] = f"{wrong}{evaluation.predictions}"
    return {name: value[:TAG_LIMIT] for name, value in tags.items() if value}


def last_ms(results: SweepResults, curve: Curve) -> int:
    """When the last network of a curve was made, as `time_ms`."""
    stored = [p.result for p in results.probes if p.probe.curve == curve and p.result is not None]
    return max((time_ms(result.provenance) for result in stored), default=0)


def _in_words(potential: Potential) -> str:
    if potential.ratio is None:
        return f"unknown ({potential.status})"
    above = f", {potential.next_ratio:.4f} is too much" if potential.next_ratio is not None else ""
    words = f"{potential.ratio:.4f}{above} ({potential.status})"
    if potential.certified is not None:
        words += f"; certified {potential.certified:.4f}"
    if potential.estimate is not None:
        fitted = potential.estimate
        words += f"; fitted {fitted.ratio:.4f}, {fitted.low:.4f} to {fitted.high:.4f}"
    return words
