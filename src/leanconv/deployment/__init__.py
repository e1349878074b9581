"""From a trained network to one that is fast where it runs."""

from leanconv.deployment.engine import Engine
from leanconv.deployment.engines import ENGINES, engine_named
from leanconv.deployment.export_report import ExportReport
from leanconv.deployment.exporting import export
from leanconv.deployment.findings import Finding
from leanconv.deployment.fold_record import Fold, FoldRecord
from leanconv.deployment.folding import fold
from leanconv.deployment.slow_forms import lint
from leanconv.deployment.storage import load, save
from leanconv.deployment.verification import Parity

__all__ = [
    "ENGINES",
    "Engine",
    "ExportReport",
    "Finding",
    "Fold",
    "FoldRecord",
    "Parity",
    "engine_named",
    "export",
    "fold",
    "lint",
    "load",
    "save",
]
