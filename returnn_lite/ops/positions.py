"""Positions as vectors: sinusoids, and rows of a matrix by the distance of key and query."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor


def frequencies(
    size: int, base: float = 10000.0, *, last_included: bool = True, device: torch.device | None = None
) -> Tensor:
    """r_i = base^(-i / (h - 1)) for i < h = size // 2, from 1 to 1 / base; or base^(-i / h).  -> (h,)"""
    half = size // 2
    steps = torch.arange(half, device=device, dtype=torch.float32)
    return torch.exp(steps * -(math.log(base) / (half - 1 if last_included else half)))


def sinusoids(positions: Tensor, size: int, base: float = 10000.0, *, last_included: bool = True) -> Tensor:
    """sin(p r_i) for all i, then cos(p r_i), r_i of `frequencies`.  Shape: any -> (…, size)

    An odd `size` ends with a 0. (Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, with halves side by side)
    """
    rates = frequencies(size, base, last_included=last_included, device=positions.device)
    angles = positions.to(torch.float32).unsqueeze(-1) * rates
    signal = torch.cat([angles.sin(), angles.cos()], -1)
    return F.pad(signal, (0, 1)) if size % 2 else signal


def rotated(x: Tensor, encoding: Tensor) -> Tensor:
    """Each pair of neighbours (x_2m, x_2m+1) turned by the angle a_m of its position (rotary embedding, Su et al. 2021,
    https://arxiv.org/abs/2104.09864).

    Shape: (…, F), the encoding sin a_0 … sin a_(F/2-1), cos a_0 … (…, F), broadcastable -> (…, F)
    """
    sin, cos = encoding.chunk(2, -1)
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], -1).flatten(-2)


def relative_index(queries: Tensor, keys: int, left: int, right: int) -> Tensor:
    """The row clip(k - q, -left, right) + left for each query position q and each of the keys 0 … keys - 1.

    Shape: (…) -> (…, keys)
    """
    distance = torch.arange(keys, device=queries.device) - queries.unsqueeze(-1)
    return distance.clamp(-left, right) + left


def relative_rows(matrix: Tensor, queries: Tensor, keys: int, right: int | None = None) -> Tensor:
    """The row of the matrix for each query position and key (Shaw et al. 2018, https://arxiv.org/abs/1803.02155).

    Shape: (R, F), (Q,) -> (Q, keys, F). The rows are those of the distances R - 1 - `right` … `right`, by default as
    many on both sides.
    """
    return F.embedding(relative_index(queries, keys, *_sides(matrix, right)), matrix)


def relative_energies(vectors: Tensor, matrix: Tensor, queries: Tensor, keys: int, right: int | None = None) -> Tensor:
    """Inner products of vectors with the rows that `relative_rows` gives their queries.

    Shape: (…, Q, F), (R, F), (Q,) -> (…, Q, keys). First with all rows of the matrix, then picked: no (Q, keys, F)
    array is needed.
    """
    left, right = _sides(matrix, right)
    energies: Tensor = _Picked.apply(vectors @ matrix.t(), queries, keys, left)  # type: ignore[no-untyped-call]
    return energies


def _sides(matrix: Tensor, right: int | None) -> tuple[int, int]:
    """The largest distances to the left and right that have a row of their own."""
    rows = matrix.shape[0]
    right = rows // 2 if right is None else right
    return rows - 1 - right, right


def relative_shift(x: Tensor) -> Tensor:
    """From distances to keys: column k of query q is column k - q + Q - 1.  Shape: (…, Q, Q + K - 1) -> (…, Q, K)

    (Dai et al. 2019, https://arxiv.org/abs/1901.02860)
    """
    *lead, queries, columns = x.shape
    if queries <= 1:
        return x
    # In rows that are shorter by 1 each query starts one column earlier than the one before it.
    rows = columns - 1
    flat = x.reshape(*lead, queries * columns).narrow(-1, queries - 1, queries * rows)
    return flat.reshape(*lead, queries, rows).narrow(-1, 0, columns - queries + 1)


class _Picked(torch.autograd.Function):
    """(…, Q, rows) -> (…, Q, keys) by `relative_index`. The gradient of a row is that of one key, of the outer rows a
    sum.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, queries: Tensor, keys: int, left: int) -> Tensor:
        ctx.save_for_backward(queries)
        ctx.left, ctx.right = left, x.shape[-1] - 1 - left
        return x.gather(-1, relative_index(queries, keys, left, ctx.right).expand(*x.shape[:-1], keys))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        """Without scattering: many keys share the outer rows."""
        (grad,), (queries,), left, right = grads, ctx.saved_tensors, ctx.left, ctx.right
        if left + right == 0:
            return grad.sum(-1, keepdim=True), None, None, None
        last = grad.shape[-1] - 1
        keys = queries.unsqueeze(1) + torch.arange(-left, right + 1, device=grad.device)  # (Q, rows)
        picked = grad.gather(-1, keys.clamp(0, last).expand(*grad.shape[:-1], left + right + 1))
        result = picked.masked_fill_((keys < 0) | (keys > last), 0.0)
        sums = F.pad(grad.cumsum(-1), (1, 0))  # of the first 0, 1, … keys
        count = torch.stack([queries + (1 - left), queries + right], 1).clamp(0, last + 1)
        before = sums.gather(-1, count.expand(*grad.shape[:-1], 2))
        result[..., 0] = before[..., 0]
        result[..., -1] = sums[..., -1] - before[..., 1]
        return result, None, None, None
