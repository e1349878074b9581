"""What a measurement was made on: a number without it is worth little."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import torch

import leanconv


def versions() -> dict[str, str]:
    """Return the versions of the libraries a measurement depends on."""
    found = {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "leanconv": leanconv.__version__,
    }
    if torch.version.cuda is not None:
        found["cuda"] = torch.version.cuda
        found["cudnn"] = str(torch.backends.cudnn.version())
    return found


def environment(device: torch.device | str = "cpu") -> dict[str, Any]:
    """Describe this machine and its software, JSON-able.

    Args:
        device: The device measured on; its full name is recorded.

    Returns:
        ``device`` (name of the accelerator, or the processor), ``cpu``, ``cores`` (logical), ``threads`` (of
        PyTorch within an operator), ``platform``, ``date`` (UTC, ISO 8601, seconds) and the library versions.
    """
    return {
        "device": device_name(torch.device(device)),
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "platform": platform.platform(),
        **versions(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def device_name(device: torch.device) -> str:
    """Return what a device calls itself: ``"NVIDIA A100-SXM4-40GB"``, or the processor's name for ``cpu``."""
    if device.type == "cpu":
        return cpu_name()
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return str(device)


@cache
def cpu_name() -> str:
    """Return the processor's name as its maker gives it, or its architecture where the system hides it."""
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text(errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() in {"model name", "Model", "Hardware"} and value.strip():
                return value.strip()
    if platform.system() == "Darwin":
        command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return platform.processor() or platform.machine()
