"""What the networks of a sweep look at: their pixels are ordered once, kept in the sweep's folder, and judged."""

# N images, C channels, H W height and width, P pixels, S sources of pixels, M networks, L classes

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, get_args

import numpy as np

from raypruning.analysis.features import (
    CANDIDATES,
    PIXELS_PER_STEP,
    Features,
    FeaturesRecord,
    Looker,
    Mode,
    Question,
    Role,
    Selector,
    forwards_of,
    kept_mask,
    names_of,
    random_orders,
)
from raypruning.app.choosing import Wanted, chosen_populations
from raypruning.app.features_files import Orders, unfinished_orders, write_features, write_unfinished
from raypruning.app.features_files import read_features as read_features  # asked for here
from raypruning.app.read import read_sweep
from raypruning.app.results import SweepRecord, read_record
from raypruning.app.stored_networks import Stage, open_stage, staged_network
from raypruning.core.identity import derive_seed
from raypruning.core.populations import dense_population
from raypruning.core.records import ProbeResult, SweepResults, SweepSpec
from raypruning.errors import SpecError, StoreError
from raypruning.runtime.store import ObjectStore

if TYPE_CHECKING:
    import torch
    from torch import Tensor

NUM_IMAGES = 64
NUM_PICTURES = 6
# On a CPU: enough for a full batch of candidates, and few enough that every core has a group.
GROUP_SIZE = 16


class FeaturesRequest(NamedTuple):
    """Which networks are looked at, and how.

    Attributes:
        method, budget: of the pruned networks; the sweep's first method and its largest budget when None.
        ratios: as asked for; all that were measured when empty.
        seed: of parent and pruned networks; the sweep's first when None.
        mode, pixels_per_step, candidates: see `Selector`. When None, `PIXELS_PER_STEP` and `CANDIDATES` if screened;
            one pixel a step otherwise.
        images: how many, evenly over the test set.
        keep: the fraction of the pixels that is kept, in (0, 1).
        fresh: order the pixels again even where that was done.
    """

    sweep: str
    method: str | None = None
    budget: int | None = None
    ratios: Sequence[float] = ()
    seed: int | None = None
    mode: str = "screened"
    pixels_per_step: int | None = None
    candidates: int | None = None
    images: int = NUM_IMAGES
    keep: float = 0.1
    data_dir: Path | None = None
    fresh: bool = False


class Work(NamedTuple):
    """How far the ordering is.

    Attributes:
        network: that is worked on, such as `80.0 %`.
        num_done, num: networks through and in all.
        forwards_done, forwards: passes of those that were not stored.
    """

    network: str
    num_done: int
    num: int
    forwards_done: int
    forwards: int


Watch = Callable[[Work], None]


def features(store: ObjectStore, request: FeaturesRequest, *, watch: Watch = lambda work: None) -> Features:
    """What the networks look at, from the sweep's folder as far as it was asked before; the rest is computed.

    Side effect: writes into the sweep's folder, the order of each network as soon as it is there.

    Raises:
        SpecError: the request names something that is not there or not allowed.
        DataError: the test images are missing here.
        StoreError: a network's weights are damaged.
    """
    record = read_record(store, request.sweep)
    selector = selector_of(request)
    _check(request, record)
    results = read_sweep(store, request.sweep)
    wanted = _wanted(results, request)
    stored = None if request.fresh else _undamaged(store, request.sweep)
    if stored is not None and _answers(stored.record, request, wanted, selector, results.data_fingerprint):
        return stored
    stage = open_stage(record, data_dir=request.data_dir)
    if request.images > len(stage.images):
        raise SpecError(
            f"--images must be at most {len(stage.images)}, all that the test set has; got {request.images}"
        )
    question = Question(
        data_fingerprint=results.data_fingerprint,
        selector=selector,
        images=evenly(request.images, len(stage.images)),
    )
    sights = _Sights.of(stage, question)
    known: Orders = {}
    if not request.fresh:
        known |= stored.orders_MNP if stored is not None and stored.record.question == question else {}
        known |= unfinished_orders(store, request.sweep, question)
    _order_pixels(store, request.sweep, wanted, sights, question, known, watch)
    found = _judged(store, request, wanted, sights, question, known)
    write_features(store, found)
    return found


def selector_of(request: FeaturesRequest) -> Selector:
    """How pixels are to be found. Raises SpecError for what does not go together."""
    modes = get_args(Mode)
    if request.mode not in modes:
        raise SpecError(f"--mode must be {', '.join(modes[:-1])} or {modes[-1]}, got {request.mode}")
    if request.mode != "screened" and request.candidates is not None:
        raise SpecError(f"--candidates is for --mode screened: {request.mode} has none to choose")
    for flag, value in (("--pixels-per-step", request.pixels_per_step), ("--candidates", request.candidates)):
        if value is not None and value < 1:
            raise SpecError(f"{flag} must be at least 1, got {value}")
    candidates = (request.candidates or CANDIDATES) if request.mode == "screened" else 0
    step = min(PIXELS_PER_STEP, candidates) if request.mode == "screened" else 1
    return Selector.model_validate(
        {"mode": request.mode, "pixels_per_step": request.pixels_per_step or step, "candidates": candidates}
    )


def evenly(num: int, num_images: int) -> tuple[int, ...]:
    """Positions of so many images, spread over the whole test set."""
    return tuple(index * num_images // num for index in range(num))


def _undamaged(store: ObjectStore, sweep: str) -> Features | None:
    """What is stored; a damaged thing counts as absent, and is computed again."""
    try:
        return read_features(store, sweep)
    except StoreError:
        return None


# -- what is asked ---------------------------------------------------------------------------------------------------


class _Wanted(NamedTuple):
    """Networks with who they are; the parent first, a separate network last if there is one."""

    method: str
    budget: int
    seed: int
    networks: Sequence[ProbeResult]
    lookers: tuple[Looker, ...]


def _check(request: FeaturesRequest, record: SweepRecord) -> None:
    if any(task.metric == "segmentation" for task in record.plan.tasks):
        raise SpecError(
            f"the sweep {request.sweep} names a class for each pixel: features is for one class for each image"
        )
    if not 0 < request.keep < 1:
        raise SpecError(f"--keep must be in (0, 1), got {request.keep:g}; write 0.1 for a tenth of the pixels")
    if request.images < 1:
        raise SpecError(f"--images must be at least 1, got {request.images}")


def _wanted(results: SweepResults, request: FeaturesRequest) -> _Wanted:
    spec = results.spec
    method, budget, seed = _curve_of(spec, request)
    dense = dense_population(results)
    parents = {one.probe.curve.seed: one for one in dense.networks} if dense else {}
    if seed not in parents:
        raise SpecError(f"the parent of seed {seed} was not measured in the sweep {spec.name}: run it first")
    populations = chosen_populations(results, methods=[method], budgets=[budget], ratios=request.ratios)
    pruned = [one for population in populations for one in population.networks if one.probe.curve.seed == seed]
    if not pruned:
        raise SpecError(f"seed {seed} has no pruned network that this asks for in the sweep {spec.name}")
    others = [parents[other] for other in spec.seeds if other in parents and other != seed]
    lookers = [_looker(parents[seed], "parent"), *(_looker(one, "pruned") for one in pruned)]
    lookers += [_looker(one, "separate") for one in others[:1]]
    return _Wanted(method, budget, seed, [parents[seed], *pruned, *others[:1]], tuple(lookers))


def _curve_of(spec: SweepSpec, request: FeaturesRequest) -> tuple[str, int, int]:
    """Method, budget and seed that are meant."""
    methods = () if request.method is None else (request.method,)
    budgets = () if request.budget is None else (request.budget,)
    seeds = () if request.seed is None else (request.seed,)
    wanted = Wanted.of(spec, methods=methods, budgets=budgets, seeds=seeds)
    return (
        next(iter(wanted.methods), spec.methods[0].label),
        next(iter(wanted.budgets), max(spec.budgets)),
        next(iter(wanted.seeds), spec.seeds[0]),
    )


def _looker(one: ProbeResult, role: Role) -> Looker:
    curve = one.probe.curve
    return Looker(
        role=role,
        training=one.probe.id,
        seed=curve.seed,
        method=curve.method,
        budget=curve.budget,
        ratio=one.probe.ratio,
        ratio_reached=one.ratio_reached,
    )


def _answers(
    stored: FeaturesRecord, request: FeaturesRequest, wanted: _Wanted, selector: Selector, fingerprint: str
) -> bool:
    """Whether it is what is asked now. As many images of the same test set are the same images."""
    return (
        stored.question.selector == selector
        and stored.question.data_fingerprint == fingerprint
        and stored.num_images == request.images
        and stored.keep == request.keep
        and stored.networks == wanted.lookers
    )


# -- what is computed ------------------------------------------------------------------------------------------------


class _Sights(NamedTuple):
    """The images that are looked at.

    Attributes:
        normal_NCHW: normalised, on the stage's device.
        bytes_NCHW: as they lie in the dataset, uint8.
    """

    stage: Stage
    normal_NCHW: Tensor
    bytes_NCHW: np.ndarray
    labels_N: np.ndarray

    @classmethod
    def of(cls, stage: Stage, question: Question) -> _Sights:
        import torch

        order_N = torch.tensor(question.images)
        batches = list(stage.images.read(order_N, batch_size=256, augmentation="none", seed=0))
        pixels_NCHW = torch.cat([batch.pixels_BCHW for batch in batches])
        labels_N = torch.cat([batch.truth for batch in batches]).cpu().numpy()
        bytes_NCHW = (pixels_NCHW * 255.0).round().to(torch.uint8).cpu().numpy()
        return cls(stage, stage.normalise(pixels_NCHW), bytes_NCHW, labels_N)

    @property
    def num_pixels(self) -> int:
        return int(np.prod(self.bytes_NCHW.shape[2:]))

    @property
    def batch_size(self) -> int:
        from raypruning.training.inputs import batch_size_for

        return batch_size_for(self.stage.dataset, self.stage.device)


class _Progress:
    """Adds up forward passes of several threads."""

    def __init__(self, watch: Watch, *, num: int, num_done: int, forwards: int) -> None:
        self._watch, self._lock = watch, threading.Lock()
        self._work = Work("", num_done, num, 0, forwards)

    def begin(self, network: str) -> None:
        """With another network."""
        self._work = self._work._replace(network=network)

    def advance(self, forwards: int) -> None:
        """So many more."""
        with self._lock:
            self._work = self._work._replace(forwards_done=self._work.forwards_done + forwards)
            self._watch(self._work)

    def end(self) -> None:
        """One more network is through."""
        self._work = self._work._replace(num_done=self._work.num_done + 1)


def _order_pixels(
    store: ObjectStore, sweep: str, wanted: _Wanted, sights: _Sights, question: Question, known: Orders, watch: Watch
) -> None:
    """Add to the known orders those that are missing; each is written as soon as it is there."""
    from raypruning.inspection.backselect import pixel_orders

    every = zip(wanted.networks, names_of(wanted.lookers), strict=True)
    missing = [(network, name) for network, name in every if network.probe.id not in known]
    num = len(wanted.lookers)
    forwards = len(missing) * len(question.images) * forwards_of(question.selector, sights.num_pixels)
    progress = _Progress(watch, num=num, num_done=num - len(missing), forwards=forwards)
    is_cpu = sights.stage.device.type == "cpu"
    for network, name in missing:
        progress.begin(name)
        orders_NP = pixel_orders(
            staged_network(store, network.probe, sights.stage),
            sights.normal_NCHW,
            question.selector,
            batch_size=sights.batch_size,
            group_size=GROUP_SIZE if is_cpu else None,
            num_threads=os.cpu_count() or 1 if is_cpu else 1,
            advance=progress.advance,
        )
        known[network.probe.id] = orders_NP.cpu().numpy().astype(_integer_for(sights.num_pixels))
        write_unfinished(store, sweep, question, known)
        progress.end()


def _integer_for(num_pixels: int) -> type[np.unsignedinteger]:
    return np.uint16 if num_pixels <= 1 << 16 else np.uint32


def _judged(
    store: ObjectStore,
    request: FeaturesRequest,
    wanted: _Wanted,
    sights: _Sights,
    question: Question,
    orders: Orders,
) -> Features:
    """What every network makes of the pixels of every source."""
    import torch

    from raypruning.inspection.backselect import judge

    stage, num_pixels = sights.stage, sights.num_pixels
    random_seed = derive_seed(wanted.seed, "random pixels")
    record = FeaturesRecord(
        sweep=request.sweep,
        question=question,
        method=wanted.method,
        budget=wanted.budget,
        seed=wanted.seed,
        keep=request.keep,
        networks=wanted.lookers,
        class_names=stage.dataset.class_names,
        pictures=_pictures(sights.labels_N),
        image_size=stage.dataset.image_size,
        random_seed=random_seed,
        device=_device_name(stage.device),
        versions={"torch": torch.__version__, "numpy": np.__version__},
    )
    sources = [orders[one.training] for one in wanted.lookers]
    sources.append(random_orders(len(question.images), num_pixels, seed=random_seed))
    kept = [torch.from_numpy(kept_mask(one_NP, record.num_kept)).to(stage.device) for one_NP in sources]
    models = [staged_network(store, one.probe, stage) for one in wanted.networks]
    probabilities_SMNL = torch.stack(
        [
            torch.stack(
                [judge(model, sights.normal_NCHW, batch_size=sights.batch_size, kept_NP=kept_NP) for model in models]
            )
            for kept_NP in (*kept, None)
        ]
    )
    labels_N = torch.from_numpy(sights.labels_N).to(stage.device)
    label_SMN1 = labels_N[:, None].expand(*probabilities_SMNL.shape[:3], 1)
    top_SMN, predicted_SMN = probabilities_SMNL.max(3)
    return Features(
        record=record,
        orders_MNP=orders,
        labels_N=sights.labels_N,
        confidence_SMN=probabilities_SMNL.gather(3, label_SMN1)[..., 0].cpu().numpy(),
        predicted_SMN=predicted_SMN.cpu().numpy().astype(np.uint16),
        top_SMN=top_SMN.cpu().numpy(),
        pictures_KCHW=sights.bytes_NCHW[list(record.pictures)],
    )


def _pictures(labels_N: np.ndarray) -> tuple[int, ...]:
    """The first images of as many classes as are shown; then any, if there are fewer classes."""
    firsts = sorted(np.unique(labels_N, return_index=True)[1].tolist())
    others = [index for index in range(len(labels_N)) if index not in firsts]
    return tuple(sorted((firsts + others)[:NUM_PICTURES]))


def _device_name(device: torch.device) -> str:
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
