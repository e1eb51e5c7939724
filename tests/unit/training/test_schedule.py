"""Learning rates against torch's own schedulers, stepped once per iteration."""

from __future__ import annotations

import pytest
import torch
from torch.optim import lr_scheduler

from raypruning.core.records import Recipe
from raypruning.training.schedule import learning_rate

STEPS_PER_EPOCH = 7
EPOCHS = 12
# torch's schedulers multiply the rate of the step before: rounding errors of 2e-16 add up over 84 steps.
TOLERANCE = dict(rel=1e-12, abs=1e-15)


def recipe(**fields) -> Recipe:
    return Recipe(**{"epochs": EPOCHS, "learning_rate": 0.3, **fields})


def ours(recipe: Recipe, *, epochs: int = EPOCHS, is_retraining: bool = False) -> list[float]:
    return [
        learning_rate(recipe, step, steps_per_epoch=STEPS_PER_EPOCH, epochs=epochs, is_retraining=is_retraining)
        for step in range(epochs * STEPS_PER_EPOCH)
    ]


def torchs(make_scheduler, *, epochs: int = EPOCHS, rate: float = 0.3) -> list[float]:
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=rate)
    scheduler = make_scheduler(optimiser)
    rates = []
    for _ in range(epochs * STEPS_PER_EPOCH):
        rates.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        scheduler.step()
    return rates


def after_warmup(optimiser, following, *, warmup_steps: int):
    """A linear rise from (nearly) 0, which LinearLR forbids, then `following`."""
    rise = lr_scheduler.LinearLR(optimiser, start_factor=1e-16, end_factor=1.0, total_iters=warmup_steps)
    return lr_scheduler.SequentialLR(optimiser, [rise, following], milestones=[warmup_steps])


@pytest.mark.parametrize(("optimiser", "factor"), [("sgd", 4.0), ("adam", 2.0)])
@pytest.mark.parametrize("how", ["scaled", "tail", "constant", "anytime"])
def test_rate_for_another_batch_grows_in_proportion_for_sgd_and_with_the_root_for_adam(optimiser, factor, how):
    fields = {"optimiser": optimiser, "retrain_schedule": how, "milestones": (4, 9), "warmup_epochs": 2.0}
    its_own = ours(recipe(batch_size=128, **fields), is_retraining=True, epochs=6)
    larger = ours(recipe(batch_size=512, learning_rate_batch=128, **fields), is_retraining=True, epochs=6)
    assert larger == pytest.approx([factor * rate for rate in its_own], rel=1e-15)


def test_step_schedule_equals_multi_step_lr():
    expected = torchs(
        lambda optimiser: lr_scheduler.MultiStepLR(optimiser, [4 * STEPS_PER_EPOCH, 9 * STEPS_PER_EPOCH], gamma=0.2)
    )
    assert ours(recipe(milestones=(4, 9), gamma=0.2)) == pytest.approx(expected, **TOLERANCE)


def test_step_schedule_with_a_milestone_within_an_epoch_falls_at_the_next_step():
    # 2.5 epochs are 17.5 steps.
    expected = torchs(lambda optimiser: lr_scheduler.MultiStepLR(optimiser, [18]))
    assert ours(recipe(milestones=(2.5,))) == pytest.approx(expected, **TOLERANCE)


def test_cosine_schedule_equals_cosine_annealing():
    expected = torchs(lambda optimiser: lr_scheduler.CosineAnnealingLR(optimiser, EPOCHS * STEPS_PER_EPOCH))
    # The recursion of CosineAnnealingLR divides by numbers near 0 at its end, where the rate is about 1e-4.
    assert ours(recipe(learning_rate_schedule="cosine")) == pytest.approx(expected, rel=1e-9)


def test_poly_schedule_equals_polynomial_lr():
    expected = torchs(lambda optimiser: lr_scheduler.PolynomialLR(optimiser, EPOCHS * STEPS_PER_EPOCH, power=0.9))
    assert ours(recipe(learning_rate_schedule="poly", poly_power=0.9)) == pytest.approx(expected, rel=1e-11)


def test_constant_schedule_equals_no_scheduler():
    assert ours(recipe(learning_rate_schedule="constant")) == [0.3] * EPOCHS * STEPS_PER_EPOCH


def test_warmup_equals_linear_lr_and_then_the_schedule():
    steps = 2 * STEPS_PER_EPOCH
    expected = torchs(
        lambda optimiser: after_warmup(
            optimiser,
            # SequentialLR counts its second scheduler from 0.
            lr_scheduler.MultiStepLR(optimiser, [4 * STEPS_PER_EPOCH - steps]),
            warmup_steps=steps,
        )
    )
    assert ours(recipe(milestones=(4,), warmup_epochs=2)) == pytest.approx(expected, **TOLERANCE)


def test_warmup_of_a_cosine_leaves_it_the_epochs_that_remain():
    steps = 3 * STEPS_PER_EPOCH
    expected = torchs(
        lambda optimiser: after_warmup(
            optimiser,
            lr_scheduler.CosineAnnealingLR(optimiser, EPOCHS * STEPS_PER_EPOCH - steps),
            warmup_steps=steps,
        )
    )
    rates = ours(recipe(learning_rate_schedule="cosine", warmup_epochs=3))
    assert rates == pytest.approx(expected, rel=1e-9, abs=1e-15)


SCHEDULES = [
    {"milestones": (4, 9)},
    {"milestones": (4, 9), "warmup_epochs": 2},
    {"learning_rate_schedule": "cosine", "warmup_epochs": 1.5},
    {"learning_rate_schedule": "poly", "warmup_epochs": 1},
    {"learning_rate_schedule": "constant"},
]


@pytest.mark.parametrize("fields", SCHEDULES)
def test_scaled_retraining_of_as_many_epochs_as_the_dense_training_has_the_same_rates(fields):
    assert ours(recipe(**fields), is_retraining=True) == ours(recipe(**fields))


@pytest.mark.parametrize("fields", SCHEDULES)
def test_scaled_retraining_for_half_the_epochs_takes_every_second_rate(fields):
    assert ours(recipe(**fields), epochs=EPOCHS // 2, is_retraining=True) == ours(recipe(**fields))[::2]


@pytest.mark.parametrize("budget", [1, 5, 7, 11])
def test_scaled_retraining_changes_its_rate_at_the_first_step_past_each_milestone(budget):
    milestones = (4, 9)
    rates = ours(recipe(milestones=milestones), epochs=budget, is_retraining=True)
    # In whole numbers: step / (budget * steps per epoch) >= milestone / epochs.
    expected = [
        0.3 * 0.1 ** sum(step * EPOCHS >= milestone * budget * STEPS_PER_EPOCH for milestone in milestones)
        for step in range(budget * STEPS_PER_EPOCH)
    ]
    assert rates == pytest.approx(expected, rel=1e-15)


@pytest.mark.parametrize("fields", SCHEDULES)
def test_tail_retraining_takes_the_last_rates_of_the_dense_training(fields):
    rates = ours(recipe(**fields, retrain_schedule="tail"), epochs=5, is_retraining=True)
    # The position is 7 + step / 7 here and step / 7 there: a rounding apart, which the end of a cosine enlarges.
    assert rates == pytest.approx(ours(recipe(**fields))[-5 * STEPS_PER_EPOCH :], rel=1e-11)


def test_tail_retraining_that_is_longer_than_the_dense_training_takes_all_of_it_and_stays_at_its_end():
    rates = ours(recipe(milestones=(4, 9), retrain_schedule="tail"), epochs=EPOCHS + 3, is_retraining=True)
    dense = ours(recipe(milestones=(4, 9)))
    assert rates == dense + [dense[-1]] * 3 * STEPS_PER_EPOCH


@pytest.mark.parametrize("fields", SCHEDULES)
def test_constant_retraining_stays_at_the_rate_of_the_dense_last_epoch(fields):
    rates = ours(recipe(**fields, retrain_schedule="constant"), epochs=3, is_retraining=True)
    first_of_last_epoch = ours(recipe(**fields))[-STEPS_PER_EPOCH]
    assert rates == [first_of_last_epoch] * 3 * STEPS_PER_EPOCH


@pytest.mark.parametrize("fields", SCHEDULES)
@pytest.mark.parametrize("how", ["constant", "anytime"])
def test_rates_of_an_anytime_retraining_are_the_first_of_any_longer_one(fields, how):
    anytime = recipe(**fields, retrain_schedule=how)
    assert anytime.is_anytime
    longest = ours(anytime, epochs=2 * EPOCHS, is_retraining=True)
    for epochs in (1, 3, EPOCHS):
        assert ours(anytime, epochs=epochs, is_retraining=True) == longest[: epochs * STEPS_PER_EPOCH]


@pytest.mark.parametrize("how", ["scaled", "tail"])
def test_rates_of_other_retrainings_depend_on_the_budget(how):
    other = recipe(milestones=(4, 9), retrain_schedule=how)
    assert not other.is_anytime
    longest = ours(other, epochs=EPOCHS, is_retraining=True)
    assert ours(other, epochs=5, is_retraining=True) != longest[: 5 * STEPS_PER_EPOCH]


def test_anytime_rates_fall_with_the_square_root_of_the_epochs_from_the_full_rate():
    rates = ours(recipe(warmup_epochs=2, retrain_schedule="anytime"), is_retraining=True)
    expected = torchs(
        lambda optimiser: lr_scheduler.LambdaLR(optimiser, lambda step: (1 + step / STEPS_PER_EPOCH) ** -0.5)
    )
    # One rounding each in the square root, the power and the product.
    assert rates == pytest.approx(expected, rel=1e-15)
    assert rates[0] == 0.3 and rates[3 * STEPS_PER_EPOCH] == 0.15
