"""Where a computation may take another form than torch's own call, because that is slow on the machine at hand."""

from __future__ import annotations

import functools
import platform
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
    return torch.backends.mkl.is_available() and "AMD" in _vendor()


@functools.cache
def slow_products() -> bool:
    """Whether torch's products of float32 matrices are slow: on AMD's CPUs MKL leaves half of AVX-512 unused, while
    oneDNN does not."""
    capable = torch.backends.mkldnn.is_available() and "AVX512" in torch.backends.cpu.get_cpu_capability()
    return capable and slow_functions() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def _vendor() -> str:
    try:
        lines = CPU_INFO.read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith("vendor_id")), "")
