"""Training and evaluation of networks."""

from leanconv.training.distillation import Distil
from leanconv.training.evaluation import evaluate
from leanconv.training.loop import train
from leanconv.training.recipe import Recipe, load_recipe
from leanconv.training.result import TrainResult
from leanconv.training.superres import SuperResolve
from leanconv.training.tasks import Classify, Task
from leanconv.training.weights import enlarging_network, load_weights

__all__ = [
    "Classify",
    "Distil",
    "Recipe",
    "SuperResolve",
    "Task",
    "TrainResult",
    "enlarging_network",
    "evaluate",
    "load_recipe",
    "load_weights",
    "train",
]
