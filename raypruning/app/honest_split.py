"""Choose each potential on one half of the test images, and report its loss on the other: from stored predictions."""

# N images

from __future__ import annotations

from collections.abc import Mapping, Sequence

from raypruning.analysis.bootstrap import Resampler
from raypruning.analysis.metrics import metric_of
from raypruning.analysis.split import first_half, interval_on, largest_within, loss_on
from raypruning.core.records import Curve, ProbeResult, SplitPotential, SweepResults, Task
from raypruning.runtime.store import ObjectStore


def with_honest_split(store: ObjectStore, results: SweepResults) -> SweepResults:
    """The results with one split potential for each curve, task and delta whose parent was measured.

    Raises: StoreError: predictions are damaged.
    """
    done = [one for one in results.probes if one.is_done]
    parents = {one.probe.curve.seed: one for one in done if one.probe.curve.is_parent}
    by_curve: dict[Curve, list[ProbeResult]] = {}
    for one in done:
        if not one.probe.curve.is_dense and one.probe.curve.seed in parents:
            by_curve.setdefault(one.probe.curve, []).append(one)
    resampler = Resampler()
    split = [
        one
        for task in results.tasks
        for curve, networks in by_curve.items()
        for one in _split(store, task, curve, networks, parents, deltas=results.spec.deltas, resampler=resampler)
    ]
    return results.model_copy(update={"honest_split": tuple(split)})


def _split(
    store: ObjectStore,
    task: Task,
    curve: Curve,
    networks: Sequence[ProbeResult],
    parents: Mapping[int, ProbeResult],
    *,
    deltas: Sequence[float],
    resampler: Resampler,
) -> list[SplitPotential]:
    """Of one curve on one task, for each delta."""
    metric = metric_of(task.metric)
    parent = store.predictions(parents[curve.seed].evaluations[task.name])
    arrays = [store.predictions(one.evaluations[task.name]) for one in networks]
    first_N = first_half(task.num_examples, images=task.images)
    losses = [loss_on(metric, one, parent, first_N) for one in arrays]
    ratios = [one.ratio_reached for one in networks]
    found = []
    for delta in deltas:
        common = {"curve": curve, "task": task.name, "delta": delta, "num_chosen_on": int(first_N.sum())}
        index = largest_within(ratios, losses, delta=delta)
        if index is None:
            found.append(SplitPotential(**common, ratio=0.0, num_reported_on=int((~first_N).sum())))
            continue
        other = loss_on(metric, arrays[index], parent, ~first_N)
        found.append(
            SplitPotential(
                **common,
                ratio=ratios[index],
                training=networks[index].probe.id,
                loss_chosen_on=losses[index].loss,
                loss=other.loss,
                is_within=other.is_within(delta),
                interval=interval_on(metric, arrays[index], parent, ~first_N, resampler=resampler),
                num_reported_on=other.num,
            )
        )
    return found
