"""Dropout (Srivastava et al. 2014)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def dropout_mask(like: Tensor, shape: Sequence[int], rate: float, generator: torch.Generator | None) -> Tensor:
    """0 with probability `rate`, else 1 / (1 - rate); dtype and device of `like`.  -> (*shape)"""
    keep = 1.0 - rate
    noise = torch.rand(tuple(shape), generator=generator, device=like.device, dtype=like.dtype)
    return (noise + keep).floor_() / keep
