"""Normalisation by mean and variance."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from returnn_lite.ops.reductions import moments


def normalize(x: Tensor, axes: Sequence[int], valid: Tensor | None = None, *, epsilon: float) -> Tensor:
    """(x - mean) / sqrt(var + epsilon), mean and variance over the valid part of the axes.  Shape: any -> the same"""
    mean, variance = moments(x, axes, valid)
    return (x - mean) * torch.rsqrt(variance + epsilon)


def normalize_by(
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    axis: int,
    *,
    epsilon: float,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
) -> Tensor:
    """(x - mean) / sqrt(variance + epsilon) * scale + shift, all of them given along one axis.

    Shape: (…, F, …), F at `axis`, and (F,) each -> (…, F, …)
    """
    shape = [-1 if i == axis % x.dim() else 1 for i in range(x.dim())]
    factor = torch.rsqrt(variance + epsilon)
    if scale is not None:
        factor = factor * scale
    result = (x - mean.reshape(shape)) * factor.reshape(shape)
    return result if shift is None else result + shift.reshape(shape)
