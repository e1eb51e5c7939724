"""Workers that run one probe together, as processes of this machine: what they leave, and what becomes of a failure."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from raypruning.core.plan import Plan
from raypruning.core.ports import ProbeJob, ProbeOutcome
from raypruning.core.records import (
    DataChoice,
    Failure,
    MethodChoice,
    ModelChoice,
    Probe,
    Recipe,
    Resources,
    Schedule,
    SearchSpec,
    SweepSpec,
)
from raypruning.datasets.resolve import open_dataset
from raypruning.errors import StorageFullError
from raypruning.runtime.crew import DIED, local_crew, worst_of
from raypruning.runtime.store import ObjectStore, open_store
from raypruning.runtime.worker import Worker
from raypruning.tasks.task import describe_task

RECIPE = Recipe(epochs=3, learning_rate=0.05, batch_size=32, augmentation="none")
TWO = Resources(workers_per_probe=2)
PLUGIN = "tests.unit.runtime.frail_models"
DOUBLE = {"model": ModelChoice(name="test-double-lenet5"), "plugins": ("tests.unit.runtime.double_models",)}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def make_plan(**fields) -> Plan:
    data = DataChoice(name="digits", train_images=200, test_images=300)
    dataset = open_dataset(data, data_dir=None, download=False)
    spec = SweepSpec(
        **{
            "name": "together",
            "model": ModelChoice(name="lenet5"),
            "data": data,
            "methods": (MethodChoice(name="wt"), MethodChoice(name="ft"), MethodChoice(name="sipp")),
            "tasks": ("nominal", "noise/uniform/0.1"),
            "budgets": (2,),
            "recipe": RECIPE,
            "search": SearchSpec(strategy="grid", ratios=(0.5,)),
            **fields,
        }
    )
    tasks = tuple(describe_task(name, dataset) for name in spec.tasks)
    return Plan(spec=spec, data_fingerprint=dataset.fingerprint, tasks=tasks)


def run(plan: Plan, probe: Probe, store: ObjectStore, *, resources: Resources = TWO, worker=None, **fields):
    job = ProbeJob(probe=probe, tasks=plan.tasks, resources=resources, plugins=plan.spec.plugins, **fields)
    return (worker or Worker(store)).run(job)


def pruned(plan: Plan, method: str) -> Probe:
    curve = next(curve for curve in plan.curves if curve.method == method)
    return plan.pruned(curve, 0.5)


@pytest.fixture
def stores(tmp_path: Path) -> tuple[ObjectStore, ObjectStore]:
    """Of one worker, and of two."""
    return open_store(str(tmp_path / "alone")), open_store(str(tmp_path / "together"))


def assert_alike(together: ObjectStore, alone: ObjectStore, training_id: str, plan: Plan) -> None:
    """The same but for sums over a batch in another order, of networks in float64.

    Measured: 2 x 10^-15 of the largest weight at most, after 35 steps; the bound is that of test_data_parallel.py.
    In float32 rounding grows in a training to what hangs on the processor: 2 x 10^-6 and 6 x 10^-5 on two of them.
    """
    one, two = alone.weights(training_id), together.weights(training_id)
    for name, value in one.items():
        assert np.abs(two[name] - value).max() <= 1e-11 * np.abs(value).max(), name
    masks = together.masks(training_id)
    assert all(np.array_equal(masks[name], mask) for name, mask in alone.masks(training_id).items())
    for task in plan.tasks:
        first, second = (store.evaluation(training_id, task.fingerprint) for store in (alone, together))
        assert first is not None and second is not None
        first_N, second_N = (
            store.predictions(evaluation) for store, evaluation in ((alone, first), (together, second))
        )
        assert np.array_equal(second_N["label"], first_N["label"])
        assert np.array_equal(second_N["predicted"], first_N["predicted"])


@pytest.mark.parametrize("schedule", [Schedule(), Schedule(kind="gradual", frequency=3)], ids=["one shot", "gradual"])
@pytest.mark.parametrize("method", ["wt", "sipp"])
def test_two_workers_leave_what_one_leaves(stores, method: str, schedule: Schedule):
    plan = make_plan(schedule=schedule, **DOUBLE)
    for store, resources in zip(stores, (Resources(), TWO), strict=True):
        for probe in (plan.parent(0), pruned(plan, method)):
            outcome = run(plan, probe, store, resources=resources)
            assert outcome.failure is None and outcome.was_trained, outcome.failure
    alone, together = stores
    for probe in (plan.parent(0), pruned(plan, method)):
        assert_alike(together, alone, probe.id, plan)
        kept = together.training(probe.id)
        assert kept is not None and (kept.provenance.workers, kept.provenance.gpu_share) == (2, 0.0)


def test_a_rewound_training_makes_its_starting_point_together_as_well(stores):
    plan = make_plan(schedule=Schedule(rewind_epochs=1), **DOUBLE)
    for store, resources in zip(stores, (Resources(), TWO), strict=True):
        for probe in (plan.parent(0), pruned(plan, "wt")):
            assert run(plan, probe, store, resources=resources).failure is None
    assert_alike(stores[1], stores[0], pruned(plan, "wt").id, plan)


def test_two_workers_measure_a_stored_network_to_the_bit_as_one_does(stores):
    plan = make_plan()
    alone, together = stores
    job = ProbeJob(probe=plan.parent(0), tasks=())
    for store in stores:
        assert Worker(store).run(job).failure is None
    run(plan, plan.parent(0), alone, resources=Resources())
    outcome = run(plan, plan.parent(0), together)
    assert outcome.failure is None and not outcome.was_trained
    for task in plan.tasks:
        one, two = (store.evaluation(plan.parent(0).id, task.fingerprint) for store in stores)
        assert one is not None and two is not None and one.sha256 == two.sha256


@pytest.mark.parametrize(
    ("model", "kind", "says"),
    [
        ("test-worker-no-memory", "OutOfMemoryError", "resources.images_at_once=8"),
        ("test-worker-unforeseen", "ZeroDivisionError", "worker 1: of a plugin"),
        ("test-worker-killed", "WorkerDied", "died"),
        ("test-first-own", "RuntimeError", "shapes do not fit"),
    ],
)
def test_a_failure_of_any_worker_is_that_of_the_probe_and_the_next_probe_is_none_the_worse(
    stores, model: str, kind: str, says: str
):
    worker = Worker(stores[1])
    plan = make_plan(model=ModelChoice(name=model), plugins=(PLUGIN,), methods=(MethodChoice(name="wt"),))
    began = time.monotonic()
    outcome = run(plan, plan.parent(0), stores[1], worker=worker)
    assert outcome.failure is not None and outcome.failure.kind == kind and outcome.failure.is_retriable
    assert says in outcome.failure.message
    assert time.monotonic() - began < 60
    good = make_plan()
    assert run(good, good.parent(0), stores[1], worker=worker).failure is None


def test_a_failure_that_all_workers_see_is_told_once_and_as_it_is(stores):
    plan = make_plan(recipe=RECIPE.model_copy(update={"learning_rate": 1e20}))
    outcome = run(plan, plan.parent(0), stores[1])
    assert outcome.failure is not None and outcome.failure.kind == "TrainingError"
    assert "lower recipe.learning_rate" in outcome.failure.message and not outcome.failure.is_retriable


def test_a_storage_that_is_full_ends_the_probe_at_once_while_the_other_worker_waits_for_a_batch(stores):
    plan, store = make_plan(), stores[1]

    def full(*about: object) -> None:
        raise StorageFullError("no space left")

    store.save_resume_state = full
    began = time.monotonic()
    outcome = run(plan, plan.parent(0), store, save_seconds=0.0)
    assert outcome.failure is not None and outcome.failure.kind == "StorageFullError"
    assert time.monotonic() - began < 60


def test_a_worker_that_is_killed_within_an_epoch_costs_that_epoch_alone(stores):
    plan = make_plan(recipe=RECIPE.model_copy(update={"epochs": 120}), tasks=("nominal",))
    probe, (undisturbed, store) = plan.parent(0), stores
    crews: list = []

    @contextlib.contextmanager
    def watched(job: ProbeJob):
        with local_crew(job) as crew:
            crews.append(crew)
            yield crew

    outcomes: list[ProbeOutcome] = []
    worker = Worker(store, make_crew=watched)
    thread = threading.Thread(target=lambda: outcomes.append(run(plan, probe, store, worker=worker, save_seconds=0.0)))
    thread.start()
    until = time.monotonic() + 60
    while num_saved(store, probe) < 2:
        assert time.monotonic() < until and thread.is_alive()
        time.sleep(0.01)
    (process,) = crews[0]._processes
    process.kill()
    thread.join(timeout=60)
    assert outcomes[0].failure == DIED
    saved = num_saved(store, probe)
    assert 2 <= saved < 120
    seen: list[int] = []
    save = store.save_resume_state
    store.save_resume_state = lambda key, state, arrays: seen.append(len(state["history"])) or save(key, state, arrays)
    assert run(plan, probe, store, save_seconds=0.0).failure is None
    assert seen[0] == saved + 1
    assert run(plan, probe, undisturbed).failure is None
    one, two = undisturbed.weights(probe.id), store.weights(probe.id)
    assert all(np.array_equal(two[name], value) for name, value in one.items())
    assert not psutil.pid_exists(process.pid)


def num_saved(store: ObjectStore, probe: Probe) -> int:
    found = store.resume_state(probe.id)
    return len(found[0]["history"]) if found else 0


def test_of_several_failures_the_one_that_says_most_is_told():
    ours = Failure(kind="DataError", message="no images here")
    memory = Failure(kind="OutOfMemoryError", message="", is_retriable=True)
    broken = Failure(kind="RuntimeError", message="connection closed", is_retriable=True)
    assert worst_of([broken, memory, ours]) == ours
    assert worst_of([broken, memory]) == memory
    assert worst_of([broken]) == broken
    assert worst_of([]) is None
