"""Positions as vectors: sinusoids, and rows of a matrix by the distance of key and query."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor


def sinusoids(positions: Tensor, size: int, base: float = 10000.0) -> Tensor:
    """sin(p r_i) for all i, then cos(p r_i); r_i = base^(-i / (h - 1)), h = size // 2.  Shape: any -> (…, size)

    An odd `size` ends with a 0. (Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, with halves side by side)
    """
    half = size // 2
    steps = torch.arange(half, device=positions.device, dtype=torch.float32)
    rates = torch.exp(steps * -(math.log(base) / (half - 1)))
    angles = positions.to(torch.float32).unsqueeze(-1) * rates
    signal = torch.cat([angles.sin(), angles.cos()], -1)
    return F.pad(signal, (0, 1)) if size % 2 else signal


def relative_index(queries: Tensor, keys: int, rows: int) -> Tensor:
    """The row clip(k - q, -c, c) + c, c = `rows` // 2, for each query position q and each of the keys 0 … keys - 1.

    Shape: (…) -> (…, keys)
    """
    distance = torch.arange(keys, device=queries.device) - queries.unsqueeze(-1)
    return distance.clamp(-(rows // 2), rows // 2) + rows // 2


def relative_rows(matrix: Tensor, queries: Tensor, keys: int) -> Tensor:
    """The row of the matrix for each query position and key (Shaw et al. 2018, https://arxiv.org/abs/1803.02155).

    Shape: (2 c + 1, F), (Q,) -> (Q, keys, F)
    """
    return F.embedding(relative_index(queries, keys, matrix.shape[0]), matrix)


def relative_energies(vectors: Tensor, matrix: Tensor, queries: Tensor, keys: int) -> Tensor:
    """Inner products of vectors with the rows that `relative_rows` gives their queries.

    Shape: (…, Q, F), (2 c + 1, F), (Q,) -> (…, Q, keys). First with all rows of the matrix, then picked: no (Q, keys,
    F) array is needed.
    """
    energies: Tensor = _Picked.apply(vectors @ matrix.t(), queries, keys)  # type: ignore[no-untyped-call]
    return energies


class _Picked(torch.autograd.Function):
    """(…, Q, rows) -> (…, Q, keys) by `relative_index`. The gradient of a row is that of one key, of the outer rows a
    sum.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, queries: Tensor, keys: int) -> Tensor:
        ctx.save_for_backward(queries)
        ctx.rows = x.shape[-1]
        return x.gather(-1, relative_index(queries, keys, x.shape[-1]).expand(*x.shape[:-1], keys))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        """Without scattering: many keys share the outer rows."""
        (grad,), (queries,), rows = grads, ctx.saved_tensors, ctx.rows
        if rows == 1:
            return grad.sum(-1, keepdim=True), None, None
        clip, last = rows // 2, grad.shape[-1] - 1
        keys = queries.unsqueeze(1) + torch.arange(-clip, clip + 1, device=grad.device)  # (Q, rows)
        picked = grad.gather(-1, keys.clamp(0, last).expand(*grad.shape[:-1], rows))
        result = picked.masked_fill_((keys < 0) | (keys > last), 0.0)
        sums = F.pad(grad.cumsum(-1), (1, 0))  # of the first 0, 1, … keys
        count = (queries.unsqueeze(1) + torch.tensor([1 - clip, clip], device=grad.device)).clamp(0, last + 1)
        before = sums.gather(-1, count.expand(*grad.shape[:-1], 2))
        result[..., 0] = before[..., 0]
        result[..., -1] = sums[..., -1] - before[..., 1]
        return result, None, None
