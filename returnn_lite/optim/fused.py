"""Updates of many parameters by one kernel: which of them torch's kernels take."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def can_be_fused(w: Sequence[Tensor]) -> bool:
    """Whether torch's fused kernels take these parameters, which are of one type, on one device."""
    if not w or w[0].dtype != torch.float32 or not all(type(x) in (Tensor, torch.nn.Parameter) for x in w):
        return False  # of parts in other processes (DTensor)
    return w[0].is_cuda or (w[0].device.type == "cpu" and all(x.is_contiguous() for x in w))
