"""What a network can see: receptive fields over space and channels, and the static optimiser built on them."""

from leanconv.receptive.effective import EffectiveField, effective_receptive_field
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
    "EffectiveField",
    "KernelField",
    "LayerField",
    "Reach",
    "ReceptiveField",
    "StageField",
    "effective_receptive_field",
    "probe",
    "reach",
    "receptive_field",
]
