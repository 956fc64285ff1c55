"""Dropout (Srivastava et al. 2014)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor

from returnn_lite.ops.kernels import on_gpu
from returnn_lite.ops.random import drawing_from


def dropped(x: Tensor, shape: Sequence[int], rate: float, generator: torch.Generator) -> Tensor:
    """x times a mask of this shape, which broadcasts to that of x.  Shape: any -> the same"""
    if on_gpu(x) and tuple(shape) == tuple(x.shape):  # one launch, which keeps a bool for each number
        with drawing_from(generator):
            return F.dropout(x, rate, training=True)
    return x * dropout_mask(x, shape, rate, generator)


def dropout_mask(like: Tensor, shape: Sequence[int], rate: float, generator: torch.Generator | None) -> Tensor:
    """0 with probability `rate`, else 1 / (1 - rate); dtype and device of `like`.  -> (*shape)"""
    keep = 1.0 - rate
    if on_gpu(like):  # half the launches
        mask = torch.empty(tuple(shape), device=like.device, dtype=like.dtype)
        return mask.bernoulli_(keep, generator=generator).mul_(1.0 / keep)
    noise = torch.rand(tuple(shape), generator=generator, device=like.device, dtype=like.dtype)
    return (noise + keep).floor_() / keep
