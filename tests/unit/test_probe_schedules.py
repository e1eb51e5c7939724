"""Links, rewinding and gradual pruning in one process: which masks, on which weights, and what is kept of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from raypruning.bench import Bench
from raypruning.core.identity import derive_seed, make_training, rewind_point
from raypruning.core.plan import Plan
from raypruning.core.records import MethodChoice, Probe, Recipe, Schedule
from raypruning.methods.prune import apply_masks, make_masks, resolve_method
from raypruning.methods.selection import RATIO_TOLERANCE
from raypruning.models.resolve import build_model
from raypruning.probe import run_probe
from raypruning.runtime.store import ObjectStore, open_store

from .test_probe import DATA, RECIPE, drive, files, job_of, make_plan

LINKS = (0.3, 0.6, 0.9)
Arrays = Mapping[str, np.ndarray]


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


def plan_of(schedule: Mapping[str, Any], *, method: str = "wt", recipe: Recipe = RECIPE, budget: int = 1) -> Plan:
    name, _, rules = method.partition(":rules=")
    choice = MethodChoice(name=name, parameters={"rules": rules} if rules else {})
    return make_plan(schedule=Schedule(**schedule), methods=(choice,), recipe=recipe, budgets=(budget,))


def chain_of(**options) -> Plan:
    prunes_per_link = options.pop("prunes_per_link", 1)
    rewind_epochs = options.pop("rewind_epochs", None)
    schedule = {"kind": "iterative", "ratios": LINKS, "prunes_per_link": prunes_per_link}
    return plan_of({**schedule, "rewind_epochs": rewind_epochs}, **options)


def probe_at(plan: Plan, ratio: float) -> Probe:
    return plan.pruned(plan.curves[0], ratio)


def run_all(plan: Plan, store: ObjectStore, bench: Bench, *ratios: float) -> list[Probe]:
    probes = [plan.parent(0), *(probe_at(plan, ratio) for ratio in ratios)]
    for probe in probes:
        outcome = run_probe(job_of(plan, probe), store, bench)
        assert outcome.failure is None, outcome.failure
    return probes[1:]


def network_of(weights: Arrays) -> torch.nn.Module:
    model = build_model("lenet5", num_classes=10, in_channels=1, image_size=28, options={})
    model.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in weights.items()})
    return model


def same(one: Arrays, other: Arrays) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def masked(weights: Arrays, masks: Arrays) -> dict[str, np.ndarray]:
    return {name: np.where(masks[name], value, 0) if name in masks else value for name, value in weights.items()}


# Links


@pytest.mark.parametrize("method", ["wt", "ft", "random"])
def test_links_keep_what_their_start_removed_and_reach_their_ratio(store, bench, method):
    links = run_all(chain_of(method=method), store, bench, *LINKS)
    removed_before: dict[str, np.ndarray] = {}
    for link in links:
        masks, weights = store.masks(link.id), store.weights(link.id)
        assert all(not (masks[name] & gone).any() for name, gone in removed_before.items())
        assert all((weights[name][~mask] == 0).all() for name, mask in masks.items())
        removed_before = {name: ~mask for name, mask in masks.items()}
        reached = sum(int(gone.sum()) for gone in removed_before.values()) / 21_840
        assert store.training(link.id).checkpoint.ratio_reached == reached
        assert abs(reached - link.ratio) <= (RATIO_TOLERANCE if method == "ft" else 0.5 / 21_840)


@pytest.mark.parametrize("num_prunes", [1, 3])
def test_a_link_prunes_at_each_of_its_steps_on_the_weights_the_one_before_left(store, bench, num_prunes):
    plan = chain_of(budget=0, prunes_per_link=num_prunes)
    first, second = run_all(plan, store, bench, 0.3, 0.6)
    assert len(second.training.mask.via) == num_prunes - 1
    model = network_of(store.weights(first.id))
    masks = {name: torch.from_numpy(mask.copy()) for name, mask in store.masks(first.id).items()}
    for ratio in (*second.training.mask.via, second.ratio):
        masks = make_masks(
            resolve_method(second.training.mask.method),
            model,
            ratio,
            example_NCHW=torch.zeros(1, 1, 28, 28),
            seed=derive_seed(0, "method"),
            alive=masks,
        )
        apply_masks(model, masks)
    assert same(store.masks(second.id), {name: mask.numpy() for name, mask in masks.items()})
    assert same(store.weights(second.id), {name: value.numpy() for name, value in model.state_dict().items()})


def test_a_step_on_the_way_that_the_method_cannot_take_is_passed_by(store, bench):
    # A hundredth of a percent is less than a filter, and no reason to give the link up.
    plan = plan_of({"kind": "iterative", "ratios": (0.0002, 0.3)}, method="ft")
    probe = probe_at(plan, 0.3)
    mask = probe.training.mask.model_copy(update={"via": (0.0001, 0.0002)})
    fields = {name: getattr(probe.training, name) for name in ("model", "data", "data_fingerprint", "recipe", "seed")}
    training = make_training(**fields, epochs=1, mask=mask, start=plan.parent(0).id)
    run_all(plan, store, bench)
    outcome = run_probe(job_of(plan, probe.model_copy(update={"training": training})), store, bench)
    assert outcome.failure is None
    assert store.training(training.id).checkpoint.ratio_reached == pytest.approx(0.3, abs=RATIO_TOLERANCE)


def test_a_link_that_is_less_than_the_next_filter_retrains_what_its_start_left(store, bench):
    plan = plan_of({"kind": "iterative", "ratios": (0.3, 0.302)}, method="ft")
    first, second = run_all(plan, store, bench, 0.3, 0.302)
    assert same(store.masks(first.id), store.masks(second.id))
    assert store.training(second.id).checkpoint.ratio_reached == store.training(first.id).checkpoint.ratio_reached
    assert not same(store.weights(first.id), store.weights(second.id))


def test_a_link_whose_start_is_not_there_fails_in_a_way_that_may_pass(store, bench):
    plan = chain_of()
    run_all(plan, store, bench)
    outcome = run_probe(job_of(plan, probe_at(plan, 0.6)), store, bench)
    assert outcome.failure.kind == "StoreError" and outcome.failure.is_retriable


def test_a_branch_and_a_link_at_one_ratio_are_other_networks(store, bench):
    chain, coarse = chain_of(), plan_of({"kind": "iterative", "ratios": (0.9,)})
    (link,) = run_all(chain, store, bench, 0.3, 0.6)[1:]
    (branch,) = run_all(coarse, store, bench, 0.6)
    assert (link.place, branch.place) == ("link", "branch")
    assert not same(store.masks(link.id), store.masks(branch.id))


def test_masks_that_do_not_hold_while_retraining_are_not_stored(store, bench):
    # The paper's rules set entries of norms to 0 and let them come back.
    data = DATA.model_copy(update={"image_size": 32})
    plan = make_plan(
        schedule=Schedule(kind="iterative", ratios=LINKS),
        model={"name": "resnet20"},
        data=data,
        methods=(MethodChoice(name="ft", parameters={"rules": "paper"}),),
        recipe=RECIPE.model_copy(update={"batch_size": 50}),
    )
    (link,) = run_all(plan, store, bench, 0.3)
    weights, masks = store.weights(link.id), store.masks(link.id)
    assert masks and all(weights[name].ndim in (2, 4) or name.endswith("bias") for name in masks)
    assert all((weights[name][~mask] == 0).all() for name, mask in masks.items())


# Rewinding


def parent_after(plan: Plan, epochs: int, tmp_path: Path, bench: Bench) -> Arrays:
    """The parent's weights after so many epochs, from what it saves on its way."""
    seen: dict[int, Arrays] = {}

    class KeepingStore(ObjectStore):
        def save_resume_state(self, training_id, state, arrays):
            prefix = "model/"
            model = {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}
            seen[len(state["history"])] = {name: np.array(value) for name, value in model.items()}
            super().save_resume_state(training_id, state, arrays)

    keeping = KeepingStore(open_store(str(tmp_path / "watched")).blobs)
    assert run_probe(job_of(plan, plan.parent(0), save_seconds=0.0), keeping, bench).failure is None
    return seen[epochs]


@pytest.mark.parametrize("fields", [{}, {"keep": "best"}, {"optimiser": "adam", "learning_rate": 1e-3}], ids=str)
@pytest.mark.parametrize("epochs", [1, 2])
def test_rewound_weights_are_the_parents_own_after_so_many_epochs_to_the_bit(store, bench, tmp_path, epochs, fields):
    recipe = RECIPE.model_copy(update={"epochs": 3, "milestones": (2.0,), **fields})
    plan = plan_of({"rewind_epochs": epochs}, recipe=recipe, budget=0)
    (probe,) = run_all(plan, store, bench, 0.6)
    expected = parent_after(plan, epochs, tmp_path, bench)
    masks = store.masks(probe.id)
    assert same(store.weights(probe.id), masked(expected, masks))
    # The masks are chosen on the trained weights, not on those it goes back to.
    kept = plan_of({}, recipe=recipe, budget=0)
    (not_rewound,) = run_all(kept, store, bench, 0.6)
    assert same(masks, store.masks(not_rewound.id))


def test_rewinding_to_epoch_0_is_the_initialisation(store, bench):
    plan = plan_of({"rewind_epochs": 0}, budget=0)
    (probe,) = run_all(plan, store, bench, 0.6)
    torch.manual_seed(derive_seed(0, "init"))
    fresh = build_model("lenet5", num_classes=10, in_channels=1, image_size=28, options={})
    expected = {name: value.numpy() for name, value in fresh.state_dict().items()}
    assert same(store.weights(probe.id), masked(expected, store.masks(probe.id)))


def test_rewind_point_is_a_training_of_its_own_that_is_made_once(store, bench):
    recipe = RECIPE.model_copy(update={"epochs": 3})
    plan = chain_of(recipe=recipe, rewind_epochs=1)
    run_all(plan, store, bench, 0.3)
    parent = plan.parent(0).training
    fields = {name: getattr(parent, name) for name in ("model", "data", "data_fingerprint", "recipe", "epochs", "seed")}
    point = make_training(**fields, stop_epochs=1)
    assert len(store.training(point.id).history) == 1
    before = files(store)
    (_, second) = run_all(plan, store, bench, 0.3, 0.6)
    after = files(store)
    assert {path: after[path] for path in before} == before
    assert {path.split("/")[1] for path in set(after) - set(before)} == {second.id}


def test_lottery_ticket_continues_the_schedule_from_where_it_goes_back_to(store, bench):
    # With the tail of the schedule and the epochs that are left, a link trains at the rates the parent had then.
    recipe = RECIPE.model_copy(update={"epochs": 4, "milestones": (2.0, 3.0), "retrain_schedule": "tail"})
    plan = plan_of({"rewind_epochs": 1}, recipe=recipe, budget=3)
    (probe,) = run_all(plan, store, bench, 0.6)
    rates = [entry.learning_rate for entry in store.training(plan.parent(0).id).history]
    assert [entry.learning_rate for entry in store.training(probe.id).history] == rates[1:]


# Gradual


@pytest.mark.parametrize("from_scratch", [False, True])
def test_gradual_training_ends_with_all_that_was_asked_removed(store, bench, from_scratch):
    schedule = {"kind": "gradual", "frequency": 1, "end": 0.6, "from_scratch": from_scratch}
    plan = plan_of(schedule, budget=2)
    (probe,) = run_all(plan, store, bench, 0.8)
    parent = None if from_scratch else plan.parent(0).id
    assert (probe.training.start, probe.place) == (parent, None)
    checkpoint, masks, weights = store.training(probe.id).checkpoint, store.masks(probe.id), store.weights(probe.id)
    assert checkpoint.ratio_reached == pytest.approx(0.8, abs=0.5 / 21_840)
    assert sum(int((~mask).sum()) for mask in masks.values()) == round(0.8 * 21_840)
    assert all((weights[name][~mask] == 0).all() for name, mask in masks.items())


def test_gradual_training_with_filters_passes_by_ratios_that_are_less_than_one(store, bench):
    plan = plan_of({"kind": "gradual", "frequency": 1, "end": 1.0}, method="ft", budget=1)
    (probe,) = run_all(plan, store, bench, 0.5)
    assert store.training(probe.id).checkpoint.ratio_reached == pytest.approx(0.5, abs=RATIO_TOLERANCE)


@pytest.mark.parametrize("method", ["wt:rules=paper", "ft:rules=paper"])
def test_rules_of_the_paper_prune_between_the_steps_of_a_training_too(store, bench, method):
    plan = plan_of({"kind": "gradual", "frequency": 1, "end": 0.6}, method=method, budget=1)
    (probe,) = run_all(plan, store, bench, 0.5)
    assert store.training(probe.id).checkpoint.ratio_reached > 0.4  # Their search may miss by a tenth.


@pytest.mark.parametrize("method", ["wt:rules=paper", "ft:rules=paper"])
def test_link_that_the_papers_propagation_has_passed_already_keeps_what_there_is(store, bench, method):
    """Links so near each other that their search overshoots one by more than the next is to remove."""
    ratios = [0.02, 0.0201, 0.0202, 0.3]
    plan = plan_of({"kind": "iterative", "ratios": ratios}, method=method)
    links = run_all(plan, store, bench, *ratios)
    reached = [store.training(link.id).checkpoint.ratio_reached for link in links]
    assert reached == sorted(reached) and reached[-1] > reached[0]


def test_gradual_ratio_that_cannot_be_reached_is_refused_before_anything_is_trained(store, bench):
    plan = plan_of({"kind": "gradual"})
    run_all(plan, store, bench)
    outcome = run_probe(job_of(plan, probe_at(plan, 0.9999)), store, bench)
    assert outcome.failure.kind == "RatioError" and "cannot be reached" in outcome.failure.message
    assert "train" not in outcome.seconds


@pytest.mark.parametrize("method", ["wt", "sipp"])
def test_interrupted_gradual_probe_ends_with_the_same_bits(tmp_path, method):
    plan = plan_of({"kind": "gradual", "frequency": 2}, method=method, budget=4)
    job = job_of(plan, probe_at(plan, 0.8), save_seconds=0.0)
    undisturbed, stopped = open_store(str(tmp_path / "a")), open_store(str(tmp_path / "b"))
    for one in (undisturbed, stopped):
        assert run_probe(job_of(plan, plan.parent(0)), one, Bench("cpu")).failure is None
    assert run_probe(job, undisturbed, Bench("cpu")).failure is None

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
    assert run_probe(job, stopped, Bench("cpu")).failure is None
    one, other = (store.training(job.probe.id) for store in (undisturbed, stopped))
    assert one.checkpoint.sha256 == other.checkpoint.sha256 and one.history == other.history
    assert same(undisturbed.masks(job.probe.id), stopped.masks(job.probe.id))


def test_control_of_pruning_from_scratch_is_trained_from_scratch_unless_it_is_the_parent():
    schedule = {"kind": "gradual", "from_scratch": True}
    plan = plan_of(schedule, recipe=RECIPE.model_copy(update={"epochs": 3}), budget=2)
    (control,) = plan.controls(0)
    assert (control.training.start, control.training.epochs) == (None, 2)
    assert plan_of(schedule, recipe=RECIPE.model_copy(update={"epochs": 2}), budget=2).controls(0) == ()


# Damage


@pytest.mark.parametrize("file", ["weights.safetensors", "masks.safetensors"])
def test_a_damaged_link_is_trained_again_before_the_next_one_begins_from_it(store, file):
    plan = chain_of()
    first = probe_at(plan, 0.3)
    run_all(plan, store, Bench("cpu"), 0.3)
    sound = store.training(first.id).checkpoint.sha256
    damage(store, first.id, file)
    results = drive(plan, store)
    assert all(result.is_done for result in results.values())
    assert store.training(first.id).checkpoint.sha256 == sound and results[first.id].is_new
    assert [result.probe.ratio for result in results.values() if result.attempts == 2] == [0.6]


def test_a_damaged_rewind_point_is_made_again(store):
    plan = chain_of(recipe=RECIPE.model_copy(update={"epochs": 2}), rewind_epochs=1)
    first, second = probe_at(plan, 0.3), probe_at(plan, 0.6)
    run_all(plan, store, Bench("cpu"), 0.3)
    point = rewind_point(first.training)
    sound = store.training(point.id).checkpoint.sha256
    damage(store, point.id, "weights.safetensors")
    results = drive(plan, store)
    assert all(result.is_done for result in results.values())
    assert results[second.id].attempts == 2
    assert store.training(point.id).checkpoint.sha256 == sound


def damage(store: ObjectStore, training_id: str, file: str) -> None:
    path = Path(store.uri.removeprefix("file://")) / "trainings" / training_id / file
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))


# What scores look at


def test_links_of_methods_that_look_at_images_are_the_same_on_every_run(tmp_path, bench):
    plan = chain_of(method="sipp")
    stores = [open_store(str(tmp_path / name)) for name in "ab"]
    found = []
    for store in stores:
        torch.manual_seed(len(found))
        links = run_all(plan, store, Bench("cpu"), 0.3, 0.6)
        found.append([store.training(link.id).checkpoint.sha256 for link in links])
    assert found[0] == found[1]
