"""What a person chooses for a training (recipe, data, model, method, schedule) and for a sweep. All else: `records`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator


class Record(BaseModel):
    """Parent of all records: frozen, no unknown fields, no NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


Ratio = Annotated[float, Field(ge=0.0, lt=1.0)]
# What a network answers: a class for each image, or for each pixel.
Kind = Literal["classification", "segmentation"]


class Numerics(Record):
    """What else changes the bits of a training. Threads count on CPU only."""

    precision: Literal["float32", "bfloat16"] = "float32"
    threads: Annotated[int, Field(ge=1)] = 1


class Recipe(Record):
    """How a network is trained, and retrained after a prune. Epochs are counted in the schedule of the dense training.

    Attributes:
        epochs: of the dense training; a retraining takes its budget instead.
        learning_rate_schedule: `step` multiplies by `gamma` at each of `milestones` (epochs); `poly` is
            (1 - t/T)^`poly_power`; `cosine` is half a cosine to zero. All are stepped per iteration, and begin with a
            linear warm-up from 0 over `warmup_epochs`.
        batch_size: images of a step, of all workers together.
        learning_rate_batch: the batch size that `learning_rate` is meant for. Where `batch_size` is another one, rates
            are scaled: in proportion for SGD (Goyal et al. 2017, section 2.1), with the square root for Adam (Malladi
            et al. 2022). None takes them as they are.
        retrain_schedule: `scaled` runs the whole schedule, compressed into the budget (learning-rate rewinding; the
            paper's when the budget equals `epochs`); `tail` runs the last `budget` epochs of it (Renda et al. 2020);
            `constant` stays at the rate with which the dense training began its last epoch (fine-tuning); `anytime`
            falls from `learning_rate` as 1/sqrt(1 + epochs), whatever the budget is (Zinkevich 2003).
        l1_penalty, l2_penalty: added to the loss as penalty * sum |w| or penalty * sum w^2 over the weights of prunable
            layers. `weight_decay` is the optimiser's, on all parameters.
        augmentation: `default` is the dataset's own.
        train_corruptions: corruptions that training images are seen under, by name, or `mix1`: clean with probability
            1/6, otherwise one of them at a random severity, drawn anew in every epoch. Validation stays clean.
        keep: which epoch's weights are the checkpoint: the last (the paper's) or the best on validation.
    """

    epochs: Annotated[int, Field(ge=1)]
    optimiser: Literal["sgd", "adam"] = "sgd"
    learning_rate: Annotated[float, Field(gt=0)]
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    nesterov: bool = False
    adam_epsilon: Annotated[float, Field(gt=0)] = 1e-8
    learning_rate_schedule: Literal["constant", "step", "poly", "cosine"] = "step"
    milestones: tuple[Annotated[float, Field(gt=0)], ...] = ()
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.1
    poly_power: Annotated[float, Field(gt=0)] = 0.9
    warmup_epochs: Annotated[float, Field(ge=0)] = 0.0
    retrain_schedule: Literal["scaled", "tail", "constant", "anytime"] = "scaled"
    batch_size: Annotated[int, Field(ge=1)] = 128
    learning_rate_batch: Annotated[int, Field(ge=1)] | None = None
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    l1_penalty: Annotated[float, Field(ge=0)] = 0.0
    l2_penalty: Annotated[float, Field(ge=0)] = 0.0
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    augmentation: Literal["default", "none", "crop_flip", "resized_crop_flip", "scaled_crop_flip"] = "default"
    train_corruptions: tuple[str, ...] = ()
    keep: Literal["last", "best"] = "last"
    numerics: Numerics = Numerics()

    @property
    def is_anytime(self) -> bool:
        """Whether no step of a retraining depends on the budget: a short one is the beginning of a long one."""
        return self.retrain_schedule in ("anytime", "constant")


class DataChoice(Record):
    """A dataset by name, and what is taken of it. None means all, or as it is.

    Attributes:
        train_images, test_images: a class-balanced part of so many images.
        image_size: the side in pixels the images are brought to.
    """

    name: str
    train_images: Annotated[int, Field(ge=1)] | None = None
    test_images: Annotated[int, Field(ge=1)] | None = None
    image_size: Annotated[int, Field(ge=1)] | None = None


class ModelChoice(Record):
    """A model by name, and its options (such as `stem`)."""

    name: str
    options: Mapping[str, bool | int | float | str] = {}


class MethodChoice(Record):
    """A method by name, and its parameters, such as `rules`, `skip` (layers) or `map` (layer -> weight)."""

    name: str
    parameters: Mapping[str, bool | int | float | str | tuple[str, ...] | Mapping[str, float]] = {}

    @field_validator("parameters")
    @classmethod
    def _lists(cls, parameters: Mapping[str, object]) -> Mapping[str, object]:
        # A list of one is the one, so that what has one label has one identity.
        return {
            key: value[0] if isinstance(value, tuple) and len(value) == 1 else value
            for key, value in parameters.items()
        }

    @property
    def label(self) -> str:
        """What people type and curves are called: `wt`, or `wt:rules=paper,skip=conv1+fc2`."""
        parts = [f"{key}={_value_text(value)}" for key, value in sorted(self.parameters.items())]
        return f"{self.name}:{','.join(parts)}" if parts else self.name


def _value_text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "+".join(f"{key}*{number:g}" for key, number in sorted(value.items()))
    return "+".join(value) if isinstance(value, tuple) else f"{value}"


class Mask(Record):
    """What is removed before a training: by which method, and which fraction of the model's parameters is asked for.

    Attributes:
        via: smaller ratios pruned to on the way, with scores computed anew at each and no retraining in between (the
            paper prunes several times for each retraining).
    """

    method: MethodChoice
    ratio: Ratio
    via: tuple[Ratio, ...] = ()


class Gradual(Record):
    """Pruning inside one training: the ratio grows as a cubic from 0 at `begin` to the mask's own at `end`.

    s(t) = s_end * (1 - (1 - (t - begin) / (end - begin))^3); masks are chosen anew every `frequency` steps, removed
    weights keep the value they had and may come back until `end`.

    Attributes:
        begin, end: as fractions of the training's steps.
        frequency: steps between two choices of masks.

    Source: Zhu and Gupta 2018, section 3; the PIE study.
    """

    begin: Annotated[float, Field(ge=0, lt=1)] = 0.0
    end: Annotated[float, Field(gt=0, le=1)] = 0.75
    frequency: Annotated[int, Field(ge=1)] = 100


class Schedule(Record):
    """When is pruned: all at once, in a chain of prune and retrain, or inside one training.

    Attributes:
        kind: `one_shot` prunes the parent once and retrains; `iterative` is a chain whose links each prune what the
            link before left; `gradual` prunes while it trains.
        grid: of an iterative schedule: name of a list of ratios from a study, such as `lost/resnet20`.
        ratios: of an iterative schedule: those of its links, ascending. `grid`, `ratios` or `steps`, one of them.
        steps: of an iterative schedule: so many links, evenly spaced in the logarithm of what is kept, from
            search.low to search.high.
        prunes_per_link: times each link prunes, evenly spaced in the same way, before it retrains once.
        rewind_epochs: before a link retrains, the weights that are left go back to those the parent had after so many
            epochs (0: its initialisation; the lottery ticket hypothesis). None keeps them.
        from_scratch: of a gradual schedule: begin from a fresh initialisation and not from the parent; the budget is
            then that of the whole training.
        begin, end, frequency: of a gradual schedule: see `Gradual`.
    """

    kind: Literal["one_shot", "iterative", "gradual"] = "one_shot"
    grid: str | None = None
    ratios: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = ()
    steps: Annotated[int, Field(ge=1)] | None = None
    prunes_per_link: Annotated[int, Field(ge=1)] = 1
    rewind_epochs: Annotated[int, Field(ge=0)] | None = None
    from_scratch: bool = False
    begin: Annotated[float, Field(ge=0, lt=1)] = 0.0
    end: Annotated[float, Field(gt=0, le=1)] = 0.75
    frequency: Annotated[int, Field(ge=1)] = 100


class SearchSpec(Record):
    """How ratios are chosen: see `core.search`.

    Attributes:
        strategy: `bisect`, `model`, `grid`, or `chain`, which an iterative schedule has and no other. A spec that names
            none is given `bisect` for up to four thresholds a curve, `model` for more.
        low, high: the range of ratios that are tried; 0 (dense) always counts. That of a chain is from 0 to its last
            link.
        resolution: a bracket is narrow enough when what is kept above it is within this fraction of what is kept below.
        probes_per_round: ratios asked for at once on each curve; fixed, so that no answer depends on the workers.
        ratios: of the strategy `grid`.
        max_points: of the strategy `model`: networks of one curve at most.
        budget_search: look for the cheapest budget that is near the largest, and search no curve that this does not
            need; False searches those of all budgets.
        budget_distance: a budget is near if its potentials are at most so much below those of the largest, in ratio.
    """

    strategy: str = "bisect"
    low: Annotated[float, Field(ge=0, lt=1)] = 0.5
    high: Annotated[float, Field(gt=0, lt=1)] = 0.99
    resolution: Annotated[float, Field(gt=0, lt=1)] = 0.05
    probes_per_round: Annotated[int, Field(ge=1)] = 1
    ratios: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = ()
    max_points: Annotated[int, Field(ge=3)] = 8
    budget_search: bool = False
    budget_distance: Annotated[float, Field(gt=0, lt=1)] = 0.01


class Resources(Record):
    """What each probe is given. A fraction of a GPU puts several probes on it, several GPUs train one network together.

    Attributes:
        gpus_per_probe, cpus_per_probe: of all its workers together.
        workers_per_probe: processes that share every batch of a training; None for one to a GPU.
        sync_batch_norm: on GPUs, batch norm of several workers sees the whole batch, as that of one worker does.
        images_at_once: of a batch, on each worker; more are taken in parts whose gradients add up. None takes all.
        custom: of Ray's custom resources, such as `accelerator_type:A100` = 0.001 for nodes that have such a GPU.
    """

    gpus_per_probe: Annotated[float, Field(ge=0)] = 0.0
    cpus_per_probe: Annotated[float, Field(gt=0)] = 1.0
    workers_per_probe: Annotated[int, Field(ge=1)] | None = None
    sync_batch_norm: bool = True
    images_at_once: Annotated[int, Field(ge=1)] | None = None
    custom: Mapping[str, Annotated[float, Field(gt=0)]] = {}

    @property
    def num_workers(self) -> int:
        """Processes of a probe."""
        return self.workers_per_probe or max(1, int(self.gpus_per_probe))

    @property
    def cpus_per_worker(self) -> float:
        """Of each of a probe's processes."""
        return self.cpus_per_probe / self.num_workers

    @property
    def gpus_per_worker(self) -> float:
        """Of each of a probe's processes: one, a fraction of one, or none."""
        return self.gpus_per_probe / self.num_workers


class Limits(Record):
    """Ends of a sweep other than the answer.

    Attributes:
        max_probes: pruned probes at most, shared out evenly over the curves beforehand, so that the answer does not
            depend on the order in which probes finish.
        gpu_hours: that one run may spend; nothing is begun that would go beyond.
        attempts: how often a probe is tried that fails in a way that may pass.
    """

    max_probes: Annotated[int, Field(ge=1)] | None = None
    gpu_hours: Annotated[float, Field(gt=0)] | None = None
    attempts: Annotated[int, Field(ge=1)] = 3


class SweepSpec(Record):
    """A whole sweep, validated and with every name resolved: the same spec, the same answer."""

    name: str
    model: ModelChoice
    data: DataChoice
    methods: tuple[MethodChoice, ...]
    tasks: tuple[str, ...] = ("nominal",)
    deltas: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = (0.005,)
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = (0,)
    budgets: tuple[Annotated[int, Field(ge=0)], ...]
    schedule: Schedule = Schedule()
    search: SearchSpec = SearchSpec()
    recipe: Recipe
    resources: Resources = Resources()
    limits: Limits = Limits()
    plugins: tuple[str, ...] = ()
    note: str = ""
