"""The learning rate at each step, for a dense training and for a retraining that rewinds it."""

from __future__ import annotations

import math

from raypruning.core.records import Recipe


def learning_rate(recipe: Recipe, step: int, *, steps_per_epoch: int, epochs: int, is_retraining: bool) -> float:
    """The learning rate of a step, counted from 0. Stepped per iteration.

    Args:
        epochs: of this training: the recipe's when dense, the budget when retraining.

    Source: Lost in Pruning, appendix, for the schedules; Renda et al. 2020 for rewinding.
    """
    epoch = step / steps_per_epoch
    if is_retraining:
        epoch = _dense_epoch(recipe, step, steps_per_epoch=steps_per_epoch, epochs=epochs)
    return _rate_at(recipe, epoch)


def _dense_epoch(recipe: Recipe, step: int, *, steps_per_epoch: int, epochs: int) -> float:
    """Where in the dense schedule, in epochs, a step of a retraining lies."""
    epoch = step / steps_per_epoch
    if recipe.retrain_schedule == "scaled":
        # One division of whole numbers, so that a milestone is never missed by a rounding.
        return step * recipe.epochs / (steps_per_epoch * epochs)
    if recipe.retrain_schedule == "tail":
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
