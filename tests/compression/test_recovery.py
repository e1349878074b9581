"""What brings accuracy back: statistics of batch norm, and learning from the original."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from networks import images, small_net
from torch import nn
from torch.testing import assert_close

from leanconv.compression import DepthwiseDecomposition, convert, reestimate_batch_norm
from leanconv.data import ArraySplit, ImageData
from leanconv.errors import UserError
from leanconv.training import Distil, Recipe, train


def test_batch_norm_gets_the_statistics_of_all_samples() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5)).train()
    model[1].momentum = 0.3
    x = images(64) * 3 + 1
    assert reestimate_batch_norm(model, [x]) == 1
    y = model[0](x).detach()
    assert_close(model[1].running_mean, y.mean((0, 2, 3)))
    assert_close(model[1].running_var, y.var((0, 2, 3)))
    assert model.training
    assert model[1].momentum == 0.3
    with pytest.raises(UserError, match="no samples"):
        reestimate_batch_norm(model, [])


def toy_data() -> ImageData:
    generator = torch.Generator().manual_seed(0)

    def split(count: int) -> ArraySplit:
        labels = torch.arange(count) % 5
        pixels = torch.randint(0, 40, (count, 3, 8, 8), generator=generator) + 40 * labels[:, None, None, None]
        return ArraySplit(pixels.to(torch.uint8), labels)

    return ImageData("toy", tuple("abcde"), 3, (8, 8), (0.5,) * 3, (0.25,) * 3, split(160), split(40))


def test_distillation_is_the_divergence_from_the_teacher_at_its_temperature() -> None:
    teacher, student, x = small_net(), small_net(), images(6)
    torch.nn.init.normal_(student[-1].weight)
    labels = torch.arange(6) % 5
    p, q = (net(x).div(3).softmax(1) for net in (teacher, student))
    divergence = (p * (p / q).log()).sum(1).mean()
    expected = 0.7 * 9 * divergence + 0.3 * F.cross_entropy(student(x), labels)
    assert_close(Distil(teacher, temperature=3.0, share=0.7).loss(student, x, labels), expected)
    assert Distil(teacher, share=1.0).loss(teacher, x, labels).item() == pytest.approx(0, abs=1e-6)


def test_distilled_training_moves_the_student_and_not_the_teacher() -> None:
    data = toy_data()
    teacher = train(small_net(), data, Recipe(epochs=3, batch_size=32, lr=0.05, warmup_epochs=0), progress=False).model
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    inputs = torch.stack([(image.float() / 255 - 0.5) / 0.25 for image in data.train.images])  # type: ignore[attr-defined]
    student = convert(teacher, DepthwiseDecomposition(1), inputs=[inputs]).model
    task = Distil(teacher)
    losses = [task.loss(student.eval(), inputs, data.train.labels).item()]
    train(student, data, Recipe(epochs=3, batch_size=32, lr=0.01, warmup_epochs=0), task=task, progress=False)
    losses.append(task.loss(student.eval(), inputs, data.train.labels).item())
    assert losses[1] < losses[0]
    assert_close(teacher.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [({"temperature": 0.0}, "temperature=0.0"), ({"share": 1.5}, "share=1.5"), ({}, "classes apart and its teacher 7")],
)
def test_distillation_refuses_what_cannot_work(arguments: dict[str, Any], sentence: str) -> None:
    teacher = small_net()
    teacher[-1] = nn.Linear(12, 7)
    with pytest.raises(UserError, match=sentence):
        Distil(teacher, **arguments).check(small_net(), toy_data())
