"""The executor on Ray Tune: one trial is one probe. The only module that knows Ray.

Tune runs the trials, on this machine or on a cluster; it decides nothing and remembers nothing. The Searcher only
translates ask and tell, and every start is a fresh Tuner over what the store lacks.
"""

from __future__ import annotations

import contextlib
import gc
import io
import logging
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

# Read by ray.tune when it is imported: results come through the Searcher, not through files and tables of Tune's own.
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# Of a Ray that is started here: its metrics, which it would serve on every address to whoever asks, with no token. Two
# of the three servers can only be kept from starting by a port that there is not.
os.environ.setdefault("RAY_enable_metrics_collection", "0")
os.environ.setdefault("AUTOSCALER_METRIC_PORT", "-1")
os.environ.setdefault("DASHBOARD_METRIC_PORT", "-1")

import ray
from ray import tune
from ray.exceptions import AuthenticationError
from ray.tune.search import Searcher

from raypruning.core.ports import JobSource, ProbeJob, ProbeOutcome
from raypruning.core.records import Failure, Resources
from raypruning.errors import ResourceError
from raypruning.runtime import ray_token
from raypruning.runtime.ray_crew import ray_crew
from raypruning.runtime.signals import HoldSignals
from raypruning.runtime.store import open_store
from raypruning.runtime.worker import Worker

OBJECT_STORE_BYTES = 200 << 20
# Trials of one Tuner, which keeps something of each, before another one follows: no fewer, and so many for each probe
# that there is room for, so that waiting for the last ones takes a fiftieth of the time at most.
TRIALS, TRIALS_A_PLACE = 500, 50
ROOM_SECONDS = 1.0  # A new node is used after so long; asking the cluster takes a millisecond.


class RayExecutor:
    """Runs probes as Tune trials on a local Ray or on a cluster.

    Args:
        storage: uri of the store; every worker opens it by itself.
        resources: of each probe.
        max_concurrent: probes at once; None for what the cluster has room for.
        address: of a running cluster; None starts a local one and stops it at the end.
        log_path: file that takes what Ray and Tune print.
    """

    def __init__(
        self,
        *,
        storage: str,
        resources: Resources,
        max_concurrent: int | None,
        address: str | None,
        log_path: Path,
    ) -> None:
        self._storage = storage
        self._resources = resources
        self._max_concurrent = max_concurrent
        self._address = address
        self._log_path = log_path
        self.trainable: type[tune.Trainable] = ProbeTrainable  # what runs one probe

    def drive(self, source: JobSource) -> None:
        """Run everything that the source has. Starts nothing when it has nothing."""
        with HoldSignals() as signals, _quiet(self._log_path):
            while not source.is_finished:
                searcher = JobSearcher(source, room=self._room_now)
                try:
                    # Anew each time: disconnecting ends whatever a broken run of Tune left alive.
                    with _connected(self._address), tempfile.TemporaryDirectory() as folder:
                        signals.take()  # Ray's own handler of SIGTERM aborts.
                        signals.check()
                        self._tuner(searcher, signals, folder=folder).fit()
                        while searcher.is_full and not source.is_finished:
                            searcher = JobSearcher(source, room=self._room_now)
                            self._tuner(searcher, signals, folder=folder).fit()
                except RuntimeError as error:
                    # Tune gives up on a death that it does not know, such as a worker killed for the node's memory.
                    logging.getLogger("ray.tune").error("Tune gave up", exc_info=error)
                    if not searcher.abandon(_why_it_died(error)):
                        raise ResourceError(self._ended_early()) from error
                else:
                    if not source.is_finished:
                        raise ResourceError(self._ended_early())

    def _limit(self) -> int:
        """Probes at once: those that have room, or, where an autoscaler makes room for what waits, those asked for."""
        # KubeRay sets it on the head; Ray spells it so.
        is_scaling = os.environ.get("RAY_enable_autoscaler_v2", "").lower() in ("1", "true")  # noqa: SIM112
        if self._address is not None and self._max_concurrent and is_scaling:
            return self._max_concurrent
        return min(self._max_concurrent or 1 << 30, _room(self._resources))

    def _room_now(self) -> int:
        """The limit of this moment, since nodes come and go; one where there is no room, so that Ray sees a demand."""
        try:
            return self._limit()
        except ResourceError:
            return 1

    def _ended_early(self) -> str:
        return f"Ray Tune ended before the sweep did; what it said is in {self._log_path}"

    def _tuner(self, searcher: JobSearcher, signals: HoldSignals, *, folder: str) -> tune.Tuner:
        self._limit()  # Raises where a probe could never run.
        return tune.Tuner(
            self.trainable,
            param_space={"storage": self._storage},
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                num_samples=-1,
                max_concurrent_trials=1 << 30,  # Tune's would be the room of now for ever; the searcher looks again.
                reuse_actors=True,
                trial_dirname_creator=lambda trial: str(trial.trial_id),
            ),
            run_config=tune.RunConfig(
                storage_path=folder,
                verbose=0,
                callbacks=[BetweenSteps(signals)],
                failure_config=tune.FailureConfig(max_failures=0),
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
            ),
        )


def cluster_room(address: str, resources: Resources) -> int:
    """How many probes a cluster can hold at once. Raises ResourceError where it is none."""
    with _connected(address):
        return _room(resources)


def bundles_of(resources: Resources) -> tune.PlacementGroupFactory:
    """What Ray is to set aside for a probe: a bundle for each of its workers, on as few nodes as can be."""
    bundle = {"CPU": resources.cpus_per_worker, "GPU": resources.gpus_per_worker, **resources.custom}
    asked = {name: amount for name, amount in bundle.items() if amount}
    return tune.PlacementGroupFactory([asked] * resources.num_workers, strategy="PACK")


def _room(resources: Resources) -> int:
    have = ray.cluster_resources()
    cpus, gpus = resources.cpus_per_probe, resources.gpus_per_probe
    custom = {name: amount * resources.num_workers for name, amount in resources.custom.items()}
    for name, amount in custom.items():
        if amount > have.get(name, 0.0):
            # Ray counts these as well, which no person would ask for.
            known = sorted(one for one in have if not one.startswith(("node:", "object_store", "memory", "bundle")))
            raise ResourceError(
                f"Ray has no {amount:g} of {name} for a probe (resources.custom): it has {', '.join(known)}"
            )
    if gpus > have.get("GPU", 0.0):
        raise ResourceError(
            f"each probe was to have {gpus:g} GPUs, and Ray has {have.get('GPU', 0.0):g}; "
            "leave --gpus-per-probe out to run on CPUs"
        )
    if cpus > have.get("CPU", 0.0):
        raise ResourceError(f"each probe was to have {cpus:g} CPUs, and Ray has {have.get('CPU', 0.0):g}")
    asked = {"CPU": cpus, "GPU": gpus, **custom}
    return min(int(have[name] / amount + 1e-9) for name, amount in asked.items() if amount)


def _why_it_died(error: Exception) -> str:
    if "low on memory" in str(error):
        return "the worker was killed because the machine ran out of memory: lower --max-concurrent"
    return "the worker died before it finished"


class JobSearcher(Searcher):  # type: ignore[misc]
    """Tune's ask and tell, handed on to the job source. Decides nothing but when there is room for one more.

    Args:
        source: of the jobs.
        room: how many jobs there is room for; asked once in `ROOM_SECONDS`.

    Attributes:
        is_full: whether it ended because a Tuner had enough: each keeps something of all its trials.
    """

    def __init__(self, source: JobSource, *, room: Callable[[], int]) -> None:
        super().__init__()
        self._source = source
        self._room = room
        self._room_known, self._room_asked = 0, -math.inf
        self._jobs: dict[str, ProbeJob] = {}
        self._num_asked = 0

    @property
    def is_full(self) -> bool:
        """See the class."""
        return self._num_asked >= max(TRIALS, TRIALS_A_PLACE * self._room_known)

    def __getstate__(self) -> dict[str, Any]:
        """What Tune pickles for a restore that is never asked for: neither the source nor what hangs on it."""
        return {}

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any) -> bool:
        """Take the constant part of the trials' configuration."""
        self._constants = dict(config)
        return True

    def suggest(self, trial_id: str) -> Any:
        """The configuration of a new trial; None to be asked again; FINISHED when nothing is left."""
        if self.is_full:
            return Searcher.FINISHED
        if len(self._jobs) >= self._room_now():
            return None
        job = self._source.next_job()
        if job is None:
            # None for ever would be a silent hang: Tune keeps on asking.
            return Searcher.FINISHED if self._source.is_finished else None
        self._jobs[trial_id] = job
        self._num_asked += 1
        return {**self._constants, "job": job.model_dump_json()}

    def _room_now(self) -> int:
        if (now := time.monotonic()) - self._room_asked > ROOM_SECONDS:
            self._room_known, self._room_asked = self._room(), now
        return self._room_known

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Nothing: a trial has one result, which comes with its completion."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Hand the outcome on; a trial without one lost its worker."""
        job = self._jobs.pop(trial_id, None)
        if job is None:
            return
        if error or not result or "outcome" not in result:
            self._fail(job, "the worker died before it finished")
        else:
            self._source.complete(job, ProbeOutcome.model_validate_json(result["outcome"]))

    def abandon(self, reason: str) -> int:
        """Count every job that is under way as lost with its worker; how many there were."""
        jobs, self._jobs = list(self._jobs.values()), {}
        for job in jobs:
            self._fail(job, reason)
        return len(jobs)

    def _fail(self, job: ProbeJob, reason: str) -> None:
        failure = Failure(kind="WorkerDied", message=reason, is_retriable=True)
        self._source.complete(job, ProbeOutcome(training=job.probe.id, failure=failure))

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the store is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: a search begins from the store."""


class BetweenSteps(tune.Callback):  # type: ignore[misc]
    """Ends a run between two steps of Tune's loop when a signal came, and lets go of what is done."""

    def __init__(self, signals: HoldSignals) -> None:
        self._signals = signals

    def __getstate__(self) -> dict[str, Any]:
        """Nothing of it can be restored, nor need be."""
        return {}

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Raise Interrupted if a signal came."""
        self._signals.check()

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Empty a trial, which Tune keeps for good with its job, its outcome and statistics of the latter's numbers.

        The outcome was handed on, and the store has it.
        """
        known = trial.run_metadata
        trial.config, trial.evaluated_params = {}, {}
        known.last_result = {name: value for name, value in known.last_result.items() if isinstance(value, str | int)}
        known.last_result.pop("outcome", None)
        known.metric_analysis, known.metric_n_steps = {}, {}
        trial.invalidate_json_state()
        known.invalidate_cache()


class ProbeTrainable(tune.Trainable):  # type: ignore[misc]
    """One probe a trial; the process and its data serve many."""

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> tune.PlacementGroupFactory:
        """What the job is given. Tune keeps one process for the next job of the same resources."""
        return bundles_of(ProbeJob.model_validate_json(config["job"]).resources)

    def setup(self, config: dict[str, Any]) -> None:
        """Nothing until the first step: an error here could not be told from a dead worker."""
        self._worker: Worker | None = None

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next probe into this process. Every generator is seeded anew by the training itself."""
        return True

    def step(self) -> dict[str, Any]:
        """Run the whole probe."""
        self._worker = self._worker or Worker(open_store(self.config["storage"]), make_crew=ray_crew)
        outcome = self._worker.run(ProbeJob.model_validate_json(self.config["job"]))
        gc.collect()
        return {"outcome": outcome.model_dump_json(), "done": True}


@contextlib.contextmanager
def _connected(address: str | None) -> Iterator[None]:
    """Connect to a cluster, or start a local one for the while."""
    if ray.is_initialized():
        yield
        return
    how: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.WARNING}
    if address is None:
        ray_token.provide_token()
        how |= {"include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
    else:
        _show_token(address)
    # In a thread: in the main one Ray would take SIGTERM, to end the process without a word. The thread stays, since
    # Linux kills Ray's processes when the thread that started them ends.
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="ray") as starter:
        try:
            starter.submit(ray.init, address=address or "local", **how).result()
        except (ConnectionError, AuthenticationError) as error:
            if isinstance(error, AuthenticationError) or "AuthenticationError" in str(error.__cause__):
                raise _refused(address) from error
            raise ResourceError(f"no Ray cluster answers at {address}: {error}") from error
        try:
            yield
        finally:
            ray.shutdown()


def _show_token(address: str) -> None:
    """Turn tokens on if a cluster asks for one and there is one to show; Ray does so for `auto` alone.

    Not always: with tokens on, a driver does not understand workers of a cluster that has none.

    Raises: ResourceError: the cluster refuses this token, or there is none.
    """
    source = ray_token.token_source()
    if os.environ.get(ray_token.MODE, "").lower() == "token" and not source:
        raise _refused(address)  # Ray's own client would end the process.
    if address == "auto" or "://" in address or _lets_in(address):
        return
    if not source or ray_token.MODE in os.environ:
        raise _refused(address)
    from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available

    maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
    if not _lets_in(address):
        raise _refused(address)


def _lets_in(address: str) -> bool:
    """Whether a cluster answers; False where it wants another token. `ray.init` would ask twenty times."""
    from ray._raylet import GcsClient  # type: ignore[attr-defined, unused-ignore]

    try:
        GcsClient(address=address)
    except AuthenticationError:
        return False
    except Exception as error:  # Ray's kinds of "nothing answers" are private.
        raise ResourceError(f"no Ray cluster answers at {address}: {' '.join(str(error).split())}") from error
    return True


def _refused(address: str | None) -> ResourceError:
    mode = os.environ.get(ray_token.MODE, "")
    source = ray_token.token_source()
    what = f"refused the token of {source}" if source and mode else "asks for its token"
    hint = f"unset {ray_token.MODE}={mode} and " if mode and mode != "token" else ""
    return ResourceError(f"the Ray cluster at {address} {what}: {hint}{ray_token.HOW_TO_GIVE}")


class _LogFile(io.TextIOWrapper):
    """Takes what it can: a log that a full disk cuts off must not hide what the sweep says of that disk."""

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            super().write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            super().flush()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            super().close()


@contextlib.contextmanager
def _quiet(log_path: Path) -> Iterator[None]:
    """Send what Ray and Tune print and log to a file: standard output carries the result only."""
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with _LogFile(log_path.open("ab")) as file:
        handler = logging.StreamHandler(file)
        loggers = [logging.getLogger(name) for name in ("ray", "ray.tune")]
        before = [(logger, logger.handlers[:], logger.propagate) for logger in loggers]
        for logger in loggers:
            logger.handlers, logger.propagate = [handler], False
        try:
            with contextlib.redirect_stdout(file):
                yield
        finally:
            for logger, handlers, propagate in before:
                logger.handlers, logger.propagate = handlers, propagate
