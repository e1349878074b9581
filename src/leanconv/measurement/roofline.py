"""What this device can do at most, and the time no network can beat there.

A forward pass that multiplies ``macs`` pairs and moves ``bytes`` takes at least
``max(2 * macs / peak, bytes / bandwidth)`` (Williams, Waterman and Patterson, "Roofline", CACM 2009).  Both ceilings
are measured on the spot with PyTorch's own operators, so the distance to the floor is the network's, not the
data sheet's.  Algorithms that multiply less than the definition (Winograd's convolution) may pass below.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import torch
import torch.nn.functional as F

from leanconv.errors import UserError
from leanconv.measurement.arguments import positive
from leanconv.measurement.placement import checked_device, checked_dtype, cpu_threads
from leanconv.measurement.timing import calls_for, seconds

#: Every ceiling is the best of this many samples of at least this long.
SAMPLES = 5
LEAST_SAMPLE_S = 1e-2

_SIZES = (512, 1024, 2048, 4096, 8192)
_COPIES = tuple(2**power for power in range(16, 30, 2))


@dataclass(frozen=True)
class Roofline:
    """The two ceilings of a device.

    Attributes:
        peak_gflops: Most floating-point operations a second in 10⁹ (two a multiply-accumulate), of a large matrix
            product, pointwise or 3x3 convolution.
        bandwidth_gbs: Most bytes read plus written a second in 10⁹, of copies that touch ``working_set`` bytes or more.
        working_set: Least bytes a copy touched, source and destination together.
        threads: CPU threads used.
        device: Device type and index.
        dtype: Type of the numbers.
    """

    peak_gflops: float
    bandwidth_gbs: float
    working_set: int
    threads: int
    device: str
    dtype: str

    def floor_s(self, macs: int, bytes_moved: int) -> float:
        """Return the least seconds in which this many multiply-accumulates and bytes can be done."""
        return max(2e-9 * macs / self.peak_gflops, 1e-9 * bytes_moved / self.bandwidth_gbs)


def measure_roofline(
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    threads: int | None = None,
    working_set: int = 2**26,
) -> Roofline:
    """Measure the ceilings of a device; once per process for the same arguments.

    Args:
        device: The device.
        dtype: Floating-point type of the numbers.
        threads: CPU threads that an operator may use; None leaves the setting.  It is restored afterwards.
        working_set: Least bytes that the copies behind the bandwidth should touch, rounded up to a power of four
            between 64 KiB and 256 MiB.  Small tensors stay in caches that are faster than main memory: pass what
            one operator of the network touches.

    Raises:
        UserError: The device is absent, the type is not floating point, or a number is not positive.
    """
    place, kind = checked_device(device), checked_dtype(dtype)
    if place.type == "meta":
        raise UserError("`device` 'meta' computes nothing and has no roofline; 'cpu' always works.")
    if threads is not None:
        positive("threads", threads)
    positive("working_set", working_set)
    # Starting a small copy may take longer than the copy itself, so larger ones are tried as well.
    copies = [size for size in _COPIES if size >= working_set] or [_COPIES[-1]]
    with cpu_threads(threads) as used, torch.inference_mode():
        return Roofline(
            peak_gflops=_peak(place, kind, used) / 1e9,
            bandwidth_gbs=max(_bandwidth(place, size, used) for size in copies) / 1e9,
            working_set=copies[0],
            threads=used,
            device=str(place),
            dtype=str(kind).removeprefix("torch."),
        )


@cache
def _peak(device: torch.device, dtype: torch.dtype, threads: int) -> float:  # noqa: ARG001 - key of the cache
    """Return the operations a second of the fastest product over growing sizes."""
    best = 0.0
    for size in _SIZES:
        # A generator of its own, so that measuring does not change what a seeded program draws next.
        a = torch.randn(size, size, generator=torch.Generator().manual_seed(0)).to(device, dtype)
        # On CUDA, convolutions may use TF32 where matrix products do not.
        image = a.view(1, size, 32, size // 32).contiguous(memory_format=torch.channels_last)
        kernel = a.view(size, size, 1, 1)
        fastest = min(
            _least_seconds(partial(torch.mm, a, a), device),
            _least_seconds(partial(F.conv2d, image, kernel), device),
        )
        best = max(best, 2 * size**3 / fastest)
        if fastest > LEAST_SAMPLE_S:
            break
    # On some CPUs a 3x3 convolution runs through faster kernels than any product of matrices.
    image = torch.ones(4, 128, 32, 32, device=device, dtype=dtype)
    kernel = torch.ones(128, 128, 3, 3, device=device, dtype=dtype)
    operations = 2 * kernel.numel() * 4 * 32 * 32
    return max(best, operations / _least_seconds(partial(F.conv2d, image, kernel, padding=1), device))


@cache
def _bandwidth(device: torch.device, working_set: int, threads: int) -> float:  # noqa: ARG001 - key of the cache
    """Return the bytes a second that a copy reads and writes."""
    source = torch.ones(working_set // 2, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return working_set / _least_seconds(partial(target.copy_, source), device)


def _least_seconds(call: Callable[[], object], device: torch.device) -> float:
    """Return the seconds of one call in the fastest sample."""
    calls = calls_for(call, LEAST_SAMPLE_S, device)
    return min(seconds(call, calls, device) for _ in range(SAMPLES)) / calls
