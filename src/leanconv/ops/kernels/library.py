"""The compiled kernels: built once by the machine's C++ compiler, at first use, and kept in the user's cache folder.

Nothing depends on them: without a compiler (g++ or clang++, named by ``CXX`` or found on the path) networks run and
train with PyTorch's own operators.  They are plain C++ behind a C interface, so that they build in seconds and fit
every version of PyTorch, whose threads they share by leaving the functions of OpenMP to be found in the process.
"""

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

FOLDER = Path(__file__).parent
#: What is compiled, by name and without suffix.
SOURCES = ("channels_last", "depthwise_norm", "depthwise_pair")
COMPILE = ("-std=gnu++17", "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-Wno-psabi", "-fPIC")
OPENMP = "-fopenmp"
#: Seconds after which a compiler is given up; it takes about twenty for all.
PATIENCE = 300

DTYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}
#: Taps that the kernel has loops for; 0 stands for no convolution.
TAPS = (0, 3, 5, 7, 9)
#: Channels that it takes at a time; there must be as many.
LANES = 16

_SIZES = (
    *("images", "height", "width", "channels", "out_height", "out_width"),
    *("taps_high", "taps_wide", "stride_high", "stride_wide", "pad_high", "pad_wide", "dilation_high", "dilation_wide"),
    *("taps", "residual", "threads"),
)


class Problem(ctypes.Structure):
    """What a call works on, as ``depthwise_norm.cpp`` has it."""

    _fields_ = (*((name, ctypes.c_int64) for name in _SIZES), ("upper", ctypes.c_float))


@functools.cache
def library() -> ctypes.CDLL | None:
    """Return the kernel, built if need be, or None where it cannot be; why is logged once."""
    try:
        path = _cache_folder() / f"kernels-{_fingerprint()}.so"
        if not path.exists():
            _build(path)
        return _declared(ctypes.CDLL(str(path)))
    except (OSError, subprocess.SubprocessError, AttributeError) as error:
        reason = (getattr(error, "stderr", None) or str(error)).strip().partition("\n")[0]
        logger.warning("Networks train with PyTorch's operators, as the fused kernel could not be built: %s", reason)
        return None


def call(function: str, dtype: torch.dtype, problem: Problem, *arguments: Tensor | float | None) -> None:
    """Call a function of the kernel; tensors are passed as addresses, None as no address."""
    kernel = library()
    assert kernel is not None
    values = [value.data_ptr() if isinstance(value, Tensor) else value for value in arguments]
    if getattr(kernel, f"{function}_{DTYPES[dtype]}")(ctypes.byref(problem), *values):
        raise AssertionError(f"the kernel has no loop for {problem.taps} taps")


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "leanconv"


def _compiler() -> str:
    for name in (os.environ.get("CXX"), "g++", "clang++", "c++"):
        if name and shutil.which(name):
            return name
    raise FileNotFoundError("no C++ compiler was found")


def _fingerprint() -> str:
    """Of the sources, how they are compiled, and the processor: folders may be shared between machines."""
    sources = sorted(path for path in FOLDER.iterdir() if path.suffix in (".cpp", ".h"))
    parts = [*(path.read_text() for path in sources), *COMPILE, OPENMP, platform.machine(), platform.processor()]
    information = Path("/proc/cpuinfo")
    if information.exists():
        features = (line for line in information.read_text().splitlines() if line.startswith(("flags", "Features")))
        parts.append(next(features, ""))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _build(path: Path) -> None:
    """Compile and link; the file appears whole or not at all, also where several processes build it at once."""
    compiler, started = _compiler(), time.monotonic()
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        objects = {name: str(Path(folder, f"{name}.o")) for name in SOURCES}
        whole = Path(folder, "kernels.so")
        commands = [
            [*COMPILE, OPENMP, "-c", str(FOLDER / f"{name}.cpp"), "-o", compiled] for name, compiled in objects.items()
        ]
        # Linked without OpenMP's library: a second one besides PyTorch's would bring threads of its own.
        for command in (*commands, ["-shared", *objects.values(), "-o", str(whole)]):
            subprocess.run([compiler, *command], check=True, capture_output=True, text=True, timeout=PATIENCE)
        os.replace(whole, path)
    logger.info("Built the fused kernel with %s in %.0f s: %s", compiler, time.monotonic() - started, path)


def _declared(kernel: ctypes.CDLL) -> ctypes.CDLL:
    pointer, problem = ctypes.c_void_p, ctypes.POINTER(Problem)
    for dtype in DTYPES.values():
        move = getattr(kernel, f"channels_last_{dtype}")
        move.argtypes = (*[ctypes.c_int64] * 4, *[pointer] * 2)
        pair = getattr(kernel, f"depthwise_pair_{dtype}")
        pair.argtypes = (ctypes.c_int64, *[pointer] * 6, ctypes.c_float, pointer)
        forward, backward = getattr(kernel, f"forward_{dtype}"), getattr(kernel, f"backward_{dtype}")
        forward.argtypes = (problem, *[pointer] * 5, ctypes.c_float, *[pointer] * 4)
        backward.argtypes = (problem, *[pointer] * 13)
    return kernel
