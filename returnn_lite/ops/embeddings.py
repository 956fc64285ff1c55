"""Losses on distances of vectors."""

from __future__ import annotations

import torch
from torch import Tensor

SMALLEST_NORM = 1e-15


def cosine_hinge_loss(vectors: Tensor, labels: Tensor, margin: float) -> Tensor:
    """Sum over all pairs i, j of 0.5 d where label_i^2 = label_i label_j, else 0.5 max(`margin` - d, 0); d = 1 - cos.

    Shape: (N, F), (N,) -> ()
    """
    unit = vectors * vectors.square().sum(-1, keepdim=True).clamp(min=SMALLEST_NORM).rsqrt()
    distance = 1.0 - unit @ unit.t()
    same = labels.square().unsqueeze(-1) == labels.unsqueeze(-1) * labels
    return 0.5 * torch.where(same, distance, (margin - distance).clamp(min=0.0)).sum()


def affinity_distance(v: Tensor, y: Tensor) -> Tensor:
    """||VV' - YY'||^2 = ||V'V||^2 - 2 ||V'Y||^2 + ||Y'Y||^2 per sequence (deep clustering, Hershey et al. 2016).

    Shape: (B, N, D), (B, N, S) -> (B,)
    """
    return _square(v, v) - 2.0 * _square(v, y) + _square(y, y)


def _square(a: Tensor, b: Tensor) -> Tensor:
    """||a'b||^2 per sequence."""
    return (a.transpose(1, 2) @ b).square().sum((1, 2))
