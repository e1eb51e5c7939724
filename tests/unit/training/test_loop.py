"""Training: continued to the bit, masked after every step, and equal to what is written out by hand for one step."""

# N images, C channels or classes, H W height and width

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from raypruning.core.records import Epoch, Numerics, Recipe
from raypruning.datasets.base import ImageArrays
from raypruning.errors import TrainingError
from raypruning.runtime.store import open_store
from raypruning.training.images import ResidentImages
from raypruning.training.inputs import Normalisation
from raypruning.training.loop import ResumeState, Setting, train
from raypruning.training.objective import objective_of

CPU = torch.device("cpu")
SIDE, CLASSES = 8, 4
TRAINING_ID = "0123456789abcdef"


def images(num: int, *, seed: int) -> ResidentImages:
    """Noise, with a bright square whose place is the class."""
    random = np.random.default_rng(seed)
    labels_N = random.integers(0, CLASSES, num)
    images_NCHW = random.integers(0, 160, (num, 3, SIDE, SIDE), dtype=np.uint8)
    for image_CHW, label in zip(images_NCHW, labels_N, strict=True):
        row, column = 4 * (label // 2), 4 * (label % 2)
        image_CHW[:, row : row + 4, column : column + 4] += 60
    return ResidentImages(ImageArrays(images_NCHW=images_NCHW, labels_N=labels_N), CPU)


def network(*, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    layers = [nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.ReLU(), nn.Flatten()]
    model = nn.Sequential(*layers, nn.Dropout(0.3), nn.Linear(4 * 16, CLASSES))
    return model.to(memory_format=torch.channels_last)


def half_masks(model: nn.Module) -> dict[str, Tensor]:
    """Half of the weights of every layer removed, at random."""
    generator = torch.Generator().manual_seed(9)
    parameters = dict(model.named_parameters())
    return {
        name: torch.rand(parameters[name].shape, generator=generator) < 0.5
        for name in ("0.weight", "3.weight", "7.weight")
    }


def setting(recipe: Recipe | None = None, **fields) -> Setting:
    recipe = recipe or Recipe(epochs=5, learning_rate=0.05, batch_size=16, augmentation="crop_flip")
    return Setting(
        **{
            "objective": objective_of("classification"),
            "recipe": recipe,
            "epochs": recipe.epochs,
            "seed": 3,
            "is_retraining": False,
            "train": images(56, seed=0),  # 56 = 3 * 16 + 8
            "validation": images(24, seed=1),
            "normalise": Normalisation(torch.full((3, 1, 1), 0.4), torch.full((3, 1, 1), 0.25)),
            "augmentation": "crop_flip",
            "eval_batch_size": 10,
            "device": CPU,
            **fields,
        }
    )


def bits(model: nn.Module) -> dict[str, bytes]:
    return {name: value.contiguous().numpy().tobytes() for name, value in model.state_dict().items()}


class Stopped(Exception):
    """In place of a process that is killed."""


OPTIMISERS = {
    "sgd with nesterov momentum": {"optimiser": "sgd", "nesterov": True, "weight_decay": 1e-3},
    "adam": {"optimiser": "adam", "learning_rate": 3e-3, "weight_decay": 1e-3},
    "best epoch": {"keep": "best", "learning_rate": 0.2},
    "cosine, bfloat16": {"learning_rate_schedule": "cosine", "numerics": Numerics(precision="bfloat16")},
}


@pytest.mark.parametrize("fields", OPTIMISERS.values(), ids=OPTIMISERS.keys())
@pytest.mark.parametrize("is_masked", [False, True], ids=["dense", "masked"])
def test_a_training_that_was_stopped_after_any_epoch_and_continued_equals_the_undisturbed_one(
    fields: dict, is_masked: bool, tmp_path: Path
):
    recipe = Recipe(**{"epochs": 5, "learning_rate": 0.05, "batch_size": 16, "milestones": (2, 4), **fields})
    undisturbed = network()
    masks = half_masks(undisturbed) if is_masked else {}
    history = train(undisturbed, masks, setting(recipe)).history

    store = open_store(str(tmp_path))
    for stop_after in range(1, 5):

        def save_and_stop(state: ResumeState, stop_after: int = stop_after) -> None:
            store.save_resume_state(TRAINING_ID, state.values, state.arrays)
            if len(state.values["history"]) == stop_after:
                raise Stopped

        with pytest.raises(Stopped):
            train(network(), masks, setting(recipe, save=save_and_stop, save_seconds=0.0))
        found = store.resume_state(TRAINING_ID)
        assert found is not None
        continued = network(seed=77)  # Its weights must not matter.
        torch.manual_seed(12345)  # Nor may what was drawn before.
        assert train(continued, masks, setting(recipe), resume=ResumeState(*found)).history == history
        assert bits(continued) == bits(undisturbed)


def test_a_training_that_was_stopped_twice_equals_the_undisturbed_one():
    undisturbed = network()
    history = train(undisturbed, {}, setting()).history

    resume: ResumeState | None = None
    for _ in range(2):
        saved: list[ResumeState] = []

        def save_and_stop(state: ResumeState, saved: list[ResumeState] = saved) -> None:
            saved.append(state)
            raise Stopped

        with pytest.raises(Stopped):
            train(network(), {}, setting(save=save_and_stop, save_seconds=0.0), resume=resume)
        resume = saved[0]
    continued = network()
    assert train(continued, {}, setting(), resume=resume).history == history
    assert bits(continued) == bits(undisturbed)


@pytest.mark.parametrize("save_seconds", [0.0, 1e9])
def test_a_training_saves_where_it_is_as_often_as_asked_and_not_after_its_last_epoch(save_seconds: float):
    saved: list[int] = []

    def save(state: ResumeState) -> None:
        saved.append(len(state.values["history"]))

    train(network(), {}, setting(save=save, save_seconds=save_seconds))
    assert saved == ([1, 2, 3, 4] if save_seconds == 0.0 else [])


@pytest.mark.parametrize("threads", [1, 2])
def test_the_same_seed_gives_the_same_bits(threads: int):
    torch.set_num_threads(threads)
    one, other = network(), network()
    assert train(one, half_masks(one), setting()).history == train(other, half_masks(other), setting()).history
    assert bits(one) == bits(other)


@pytest.mark.parametrize("change", [{"seed": 4}, {"is_retraining": True}], ids=["other seed", "retraining"])
def test_another_seed_or_phase_draws_other_orders(change: dict):
    one, other = network(), network()
    train(one, {}, setting())
    train(other, {}, setting(**change))
    assert bits(one) != bits(other)


@pytest.mark.parametrize(
    "fields",
    [
        {"momentum": 0.9, "weight_decay": 1e-2},
        {"momentum": 0.9, "nesterov": True, "weight_decay": 1e-2, "l1_penalty": 1e-3, "l2_penalty": 1e-3},
        {"optimiser": "adam", "weight_decay": 1e-2},
    ],
    ids=["momentum", "nesterov and penalties", "adam"],
)
def test_removed_weights_are_zero_at_every_step_and_at_the_end(fields: dict):
    model = network()
    masks = half_masks(model)
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, mask in masks.items():
            parameters[name].mul_(mask)
    num_steps = 0

    def look(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        nonlocal num_steps
        num_steps += module.training
        assert all(parameters[name][~mask].count_nonzero() == 0 for name, mask in masks.items())

    hook = model.register_forward_pre_hook(look)
    recipe = Recipe(epochs=3, learning_rate=0.02, batch_size=16, **fields)
    train(model, masks, setting(recipe, penalised=frozenset(masks)))
    hook.remove()
    assert num_steps == 3 * 4
    for name, mask in masks.items():
        assert parameters[name][~mask].count_nonzero() == 0
        assert parameters[name][mask].count_nonzero() == mask.sum()


@pytest.mark.parametrize(
    ("l1", "l2", "smoothing"), [(0.0, 0.0, 0.0), (0.03, 0.0, 0.0), (0.0, 0.05, 0.0), (0.03, 0.05, 0.1)]
)
def test_one_step_follows_the_gradient_of_the_loss_written_out_with_its_penalties(l1, l2, smoothing):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, CLASSES))
    start = {name: value.detach().clone().double() for name, value in model.named_parameters()}
    recipe = Recipe(
        epochs=1,
        learning_rate=0.1,
        momentum=0.0,
        batch_size=64,
        l1_penalty=l1,
        l2_penalty=l2,
        label_smoothing=smoothing,
    )
    whole = setting(recipe, augmentation="none", penalised=frozenset({"1.weight"}))
    train(model, {}, whole)

    batch = next(whole.train.read(torch.arange(56), batch_size=56, augmentation="none", seed=0))
    inputs_NK = ((batch.pixels_BCHW.double() - 0.4) / 0.25).flatten(1)
    weight, bias = (start[name].requires_grad_() for name in ("1.weight", "1.bias"))
    log_probability_NC = (inputs_NK @ weight.T + bias).log_softmax(1)
    target_NC = nn.functional.one_hot(batch.truth, CLASSES) * (1 - smoothing) + smoothing / CLASSES
    loss = -(target_NC * log_probability_NC).sum(1).mean() + l1 * weight.abs().sum() + l2 * (weight**2).sum()
    loss.backward()
    # float32 against float64: 2^-24 of values up to 1, over a sum of 56 images.
    assert torch.allclose(model[1].weight.double(), weight - 0.1 * weight.grad, atol=2e-6)
    assert torch.allclose(model[1].bias.double(), bias - 0.1 * bias.grad, atol=2e-6)


def test_the_history_has_an_entry_an_epoch_with_rates_and_losses_without_penalties():
    logits_C = torch.tensor([0.0, 0.0, 1.0, 0.0])
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, CLASSES))
    with torch.no_grad():
        model[1].weight.zero_()
        model[1].bias.copy_(logits_C)
    recipe = Recipe(epochs=3, learning_rate=1e-30, milestones=(1,), batch_size=16, l1_penalty=5.0, l2_penalty=5.0)
    whole = setting(recipe, penalised=frozenset({"1.weight"}))
    history = train(model, {}, whole).history
    assert [entry.epoch for entry in history] == [1, 2, 3]
    assert [entry.learning_rate for entry in history] == pytest.approx([1e-30, 1e-31, 1e-31])

    def mean_loss(labels_N: Tensor) -> float:
        return float(-logits_C.double().log_softmax(0)[labels_N].mean())

    for entry in history:  # Nothing moves at that rate: the answer is class 2 for every image.
        assert entry.train_loss == pytest.approx(mean_loss(whole.train.labels_N), rel=1e-6)
        assert entry.validation_loss == pytest.approx(mean_loss(whole.validation.labels_N), rel=1e-6)
        assert entry.validation_error == float((whole.validation.labels_N != 2).double().mean())


def test_training_learns_what_can_be_learned():
    model = network()
    recipe = Recipe(epochs=40, learning_rate=0.05, batch_size=16)
    history = train(model, {}, setting(recipe, augmentation="none", train=images(256, seed=0))).history
    assert history[-1].validation_error is not None and history[-1].validation_error <= 0.1
    assert history[-1].train_loss < history[0].train_loss / 2


def test_a_loss_that_is_not_a_number_names_the_epoch_and_what_to_lower():
    recipe = Recipe(epochs=5, learning_rate=1e30, batch_size=16, momentum=0.0)
    with pytest.raises(TrainingError, match=r"epoch 1 of 5.*lower recipe\.learning_rate \(1e\+30\)"):
        train(network(), {}, setting(recipe))


def test_a_validation_loss_that_is_not_a_number_names_the_epoch_and_what_to_lower():
    class BreaksInEvaluation(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network()

        def forward(self, inputs: Tensor) -> Tensor:
            return self.inner(inputs) if self.training else self.inner(inputs) * torch.nan

    with pytest.raises(TrainingError, match=r"validation loss became nan in epoch 1 of 5.*lower recipe\.learning_rate"):
        train(BreaksInEvaluation(), {}, setting())


def _parameters_after_each_epoch(recipe: Recipe) -> tuple[list[dict[str, bytes]], tuple[Epoch, ...]]:
    """Run epoch by epoch and keep every state: what choosing among epochs has to choose from."""
    after: list[dict[str, bytes]] = []

    def keep(state: ResumeState) -> None:
        names = [name for name in state.arrays if name.startswith("model/")]
        after.append({name.removeprefix("model/"): np.array(state.arrays[name]).tobytes() for name in names})

    model = network()
    history = train(model, {}, setting(recipe.model_copy(update={"keep": "last"}), save=keep, save_seconds=0.0)).history
    return [*after, bits(model)], history


def test_the_last_epoch_is_kept_by_default_and_the_best_on_validation_when_asked():
    # A rate at which the validation error goes up and down.
    recipe = Recipe(epochs=8, learning_rate=0.3, batch_size=16)
    after, history = _parameters_after_each_epoch(recipe)
    best = min(range(8), key=lambda i: (history[i].validation_error, history[i].validation_loss, i))
    assert best < 7, "this recipe must have its best epoch before its last, or the test shows nothing"

    last, chosen = network(), network()
    train(last, {}, setting(recipe))
    same_history = train(chosen, {}, setting(recipe.model_copy(update={"keep": "best"}))).history
    assert bits(last) == after[-1]
    assert bits(chosen) == after[best]
    assert same_history == history


def test_of_epochs_that_validate_equally_the_first_is_kept():
    recipe = Recipe(epochs=3, learning_rate=0.05, batch_size=16, keep="best")
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3 * SIDE * SIDE, CLASSES))

    class Constant(nn.Module):
        """Learns, and answers the same in every evaluation."""

        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, inputs: Tensor) -> Tensor:
            return self.inner(inputs) if self.training else torch.zeros(len(inputs), CLASSES)

    one_epoch = Constant(model)
    three_epochs = Constant(nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3 * SIDE * SIDE, CLASSES)))
    three_epochs.load_state_dict(one_epoch.state_dict())
    train(one_epoch, {}, setting(recipe, epochs=1))
    train(three_epochs, {}, setting(recipe))
    assert bits(one_epoch) == bits(three_epochs)


def test_a_dataset_without_validation_images_trains_and_says_so_in_its_history():
    recipe = Recipe(epochs=2, learning_rate=0.05, batch_size=16, keep="best")
    history = train(network(), {}, setting(recipe, validation=images(0, seed=1))).history
    assert [(entry.validation_loss, entry.validation_error) for entry in history] == [(None, None)] * 2


def test_bfloat16_trains_to_other_bits_in_float32_weights():
    recipe = Recipe(epochs=2, learning_rate=0.05, batch_size=16)
    exact, rounded = network(), network()
    train(exact, {}, setting(recipe))
    train(rounded, {}, setting(recipe.model_copy(update={"numerics": Numerics(precision="bfloat16")})))
    assert bits(exact) != bits(rounded)
    assert all(value.dtype == torch.float32 for value in rounded.parameters())
    assert all(torch.isfinite(value).all() for value in rounded.parameters())


def _batch_sizes_seen(train_images: ResidentImages, batch_size: int) -> list[int]:
    sizes: list[int] = []
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, CLASSES))
    model.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])) if module.training else None)
    train(model, {}, setting(Recipe(epochs=1, learning_rate=0.05, batch_size=batch_size), train=train_images))
    return sizes


@pytest.mark.parametrize(
    ("num", "batch_size", "sizes"),
    [(33, 16, [16, 16]), (34, 16, [16, 16, 2]), (1, 16, [1]), (3, 1, [1, 1, 1])],
    ids=["one left over", "two left over", "a single image", "batches of one"],
)
def test_a_single_image_left_over_is_left_out_of_an_epoch(num: int, batch_size: int, sizes: list[int]):
    assert _batch_sizes_seen(images(num, seed=0), batch_size) == sizes


def test_a_single_image_left_over_does_not_count_in_the_mean_loss():
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, CLASSES))
    nn.init.zeros_(model[1].weight)
    nn.init.zeros_(model[1].bias)
    recipe = Recipe(epochs=1, learning_rate=1e-30, batch_size=4)
    (entry,) = train(model, {}, setting(recipe, train=images(5, seed=0))).history
    assert entry.train_loss == pytest.approx(np.log(CLASSES), rel=1e-6)


def test_a_training_of_no_epochs_leaves_the_network_as_it_is():
    model = network()
    before = bits(model)
    assert train(model, half_masks(model), dataclasses.replace(setting(), epochs=0)).history == ()
    assert bits(model) == before


def test_masks_that_keep_everything_change_nothing():
    one, other = network(), network()
    train(one, {}, setting())
    train(
        other, {name: torch.ones_like(value, dtype=torch.bool) for name, value in other.named_parameters()}, setting()
    )
    assert bits(one) == bits(other)


# Broken off


@pytest.mark.parametrize("fields", OPTIMISERS.values(), ids=OPTIMISERS.keys())
@pytest.mark.parametrize("stop_epochs", [0, 1, 3, 5])
def test_a_training_broken_off_has_the_bits_that_the_whole_one_had_then(fields: dict, stop_epochs: int):
    recipe = Recipe(**{"epochs": 5, "learning_rate": 0.05, "batch_size": 16, "milestones": (2, 4), **fields})
    after = [bits(network())]

    def keep(state: ResumeState) -> None:
        names = [name for name in state.arrays if name.startswith("model/")]
        after.append({name.removeprefix("model/"): np.array(state.arrays[name]).tobytes() for name in names})

    whole = network()
    history = train(whole, {}, setting(recipe.model_copy(update={"keep": "last"}), save=keep, save_seconds=0.0)).history
    after.append(bits(whole))

    # Its last epoch counts, also where the best one of a whole training would.
    broken = network()
    assert train(broken, {}, setting(recipe, stop_epochs=stop_epochs)).history == history[:stop_epochs]
    assert bits(broken) == after[stop_epochs]


def test_a_training_from_scratch_of_other_epochs_runs_its_whole_schedule():
    recipe = Recipe(epochs=8, learning_rate=0.1, batch_size=16, milestones=(4, 6))
    rates = [entry.learning_rate for entry in train(network(), {}, setting(recipe, epochs=4)).history]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.001])
