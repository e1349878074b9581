"""From a trained network to one that is fast where it runs."""

from leanconv.deployment.fold import fold
from leanconv.deployment.fold_record import Fold, FoldRecord

__all__ = ["Fold", "FoldRecord", "fold"]
