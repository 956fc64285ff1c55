"""The largest element of every block of neighbours along an axis: pooling whose windows do not overlap."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def block_max(x: Tensor, axis: int, size: int) -> Tensor:
    """y[i] = max x[i size … i size + size - 1], the last block as long as it is; the first of equals gets the gradient.

    Shape: (…, n, …) -> (…, ceil(n / size), …)
    """
    if torch.is_grad_enabled() and x.requires_grad:
        result: Tensor = _BlockMax.apply(x, axis, size)  # type: ignore[no-untyped-call]
        return result
    return _forward(x, axis, size)


def _forward(x: Tensor, axis: int, size: int, larger: list[Tensor] | None = None) -> Tensor:
    """The result. `larger` gets for each but the first element of the blocks whether it is larger (1 or 0) than those
    before it; numbers, since masks are slow on a CPU."""
    best, *others = (_every(x, axis, size, i) for i in range(size))
    best = best.clone()
    for other in others:
        so_far = best.narrow(axis, 0, other.shape[axis])
        if larger is not None:
            larger.append(torch.zeros_like(best))
            torch.gt(other, so_far, out=larger[-1].narrow(axis, 0, other.shape[axis]))
        torch.maximum(so_far, other, out=so_far)
    return best


def _every(x: Tensor, axis: int, size: int, first: int) -> Tensor:
    """The elements first, first + size, … of an axis, as a view."""
    return x[(slice(None),) * axis + (slice(first, None, size),)]


class _BlockMax(torch.autograd.Function):
    """With what its gradient needs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, axis: int, size: int) -> Tensor:
        larger: list[Tensor] = []
        best = _forward(x.detach(), axis, size, larger)
        ctx.save_for_backward(*larger)
        ctx.axis, ctx.count = axis, x.shape[axis]
        return best

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        parts: list[Tensor] = []
        for larger in reversed(ctx.saved_tensors):  # the last one that is larger than all before it takes all
            parts.append(grad * larger)
            grad = grad - parts[-1]
        whole = torch.stack([grad, *reversed(parts)], ctx.axis + 1).flatten(ctx.axis, ctx.axis + 1)
        return whole.narrow(ctx.axis, 0, ctx.count), None, None
