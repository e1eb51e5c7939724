"""One probe in one process: what it commits, what it leaves alone, and what it says when it fails."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from raypruning import registry
from raypruning.bench import Bench
from raypruning.core.plan import Plan
from raypruning.core.ports import ProbeJob, ProbeOutcome
from raypruning.core.records import (
    DataChoice,
    Limits,
    MethodChoice,
    ModelChoice,
    Numerics,
    Probe,
    ProbeResult,
    Recipe,
    SearchSpec,
    SweepSpec,
)
from raypruning.datasets.resolve import open_dataset
from raypruning.models.resolve import build_model
from raypruning.probe import run_probe
from raypruning.runtime.dispatcher import Dispatcher
from raypruning.runtime.inline import InlineExecutor
from raypruning.runtime.store import ObjectStore, open_store
from raypruning.tasks.task import describe_task

RECIPE = Recipe(epochs=1, learning_rate=0.05, batch_size=32, augmentation="none")
DATA = DataChoice(name="digits", train_images=100, test_images=60)


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


def make_plan(*, tasks: Sequence[str] = ("nominal",), data: DataChoice = DATA, **fields) -> Plan:
    dataset = open_dataset(data, data_dir=None, download=False)
    spec = SweepSpec(
        **{
            "name": "probe",
            "model": ModelChoice(name="lenet5"),
            "data": data,
            "methods": (MethodChoice(name="wt"), MethodChoice(name="ft")),
            "tasks": tuple(tasks),
            "budgets": (1,),
            "recipe": RECIPE,
            "search": SearchSpec(strategy="grid", ratios=(0.5, 0.9)),
            **fields,
        }
    )
    records = tuple(describe_task(name, dataset) for name in tasks)
    return Plan(spec=spec, data_fingerprint=dataset.fingerprint, tasks=records)


def job_of(plan: Plan, probe: Probe, **fields) -> ProbeJob:
    return ProbeJob(probe=probe, tasks=plan.tasks, **fields)


def pruned(plan: Plan, method: str, ratio: float) -> Probe:
    curve = next(curve for curve in plan.curves if curve.method == method)
    return plan.pruned(curve, ratio)


def run_both(plan: Plan, probe: Probe, store: ObjectStore, bench: Bench) -> ProbeOutcome:
    """The parent, then the probe."""
    assert run_probe(job_of(plan, plan.parent(0)), store, bench).failure is None
    return run_probe(job_of(plan, probe), store, bench)


def files(store: ObjectStore) -> dict[str, int]:
    root = Path(store.uri.removeprefix("file://"))
    return {str(path.relative_to(root)): path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}


# What it does


def test_a_probe_trains_and_evaluates_and_leaves_everything_in_the_store(store, bench):
    plan = make_plan(tasks=("nominal", "noise/uniform/0.5"))
    outcome = run_both(plan, pruned(plan, "wt", 0.5), store, bench)
    assert outcome.failure is None and outcome.was_trained
    assert {"load", "prune", "train", "save", "evaluate"} == set(outcome.seconds)
    result = store.training(outcome.training)
    assert result is not None and len(result.history) == 1
    assert result.provenance.versions["torch"] == torch.__version__ and result.provenance.threads == 1
    assert result.provenance.versions["method wt"] == "1"
    for task in plan.tasks:
        evaluation = store.evaluation(outcome.training, task.fingerprint)
        assert evaluation is not None
        predictions = store.predictions(evaluation)
        num_wrong = int((predictions["predicted"] != predictions["label"]).sum())
        assert (evaluation.num_wrong, evaluation.num_examples, evaluation.error) == (num_wrong, 60, num_wrong / 60)
        assert evaluation.error_top5 == pytest.approx(1 - predictions["is_top5"].mean())
    assert store.resume_state(outcome.training) is None


def test_the_same_probe_again_writes_nothing(store, bench):
    plan = make_plan()
    probe = pruned(plan, "wt", 0.5)
    run_both(plan, probe, store, bench)
    before = files(store)
    outcome = run_probe(job_of(plan, probe), store, bench)
    assert outcome.failure is None and not outcome.was_trained
    assert files(store) == before


def test_another_task_only_evaluates(store, bench):
    plan = make_plan()
    probe = pruned(plan, "wt", 0.5)
    run_both(plan, probe, store, bench)
    before = files(store)
    larger = make_plan(tasks=("nominal", "noise/uniform/0.5"))
    outcome = run_probe(job_of(larger, probe), store, bench)
    assert outcome.failure is None and not outcome.was_trained
    after = files(store)
    assert {path: after[path] for path in before} == before
    stem = f"trainings/{probe.id}/evaluations/{larger.tasks[1].fingerprint}"
    assert set(after) - set(before) == {f"{stem}.json", f"{stem}.safetensors"}


def test_a_stored_network_is_evaluated_as_the_one_that_was_just_trained(store, bench, tmp_path):
    tasks = ("nominal", "noise/uniform/0.5")
    at_once = make_plan(tasks=tasks)
    run_probe(job_of(at_once, at_once.parent(0)), store, bench)
    other = open_store(str(tmp_path / "other"))
    for plan in (make_plan(), at_once):
        run_probe(job_of(plan, plan.parent(0)), other, Bench("cpu"))
    for task in at_once.tasks:
        found = [one.evaluation(at_once.parent(0).id, task.fingerprint) for one in (store, other)]
        assert found[0].sha256 == found[1].sha256


def test_a_probe_does_not_depend_on_what_its_process_did_before(store, tmp_path):
    plan = make_plan(model=ModelChoice(name="lenet5", options={"dropout": 0.3}))
    probe = pruned(plan, "ft", 0.5)
    run_both(plan, probe, store, Bench("cpu"))
    busy = open_store(str(tmp_path / "busy"))
    used = Bench("cpu")
    torch.manual_seed(99)
    run_both(plan, pruned(plan, "wt", 0.9), busy, used)
    torch.rand(1000)
    run_probe(job_of(plan, probe), busy, used)
    assert store.training(probe.id).checkpoint.sha256 == busy.training(probe.id).checkpoint.sha256


def test_an_interrupted_probe_goes_on_where_it_was_and_ends_with_the_same_bits(tmp_path, monkeypatch):
    plan = make_plan(recipe=RECIPE.model_copy(update={"epochs": 4}))
    job = job_of(plan, plan.parent(0), save_seconds=0.0)
    undisturbed, stopped = open_store(str(tmp_path / "a")), open_store(str(tmp_path / "b"))
    run_probe(job, undisturbed, Bench("cpu"))

    class Killed(BaseException):
        """As a signal: not an Exception, so that nothing takes it for a failure."""

    class StoppingStore(ObjectStore):
        num_saved = 0

        def save_resume_state(self, training_id, state, arrays):
            super().save_resume_state(training_id, state, arrays)
            self.num_saved += 1
            if self.num_saved == 2:
                raise Killed

    with pytest.raises(Killed):
        run_probe(job, StoppingStore(stopped.blobs), Bench("cpu"))
    assert stopped.training(job.probe.id) is None
    state, _ = stopped.resume_state(job.probe.id)
    assert len(state["history"]) == 2
    outcome = run_probe(job, stopped, Bench("cpu"))
    assert outcome.was_trained and outcome.failure is None
    one, other = undisturbed.training(job.probe.id), stopped.training(job.probe.id)
    assert one.checkpoint.sha256 == other.checkpoint.sha256 and one.history == other.history


# Sizes


@pytest.mark.parametrize("method", ["wt", "ft", "random", "random_filter"])
@pytest.mark.parametrize("ratio", [0.5, 0.9])
def test_sizes_equal_those_counted_by_hand(store, bench, method, ratio):
    plan = make_plan(methods=(MethodChoice(name=method),))
    outcome = run_both(plan, pruned(plan, method, ratio), store, bench)
    checkpoint = store.training(outcome.training).checkpoint
    weights = store.weights(outcome.training)
    num_zero = sum(int((value == 0).sum()) for value in weights.values())
    assert checkpoint.num_params == sum(value.size for value in weights.values()) == 21_840
    assert checkpoint.num_nonzero == 21_840 - num_zero
    assert checkpoint.ratio_asked == ratio
    assert checkpoint.ratio_reached == num_zero / 21_840
    # Weights are removed to the exact count; a filter of lenet5 with all that hangs on it is at most 1 / 20 of it.
    assert abs(checkpoint.ratio_reached - ratio) <= (0.5 / 21_840 if method in ("wt", "random") else 0.05)

    model = build_model("lenet5", num_classes=10, in_channels=1, image_size=28, options={})
    model.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in weights.items()})
    macs = {"pruned": 0, "dense": 0}

    def count(layer: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        positions = output[0, 0].numel() if output.ndim == 4 else 1
        macs["pruned"] += int(layer.weight.count_nonzero()) * positions
        macs["dense"] += layer.weight.numel() * positions

    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(count)
    model(torch.zeros(1, 1, 28, 28))
    assert (checkpoint.macs, checkpoint.macs_dense) == (macs["pruned"], macs["dense"])


def test_a_dense_network_has_all_its_sizes(store, bench):
    plan = make_plan()
    run_probe(job_of(plan, plan.parent(0)), store, bench)
    checkpoint = store.training(plan.parent(0).id).checkpoint
    assert (checkpoint.num_nonzero, checkpoint.num_params) == (21_840, 21_840)
    assert (checkpoint.ratio_asked, checkpoint.ratio_reached) == (0.0, 0.0)
    assert checkpoint.macs == checkpoint.macs_dense == 480_500  # The LeNet study, section 1.4.


def test_a_budget_of_no_epochs_keeps_the_weights_of_the_parent_where_they_are_kept(store, bench):
    plan = make_plan(budgets=(0,))
    outcome = run_both(plan, pruned(plan, "wt", 0.5), store, bench)
    parent, masks = store.weights(plan.parent(0).id), store.masks(outcome.training)
    for name, value in store.weights(outcome.training).items():
        kept = masks.get(name, np.ones(value.shape, bool))
        assert np.array_equal(value, np.where(kept, parent[name], 0))


# What goes wrong


class _Fails(nn.Module):
    """A network whose forward raises."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.linear = nn.Linear(28 * 28, 10)
        self.error = error

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        raise self.error


ERRORS = {
    "test-out-of-device-memory": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB"),
    "test-out-of-memory": MemoryError(),
    "test-out-of-cpu-memory": RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried 9 bytes"),
    "test-crash": ZeroDivisionError("a bug of the model"),
}


@pytest.fixture(scope="module", autouse=True)
def failing_models():
    for name, error in ERRORS.items():
        registry.models.register(name)(lambda argument, *, error=error, **about: _Fails(error))


@pytest.mark.parametrize("model", [name for name in ERRORS if "memory" in name])
def test_a_device_without_memory_is_a_failure_that_may_pass(store, bench, model):
    plan = make_plan(model=ModelChoice(name=model))
    outcome = run_probe(job_of(plan, plan.parent(0)), store, bench)
    assert outcome.failure is not None and outcome.failure.kind == "OutOfMemoryError" and outcome.failure.is_retriable
    assert "resources.images_at_once=16," in outcome.failure.message and model in outcome.failure.message
    assert store.training(plan.parent(0).id) is None


def test_a_crash_that_nobody_foresaw_is_a_failure_of_the_probe_and_not_the_end_of_the_sweep(store, caplog):
    plan = make_plan(model=ModelChoice(name="test-crash"))
    results = drive(plan, store)
    assert list(results) == [plan.parent(0).id]
    failure = results[plan.parent(0).id].failure
    assert (failure.kind, failure.message, failure.is_retriable) == ("ZeroDivisionError", "a bug of the model", True)
    assert "Traceback" in caplog.text  # The log has what a user need not see.


def test_an_unknown_plugin_is_a_failure_that_will_not_pass(store, bench):
    plan = make_plan()
    outcome = run_probe(job_of(plan, plan.parent(0), plugins=("no_such_plugin",)), store, bench)
    assert outcome.failure.kind == "SpecError" and not outcome.failure.is_retriable
    assert "'no_such_plugin' cannot be imported" in outcome.failure.message


def test_a_ratio_that_cannot_be_reached_is_a_failure_that_names_one_that_can(store, bench):
    plan = make_plan()
    outcome = run_both(plan, pruned(plan, "wt", 0.9999), store, bench)
    assert outcome.failure.kind == "RatioError" and not outcome.failure.is_retriable
    assert "cannot be reached" in outcome.failure.message and "search.high" in outcome.failure.message


def test_a_loss_that_is_not_a_number_is_a_failure_that_will_not_pass(store, bench):
    plan = make_plan(recipe=RECIPE.model_copy(update={"learning_rate": 1e30}))
    outcome = run_probe(job_of(plan, plan.parent(0)), store, bench)
    assert outcome.failure.kind == "TrainingError" and not outcome.failure.is_retriable
    assert "epoch 1 of 1" in outcome.failure.message and "recipe.learning_rate" in outcome.failure.message
    assert store.training_ids() == [] and outcome.was_trained is False


def test_data_other_than_the_sweep_was_planned_on_is_refused(store, bench):
    plan = make_plan()
    other = dataclasses.replace(plan, data_fingerprint="0" * 64)
    outcome = run_probe(job_of(other, other.parent(0)), store, bench)
    assert outcome.failure.kind == "DataError" and "fingerprint" in outcome.failure.message


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_a_failure_that_will_not_pass(store):
    plan = make_plan()
    outcome = run_probe(job_of(plan, plan.parent(0), device="cuda"), store, Bench("cuda"))
    assert outcome.failure.kind == "ResourceError" and "GPU" in outcome.failure.message


def test_a_pruned_probe_without_its_parent_fails_in_a_way_that_may_pass(store, bench):
    plan = make_plan()
    outcome = run_probe(job_of(plan, pruned(plan, "wt", 0.5)), store, bench)
    assert outcome.failure.kind == "StoreError" and outcome.failure.is_retriable


def test_the_number_of_threads_is_that_of_the_recipe(store, bench):
    plan = make_plan(recipe=RECIPE.model_copy(update={"numerics": Numerics(threads=2)}))
    run_probe(job_of(plan, plan.parent(0)), store, bench)
    assert torch.get_num_threads() == 2
    assert store.training(plan.parent(0).id).provenance.threads == 2


# A damaged checkpoint


def flip_a_bit(store: ObjectStore, training_id: str) -> None:
    path = Path(store.uri.removeprefix("file://")) / "trainings" / training_id / "weights.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))


def drive(plan: Plan, store: ObjectStore) -> dict[str, ProbeResult]:
    dispatcher = Dispatcher(
        plan,
        store,
        make_job=lambda probe, tasks, attempt: ProbeJob(probe=probe, tasks=tasks, attempt=attempt),
        on_result=lambda result, dispatcher: None,
    )
    InlineExecutor(store).drive(dispatcher)
    assert dispatcher.is_finished
    return dispatcher.results


def test_a_damaged_parent_is_trained_again_within_the_same_sweep(store, bench, caplog):
    plan = make_plan(methods=(MethodChoice(name="wt"),))
    parent = plan.parent(0)
    run_probe(job_of(plan, parent), store, bench)
    sound = store.training(parent.id).checkpoint.sha256
    flip_a_bit(store, parent.id)

    results = drive(plan, store)
    assert store.training(parent.id).checkpoint.sha256 == sound
    assert store.weights(parent.id)
    assert all(result.is_done for result in results.values()) and len(results) == 4  # Parent, control, two ratios.
    assert results[parent.id].is_new
    # The control met the damage; the two others waited for the new parent.
    attempts = sorted(result.attempts for result in results.values() if result.probe.id != parent.id)
    assert attempts == [1, 1, 2]
    assert "does not match its checksum" in caplog.text and store.damaged_files()


def test_a_damaged_pruned_network_is_trained_again_when_another_task_needs_it(store, bench):
    plan = make_plan(methods=(MethodChoice(name="wt"),))
    probe = pruned(plan, "wt", 0.5)
    drive(plan, store)
    sound = store.training(probe.id).checkpoint.sha256
    flip_a_bit(store, probe.id)

    results = drive(make_plan(methods=(MethodChoice(name="wt"),), tasks=("nominal", "noise/uniform/0.5")), store)
    assert all(result.is_done for result in results.values())
    assert results[probe.id].is_new and results[probe.id].attempts == 2
    assert [result.is_new for result in results.values()].count(True) == 1
    assert store.training(probe.id).checkpoint.sha256 == sound and set(results[probe.id].evaluations) == {
        "nominal",
        "noise/uniform/0.5",
    }


def test_a_parent_that_is_damaged_whenever_it_is_written_ends_in_failures_and_not_in_a_loop(store, bench):
    plan = make_plan(methods=(MethodChoice(name="wt"),), limits=Limits(attempts=2))
    parent = plan.parent(0)

    class RottingStore(ObjectStore):
        """A disk that spoils the parent's weights as soon as they lie there."""

        def commit_training(self, result, *, weights, masks):
            stored = super().commit_training(result, weights=weights, masks=masks)
            if result.training.id == parent.id:
                flip_a_bit(self, parent.id)
            return stored

    results = drive(plan, RottingStore(store.blobs))
    others = [result for result in results.values() if result.probe.id != parent.id]
    assert len(others) == 3 and not any(result.is_done for result in others)
    assert {result.failure.kind for result in others} == {"StoreError"}
    assert max(result.attempts for result in others) == 2


def test_checkpoint_names_the_layers_that_a_dead_one_cuts_off(store, bench):
    """Conv2 goes wholly, before anything else: what is left answers with its biases alone, whatever the image."""
    method = MethodChoice(name="wt", parameters={"scope": "map", "map": {"conv2": 1000.0}})
    plan = make_plan(methods=(method,))
    outcome = run_both(plan, pruned(plan, method.label, 0.3), store, bench)
    assert outcome.failure is None
    checkpoint = store.training(outcome.training).checkpoint
    assert checkpoint.dead_layers == ("conv1", "conv2", "fc1", "fc2")
    assert (checkpoint.macs_on_paths, checkpoint.macs > 0) == (0, True)
