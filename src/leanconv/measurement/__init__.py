"""What a network costs: parameters, multiply-accumulates, bytes moved, memory and time, each measured."""

from leanconv.measurement.counts import count_macs, count_params
from leanconv.measurement.environment import environment
from leanconv.measurement.latency import Latency, Ratio, measure_latency, paired_ratio
from leanconv.measurement.memory import peak_memory
from leanconv.measurement.profile import Layer
from leanconv.measurement.report import Report, measure
from leanconv.measurement.roofline import Roofline, measure_roofline
from leanconv.measurement.traffic import bytes_moved

__all__ = [
    "Latency",
    "Layer",
    "Ratio",
    "Report",
    "Roofline",
    "bytes_moved",
    "count_macs",
    "count_params",
    "environment",
    "measure",
    "measure_latency",
    "measure_roofline",
    "paired_ratio",
    "peak_memory",
]
