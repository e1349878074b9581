import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, MultiStepLR

from leanconv.training import Recipe
from leanconv.training.schedule import learning_rate


def test_warm_up_follows_the_published_factor() -> None:
    """Factor (epoch + (iteration + 1) / N) / 10 in iteration steps."""
    recipe, steps = Recipe(lr=0.1), 390
    for epoch in range(10):
        for iteration in (0, 1, 200, 389):
            factor = (epoch + (iteration + 1) / steps) / 10
            assert learning_rate(recipe, epoch * steps + iteration, steps) == pytest.approx(0.1 * factor)


def _rates(scheduler: type, steps: int, **kwargs: object) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    schedule = scheduler(optimizer, **kwargs)
    rates = []
    for _ in range(steps):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return rates


def test_cosine_agrees_with_torch_and_ends_near_zero() -> None:
    recipe = Recipe(lr=0.1, epochs=20, warmup_epochs=5)
    ours = [learning_rate(recipe, step, 7) for step in range(35, 140)]
    assert ours == pytest.approx(_rates(CosineAnnealingLR, 105, T_max=105), abs=1e-12)
    assert ours[0] == 0.1
    assert 0 < ours[-1] < 1e-4


def test_steps_agree_with_torch() -> None:
    recipe = Recipe(lr=0.1, epochs=8, warmup_epochs=0, schedule="step", step_epochs=[3, 6], step_factor=0.1)
    per_epoch = _rates(MultiStepLR, 8, milestones=[3, 6], gamma=0.1)
    for epoch in range(8):
        for iteration in range(4):
            assert learning_rate(recipe, epoch * 4 + iteration, 4) == pytest.approx(per_epoch[epoch])
