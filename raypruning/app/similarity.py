"""How alike the networks of a sweep and their parents are: under noise, on its tasks, and in their features."""

# N images, P pairs of networks, as in `Pairing`

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from pydantic import ValidationError

from raypruning.analysis.similarity import (
    Churn,
    Estimate,
    Likeness,
    NoiseFound,
    NoiseTally,
    Pairing,
    Similarity,
    churn_of,
    over_seeds,
)
from raypruning.app.choosing import chosen_populations
from raypruning.app.read import read_sweep
from raypruning.app.results import read_record
from raypruning.app.stored_networks import open_stage, staged_network
from raypruning.core.identity import derive_seed, fingerprint
from raypruning.core.populations import Population, dense_population
from raypruning.core.records import DENSE, ProbeResult, SweepResults, Task
from raypruning.errors import SpecError, StoreError
from raypruning.runtime.store import ObjectStore

if TYPE_CHECKING:
    from torch import Tensor

    from raypruning.app.stored_networks import Stage

SIMILARITY_FILE = "similarity.json"
# Raised when the same request would give other numbers, so that old ones are not taken for new ones.
VERSION = 1
# The study's fifteen; the first is the images as they are.
AMPLITUDES = tuple(step / 20 for step in range(15))

# (images done, images in all)
Tell = Callable[[int, int], None]


class SimilarityRequest(NamedTuple):
    """What to compare, and on how much.

    Attributes:
        methods, budgets, ratios: the pruned networks; all of the sweep's when empty.
        amplitudes: noise levels, at least 0; the study's when empty. 0 is always among them.
        images: test images, at least 2, the same random ones for every network; None for all.
        draws: of noise for each image and level.
        data_dir: where the dataset is looked for.
        fresh: measure again although the sweep's folder has the answer.
    """

    sweep: str
    methods: Sequence[str] = ()
    budgets: Sequence[int] = ()
    ratios: Sequence[float] = ()
    amplitudes: Sequence[float] = ()
    images: int | None = None
    draws: int = 1
    data_dir: Path | None = None
    fresh: bool = False


def similarity(store: ObjectStore, request: SimilarityRequest, *, tell: Tell = lambda done, total: None) -> Similarity:
    """How alike pruned networks and their parents are, with separate networks as control; kept in the sweep's folder.

    Args:
        tell: called after every batch.

    Raises:
        SpecError: the request names something that is not there or not allowed.
        DataError: the test images are missing here, or are others.
        StoreError: a stored file is damaged.
    """
    amplitudes = _checked_amplitudes(request)
    record = read_record(store, request.sweep)
    results = read_sweep(store, request.sweep)
    if any(task.metric == "segmentation" for task in results.tasks):
        raise SpecError(f"similarity compares classes of images; {request.sweep} is a sweep about classes of pixels")
    compared = _compared(results, request)
    key = _fingerprint(results, compared, request, amplitudes)
    if not request.fresh:
        found = read_similarity(store, request.sweep)
        if found is not None and found.fingerprint == key:
            return found
    stage = open_stage(record, data_dir=request.data_dir)
    measured = _measure(store, results, compared, request, amplitudes, stage=stage, tell=tell)
    churn = [_task_churn(store, task, compared) for task in results.tasks]
    found = _joined(results, compared, request, amplitudes, measured=measured, churn=churn, key=key)
    store.write_sweep_file(request.sweep, SIMILARITY_FILE, found.model_dump_json(indent=1).encode())
    return found


def read_similarity(store: ObjectStore, sweep: str) -> Similarity | None:
    """What `similarity` found last; None where it was never asked. Raises StoreError where the file is damaged."""
    data = store.read_sweep_file(sweep, SIMILARITY_FILE)
    if data is None:
        return None
    try:
        return Similarity.model_validate_json(data)
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise StoreError(
            f"{SIMILARITY_FILE} of the sweep {sweep} in {store.uri} is damaged ({reason}): "
            f"prune-cli similarity {sweep} --fresh writes it anew"
        ) from error


# -- what is compared --------------------------------------------------------------------------------------------------


class _Compared(NamedTuple):
    """The networks of a request: those whose parents were measured.

    Attributes:
        places: for each population, the places of its seeds among those of the parents.
    """

    parents: Population
    populations: tuple[Population, ...]
    places: tuple[tuple[int, ...], ...]

    @property
    def pairing(self) -> Pairing:
        return Pairing(self.places, num_parents=len(self.parents.networks))

    @property
    def networks(self) -> list[ProbeResult]:
        """In the order of the pairing."""
        return [*self.parents.networks, *(one for population in self.populations for one in population.networks)]


def _compared(results: SweepResults, request: SimilarityRequest) -> _Compared:
    chosen = chosen_populations(results, methods=request.methods, budgets=request.budgets, ratios=request.ratios)
    parents = dense_population(results)
    place = {seed: index for index, seed in enumerate(parents.seeds)} if parents else {}
    with_parents = [
        one._replace(networks=tuple(n for n in one.networks if n.probe.curve.seed in place)) for one in chosen
    ]
    populations = tuple(one for one in with_parents if one.networks)
    if parents is None or not populations:
        raise SpecError(f"no parent was measured in the sweep {request.sweep}: run it again first")
    return _Compared(parents, populations, tuple(tuple(place[seed] for seed in one.seeds) for one in populations))


def _checked_amplitudes(request: SimilarityRequest) -> tuple[float, ...]:
    """Noise levels, ascending, with 0. Raises SpecError for what the request cannot ask for."""
    from raypruning.inspection.noise_similarity import MAX_DRAWS

    for amplitude in request.amplitudes:
        if not 0 <= amplitude < 1e6:
            raise SpecError(f"--noise must be at least 0, got {amplitude:g}; the study goes up to 0.7")
    if not 1 <= request.draws <= MAX_DRAWS:
        raise SpecError(
            f"--draws must be from 1 to {MAX_DRAWS}, got {request.draws}; more images tell more than more draws"
        )
    if request.images is not None and request.images < 2:
        raise SpecError(f"--images must be at least 2, got {request.images}; leave it out for all test images")
    return tuple(sorted({0.0, *(float(one) for one in request.amplitudes or AMPLITUDES)}))


def _fingerprint(
    results: SweepResults, compared: _Compared, request: SimilarityRequest, amplitudes: Sequence[float]
) -> str:
    """Of all that the numbers depend on."""
    return fingerprint(
        {
            "version": VERSION,
            "networks": [one.probe.id for one in compared.networks],
            "places": [list(places) for places in compared.places],
            "tasks": [task.fingerprint for task in results.tasks],
            "amplitudes": list(amplitudes),
            "images": request.images,
            "draws": request.draws,
        }
    )


# -- with forward passes -----------------------------------------------------------------------------------------------


class _Measured(NamedTuple):
    noise: NoiseTally
    cka_P: np.ndarray
    images: int
    num_test_images: int
    features: str
    num_features: int
    num_forwards: int
    seconds: float
    device: str


def _measure(
    store: ObjectStore,
    results: SweepResults,
    compared: _Compared,
    request: SimilarityRequest,
    amplitudes: Sequence[float],
    *,
    stage: Stage,
    tell: Tell,
) -> _Measured:
    import torch

    from raypruning.inspection.cka import CkaSums
    from raypruning.inspection.noise_similarity import batch_likeness
    from raypruning.models.heads import logit_layers
    from raypruning.training.inputs import batch_size_for

    order_N = _image_order(len(stage.images), request)
    numerics = results.spec.recipe.numerics
    if stage.device.type == "cpu":
        torch.set_num_threads(numerics.threads)
    networks = [staged_network(store, one.probe, stage) for one in compared.networks]
    pairing = compared.pairing
    tally, cka = NoiseTally(pairing, amplitudes), CkaSums(pairing.pairs)
    began, done = time.monotonic(), 0
    for found in batch_likeness(
        networks,
        pairing.pairs,
        _batches(stage, order_N, batch_size=batch_size_for(stage.dataset, stage.device)),
        amplitudes=amplitudes,
        num_draws=request.draws,
        precision=numerics.precision,
        cka=cka,
    ):
        tally.add(found.matching_LPB, found.distance_LPB)
        done += found.matching_LPB.shape[2]
        tell(done, len(order_N))
    return _Measured(
        noise=tally,
        cka_P=cka.values_P(),
        images=len(order_N),
        num_test_images=len(stage.images),
        features=logit_layers(networks[0])[0],
        num_features=cka.num_features,
        num_forwards=len(networks) * len(order_N) * (1 + (len(amplitudes) - 1) * request.draws),
        seconds=round(time.monotonic() - began, 1),
        device=torch.cuda.get_device_name(stage.device) if stage.device.type == "cuda" else "cpu",
    )


def _image_order(num_test_images: int, request: SimilarityRequest) -> np.ndarray:
    """Which images, ascending. Raises SpecError where there are not so many."""
    if request.images is None:
        return np.arange(num_test_images)
    if request.images > num_test_images:
        raise SpecError(f"--images must be at most {num_test_images}, all there are, got {request.images}")
    # A random part: test images may lie class by class. That of fewer images is within that of more.
    generator = np.random.default_rng(derive_seed(0, "similarity images"))
    return np.sort(generator.permutation(num_test_images)[: request.images])


def _batches(stage: Stage, order_N: np.ndarray, *, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    import torch

    for batch in stage.images.read(torch.from_numpy(order_N), batch_size=batch_size, augmentation="none", seed=0):
        yield stage.normalise(batch.pixels_BCHW), batch.ids_B


# -- from stored predictions -------------------------------------------------------------------------------------------


class _TaskChurn(NamedTuple):
    """On one task, for each population and for the control."""

    populations: list[Churn]
    control: Churn | None


def _task_churn(store: ObjectStore, task: Task, compared: _Compared) -> _TaskChurn:
    def predicted(one: ProbeResult) -> np.ndarray:
        return np.asarray(store.predictions(one.evaluations[task.name])["predicted"])

    pairing = compared.pairing
    parents = [predicted(one) for one in compared.parents.networks]
    populations = []
    for population, places in zip(compared.populations, compared.places, strict=True):
        differs = [predicted(one) != parents[place] for one, place in zip(population.networks, places, strict=True)]
        populations.append(churn_of(task.name, np.stack(differs)))
    if not pairing.has_control:
        return _TaskChurn(populations, None)
    separate = [parents[first] != parents[second] for first, second in pairing.pairs[pairing.of_control]]
    return _TaskChurn(populations, churn_of(task.name, np.stack(separate), pairing.parts))


# -- the answer --------------------------------------------------------------------------------------------------------


def _joined(
    results: SweepResults,
    compared: _Compared,
    request: SimilarityRequest,
    amplitudes: Sequence[float],
    *,
    measured: _Measured,
    churn: Sequence[_TaskChurn],
    key: str,
) -> Similarity:
    pairing = compared.pairing
    populations = [
        _likeness(
            population,
            measured.noise.population(index),
            churn=[one.populations[index] for one in churn],
            cka=over_seeds(measured.cka_P[pairing.of_population[index]]),
        )
        for index, population in enumerate(compared.populations)
    ]
    separate = measured.noise.control()
    control = None
    if separate is not None:
        control = _likeness(
            compared.parents,
            separate,
            churn=[one.control for one in churn if one.control],
            cka=over_seeds(measured.cka_P[pairing.of_control], num_separate=pairing.num_parents),
        )
    return Similarity(
        fingerprint=key,
        sweep=request.sweep,
        model=results.spec.model.name,
        dataset=results.spec.data.name,
        data_fingerprint=results.data_fingerprint,
        images=measured.images,
        num_test_images=measured.num_test_images,
        draws=request.draws,
        amplitudes=tuple(amplitudes),
        seeds=compared.parents.seeds,
        parents=tuple(one.probe.id for one in compared.parents.networks),
        populations=tuple(populations),
        control=control,
        features=measured.features,
        num_features=measured.num_features,
        num_forwards=measured.num_forwards,
        seconds=measured.seconds,
        device=measured.device,
        versions=dict(results.versions),
    )


def _likeness(population: Population, noise: NoiseFound, *, churn: Sequence[Churn], cka: Estimate) -> Likeness:
    is_control = population.method == DENSE
    return Likeness(
        method=population.method,
        budget=population.budget,
        ratio=population.ratio,
        ratio_reached=0.0 if is_control else population.ratio_reached,
        seeds=population.seeds,
        networks=tuple(one.probe.id for one in population.networks),
        levels=noise.levels,
        churn=tuple(churn),
        cka=cka,
        lead=noise.lead,
    )
