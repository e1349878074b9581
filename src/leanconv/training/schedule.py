"""The learning rate as a pure function of the step, so that nothing about it needs saving."""

import math

from leanconv.training.recipe import Recipe


def learning_rate(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    """Return the rate of optimizer step ``step`` (counted from 0 over the whole run).

    During the warm-up the factor is ``(step + 1) / warm-up steps``; the cosine then runs over the remaining
    steps and would reach zero at the first step after the last epoch.

    Args:
        recipe: Peak rate, warm-up and shape.
        step: Optimizer step, from 0.
        steps_per_epoch: Optimizer steps in one epoch.
    """
    warmup = round(recipe.warmup_epochs * steps_per_epoch)
    if step < warmup:
        return recipe.lr * (step + 1) / warmup
    if recipe.schedule == "step":
        epoch = step // steps_per_epoch
        return recipe.lr * recipe.step_factor ** sum(epoch >= boundary for boundary in recipe.step_epochs)
    progress = (step - warmup) / (recipe.epochs * steps_per_epoch - warmup)
    return recipe.lr * 0.5 * (1.0 + math.cos(math.pi * progress))
