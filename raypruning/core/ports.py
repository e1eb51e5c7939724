"""What the science and the search need of the outside world, as protocols; `raypruning.runtime` implements them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from raypruning.core.populations import Losses
from raypruning.core.records import (
    Evaluation,
    Failure,
    Probe,
    ProbeResult,
    Record,
    Resources,
    SweepResults,
    SweepSpec,
    Task,
    Training,
    TrainingResult,
)

if TYPE_CHECKING:
    import numpy as np

    Arrays = Mapping[str, np.ndarray]


class Store(Protocol):
    """The truth: content-addressed trainings and evaluations. Writing twice is harmless; half a write is invisible.

    Arrays are named numpy arrays; they lie as safetensors, so that reading one runs no code. A stored thing whose
    checksum does not match counts as absent, is moved out of the way, and is reported on `raypruning` logging.
    """

    uri: str

    def training(self, training_id: str) -> TrainingResult | None:
        """The committed training, None if there is none."""

    def weights(self, training_id: str) -> Arrays:
        """Weights of a committed training. Raises StoreError when they are gone or damaged."""

    def masks(self, training_id: str) -> Arrays:
        """Boolean masks of a committed training, by parameter name; empty when dense."""

    def commit_training(self, result: TrainingResult, *, weights: Arrays, masks: Arrays) -> TrainingResult:
        """Store a training; returns it with the checkpoint's uri, sha256 and size filled in."""

    def evaluation(self, training_id: str, task_fingerprint: str) -> Evaluation | None:
        """The committed evaluation, None if there is none."""

    def predictions(self, evaluation: Evaluation) -> Arrays:
        """Per-image predictions of a committed evaluation."""

    def commit_evaluation(self, evaluation: Evaluation, *, predictions: Arrays) -> Evaluation:
        """Store an evaluation beside its training; returns it with uri and sha256 filled in."""

    def resume_state(self, training_id: str) -> tuple[Mapping[str, object], Arrays] | None:
        """Where an interrupted training stopped: JSON values and arrays. None if there is nothing whole."""

    def save_resume_state(self, training_id: str, state: Mapping[str, object], arrays: Arrays) -> None:
        """Replace where a training is. It goes when the training commits."""


class ProbeJob(Record):
    """All that a worker needs for one probe. Crosses the process border as JSON.

    Attributes:
        tasks: those to be measured that the store lacks.
        data_dir: where datasets are looked for; no part of any identity.
        resources: what the probe was given.
        save_seconds: how often a long training is saved, at the end of an epoch.
        snapshots: trainings that the probe's own passes through, to be kept on its way: equal but for fewer epochs.
    """

    probe: Probe
    tasks: tuple[Task, ...]
    attempt: int = 1
    data_dir: str | None = None
    download: bool = False
    plugins: tuple[str, ...] = ()
    device: str = "cpu"
    resources: Resources = Resources()
    save_seconds: float = 30.0
    snapshots: tuple[Training, ...] = ()


class ProbeOutcome(Record):
    """What a worker says of a job. Its measurements are in the store; this says that they are, or why not."""

    training: str
    failure: Failure | None = None
    seconds: Mapping[str, float] = {}
    was_trained: bool = False


class JobSource(Protocol):
    """Where an executor gets its jobs from, and gives its outcomes to. Called from one thread only."""

    def next_job(self) -> ProbeJob | None:
        """A job that may run now; None when all that remain wait for others."""

    def complete(self, job: ProbeJob, outcome: ProbeOutcome) -> None:
        """Take the outcome of a job."""

    @property
    def is_finished(self) -> bool:
        """True when nothing is running, waiting or left to ask."""


class Executor(Protocol):
    """Runs jobs until the source is finished. Chooses only the order; never what is asked."""

    def drive(self, source: JobSource) -> None:
        """Run everything. Returns when finished; raises Interrupted on a signal."""


class Tracker(Protocol):
    """A view of a sweep that can be dropped and rebuilt. No method raises because the view's server is down."""

    def start(self, spec: SweepSpec) -> None:
        """Make ready what the runs will hang on."""

    def log_probe(self, result: ProbeResult) -> None:
        """Show a finished probe. Returns at once; writing goes on in the background."""

    def finish(
        self,
        results: SweepResults,
        *,
        checkpoints: Sequence[str],
        read: Callable[[str], Mapping[str, bytes]],
        losses: Losses | None = None,
    ) -> None:
        """Show the answer, write what is pending, and close.

        Args:
            results: the whole sweep.
            checkpoints: ids of the trainings whose files are to be kept as artifacts of their runs.
            read: training id -> its files by name.
            losses: what was lost on the way; None to leave it out.
        """

    @property
    def problems(self) -> Sequence[str]:
        """What could not be written, one line each; empty when all was."""
