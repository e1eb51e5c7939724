"""The records that cross processes and lie in the store: frozen, keyword-only, JSON in and out.

Everything here is a value. Names are resolved through the registry by whoever needs the object behind one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class Record(BaseModel):
    """Parent of all records: frozen, no unknown fields, no NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


Ratio = Annotated[float, Field(ge=0.0, lt=1.0)]
Seconds = Mapping[str, float]  # phase -> seconds; phases: train, prune, evaluate, load, save


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
        retrain_schedule: `scaled` runs the whole schedule, compressed into the budget (learning-rate rewinding; the
            paper's when the budget equals `epochs`); `tail` runs the last `budget` epochs of it (Renda et al. 2020);
            `constant` stays at the rate with which the dense training began its last epoch (fine-tuning).
        l1_penalty, l2_penalty: added to the loss as penalty * sum |w| or penalty * sum w^2 over the weights of prunable
            layers. `weight_decay` is the optimiser's, on all parameters.
        augmentation: `default` is the dataset's own.
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
    retrain_schedule: Literal["scaled", "tail", "constant"] = "scaled"
    batch_size: Annotated[int, Field(ge=1)] = 128
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    l1_penalty: Annotated[float, Field(ge=0)] = 0.0
    l2_penalty: Annotated[float, Field(ge=0)] = 0.0
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    augmentation: Literal["default", "none", "crop_flip", "resized_crop_flip"] = "default"
    keep: Literal["last", "best"] = "last"
    numerics: Numerics = Numerics()


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
    """A method by name, and its parameters."""

    name: str
    parameters: Mapping[str, bool | int | float | str] = {}


class Mask(Record):
    """What is removed before a training: by which method, and which fraction of the model's parameters is asked for."""

    method: MethodChoice
    ratio: Ratio


class Training(Record):
    """One network trained to the end: a node in a graph whose edges are `start`.

    Attributes:
        id: hash of all that changes the weights (see `identity.training_id`).
        data_fingerprint: of the images; the place they lie at is no part of it.
        mask: None for a dense network.
        start: id of the training whose weights it begins from; None for a fresh initialisation.
    """

    id: str
    model: ModelChoice
    data: DataChoice
    data_fingerprint: str
    recipe: Recipe
    epochs: Annotated[int, Field(ge=0)]
    seed: Annotated[int, Field(ge=0)]
    mask: Mask | None = None
    start: str | None = None


class Task(Record):
    """One test distribution.

    Attributes:
        name: such as `nominal` or `noise/uniform/0.1`.
        nominal: name of the task with the same classes that excess error compares with; its own for a nominal one.
        corruption: what is done to the images, and with which numbers; empty for none.
        metric: how predictions become an error.
        version: of the code that makes it; raised when the same name gives other images.
        fingerprint: hash of data, corruption, metric and version: one evaluation of a training per fingerprint.
    """

    name: str
    dataset: str
    nominal: str
    corruption: Mapping[str, str | int | float] = {}
    metric: Literal["classification"] = "classification"
    num_examples: Annotated[int, Field(ge=1)]
    version: int = 1
    fingerprint: str


class Checkpoint(Record):
    """The stored weights of a finished training.

    Attributes:
        uri: where the weights lie, relative to the storage.
        ratio_asked, ratio_reached: 1 - non-zeros / parameters, as asked for and as it came out; 0 when dense.
        num_nonzero: parameters that the masks leave; a weight that is 0 by chance counts as left.
        macs, macs_dense: multiply-adds for one image, under the masks and without them.
    """

    uri: str
    sha256: str
    num_bytes: int
    ratio_asked: Ratio
    ratio_reached: Ratio
    num_nonzero: int
    num_params: int
    num_prunable: int
    macs: int
    macs_dense: int


class Epoch(Record):
    """One line of a training's history. Losses are cross-entropy, without penalties."""

    epoch: int
    learning_rate: float
    train_loss: float
    validation_loss: float | None = None
    validation_error: float | None = None


class Provenance(Record):
    """What a training ran on: kept beside the weights, never part of an identity."""

    versions: Mapping[str, str] = {}
    device: str = "cpu"
    threads: int = 1
    host: str = ""
    git_commit: str = ""
    created: str = ""


class TrainingResult(Record):
    """The content of training.json: written last, it commits the training."""

    training: Training
    checkpoint: Checkpoint
    history: tuple[Epoch, ...] = ()
    seconds: Seconds = {}
    provenance: Provenance = Provenance()


class Evaluation(Record):
    """A finished evaluation of one training on one task.

    Attributes:
        error: fraction wrong, in [0, 1].
        num_wrong: None where the metric does not count.
        loss: mean cross-entropy.
        error_top5: None with five classes or fewer.
        predictions: uri of the per-image predictions, relative to the storage.
    """

    training: str
    task: str
    task_fingerprint: str
    error: Annotated[float, Field(ge=0, le=1)]
    num_examples: int
    num_wrong: int | None
    loss: float
    error_top5: float | None = None
    predictions: str
    sha256: str
    seconds: float = 0.0


class Curve(Record):
    """Error against ratio: a label for a row of probes, never part of an identity.

    The dense parent and its retrained controls are curves as well, with method `dense`: one probe at ratio 0 each.
    """

    model: str
    dataset: str
    method: str
    schedule: Literal["one_shot"] = "one_shot"
    budget: Annotated[int, Field(ge=0)]
    seed: int

    @property
    def label(self) -> str:
        """Such as `wt, 2 epochs, seed 0`, for people."""
        epochs = "epoch" if self.budget == 1 else "epochs"
        return f"{self.method}, {self.budget} {epochs}, seed {self.seed}"

    @property
    def is_dense(self) -> bool:
        """True for the parent (budget 0) and its retrained controls."""
        return self.method == DENSE


DENSE = "dense"


class Probe(Record):
    """One point of a curve, one trial: a training, and its evaluation on every task."""

    curve: Curve
    ratio: Ratio
    training: Training

    @property
    def id(self) -> str:
        """The training's id: two curves never share one, and a probe asked for again is the same probe."""
        return self.training.id


class Failure(Record):
    """Why a probe failed. `is_retriable` tells whether trying again may help."""

    kind: str
    message: str
    is_retriable: bool = False


class ProbeResult(Record):
    """What came of a probe: a join of stored records, never a file of its own. A failed one measures nothing.

    Attributes:
        evaluations: by task name; all of the sweep's tasks when done, none when failed.
        seconds: by phase, of the attempts this process saw; empty for what the store already had.
        is_new: whether a training ran for it in this sweep.
    """

    probe: Probe
    status: Literal["done", "failed"]
    result: TrainingResult | None = None
    evaluations: Mapping[str, Evaluation] = {}
    seconds: Seconds = {}
    attempts: int = 1
    failure: Failure | None = None
    is_new: bool = False

    @property
    def checkpoint(self) -> Checkpoint | None:
        """The stored weights, None when failed."""
        return self.result.checkpoint if self.result else None

    @property
    def is_done(self) -> bool:
        """True when every task was measured."""
        return self.status == "done"

    @property
    def ratio_reached(self) -> float:
        """What came out; the asked ratio of a failed probe, which nothing measured."""
        return self.result.checkpoint.ratio_reached if self.result else self.probe.ratio


class Interval(Record):
    """A two-sided interval at `confidence`, by the method named."""

    low: float
    high: float
    confidence: float = 0.9
    method: str = "paired bootstrap over images"


PotentialStatus = Literal["closed", "at_top", "open", "not_monotone"]


class Potential(Record):
    """The largest reached ratio whose error is at most the parent's on that task plus delta.

    Attributes:
        ratio: a measured, reached ratio; 0 where only the dense parent qualifies; None without a parent.
        next_ratio: the smallest measured ratio above it; None at the top.
        status: `closed`: the next measured ratio fails and is within the search's resolution; `at_top`: the largest
            ratio of the search passes, so the potential is at least that (censored); `not_monotone`: closed, but
            some smaller measured ratio fails; `open`: the search could not finish.
        ratio_first: the largest ratio up to which every measured ratio passes; below `ratio` when not monotone.
        num_lost_allowed: floor(delta * num_examples): so many more images may be wrong.
    """

    curve: Curve
    task: str
    delta: float
    status: PotentialStatus
    ratio: float | None
    ratio_first: float | None = None
    next_ratio: float | None = None
    dense_error: float | None = None
    error: float | None = None
    num_examples: int
    num_lost_allowed: int
    interval: Interval | None = None
    training: str | None = None


class PotentialSummary(Record):
    """Potentials over seeds: mean, sample standard deviation, and how many were censored or open."""

    method: str
    task: str
    budget: int
    delta: float
    n: int
    num_known: int
    mean: float | None
    sd: float | None
    low: float | None
    high: float | None
    interval: Interval | None = None
    num_at_top: int = 0
    num_open: int = 0
    num_not_monotone: int = 0


class ExcessError(Record):
    """How much more a pruned network loses on a shifted task than its parent does.

    Attributes:
        raw_gap: error of this network on the task minus its error on the task's nominal one (the paper's excess error).
        value: raw_gap minus the parent's raw gap (the paper's difference in excess error).
    """

    curve: Curve
    ratio: float
    task: str
    nominal: str
    value: float
    raw_gap: float
    interval: Interval | None = None


class Cost(Record):
    """What a sweep took. `seconds` by phase are summed over probes; `wall_seconds` is the time of this run."""

    num_probes: int
    num_trained: int
    num_evaluated: int
    num_failed: int
    epochs: int
    seconds: Seconds
    wall_seconds: float


class SearchSpec(Record):
    """How ratios are chosen: see `core.search`.

    Attributes:
        low, high: the range of ratios that are tried; 0 (dense) always counts.
        resolution: a bracket is narrow enough when what is kept above it is within this fraction of what is kept below.
        probes_per_round: ratios asked for at once on each curve; fixed, so that no answer depends on the workers.
        ratios: of the strategy `grid`.
    """

    strategy: str = "bisect"
    low: Annotated[float, Field(ge=0, lt=1)] = 0.5
    high: Annotated[float, Field(gt=0, lt=1)] = 0.99
    resolution: Annotated[float, Field(gt=0, lt=1)] = 0.05
    probes_per_round: Annotated[int, Field(ge=1)] = 1
    ratios: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = ()


class Resources(Record):
    """What each probe is given. A fraction of a GPU puts several probes on it."""

    gpus_per_probe: Annotated[float, Field(ge=0)] = 0.0
    cpus_per_probe: Annotated[float, Field(gt=0)] = 1.0


class Limits(Record):
    """Ends of a sweep other than the answer.

    Attributes:
        max_probes: pruned probes at most, shared out evenly over the curves beforehand, so that the answer does not
            depend on the order in which probes finish.
        attempts: how often a probe is tried that fails in a way that may pass.
    """

    max_probes: Annotated[int, Field(ge=1)] | None = None
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
    schedule: Literal["one_shot"] = "one_shot"
    search: SearchSpec = SearchSpec()
    recipe: Recipe
    resources: Resources = Resources()
    limits: Limits = Limits()
    plugins: tuple[str, ...] = ()
    note: str = ""


class SweepResults(Record):
    """Everything a report or a notebook is made of. Pure records; predictions stay in the store.

    Attributes:
        probes: of the search, dense ones first, in the order of the plan.
        versions: of the software that made the report.
        storage, tracking_uri: where things lie.
    """

    spec: SweepSpec
    tasks: tuple[Task, ...]
    data_fingerprint: str
    probes: tuple[ProbeResult, ...]
    potentials: tuple[Potential, ...]
    summaries: tuple[PotentialSummary, ...]
    excess_errors: tuple[ExcessError, ...]
    cost: Cost
    storage: str
    tracking_uri: str = ""
    experiment_url: str = ""
    warnings: tuple[str, ...] = ()
    versions: Mapping[str, str] = {}
