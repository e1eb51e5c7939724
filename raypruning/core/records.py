"""The records that cross processes and lie in the store: frozen, keyword-only, JSON in and out.

Everything here is a value. Names are resolved through the registry by whoever needs the object behind one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

# In a module of their own for its size; they are records as the others are, and asked for here.
from raypruning.core.choices import DataChoice as DataChoice
from raypruning.core.choices import Gradual as Gradual
from raypruning.core.choices import Kind as Kind
from raypruning.core.choices import Limits as Limits
from raypruning.core.choices import Mask as Mask
from raypruning.core.choices import MethodChoice as MethodChoice
from raypruning.core.choices import ModelChoice as ModelChoice
from raypruning.core.choices import Numerics as Numerics
from raypruning.core.choices import Ratio as Ratio
from raypruning.core.choices import Recipe as Recipe
from raypruning.core.choices import Record as Record
from raypruning.core.choices import Resources as Resources
from raypruning.core.choices import Schedule as Schedule
from raypruning.core.choices import SearchSpec as SearchSpec
from raypruning.core.choices import SweepSpec as SweepSpec


class Training(Record):
    """One network trained to the end: a node in a graph whose edges are `start`.

    Attributes:
        id: hash of all that changes the weights (see `identity.training_id`).
        data_fingerprint: of the images; the place they lie at is no part of it.
        mask: None for a dense network.
        start: id of the training whose weights it begins from, and whose masks it keeps; None for a fresh
            initialisation.
        rewind_epochs: the masks are chosen on the weights of `start`, then what is left goes back to the weights of
            the dense training of this recipe and seed after so many epochs; None does not go back.
        stop_epochs: the schedule of `epochs` is broken off after so many; None runs all of it.
        gradual: the mask is reached while training; None reaches it before.
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
    rewind_epochs: Annotated[int, Field(ge=0)] | None = None
    stop_epochs: Annotated[int, Field(ge=0)] | None = None
    gradual: Gradual | None = None


class Task(Record):
    """One test distribution.

    Attributes:
        name: such as `nominal` or `noise/uniform/0.1`.
        nominal: name of the task with the same classes that excess error compares with; its own for a nominal one.
        corruption: what is done to the images, and with which numbers; empty for none.
        metric: how predictions become an error: `classification`, the fraction that is wrong; `segmentation`, 1 - mean
            intersection over union.
        images: tasks with the same value test on the same images in the same order, one by one; "" for all of the
            dataset's own test images.
        version: of the code that makes it; raised when the same name gives other images.
        fingerprint: hash of data, corruption, metric and version: one evaluation of a training per fingerprint.
    """

    name: str
    dataset: str
    nominal: str
    corruption: Mapping[str, str | int | float] = {}
    metric: Kind = "classification"
    num_examples: Annotated[int, Field(ge=1)]
    images: str = ""
    version: int = 1
    fingerprint: str


class Checkpoint(Record):
    """The stored weights of a finished training.

    Attributes:
        uri: where the weights lie, relative to the storage.
        ratio_asked, ratio_reached: 1 - non-zeros / parameters, as asked for and as it came out; 0 when dense.
        num_nonzero: parameters that the masks leave; a weight that is 0 by chance counts as left.
        macs, macs_dense: multiply-adds for one image, under the masks and without them.
        macs_on_paths: of `macs`, those with a weight that lies on a path from the image to the answer.
        dead_layers: prunable layers that the answer no longer depends on.
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
    macs_on_paths: int | None = None
    dead_layers: tuple[str, ...] = ()


class Epoch(Record):
    """One line of a training's history. Losses are cross-entropy, without penalties."""

    epoch: int
    learning_rate: float
    train_loss: float
    validation_loss: float | None = None
    validation_error: float | None = None


class Provenance(Record):
    """What a training ran on: kept beside the weights, never part of an identity.

    Attributes:
        snapshot_of: id of the longer training on whose way the network was kept; None where it was trained by itself.
        workers: processes that trained it together.
        gpu_share: of a GPU that each had; 0 on CPUs.
    """

    versions: Mapping[str, str] = {}
    device: str = "cpu"
    threads: int = 1
    host: str = ""
    git_commit: str = ""
    created: str = ""
    snapshot_of: str | None = None
    workers: int = 1
    gpu_share: float = 0.0


class TrainingResult(Record):
    """The content of training.json: written last, it commits the training.

    Attributes:
        seconds: wall time by phase: train, prune, evaluate, load, save.
        data_wait: of the time of the epochs, the share in which the network waited for images to be decoded.
    """

    training: Training
    checkpoint: Checkpoint
    history: tuple[Epoch, ...] = ()
    seconds: Mapping[str, float] = {}
    data_wait: float = 0.0
    provenance: Provenance = Provenance()


class Evaluation(Record):
    """A finished evaluation of one training on one task.

    Attributes:
        error: in [0, 1]: the fraction wrong, or 1 - mean intersection over union.
        num_wrong: None where the metric does not count.
        loss: mean cross-entropy.
        error_top5: None with five classes or fewer, and in segmentation.
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

    Attributes:
        method: the label of its `MethodChoice`.
    """

    model: str
    dataset: str
    method: str
    schedule: Literal["one_shot", "iterative", "gradual"] = "one_shot"
    budget: Annotated[int, Field(ge=0)]
    seed: int

    @property
    def label(self) -> str:
        """Such as `wt, 2 epochs, seed 0` or `wt, iterative, 2 epochs, seed 0`, for people."""
        epochs = "epoch" if self.budget == 1 else "epochs"
        schedule = "" if self.schedule == "one_shot" or self.is_dense else f"{self.schedule}, "
        return f"{self.method}, {schedule}{self.budget} {epochs}, seed {self.seed}"

    @property
    def is_dense(self) -> bool:
        """True for the parent and its retrained controls."""
        return self.method == DENSE

    @property
    def is_parent(self) -> bool:
        """True for the dense network that the others are pruned from, false for its retrained controls."""
        return self.is_dense and self.budget == 0


DENSE = "dense"


class Probe(Record):
    """One point of a curve, one trial: a training, and its evaluation on every task.

    Attributes:
        place: in a chain; `link`, or `branch`: begun from a link to see what lies below the next one, and followed by
            nothing. None outside of a chain.
    """

    curve: Curve
    ratio: Ratio
    training: Training
    place: Literal["link", "branch"] | None = None

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
        standard_errors: by task name, of the difference to the parent's error, over test images; empty where the
            search does not weigh losses.
        seconds: by phase, of the attempts this process saw; empty for what the store already had.
        is_new: whether a training ran for it in this sweep.
    """

    probe: Probe
    status: Literal["done", "failed"]
    result: TrainingResult | None = None
    evaluations: Mapping[str, Evaluation] = {}
    standard_errors: Mapping[str, float] = {}
    seconds: Mapping[str, float] = {}
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

    def without_history(self) -> ProbeResult:
        """The same without its epochs, hundreds of them, which no search looks at: for who keeps thousands."""
        if self.result is None or not self.result.history:
            return self
        return self.model_copy(update={"result": self.result.model_copy(update={"history": ()})})

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


class Estimate(Record):
    """Where a curve fitted to all measured networks crosses delta, and within which ratios with `confidence`."""

    ratio: float
    low: float
    high: float
    confidence: float = 0.9
    method: str = "fitted curve"


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
        num_lost_allowed: floor(delta * num_examples): so many more images may be wrong. None where the metric does not
            count.
        interval: what `ratio` might have been on other test images, the networks being the same.
        certified: the largest measured ratio for which the test set proves, at `certified_confidence`, that no more
            than delta is lost, ratios being tested in order; 0 for the dense parent alone.
        estimate: where the loss passes delta by a curve fitted to all measured networks.
        num_needed: test images that it takes to certify a network like that at the potential if in truth it loses
            nothing, in four of five cases. More than `num_examples`: the test set cannot resolve delta. None where the
            metric does not count.
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
    num_lost_allowed: int | None
    interval: Interval | None = None
    certified: float | None = None
    certified_confidence: float | None = None
    estimate: Estimate | None = None
    num_needed: int | None = None
    training: str | None = None


class PotentialSummary(Record):
    """Potentials over seeds: mean, sample standard deviation, and how many were censored or open.

    Attributes:
        interval: of the mean, resampling images and seeds.
        certified: the smallest over seeds.
        estimate: of the mean over seeds.
        num_needed: the largest over seeds.
    """

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
    certified: float | None = None
    estimate: Estimate | None = None
    num_needed: int | None = None
    num_at_top: int = 0
    num_open: int = 0
    num_not_monotone: int = 0


class BudgetChoice(Record):
    """The cheapest budget that comes near the largest one, for a method and a seed: see `core.budgets`.

    Attributes:
        budget: the cheapest of those tried whose potentials are near on every task and delta; None where a potential of
            the largest budget is open.
        distance: by how much a potential of it stays below that of the largest budget, at most.
        tried: budgets whose curves were searched, ascending.
        status: `open`: an open potential leaves it undecided whether a cheaper one is near as well.
    """

    method: str
    seed: int
    budget: int | None
    distance: float | None
    tried: tuple[int, ...]
    status: Literal["closed", "open"]


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


class SplitPotential(Record):
    """A potential chosen on one half of a test set, and what that network loses on the other half.

    Attributes:
        ratio: the largest measured one within delta on the half it is chosen on; 0 for the dense parent.
        training: None for the dense parent, which loses nothing.
        loss_chosen_on: against the parent, on the half it was chosen on.
        loss: on the other half; its interval is two-sided.
        is_within: whether `loss` is at most delta.
    """

    curve: Curve
    task: str
    delta: float
    ratio: float
    training: str | None = None
    loss_chosen_on: float = 0.0
    loss: float = 0.0
    is_within: bool = True
    interval: Interval | None = None
    num_chosen_on: int
    num_reported_on: int


class Cost(Record):
    """What a sweep took. `seconds` by phase are summed over probes; `wall_seconds` is the time of this run."""

    num_probes: int
    num_trained: int
    num_evaluated: int
    num_failed: int
    epochs: int
    seconds: Mapping[str, float]
    wall_seconds: float


class SweepResults(Record):
    """Everything a report or a notebook is made of. Pure records; predictions stay in the store.

    Attributes:
        probes: of the search, dense ones first, in the order of the plan.
        budget_choices: one for each method and seed if budgets were searched; none otherwise.
        honest_split: one for each curve, task and delta where it was asked for; none otherwise.
        versions: of the software that made the report.
        storage, tracking_uri: where things lie.
        class_names: of the dataset, by label; none where the sweep was run before they were recorded.
    """

    spec: SweepSpec
    tasks: tuple[Task, ...]
    data_fingerprint: str
    class_names: tuple[str, ...] = ()
    probes: tuple[ProbeResult, ...]
    potentials: tuple[Potential, ...]
    summaries: tuple[PotentialSummary, ...]
    excess_errors: tuple[ExcessError, ...]
    budget_choices: tuple[BudgetChoice, ...] = ()
    honest_split: tuple[SplitPotential, ...] = ()
    cost: Cost
    storage: str
    tracking_uri: str = ""
    experiment_url: str = ""
    warnings: tuple[str, ...] = ()
    versions: Mapping[str, str] = {}
