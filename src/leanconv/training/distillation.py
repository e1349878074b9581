"""Distillation: a network learns from the scores of another one (Hinton et al., 2015, arXiv 1503.02531)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leanconv.data.splits import ImageData
from leanconv.errors import UserError
from leanconv.training.metrics import at_least_float32
from leanconv.training.tasks import Classify


class Distil(Classify):
    """Classification that follows a teacher: ``share * T² * KL(teacher || student)`` at temperature ``T``.

    The rest of the loss is the cross-entropy with the labels.  Metrics are those of classification.

    Args:
        teacher: A trained network with the same classes; it is used in evaluation mode and never trained.
        temperature: Divides the scores of both.
        share: Of the teacher in the loss, 0 to 1.

    Raises:
        UserError: A number is out of range.
    """

    def __init__(self, teacher: nn.Module, *, temperature: float = 4.0, share: float = 0.9) -> None:
        super().__init__()
        if not temperature > 0:
            raise UserError(f"temperature={temperature} does not work: it must be above 0.")
        if not 0 <= share <= 1:
            raise UserError(f"share={share} does not work: it must be between 0 and 1.")
        self.teacher = teacher.eval()
        self.temperature, self.share = temperature, share

    def check(self, model: nn.Module, data: ImageData) -> None:
        """Check network and teacher with the data.

        Raises:
            UserError: One of them does not fit the data, or they tell different numbers of classes apart.
        """
        super().check(model, data)
        first = next(model.parameters(), torch.zeros(()))
        self.teacher.to(first.device)
        super().check(self.teacher, data)
        image = torch.zeros(1, data.channels, *data.image_size, device=first.device, dtype=first.dtype)
        was_training = model.training
        with torch.no_grad():
            counts = [network.eval()(image).shape[1] for network in (model, self.teacher)]
        model.train(was_training)
        if counts[0] != counts[1]:
            raise UserError(f"The model tells {counts[0]} classes apart and its teacher {counts[1]}: they must agree.")

    def loss(self, model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss of a batch."""
        scores = at_least_float32(model(inputs))
        with torch.no_grad():
            wanted = at_least_float32(self.teacher(inputs))
        t = self.temperature
        divergence = F.kl_div(
            (scores / t).log_softmax(1), (wanted / t).log_softmax(1), reduction="batchmean", log_target=True
        )
        return self.share * t**2 * divergence + (1 - self.share) * F.cross_entropy(scores, targets)
