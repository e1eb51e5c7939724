"""Networks of smaller budgets, kept on the way of the largest: the same bits as those of a training of their own."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from raypruning.app.results import collect, read_record, stored_results, write_record
from raypruning.app.sweep import start_over
from raypruning.bench import Bench
from raypruning.core.plan import Plan, next_probes
from raypruning.core.records import MethodChoice, Probe, Recipe, Schedule, SearchSpec
from raypruning.probe import run_probe
from raypruning.runtime.dispatcher import Dispatcher
from raypruning.runtime.inline import InlineExecutor
from raypruning.runtime.store import ObjectStore, open_store

from .test_probe import RECIPE, files, job_of, make_plan

ANYTIME = RECIPE.model_copy(update={"retrain_schedule": "anytime"})
BUDGETS = (0, 1, 2)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(str(tmp_path / "store"))


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench("cpu")


def plan_of(*, recipe: Recipe = ANYTIME, method: str = "wt", budgets: Sequence[int] = BUDGETS, **fields) -> Plan:
    return make_plan(methods=(MethodChoice(name=method),), recipe=recipe, budgets=tuple(budgets), **fields)


def probes_at(plan: Plan, ratio: float = 0.8) -> dict[int, Probe]:
    """By budget."""
    return {curve.budget: plan.pruned(curve, ratio) for curve in plan.curves}


def run_one(plan: Plan, probe: Probe, store: ObjectStore, bench: Bench, *, snapshots: bool, save_seconds: float = 30.0):
    kept = plan.snapshots(probe) if snapshots else ()
    outcome = run_probe(job_of(plan, probe, snapshots=kept, save_seconds=save_seconds), store, bench)
    assert outcome.failure is None, outcome.failure
    return outcome


def contents(store: ObjectStore, plan: Plan, probe: Probe):
    """All that a training and its evaluation came to: masks, weights, history, predictions."""
    result = store.training(probe.id)
    arrays = {f"mask of {name}": value for name, value in store.masks(probe.id).items()}
    arrays |= store.weights(probe.id)
    for task in plan.tasks:
        arrays |= store.predictions(store.evaluation(probe.id, task.fingerprint))
    return {name: np.asarray(value).tobytes() for name, value in arrays.items()}, result.history, result.checkpoint


VARIANTS = {
    "sgd": {"recipe": ANYTIME.model_copy(update={"augmentation": "crop_flip", "l1_penalty": 1e-4})},
    # Where the best epoch is not the last, the network that trains on is another one than the snapshot.
    "best": {"recipe": ANYTIME.model_copy(update={"keep": "best", "learning_rate": 0.3}), "budgets": (1, 2, 5)},
    "adam, filters, rewound": {
        "recipe": ANYTIME.model_copy(update={"optimiser": "adam", "learning_rate": 1e-3}),
        "method": "ft",
        "schedule": Schedule(rewind_epochs=0),
    },
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_snapshot_is_equal_to_a_training_of_its_own_to_the_bit(tmp_path, bench, variant):
    plan = plan_of(**VARIANTS[variant])
    probes = probes_at(plan)
    own, way = open_store(str(tmp_path / "own")), open_store(str(tmp_path / "way"))
    for one in (own, way):
        run_one(plan, plan.parent(0), one, bench, snapshots=False)
    for budget in sorted(probes):
        assert run_one(plan, probes[budget], own, bench, snapshots=False).was_trained
    for budget in sorted(probes, reverse=True):
        assert run_one(plan, probes[budget], way, bench, snapshots=True).was_trained == (budget == max(probes))
    assert all(contents(way, plan, probe) == contents(own, plan, probe) for probe in probes.values())


def weights_of(store: ObjectStore, probe: Probe) -> dict[str, bytes]:
    return {name: np.asarray(value).tobytes() for name, value in store.weights(probe.id).items()}


def test_a_snapshot_says_where_it_comes_from_and_what_it_took_up_to_there(store, bench):
    plan = plan_of(budgets=(1, 2))
    probes = probes_at(plan)
    run_one(plan, plan.parent(0), store, bench, snapshots=False)
    run_one(plan, probes[2], store, bench, snapshots=True)
    short, long = store.training(probes[1].id), store.training(probes[2].id)
    assert (short.provenance.snapshot_of, long.provenance.snapshot_of) == (probes[2].id, None)
    assert 0 < short.seconds["train"] < long.seconds["train"]
    assert short.seconds["prune"] == long.seconds["prune"]
    assert long.seconds["save"] > 0, "writing a snapshot is no time of training"


def test_a_snapshot_that_is_stored_is_not_written_again(store, bench):
    plan = plan_of(budgets=(1, 2))
    probes = probes_at(plan)
    run_one(plan, plan.parent(0), store, bench, snapshots=False)
    run_one(plan, probes[1], store, bench, snapshots=False)
    before = files(store)
    run_one(plan, probes[2], store, bench, snapshots=True)
    after = files(store)
    assert {path: after[path] for path in before} == before
    assert store.training(probes[1].id).provenance.snapshot_of is None


class Killed(BaseException):
    """As a signal: not an Exception, so that nothing takes it for a failure."""


class StoppingStore(ObjectStore):
    """Ends the process before its `num_left`th write, counting before and after each."""

    num_left = 0

    def _count(self):
        self.num_left -= 1
        if self.num_left == 0:
            raise Killed

    def commit_training(self, *args, **fields):
        self._count()
        committed = super().commit_training(*args, **fields)
        self._count()
        return committed

    def save_resume_state(self, *args):
        self._count()
        super().save_resume_state(*args)
        self._count()


def test_a_run_that_is_killed_before_or_after_any_write_ends_with_the_same_networks(tmp_path, bench):
    plan = plan_of(budgets=(1, 2))
    probes = probes_at(plan)
    store = open_store(str(tmp_path / "store"))
    run_one(plan, plan.parent(0), store, bench, snapshots=False)
    shutil.copytree(tmp_path / "store", tmp_path / "begun")
    run_one(plan, probes[2], store, bench, snapshots=True)
    expected = {budget: weights_of(store, probe) for budget, probe in probes.items()}
    # The snapshot, where the training is after its first epoch, and the network; before and after each.
    for num in range(1, 2 * 3 + 1):
        shutil.copytree(tmp_path / "begun", tmp_path / str(num))
        stopping = StoppingStore(open_store(str(tmp_path / str(num))).blobs)
        stopping.num_left = num
        with pytest.raises(Killed):
            run_one(plan, probes[2], stopping, bench, snapshots=True, save_seconds=0.0)
        run_one(plan, probes[2], stopping, bench, snapshots=True, save_seconds=0.0)
        assert {budget: weights_of(stopping, probe) for budget, probe in probes.items()} == expected


def test_what_a_job_needs_besides_its_own_training_leaves_no_snapshots(store, bench):
    # The rewind point is a training too, of as many epochs as a snapshot may have.
    recipe = ANYTIME.model_copy(update={"epochs": 3})
    plan = plan_of(recipe=recipe, budgets=(1, 2), schedule=Schedule(rewind_epochs=2))
    probes = probes_at(plan)
    run_one(plan, plan.parent(0), store, bench, snapshots=False)
    run_one(plan, probes[2], store, bench, snapshots=True)
    assert store.training(probes[1].id).provenance.snapshot_of == probes[2].id


# A whole sweep


def drive(plan: Plan, store: ObjectStore):
    jobs = []

    def make_job(probe, tasks, attempt):
        jobs.append(job_of(plan, probe, attempt=attempt, snapshots=plan.snapshots(probe)))
        return jobs[-1]

    dispatcher = Dispatcher(plan, store, make_job=make_job, on_result=lambda result, dispatcher: None)
    InlineExecutor(store).drive(dispatcher)
    assert dispatcher.is_finished
    return dispatcher.results


def test_a_sweep_trains_for_its_largest_budget_and_finds_the_smaller_ones_in_the_store(store):
    plan = plan_of(budgets=(1, 2), search=SearchSpec(strategy="grid", ratios=(0.5, 0.9)))
    results = drive(plan, store)
    trained = sorted((r.probe.curve.method, r.probe.curve.budget) for r in results.values() if r.is_new)
    assert trained == [("dense", 0), ("dense", 2), ("wt", 2), ("wt", 2)]
    assert len(results) == 7 and all(result.is_done for result in results.values())
    answer = collect(plan, results, store, run={})
    assert answer.cost.epochs == RECIPE.epochs + 3 * 2
    assert answer.budget_choices == ()
    assert {potential.curve.budget for potential in answer.potentials} == {1, 2}


def test_budget_search_leaves_what_it_did_not_search_out_of_the_answer(store):
    search = SearchSpec(strategy="grid", ratios=(0.5, 0.9), budget_search=True, budget_distance=0.99)
    plan = plan_of(budgets=(1, 2, 3), search=search)
    results = drive(plan, store)
    answer = collect(plan, results, store, run={})
    # Everything is near: 3, then the cheaper of the two in the middle, then nothing is left below.
    (choice,) = answer.budget_choices
    assert (choice.budget, choice.tried, choice.status) == (1, (1, 3), "closed")
    assert {potential.curve.budget for potential in answer.potentials} == {1, 3}
    assert {summary.budget for summary in answer.summaries} == {1, 3}
    assert not any(potential.status == "open" for potential in answer.potentials)


def test_starting_a_sweep_over_forgets_its_snapshots_too(store):
    plan = plan_of(budgets=(1, 2))
    run_one(plan, plan.parent(0), store, Bench("cpu"), snapshots=False)
    # The search asks for one ratio first, and for nothing of the smaller budget yet.
    (first,) = [probe for probe in next_probes(plan, stored(store, plan)) if not probe.curve.is_dense][:1]
    run_one(plan, first, store, Bench("cpu"), snapshots=True)
    assert len(store.training_ids()) == 3
    start_over(store, plan.spec.name)
    assert store.training_ids() == []


def stored(store: ObjectStore, plan: Plan):
    write_record(store, plan, {})
    return stored_results(store, read_record(store, plan.spec.name))
