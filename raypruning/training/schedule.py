"""The learning rate at each step, for a dense training and for a retraining that rewinds it."""

from __future__ import annotations

import math

from raypruning.core.records import Recipe


def learning_rate(recipe: Recipe, step: int, *, steps_per_epoch: int, epochs: int, is_retraining: bool) -> float:
    """The learning rate of a step, counted from 0. Stepped per iteration.

    Args:
        epochs: of this training: the recipe's when dense, the budget when retraining. A training from scratch runs the
            whole schedule, compressed or stretched into its epochs.

    Source: Lost in Pruning, appendix, for the schedules; Renda et al. 2020 for rewinding; Zinkevich 2003 for steps of
    1/sqrt(t), which are good after any number of them.
    """
    rate = _rate_for_its_own_batch(
        recipe, step, steps_per_epoch=steps_per_epoch, epochs=epochs, is_retraining=is_retraining
    )
    if recipe.learning_rate_batch is None:
        return rate
    larger = recipe.batch_size / recipe.learning_rate_batch
    return rate * (math.sqrt(larger) if recipe.optimiser == "adam" else larger)


def _rate_for_its_own_batch(
    recipe: Recipe, step: int, *, steps_per_epoch: int, epochs: int, is_retraining: bool
) -> float:
    how = recipe.retrain_schedule if is_retraining else "scaled"
    if how == "anytime":
        # No warm-up: it begins from trained weights, and a short budget would see nothing else.
        return recipe.learning_rate / math.sqrt(1.0 + step / steps_per_epoch)
    return _rate_at(recipe, _dense_epoch(recipe, step, steps_per_epoch=steps_per_epoch, epochs=epochs, how=how))


def _dense_epoch(recipe: Recipe, step: int, *, steps_per_epoch: int, epochs: int, how: str) -> float:
    """Where in the dense schedule, in epochs, a step lies."""
    epoch = step / steps_per_epoch
    if how == "scaled":
        # One division of whole numbers, so that a milestone is never missed by a rounding.
        return step * recipe.epochs / (steps_per_epoch * epochs)
    if how == "tail":
        return max(0.0, recipe.epochs - epochs) + min(epoch, recipe.epochs)
    return recipe.epochs - 1.0


def _rate_at(recipe: Recipe, epoch: float) -> float:
    warmup = recipe.warmup_epochs
    if epoch < warmup:
        return recipe.learning_rate * epoch / warmup
    match recipe.learning_rate_schedule:
        case "constant":
            factor = 1.0
        case "step":
            factor = recipe.gamma ** sum(epoch >= milestone for milestone in recipe.milestones)
        case "poly":
            factor = max(0.0, 1.0 - epoch / recipe.epochs) ** recipe.poly_power
        case "cosine":
            span = recipe.epochs - warmup
            factor = 0.5 * (1.0 + math.cos(math.pi * min(1.0, (epoch - warmup) / span)))
    return recipe.learning_rate * factor
