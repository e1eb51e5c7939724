"""Between the plan and an executor: turns probes into jobs, outcomes into results, and asks the plan again."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from raypruning.core.plan import Plan, next_probes
from raypruning.core.ports import ProbeJob, ProbeOutcome, Store
from raypruning.core.records import Failure, Probe, ProbeResult, Task
from raypruning.errors import OutOfMemoryError
from raypruning.runtime.joined import stored_result, weighed
from raypruning.runtime.limits import RunLimits

MakeJob = Callable[[Probe, tuple[Task, ...], int], ProbeJob]


class Dispatcher:
    """A JobSource over a plan and a store. What the store holds is never run again; what failed in passing is.

    A probe without memory in its share of a GPU gets twice the share, and so does all that runs after it.

    Call it from one thread. It holds no state that the store does not: a new one over the same store goes on where
    this one was. Results are kept without the history of their trainings.
    """

    def __init__(
        self,
        plan: Plan,
        store: Store,
        *,
        make_job: MakeJob,
        on_result: Callable[[ProbeResult, Dispatcher], None],
        limits: RunLimits | None = None,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.results: dict[str, ProbeResult] = {}
        self._plan = plan
        self._store = store
        self._make_job = make_job
        self._on_result = on_result
        self._limits = limits
        self._say = say
        self._share = 0.0  # of a GPU, at least
        self._epochs_saved: dict[str, int] = {}
        self._ready: deque[ProbeJob] = deque()
        self._running: dict[str, ProbeJob] = {}
        self._seconds: dict[str, dict[str, float]] = {}
        self._trained: set[str] = set()
        self._attempts: dict[str, int] = {}
        self._ask()

    @property
    def num_running(self) -> int:
        """Jobs that were handed out and are not complete."""
        return len(self._running)

    @property
    def reached_limit(self) -> str:
        """What ended the run before the plan did; empty for nothing."""
        return (self._limits and self._limits.reached) or ""

    @property
    def num_ready(self) -> int:
        """Jobs that could be handed out now."""
        return len(self._ready)

    @property
    def is_finished(self) -> bool:
        """True when nothing is running, waiting or left to ask."""
        return not self._running and not self._ready

    def next_job(self) -> ProbeJob | None:
        """A job that may run now; None when all that remain wait for others."""
        if not self._ready:
            return None
        if self._limits is not None and not self._limits.allow(self._ready[0]):
            self._ready.clear()
            return None
        job = self._ready.popleft()
        self._running[job.probe.id] = job
        return job

    def complete(self, job: ProbeJob, outcome: ProbeOutcome) -> None:
        """Take the outcome of a job: a result, or the same job once more."""
        key = job.probe.id
        self._running.pop(key, None)
        if self._limits is not None:
            self._limits.end(job, outcome)
        self._attempts[key] = job.attempt
        spent = self._seconds.setdefault(key, {})
        for phase, seconds in outcome.seconds.items():
            spent[phase] = spent.get(phase, 0.0) + seconds
        if outcome.was_trained:
            self._trained.add(key)
        result = self._stored(job.probe, attempts=job.attempt)
        if result is None:
            # A worker that says it is done and has left nothing is a failure as well: what counts is the store.
            failure = outcome.failure or Failure(
                kind="StoreError",
                message="the worker finished, and the store does not hold its result",
                is_retriable=True,
            )
            is_start_lost = self._forget_lost_start(job)
            self._attempts[key] -= self._has_moved_on(job, failure)
            if failure.is_retriable and self._attempts[key] < self._plan.spec.limits.attempts:
                self._enlarge_share(job, failure)
                if is_start_lost:
                    self._ask()  # for the start; the plan asks for this probe again when it is there
                    return
                self._ready.append(self._job(job.probe))
                return
            result = ProbeResult(
                probe=job.probe, status="failed", failure=failure, attempts=job.attempt, seconds=spent, is_new=True
            )
        self._record(result)
        self._ask()

    def _forget_lost_start(self, job: ProbeJob) -> bool:
        """Whether the training that a job begins from left the store, damaged; if so it counts as not asked for yet."""
        start = job.probe.training.start
        if start is None or self._store.training(start) is not None:
            return False
        if start in self.results and self.results[start].is_done:
            del self.results[start]
        # What else begins from it could only fail.
        self._ready = deque(other for other in self._ready if other.probe.training.start != start)
        return True

    def _has_moved_on(self, job: ProbeJob, failure: Failure) -> bool:
        """Whether a worker died that had saved more epochs than the one before: a spot node's death is no attempt."""
        if failure.kind != "WorkerDied":
            return False
        saved = self._store.resume_state(job.probe.id)
        history = saved[0].get("history") if saved else None
        num_epochs = len(history) if isinstance(history, list) else 0
        before = self._epochs_saved.get(job.probe.id, 0)
        self._epochs_saved[job.probe.id] = num_epochs
        return num_epochs > before

    def _enlarge_share(self, job: ProbeJob, failure: Failure) -> None:
        """Give what is run from now on more of a GPU than a job had that ran out of memory."""
        share = job.resources.gpus_per_probe
        if failure.kind != OutOfMemoryError.__name__ or not 0 < share < 1 or share < self._share:
            return
        self._share = min(1.0, 2 * share)
        self._say(f"a probe ran out of memory in {share:g} of a GPU: from now on each gets {self._share:g}")
        self._ready = deque(self._with_share(other) for other in self._ready)

    def _job(self, probe: Probe) -> ProbeJob:
        return self._with_share(self._make_job(probe, self._missing_tasks(probe), self._attempts.get(probe.id, 0) + 1))

    def _with_share(self, job: ProbeJob) -> ProbeJob:
        if job.resources.gpus_per_probe >= self._share:
            return job
        resources = job.resources.model_copy(update={"gpus_per_probe": self._share})
        return job.model_copy(update={"resources": resources})

    def _ask(self) -> None:
        """Queue what the plan wants and the store lacks, until the plan wants nothing that is not queued."""
        while not self.reached_limit:
            waiting = {job.probe.id for job in self._ready} | set(self._running)
            asked = [probe for probe in next_probes(self._plan, self.results) if probe.id not in waiting]
            known = [result for probe in asked if (result := self._stored(probe, attempts=0)) is not None]
            for result in known:
                self._record(result)
            found = {result.probe.id for result in known}
            self._ready.extend(self._job(probe) for probe in asked if probe.id not in found)
            if not known:
                return

    def _record(self, result: ProbeResult) -> None:
        self.results[result.probe.id] = result.without_history()
        self._on_result(result, self)

    def _stored(self, probe: Probe, *, attempts: int) -> ProbeResult | None:
        """The result of a probe, if the store holds all of it."""
        key = probe.id
        result = stored_result(
            self._store,
            probe,
            self._plan.tasks,
            attempts=attempts,
            seconds=self._seconds.get(key, {}),
            is_new=key in self._trained,
        )
        return weighed(result, self.results, plan=self._plan, store=self._store)

    def _missing_tasks(self, probe: Probe) -> tuple[Task, ...]:
        missing = [task for task in self._plan.tasks if self._store.evaluation(probe.id, task.fingerprint) is None]
        return tuple(sorted(missing, key=_urgency))


def _urgency(task: Task) -> int:
    """Nominal tasks first, then what studies look at: what is interrupted has measured that."""
    if task.nominal == task.name:
        return 0
    return 1 if task.corruption.get("severity") == 3 else 2
