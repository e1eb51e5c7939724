"""The dispatcher over a store in memory: what is run, how often, and what comes of it, in whatever order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raypruning.app.results import with_histories
from raypruning.core.plan import Plan, asked_probes
from raypruning.core.ports import ProbeJob, ProbeOutcome
from raypruning.core.potential import Threshold, potential
from raypruning.core.records import (
    Checkpoint,
    DataChoice,
    Epoch,
    Evaluation,
    Failure,
    Limits,
    MethodChoice,
    ModelChoice,
    Probe,
    ProbeResult,
    Recipe,
    Resources,
    SearchSpec,
    SweepSpec,
    Task,
    TrainingResult,
)
from raypruning.runtime.dispatcher import Dispatcher
from raypruning.runtime.joined import stored_result

NUM = 1000
TASKS = tuple(
    Task(name=name, dataset="d", nominal="nominal", num_examples=NUM, fingerprint=letter * 20)
    for name, letter in (("nominal", "a"), ("noise/uniform/0.5", "b"))
)
# Largest ratio of each method that loses nothing, by task.
KNEES = {"wt": (0.9, 0.8), "ft": (0.7, 0.62)}


def make_plan(*, tasks: tuple[Task, ...] = TASKS, **fields) -> Plan:
    spec = SweepSpec(
        **{
            "name": "sweep",
            "model": ModelChoice(name="lenet5"),
            "data": DataChoice(name="strokes"),
            "methods": tuple(MethodChoice(name=name) for name in KNEES),
            "tasks": tuple(task.name for task in tasks),
            "budgets": (1,),
            "seeds": (0, 1),
            "recipe": Recipe(epochs=1, learning_rate=0.1),
            "search": SearchSpec(low=0.3, high=0.98, resolution=0.3),
            **fields,
        }
    )
    return Plan(spec=spec, data_fingerprint="0" * 64, tasks=tasks)


@dataclass
class MemoryStore:
    """What the dispatcher asks of a store, in dictionaries."""

    uri: str = "memory"
    trainings: dict[str, TrainingResult] = field(default_factory=dict)
    evaluations: dict[tuple[str, str], Evaluation] = field(default_factory=dict)
    epochs_saved: dict[str, int] = field(default_factory=dict)  # of trainings that are under way

    def resume_state(self, training_id: str):
        num = self.epochs_saved.get(training_id)
        return None if num is None else ({"history": [{}] * num}, {})

    def training(self, training_id: str) -> TrainingResult | None:
        return self.trainings.get(training_id)

    def evaluation(self, training_id: str, task_fingerprint: str) -> Evaluation | None:
        return self.evaluations.get((training_id, task_fingerprint))

    def lose(self, training_id: str) -> None:
        """As a real one does with a damaged training: it goes with its evaluations."""
        del self.trainings[training_id]
        self.evaluations = {key: value for key, value in self.evaluations.items() if key[0] != training_id}


@dataclass
class Worker:
    """Commits results that follow KNEES; keeps count of what it did."""

    store: MemoryStore
    fails: Callable[[ProbeJob], Failure | None] = lambda job: None
    trained: Counter[str] = field(default_factory=Counter)
    evaluated: Counter[tuple[str, str]] = field(default_factory=Counter)
    jobs: list[ProbeJob] = field(default_factory=list)

    def run(self, job: ProbeJob) -> ProbeOutcome:
        self.jobs.append(job)
        training = job.probe.training
        failure = self.fails(job)
        if failure is None and training.start is not None and training.start not in self.store.trainings:
            failure = Failure(kind="StoreError", message="no parent", is_retriable=True)
        if failure is not None:
            return ProbeOutcome(training=training.id, failure=failure, seconds={"train": 1.0})
        was_trained = training.id not in self.store.trainings
        if was_trained:
            self.trained[training.id] += 1
            self.store.trainings[training.id] = TrainingResult(training=training, checkpoint=checkpoint_of(job.probe))
        for task in job.tasks:
            self.evaluated[training.id, task.name] += 1
            self.store.evaluations[training.id, task.fingerprint] = evaluation_of(job.probe, task)
        return ProbeOutcome(training=training.id, seconds={"train": 1.0}, was_trained=was_trained)


def checkpoint_of(probe: Probe) -> Checkpoint:
    return Checkpoint(
        uri="",
        sha256="",
        num_bytes=0,
        ratio_asked=probe.ratio,
        ratio_reached=probe.ratio,
        num_nonzero=1,
        num_params=1,
        num_prunable=1,
        macs=1,
        macs_dense=1,
    )


def evaluation_of(probe: Probe, task: Task) -> Evaluation:
    knee = KNEES.get(probe.curve.method, (1.0, 1.0))[task.name != "nominal"]
    num_wrong = 100 if probe.ratio <= knee else 500
    return Evaluation(
        training=probe.id,
        task=task.name,
        task_fingerprint=task.fingerprint,
        error=num_wrong / NUM,
        num_examples=NUM,
        num_wrong=num_wrong,
        loss=1.0,
        predictions="",
        sha256="",
    )


def make_dispatcher(
    plan: Plan, store: MemoryStore, told: list[ProbeResult] | None = None, said: list[str] | None = None
) -> Dispatcher:
    resources = plan.spec.resources
    return Dispatcher(
        plan,
        store,  # type: ignore[arg-type]
        make_job=lambda probe, tasks, attempt: ProbeJob(probe=probe, tasks=tasks, attempt=attempt, resources=resources),
        on_result=lambda result, dispatcher: told.append(result) if told is not None else None,
        say=lambda line: said.append(line) if said is not None else None,
    )


def drive(
    dispatcher: Dispatcher, worker: Worker, *, slots: int = 1, choose: Callable[[int], int] = lambda n: 0
) -> None:
    """Keep up to `slots` jobs running; the one of them that finishes next is `choose(number running)`."""
    running: list[ProbeJob] = []
    while not dispatcher.is_finished:
        while len(running) < slots and (job := dispatcher.next_job()) is not None:
            running.append(job)
        assert dispatcher.num_running == len(running) > 0, "not finished, and nothing to do"
        job = running.pop(choose(len(running)))
        dispatcher.complete(job, worker.run(job))
    assert dispatcher.next_job() is None


def potentials(plan: Plan, results: dict[str, ProbeResult]) -> dict[tuple[str, int, str], tuple[str, float | None]]:
    found = {}
    for curve in plan.curves:
        known = [r for r in results.values() if r.probe.curve == curve]
        for task in plan.tasks:
            one = potential(
                curve,
                Threshold(task.name, plan.spec.deltas[0]),
                results=known,
                dense=results.get(plan.parent(curve.seed).id),
                search=plan.search,
                num_examples=NUM,
            )
            found[curve.method, curve.seed, task.name] = (one.status, one.ratio)
    return found


def undisturbed(plan: Plan) -> dict[str, ProbeResult]:
    """One worker, nothing in its way."""
    store = MemoryStore()
    dispatcher = make_dispatcher(plan, store)
    drive(dispatcher, Worker(store))
    return dispatcher.results


FAILURE = Failure(kind="OutOfMemoryError", message="no memory", is_retriable=True)


@settings(max_examples=25, deadline=None)
@given(slots=st.integers(1, 6), data=st.data())
def test_every_probe_runs_once_and_the_answer_is_the_same_whatever_the_order(slots: int, data: st.DataObject):
    plan = make_plan()
    expected = undisturbed(plan)
    store = MemoryStore()
    worker, told = Worker(store), []
    dispatcher = make_dispatcher(plan, store, told)
    drive(dispatcher, worker, slots=slots, choose=lambda num: data.draw(st.integers(0, num - 1)))
    assert set(dispatcher.results) == set(expected)
    assert set(worker.trained.values()) == {1} and set(worker.trained) == set(dispatcher.results)
    assert set(worker.evaluated.values()) == {1}
    assert sorted(result.probe.id for result in told) == sorted(dispatcher.results)
    assert potentials(plan, dispatcher.results) == potentials(plan, expected)
    assert {probe.id for probe in asked_probes(plan, dispatcher.results)} == set(dispatcher.results)


@settings(max_examples=25, deadline=None)
@given(slots=st.integers(1, 4), data=st.data())
def test_a_sweep_that_is_stopped_anywhere_goes_on_without_running_anything_twice(slots: int, data: st.DataObject):
    plan, store = make_plan(), MemoryStore()
    worker = Worker(store)
    for _ in range(data.draw(st.integers(1, 3))):  # Drivers that end early, with jobs still running.
        dispatcher = make_dispatcher(plan, store)
        for _ in range(data.draw(st.integers(0, 12))):
            if (job := dispatcher.next_job()) is not None:
                dispatcher.complete(job, worker.run(job))
        for _ in range(slots):
            if (job := dispatcher.next_job()) is not None and data.draw(st.booleans()):
                worker.run(job)  # It finishes after its driver died.
    last = make_dispatcher(plan, store)
    drive(last, worker, slots=slots)
    assert set(worker.trained.values()) == {1} and set(worker.evaluated.values()) == {1}
    assert potentials(plan, last.results) == potentials(plan, undisturbed(plan))


def test_results_are_kept_without_the_epochs_that_those_who_are_told_see_and_the_store_gives_back():
    plan, store, told = make_plan(), MemoryStore(), []
    worker = Worker(store)
    dispatcher = make_dispatcher(plan, store, told)
    history = (Epoch(epoch=1, learning_rate=0.1, train_loss=2.0),)
    while (job := dispatcher.next_job()) is not None:
        outcome = worker.run(job)
        key = job.probe.id
        store.trainings[key] = store.trainings[key].model_copy(update={"history": history})
        dispatcher.complete(job, outcome)
    assert all(result.result.history == history for result in told)
    assert all(result.result.history == () for result in dispatcher.results.values())
    assert with_histories(dispatcher.results, store) == {result.probe.id: result for result in told}


def test_parents_are_asked_for_first_and_alone():
    plan = make_plan()
    dispatcher = make_dispatcher(plan, MemoryStore())
    first = [dispatcher.next_job() for _ in range(3)]
    assert [job.probe.id for job in first if job] == [plan.parent(0).id, plan.parent(1).id] and first[2] is None
    assert not dispatcher.is_finished and dispatcher.num_running == 2 and dispatcher.num_ready == 0


def test_a_store_that_holds_everything_gives_no_job():
    plan, store = make_plan(), MemoryStore()
    cold = make_dispatcher(plan, store)
    drive(cold, Worker(store))
    told: list[ProbeResult] = []
    warm = make_dispatcher(plan, store, told)
    assert warm.is_finished and warm.next_job() is None
    assert set(warm.results) == set(cold.results) == {result.probe.id for result in told}
    assert not any(result.is_new for result in told) and {result.attempts for result in told} == {0}
    assert all(result.is_new and result.attempts == 1 for result in cold.results.values())


def test_another_task_asks_only_for_its_evaluations():
    store = MemoryStore()
    worker = Worker(store)
    # A grid asks for the same ratios whatever the tasks.
    search = SearchSpec(strategy="grid", ratios=(0.5, 0.75, 0.85))
    drive(make_dispatcher(make_plan(tasks=TASKS[:1], search=search), store), worker)
    before = len(worker.jobs)
    wider = make_dispatcher(make_plan(search=search), store)
    drive(wider, worker)
    later = worker.jobs[before:]
    assert [[task.name for task in job.tasks] for job in later] == [["noise/uniform/0.5"]] * before
    assert set(worker.trained.values()) == {1}
    assert not any(result.is_new for result in wider.results.values())


@pytest.mark.parametrize("attempts", [1, 3])
def test_a_failure_that_may_pass_is_tried_so_often_and_then_recorded(attempts: int):
    plan = make_plan(limits=Limits(attempts=attempts))
    victim = plan.controls(0)[0].id
    store = MemoryStore()
    worker = Worker(store, fails=lambda job: FAILURE if job.probe.id == victim else None)
    dispatcher = make_dispatcher(plan, store)
    drive(dispatcher, worker, slots=2)
    tried = [job.attempt for job in worker.jobs if job.probe.id == victim]
    assert tried == list(range(1, attempts + 1))
    result = dispatcher.results[victim]
    assert (result.status, result.failure, result.attempts) == ("failed", FAILURE, attempts)
    assert result.seconds == {"train": float(attempts)} and result.evaluations == {}
    assert all(other.is_done for key, other in dispatcher.results.items() if key != victim)


def test_a_failure_that_passes_is_a_result_with_its_attempts_and_the_seconds_of_all():
    plan, store = make_plan(), MemoryStore()
    victim = plan.parent(1).id
    worker = Worker(store, fails=lambda job: FAILURE if job.probe.id == victim and job.attempt < 3 else None)
    dispatcher = make_dispatcher(plan, store)
    drive(dispatcher, worker)
    result = dispatcher.results[victim]
    assert result.is_done and result.attempts == 3 and result.seconds == {"train": 3.0} and result.is_new


def test_a_probe_without_memory_in_its_share_of_a_gpu_gets_twice_as_much_and_so_does_all_that_follows():
    plan, store, said = make_plan(resources=Resources(gpus_per_probe=0.2)), MemoryStore(), []
    worker = Worker(store, fails=lambda job: FAILURE if job.resources.gpus_per_probe < 0.4 else None)
    dispatcher = make_dispatcher(plan, store, said=said)
    drive(dispatcher, worker, slots=2)  # Both parents begin with the small share.
    shares = [(job.attempt, job.resources.gpus_per_probe) for job in worker.jobs]
    assert shares[:2] == [(1, 0.2)] * 2 and sorted(shares[2:4]) == [(2, 0.4)] * 2
    assert {share for _, share in shares[4:]} == {0.4}
    assert said == ["a probe ran out of memory in 0.2 of a GPU: from now on each gets 0.4"]
    parents = [dispatcher.results[plan.parent(seed).id] for seed in (0, 1)]
    assert [(one.is_done, one.attempts) for one in parents] == [(True, 2)] * 2


@pytest.mark.parametrize(
    ("gpus", "shares"),
    [(0.3, [0.3, 0.6, 1.0]), (0.7, [0.7, 1.0, 1.0]), (1.0, [1.0] * 3), (2.0, [2.0] * 3), (0.0, [0.0] * 3)],
)
def test_a_share_ends_at_the_whole_gpu_and_tries_end_as_they_do_otherwise(gpus: float, shares: list[float]):
    plan, store, said = make_plan(resources=Resources(gpus_per_probe=gpus), seeds=(0,)), MemoryStore(), []
    worker = Worker(store, fails=lambda job: FAILURE)
    dispatcher = make_dispatcher(plan, store, said=said)
    drive(dispatcher, worker)
    assert len(said) == len(set(shares)) - 1
    assert [job.resources.gpus_per_probe for job in worker.jobs] == shares
    assert dispatcher.results[plan.parent(0).id].failure == FAILURE


DEATH = Failure(kind="WorkerDied", message="the worker died before it finished", is_retriable=True)


def test_a_worker_that_dies_after_more_epochs_than_the_one_before_is_no_attempt():
    plan, store = make_plan(limits=Limits(attempts=2), seeds=(0,)), MemoryStore()
    victim = plan.parent(0).id
    saved = iter([1, 4, 9, 11])  # epochs by the next death; then it gets to the end

    def fails(job: ProbeJob) -> Failure | None:
        if job.probe.id != victim or (num := next(saved, None)) is None:
            return None
        store.epochs_saved[victim] = num
        return DEATH

    dispatcher = make_dispatcher(plan, store)
    drive(dispatcher, Worker(store, fails=fails))
    result = dispatcher.results[victim]
    assert result.is_done and result.attempts == 1 and result.seconds == {"train": 5.0}


@pytest.mark.parametrize("saved", [None, 3], ids=["never saved", "saved once"])
def test_a_worker_that_always_dies_at_the_same_place_is_given_up(saved: int | None):
    plan, store = make_plan(limits=Limits(attempts=2), seeds=(0,)), MemoryStore()
    victim = plan.parent(0).id
    if saved is not None:
        store.epochs_saved[victim] = saved
    worker = Worker(store, fails=lambda job: DEATH if job.probe.id == victim else None)
    dispatcher = make_dispatcher(plan, store)
    drive(dispatcher, worker)
    assert dispatcher.results[victim].failure == DEATH
    assert len(worker.jobs) == 2 + (saved is not None)


def test_a_failure_that_will_not_pass_is_tried_once():
    plan, store = make_plan(), MemoryStore()
    failure = Failure(kind="TrainingError", message="the loss became nan")
    victim = plan.controls(1)[0].id
    worker = Worker(store, fails=lambda job: failure if job.probe.id == victim else None)
    dispatcher = make_dispatcher(plan, store)
    drive(dispatcher, worker)
    assert [job.attempt for job in worker.jobs if job.probe.id == victim] == [1]
    assert dispatcher.results[victim].failure == failure


def test_a_parent_that_failed_ends_its_seed_and_leaves_the_other_alone():
    plan, store = make_plan(), MemoryStore()
    lost = plan.parent(0).id
    worker = Worker(store, fails=lambda job: FAILURE if job.probe.id == lost else None)
    dispatcher = make_dispatcher(plan, store)
    drive(dispatcher, worker)
    assert {job.probe.curve.seed for job in worker.jobs if job.probe.id != lost} == {1}
    assert not dispatcher.results[lost].is_done
    found = potentials(plan, dispatcher.results)
    assert {found[key] for key in found if key[1] == 0} == {("open", None)}
    assert {found[key][0] for key in found if key[1] == 1} == {"closed"}


def test_a_sweep_whose_parents_all_failed_is_finished_with_nothing_more_asked():
    plan, store = make_plan(limits=Limits(attempts=2)), MemoryStore()
    worker = Worker(store, fails=lambda job: FAILURE)
    dispatcher = make_dispatcher(plan, store)
    drive(dispatcher, worker, slots=2)
    assert len(worker.jobs) == 4 and set(dispatcher.results) == {plan.parent(0).id, plan.parent(1).id}
    assert {status for status, _ in potentials(plan, dispatcher.results).values()} == {"open"}


def test_a_failed_probe_leaves_open_what_only_it_could_close():
    plan, store = make_plan(seeds=(0,), limits=Limits(attempts=1)), MemoryStore()
    failed: list[str] = []

    def first_pruned_wt(job: ProbeJob) -> Failure | None:
        if job.probe.curve.method == "wt" and (not failed or job.probe.id in failed):
            failed.append(job.probe.id)
            return FAILURE
        return None

    dispatcher = make_dispatcher(plan, store)
    drive(dispatcher, Worker(store, fails=first_pruned_wt))
    found = potentials(plan, dispatcher.results)
    # Not "pruned too far": it holds at .3, the low end that was measured, and nothing is known up to .9.
    assert found["wt", 0, "nominal"] == ("open", 0.3)
    assert found["ft", 0, "nominal"][0] == "closed"


def test_an_outcome_without_anything_in_the_store_is_a_failure():
    plan = make_plan(seeds=(0,), limits=Limits(attempts=2))
    dispatcher = make_dispatcher(plan, MemoryStore())
    for attempt in (1, 2):
        job = dispatcher.next_job()
        assert job is not None and job.attempt == attempt
        dispatcher.complete(job, ProbeOutcome(training=job.probe.id, was_trained=True))
    assert dispatcher.is_finished
    (result,) = dispatcher.results.values()
    assert result.failure is not None and result.failure.kind == "StoreError"


def test_a_failure_whose_result_is_in_the_store_all_the_same_counts_as_done():
    """Two workers at one training: one dies, the other has finished."""
    plan, store = make_plan(seeds=(0,)), MemoryStore()
    dispatcher = make_dispatcher(plan, store)
    job = dispatcher.next_job()
    assert job is not None
    Worker(store).run(job)
    dispatcher.complete(job, ProbeOutcome(training=job.probe.id, failure=FAILURE))
    assert dispatcher.results[job.probe.id].is_done


def test_what_was_evaluated_in_part_is_tried_again_for_the_rest():
    plan, store = make_plan(seeds=(0,)), MemoryStore()
    dispatcher = make_dispatcher(plan, store)
    job = dispatcher.next_job()
    assert job is not None
    worker = Worker(store)
    worker.run(job.model_copy(update={"tasks": TASKS[:1]}))
    dispatcher.complete(job, ProbeOutcome(training=job.probe.id, failure=FAILURE, was_trained=True))
    again = dispatcher.next_job()
    assert again is not None and again.attempt == 2 and again.tasks == TASKS[1:]
    dispatcher.complete(again, worker.run(again))
    assert dispatcher.results[job.probe.id].is_done and dispatcher.results[job.probe.id].is_new


def test_a_parent_that_leaves_the_store_is_trained_again_before_what_begins_from_it():
    plan, store = make_plan(), MemoryStore()
    lost = plan.parent(0).id
    worker = Worker(store)
    dispatcher = make_dispatcher(plan, store)
    for _ in range(2):
        job = dispatcher.next_job()
        assert job is not None
        dispatcher.complete(job, worker.run(job))
    store.lose(lost)  # Seen by the first probe that reads it.
    drive(dispatcher, worker, slots=3)
    assert worker.trained[lost] == 2
    assert all(result.is_done for result in dispatcher.results.values())
    assert potentials(plan, dispatcher.results) == potentials(plan, undisturbed(plan))


def test_the_stored_result_of_a_probe_is_none_until_every_task_is_measured():
    plan, store = make_plan(seeds=(0,)), MemoryStore()
    probe = plan.parent(0)
    assert stored_result(store, probe, plan.tasks) is None  # type: ignore[arg-type]
    worker = Worker(store)
    worker.run(ProbeJob(probe=probe, tasks=TASKS[:1]))
    assert stored_result(store, probe, plan.tasks) is None  # type: ignore[arg-type]
    worker.run(ProbeJob(probe=probe, tasks=TASKS[1:]))
    found = stored_result(store, probe, plan.tasks)  # type: ignore[arg-type]
    assert found is not None and set(found.evaluations) == {"nominal", "noise/uniform/0.5"} and not found.is_new
