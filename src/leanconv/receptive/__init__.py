"""What a network can see: receptive fields over space and channels, and the static optimiser built on them."""

from leanconv.receptive.decomposer import Decomposition, Replacement, decompose
from leanconv.receptive.effective import EffectiveField, effective_receptive_field
from leanconv.receptive.field import (
    AxisField,
    KernelField,
    LayerField,
    ReceptiveField,
    StageField,
    receptive_field,
)
from leanconv.receptive.optimizer import Cost, Optimized, optimize
from leanconv.receptive.organizer import StagePlan
from leanconv.receptive.portion import KernelVerdict, kernel_rule, portion, saturating_kernels, stacked_portion
from leanconv.receptive.probe import probe
from leanconv.receptive.reach import Reach, reach

__all__ = [
    "AxisField",
    "Cost",
    "Decomposition",
    "EffectiveField",
    "KernelField",
    "KernelVerdict",
    "LayerField",
    "Optimized",
    "Reach",
    "ReceptiveField",
    "Replacement",
    "StageField",
    "StagePlan",
    "decompose",
    "effective_receptive_field",
    "kernel_rule",
    "optimize",
    "portion",
    "probe",
    "reach",
    "receptive_field",
    "saturating_kernels",
    "stacked_portion",
]
