"""Mixed precision: what computes in bfloat16 or float16 (torch.autocast), and what stays in float32 there."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

HALF = (torch.bfloat16, torch.float16)


def lowered(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager[object]:
    """In this context products of matrices compute in `dtype`; None: in float32, as without the context."""
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)


def uncached(device: torch.device) -> AbstractContextManager[object]:
    """In this context each use of a parameter in half precision is a conversion of its own: steps that are recorded
    must not keep the numbers of the moment."""
    if not torch.is_autocast_enabled(device.type):
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.get_autocast_dtype(device.type), cache_enabled=False)


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """In this context everything computes in the type of its inputs."""
    if not torch.is_autocast_enabled(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def raised(x: Tensor) -> Tensor:
    """Half precision as float32; everything else as it is."""
    return x.float() if x.dtype in HALF else x
