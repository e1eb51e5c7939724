"""The weights of a sweep's networks, layer by layer, from the store: no images, and nothing is run."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from raypruning.analysis.weights import (
    CurveWeights,
    LayerWeights,
    NetworkWeights,
    SweepWeights,
    bin_width,
    in_order,
    is_layer,
    layer_weights,
)
from raypruning.app.choosing import Wanted
from raypruning.app.results import SweepRecord, every_stored_result, read_record, stored_results
from raypruning.core.plan import next_probes
from raypruning.core.records import Curve, Probe, ProbeResult
from raypruning.errors import SpecError, StoreError
from raypruning.folders import check_free, folder_at_once
from raypruning.reporting.weights import probe_label
from raypruning.runtime.store import ObjectStore

# Told what is being done, such as `reading 3 of 12 networks`.
OnStep = Callable[[str], None]


class WeightsRequest(NamedTuple):
    """Which networks to look at, and where to write what is seen.

    Attributes:
        methods: all of the sweep's when empty.
        budgets: the sweep's largest one when empty.
        seeds: the sweep's first one when empty.
        ratios: as they were asked for; all of them when empty.
        output: folder to write; None names one after the sweep, in the working folder.
    """

    sweep: str
    methods: Sequence[str] = ()
    budgets: Sequence[int] = ()
    seeds: Sequence[int] = ()
    ratios: Sequence[float] = ()
    output: Path | None = None


class WrittenWeights(NamedTuple):
    """What was found, and what was written of it.

    Attributes:
        files: names below the folder.
    """

    found: SweepWeights
    folder: Path
    files: tuple[str, ...]


def write_weights(
    store: ObjectStore, request: WeightsRequest, *, on_step: OnStep = lambda step: None
) -> WrittenWeights:
    """Read the weights and write figures, animations, tables and a page into a folder, all at once or nothing.

    Raises:
        SpecError: as `read_weights`; or the folder is not empty.
        StoreError: a stored file is damaged.
        ResourceError: the folder cannot be written.
    """
    from raypruning.reporting.weight_files import write_files

    folder = request.output or Path(f"{request.sweep}-weights")
    check_free(folder)  # What costs no waiting is checked first.
    found = read_weights(store, request, on_step=on_step)
    with folder_at_once(folder) as part:
        files = write_files(found, part, on_step=on_step)
    return WrittenWeights(found, folder, files)


def read_weights(store: ObjectStore, request: WeightsRequest, *, on_step: OnStep = lambda step: None) -> SweepWeights:
    """What the prunes of a sweep left of each layer. Holds one network at a time.

    Raises:
        SpecError: the request names something that the sweep does not have, or networks that are not in the store.
        StoreError: a stored file is damaged.
    """
    record = read_record(store, request.sweep)
    spec = record.spec
    wanted = Wanted.of(
        spec,
        methods=request.methods,
        budgets=request.budgets or (max(spec.budgets),),
        seeds=request.seeds or spec.seeds[:1],
    )
    curves = [curve for curve in record.plan.curves if wanted.includes(curve)]
    there = _networks(store, record, curves)
    chosen = _at_ratios(there, request.ratios, sweep=request.sweep)
    if not any(chosen.found.values()):
        raise SpecError(_nothing(request.sweep, chosen))
    # A parent first, or its networks could not have been asked for.
    parents = {seed: there.parents[seed] for seed in dict.fromkeys(curve.seed for curve in chosen.found)}
    wanted_results = [*parents.values(), *(one for found in chosen.found.values() for one in found)]
    networks = _read(store, wanted_results, on_step=on_step)
    return SweepWeights(
        sweep=request.sweep,
        storage=store.uri,
        methods=tuple(method.label for method in spec.methods),
        task=next(task.name for task in record.plan.tasks if task.name == task.nominal),
        curves=tuple(
            CurveWeights(curve, networks[parents[curve.seed].probe.id], tuple(networks[one.probe.id] for one in found))
            for curve, found in chosen.found.items()
            if found
        ),
        missing=chosen.missing,
        failed=chosen.failed,
    )


class _There(NamedTuple):
    """What the store has of some curves. Networks of ascending ratios."""

    parents: dict[int, ProbeResult]
    found: dict[Curve, list[ProbeResult]]
    missing: tuple[Probe, ...]
    failed: tuple[Probe, ...]


def _networks(store: ObjectStore, record: SweepRecord, curves: Sequence[Curve]) -> _There:
    """Of a sweep that was cleaned, all that is left: its search cannot be walked again."""
    plan = record.plan
    results = stored_results(store, record)
    parents = {seed: results.get(plan.parent(seed).id) for seed in {curve.seed for curve in curves}}
    done = {seed: parent for seed, parent in parents.items() if parent is not None and parent.is_done}
    if record.is_cleaned:
        found = {curve: every for curve, every in every_stored_result(store, plan).items() if curve in curves}
    else:
        found = {curve: [one for one in results.values() if one.probe.curve == curve] for curve in curves}
    ids = {one.probe.id for every in found.values() for one in every}
    asked = [probe for probe in next_probes(plan, results) if probe.id not in ids | results.keys()]
    return _There(
        parents=done,
        found={
            curve: sorted((one for one in every if one.is_done), key=lambda one: one.probe.ratio)
            for curve, every in found.items()
            if curve.seed in done
        },
        missing=tuple(probe for probe in asked if _concerns(probe, curves)),
        failed=tuple(one.probe for one in results.values() if not one.is_done and _concerns(one.probe, curves)),
    )


def _concerns(probe: Probe, curves: Collection[Curve]) -> bool:
    """Whether it is of one of the curves, or the parent of one."""
    return probe.curve in curves or (probe.curve.is_parent and probe.curve.seed in {one.seed for one in curves})


def _at_ratios(there: _There, ratios: Sequence[float], *, sweep: str) -> _There:
    """Narrowed down to some ratios. Raises SpecError for one that the sweep does not have, with those it has."""
    if not ratios:
        return there
    have = {one.probe.ratio for found in there.found.values() for one in found}
    lacks = [*there.missing, *there.failed]
    for ratio in ratios:
        if ratio not in have | {probe.ratio for probe in lacks} and not any(one.curve.is_parent for one in lacks):
            has = ", ".join(f"{one:g}" for one in sorted(have))
            raise SpecError(f"the sweep {sweep} has no ratio {ratio:g}: it has {has}")
    return there._replace(
        found={curve: [one for one in found if one.probe.ratio in ratios] for curve, found in there.found.items()},
        missing=_of_ratios(there.missing, ratios),
        failed=_of_ratios(there.failed, ratios),
    )


def _of_ratios(probes: Iterable[Probe], ratios: Sequence[float]) -> tuple[Probe, ...]:
    return tuple(one for one in probes if one.curve.is_parent or one.ratio in ratios)


def _nothing(sweep: str, there: _There) -> str:
    """Why there is nothing to look at, and what to type."""
    if there.missing:
        first, num_more = there.missing[0], len(there.missing) - 1
        more, them = (f" and {num_more} more are", "them") if num_more else (" is", "it")
        what = f"{probe_label(first)} ({first.id}){more} not in the store"
        return f"{what}: `prune-cli sweep {sweep}` trains {them} again"
    if there.failed:
        return f"{probe_label(there.failed[0])} failed: no pruned network that this asks for was measured in {sweep}"
    return f"no pruned network that this asks for was measured in the sweep {sweep}: run it first"


def _read(store: ObjectStore, results: Sequence[ProbeResult], *, on_step: OnStep) -> dict[str, NetworkWeights]:
    """Networks by id, of the layers that some prune removed anything of, in the order of the network.

    Args:
        results: parents first: their weights give the width of bins.

    Raises: SpecError: there is no such layer. StoreError: a stored file is damaged.
    """
    widths: dict[int, dict[str, float]] = {}
    layers: dict[str, dict[str, LayerWeights]] = {}
    prunable: set[str] = set()
    for step, one in enumerate(results, start=1):
        on_step(f"reading {step} of {len(results)} networks")
        arrays = store.weights(one.probe.id)
        masks = {} if one.probe.curve.is_dense else store.masks(one.probe.id)
        names = [name for name, array in arrays.items() if is_layer(name, array)]
        prunable.update(name for name in masks if name in names)
        seed = one.probe.curve.seed
        if seed not in widths:
            widths[seed] = {name: bin_width(arrays[name]) for name in names}
        try:
            layers[one.probe.id] = {
                name: layer_weights(
                    name.removesuffix(".weight"), arrays[name], masks.get(name), width=widths[seed][name]
                )
                for name in names
            }
        except ValueError as error:
            raise StoreError(f"{probe_label(one.probe)} ({one.probe.id}): {error}") from error
    if not prunable:
        raise SpecError("no layer of these networks lost a weight: there is nothing to show")
    order = in_order(sorted(prunable))
    return {one.probe.id: NetworkWeights(one, tuple(layers[one.probe.id][name] for name in order)) for one in results}
