"""The shipped sweeps and recipes: they load, name what exists, plan within limits, and say what the paper does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from raypruning.app.request import Resolved, SweepRequest, resolve_request
from raypruning.app.sweep import make_plan, open_data
from raypruning.app.sweep_files import recipes, sweep_names
from raypruning.core.bounds import max_pruned_probes
from raypruning.core.plan import Plan, next_probes
from raypruning.core.records import Recipe, SweepSpec
from raypruning.errors import DataError
from raypruning.models.resolve import model_names
from raypruning.tasks.task import describe_task
from raypruning.testing.made_up import made_up_dataset

ROOT = Path(__file__).parents[1]
REFERENCE = "Lost in Pruning, appendix, as collected in the reference: section 3"

# epochs, batch, learning rate, nesterov, weight decay, factor, at these epochs, warm-up epochs
PAPER = {
    "resnet20": (182, 128, 0.1, False, 1e-4, 0.1, (91, 136), 5),
    "resnet20-chain": (182, 128, 0.1, False, 1e-4, 0.1, (91, 136), 5),
    "resnet56": (182, 128, 0.1, False, 1e-4, 0.1, (91, 136), 5),
    "resnet110": (182, 128, 0.1, False, 1e-4, 0.1, (91, 136), 5),
    "vgg16": (300, 256, 0.05, False, 5e-4, 0.5, tuple(range(30, 300, 30)), 10),
    "densenet22": (300, 64, 0.1, True, 1e-4, 0.1, (150, 225), 10),
    "wrn16_8": (200, 128, 0.1, True, 5e-4, 0.2, (60, 120, 160), 5),
    "resnet18": (90, 256, 0.1, False, 1e-4, 0.1, (30, 60, 80), 5),
    "resnet101": (90, 256, 0.1, False, 1e-4, 0.1, (30, 60, 80), 5),
}
# Epochs of retraining, parents, and the largest ratio of the paper's own grid (its last retrain point).
PAPER_SWEEPS = {
    "resnet20": (182, 3, 0.98),
    "resnet20-chain": (182, 3, 0.98),
    "resnet56": (182, 3, 0.98),
    "resnet110": (182, 3, 0.98),
    "vgg16": (150, 3, 0.98),
    "densenet22": (300, 3, 0.953),
    "wrn16_8": (200, 3, 0.98),
    "resnet18": (90, 1, 0.90),
    "resnet101": (90, 1, 0.816),
}
CLASSES = {"cifar10": 10, "imagenet": 1000}


def resolve(name: str, **fields) -> Resolved:
    return resolve_request(SweepRequest(target=name, gpus_per_probe=0.0, **fields), environment={})


def plan_of(spec: SweepSpec) -> Plan:
    """The plan over data that is not there."""
    dataset = made_up_dataset(name=spec.data.name, fingerprint="f", num_test=10_000)
    tasks = [describe_task(task, dataset) for task in spec.tasks]
    return Plan(spec=spec, data_fingerprint="f", tasks=tuple(tasks))


def test_sweeps_that_are_found_are_the_files_of_the_folder():
    assert sweep_names() == sorted(path.stem for path in (ROOT / "sweeps").glob("*.toml"))


@pytest.mark.parametrize("with_data_dir", [False, True], ids=["no data dir", "data dir"])
@pytest.mark.parametrize("name", sweep_names())
def test_sweep_resolves_and_plans_within_its_limits(name: str, with_data_dir: bool, tmp_path: Path):
    spec = resolve(name, data_dir=tmp_path if with_data_dir else None).spec
    plan = plan_of(spec)
    assert spec.model.name in model_names()
    assert "nominal" in spec.tasks
    assert [probe.curve.seed for probe in next_probes(plan, {})] == list(spec.seeds)
    limit = spec.limits.max_probes
    assert 0 < max_pruned_probes(plan) <= (limit or 10_000)
    assert len(plan.curves) <= max_pruned_probes(plan), "every curve gets a probe at least"


@pytest.mark.parametrize("name", sweep_names())
def test_sweep_is_called_as_its_file_is(name: str, tmp_path: Path):
    assert resolve(name, data_dir=tmp_path).spec.name == name


@pytest.mark.parametrize("name", sorted(recipes()))
def test_recipe_is_valid(name: str):
    recipe = Recipe.model_validate(recipes()[name])
    assert recipe.warmup_epochs < recipe.epochs
    assert all(milestone < recipe.epochs for milestone in recipe.milestones)


@pytest.mark.parametrize("name", sorted(PAPER))
def test_recipe_of_a_paper_network_has_the_papers_numbers(name: str, tmp_path: Path):
    recipe = resolve(name, data_dir=tmp_path).spec.recipe
    found = (
        recipe.epochs,
        recipe.batch_size,
        recipe.learning_rate,
        recipe.nesterov,
        recipe.weight_decay,
        recipe.gamma,
        recipe.milestones,
        recipe.warmup_epochs,
    )
    assert found == PAPER[name], REFERENCE
    assert (recipe.optimiser, recipe.momentum, recipe.learning_rate_schedule) == ("sgd", 0.9, "step")
    assert (recipe.retrain_schedule, recipe.keep, recipe.augmentation) == ("scaled", "last", "default")


@pytest.mark.parametrize("name", sorted(PAPER_SWEEPS))
def test_sweep_of_a_paper_network_retrains_and_searches_as_far_as_the_paper(name: str, tmp_path: Path):
    spec = resolve(name, data_dir=tmp_path).spec
    budget, num_parents, top = PAPER_SWEEPS[name]
    assert spec.budgets == (budget,)
    assert len(spec.seeds) == num_parents
    assert spec.search.high >= top
    assert spec.deltas == (0.005,)
    assert spec.data.name == ("imagenet" if num_parents == 1 else "cifar10")
    assert (spec.data.train_images, spec.data.test_images, spec.data.image_size) == (None, None, None)


def test_segmentation_sweep_has_the_papers_numbers(tmp_path: Path):
    spec = resolve("deeplabv3_resnet50", data_dir=tmp_path).spec
    recipe = spec.recipe
    found = (recipe.epochs, recipe.batch_size, recipe.learning_rate, recipe.momentum, recipe.weight_decay)
    assert found == (45, 16, 0.02, 0.9, 1e-4), REFERENCE
    assert (recipe.learning_rate_schedule, recipe.poly_power, recipe.warmup_epochs) == ("poly", 0.9, 0)
    assert (spec.budgets, len(spec.seeds), spec.search.high) == ((45,), 2, 0.97)
    assert len(spec.tasks) == 20


def test_chain_of_the_paper_prunes_69_times_in_23_links_with_its_four_methods():
    spec = resolve("resnet20-chain").spec
    links = plan_of(spec).links
    assert (len(links), sum(1 + len(link.via) for link in links)) == (23, 69), REFERENCE
    assert [method.name for method in spec.methods] == ["wt", "sipp", "ft", "pfp"]


def test_first_sweep_is_at_most_about_sixty_probes_of_what_the_readme_promises():
    spec = resolve("lenet5").spec
    assert [method.name for method in spec.methods] == ["wt", "ft", "random"]
    assert (len(spec.seeds), len(spec.budgets), len(spec.tasks)) == (2, 2, 4)
    assert spec.data.name == "strokes"


def test_resnet101_without_any_data_directory_is_the_quick_one_and_says_so():
    spec, setting = resolve("resnet101")
    assert spec.name == "resnet101-quick"
    assert spec.data.name == "strokes"
    (notice,) = setting.notices
    assert "quick recipe on the embedded" in notice
    assert "nothing about ResNet-101 on ImageNet" in notice
    assert "prune-cli sweep resnet101 --data-dir" in notice
    assert spec.note == notice, "the run's records, tags and report carry it too"


def test_quick_resnet101_is_as_small_as_two_cores_allow():
    """A ResNet-101 trains about 76 images/s there at 32 px: twenty minutes are 90 000 images."""
    spec = resolve("resnet101").spec
    data, limits = spec.data, spec.limits
    assert data.image_size == 32
    assert data.train_images is not None and data.train_images <= 1500
    assert data.test_images is not None and data.test_images <= 2000
    assert (len(spec.methods), len(spec.seeds), spec.budgets, len(spec.tasks)) == (2, 1, (2,), 3)
    assert limits.max_probes is not None and limits.max_probes <= 12
    epochs = spec.recipe.epochs + 2 + 2 * limits.max_probes
    assert epochs * data.train_images <= 90_000


def test_resnet101_with_a_data_directory_that_lacks_imagenet_is_an_error_and_no_fallback(tmp_path: Path):
    spec, setting = resolve("resnet101", data_dir=tmp_path)
    assert (spec.name, spec.data.name, setting.notices) == ("resnet101", "imagenet", ())
    with pytest.raises(DataError, match="imagenet"):
        make_plan(spec, setting, open_data(spec, setting))


def test_resnet101_with_a_data_directory_of_the_environment_is_the_real_one(tmp_path: Path):
    environment = {"RAYPRUNING_DATA_DIR": str(tmp_path)}
    spec, setting = resolve_request(SweepRequest(target="resnet101", gpus_per_probe=0.0), environment=environment)
    assert (spec.name, spec.data.name, setting.data_dir) == ("resnet101", "imagenet", tmp_path)


@pytest.mark.parametrize("fields", [{"dataset": "strokes"}, {"dataset": "imagenet"}, {"download": True}])
def test_resnet101_with_a_dataset_or_a_download_asked_for_is_never_the_quick_one(fields: dict):
    spec, setting = resolve("resnet101", **fields)
    assert "quick" not in spec.name
    assert spec.recipe.epochs == 90
    assert spec.data.name == fields.get("dataset", "imagenet")
    assert spec.data.train_images is None
    assert setting.notices == ()


def test_sweep_on_another_dataset_has_a_name_of_its_own():
    assert resolve("lenet5", dataset="digits").spec.name == "lenet5-digits"
    assert resolve("lenet5", dataset="strokes").spec.name == "lenet5"
    assert resolve("lenet5", dataset="folder//data/my birds").spec.name == "lenet5-folder-data-my-birds"


@pytest.mark.parametrize("model", ["torchvision/resnet34", "mobilenet_v3_small"])
def test_model_without_a_sweep_gets_a_quick_one_that_says_so(model: str):
    spec = resolve(model).spec
    assert spec.model.name == model
    assert spec.name == model.replace("/", "-")
    assert "No sweep is shipped" in spec.note


def test_spec_of_a_sweep_comes_back_from_its_json():
    for name in sweep_names():
        spec = resolve(name).spec
        assert SweepSpec.model_validate(json.loads(spec.model_dump_json())) == spec
