"""An exponential moving average of the weights."""

from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


def averaged(model: nn.Module, decay: float) -> AveragedModel:
    """Return a copy of ``model`` that follows it, at each ``update_parameters``, with the given decay.

    Running statistics of batch norm are averaged with the weights they belong to.
    """
    average: AveragedModel = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
    return average.requires_grad_(False)
