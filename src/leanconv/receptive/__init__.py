"""What a network can see: receptive fields over space and channels, and the static optimiser built on them."""

from leanconv.receptive.field import (
    AxisField,
    KernelField,
    LayerField,
    ReceptiveField,
    StageField,
    receptive_field,
)
from leanconv.receptive.probe import probe
from leanconv.receptive.reach import Reach, reach

__all__ = [
    "AxisField",
    "KernelField",
    "LayerField",
    "Reach",
    "ReceptiveField",
    "StageField",
    "probe",
    "reach",
    "receptive_field",
]
