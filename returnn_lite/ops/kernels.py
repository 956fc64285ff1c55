"""Where a computation may take another form than torch's own call, because that is slow on the machine at hand."""

from __future__ import annotations

import functools
import platform
import re
from pathlib import Path

import torch
from torch import Tensor

CPU_INFO = Path("/proc/cpuinfo")  # of Linux


def own_form(x: Tensor) -> bool:
    """Whether `x` may be computed on in a form of our own: on a CPU, where nobody records or compiles the calls."""
    watched = torch._C._is_torch_function_mode_enabled() or torch._C._functorch.peek_interpreter_stack() is not None
    return x.device.type == "cpu" and not torch.compiler.is_compiling() and not watched


def on_gpu(x: Tensor) -> bool:
    """Whether few large calls are better than many small ones, and nothing may wait for a result."""
    return x.is_cuda


@functools.cache
def slow_functions() -> bool:
    """Whether torch's transcendental functions are slow: those of MKL are on a CPU that is not Intel's."""
    return torch.backends.mkl.is_available() and "AMD" in _cpu()


@functools.cache
def slow_products() -> bool:
    """Whether torch's products of float32 matrices are slow: those of MKL take AVX2 on a CPU of AMD, but since Zen 5
    (family 26) AVX-512 has twice the width there; oneDNN takes it."""
    family = re.search(r"family\s*:?\s*(\d+)", _cpu(), re.IGNORECASE)
    wide = family is not None and int(family[1]) >= 26 and "AVX512" in torch.backends.cpu.get_cpu_capability()
    onednn = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return wide and onednn and slow_functions()


def _cpu() -> str:
    """Who has made the CPU, and its family."""
    try:
        lines = CPU_INFO.read_text().splitlines()
    except OSError:
        return platform.processor()
    return " ".join([next((line for line in lines if line.startswith(key)), "") for key in ("vendor_id", "cpu family")])
