"""Element by element."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def log_above(x: Tensor, eps: float, *, fake_gradient: bool = True) -> Tensor:
    """log(max(x, eps)); with the gradient 1 / max(x, eps) also below eps, or else 0 there.  Shape: any -> the same"""
    if not fake_gradient:
        return x.clamp(min=eps).log()
    result: Tensor = _LogAbove.apply(x, eps)  # type: ignore[no-untyped-call]
    return result


def maximum(x: Tensor, y: Tensor) -> Tensor:
    """The larger of both, broadcast; the gradient of equal values goes to x."""
    return torch.where(x < y, y, x)


def minimum(x: Tensor, y: Tensor) -> Tensor:
    """The smaller of both, broadcast; the gradient of equal values goes to x."""
    return torch.where(x > y, y, x)


class _LogAbove(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float) -> Tensor:
        above = x.clamp(min=eps)
        ctx.save_for_backward(above)
        return above.log()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (grad,), (above,) = grads, ctx.saved_tensors
        return grad / above, None
