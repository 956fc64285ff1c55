"""The hyperbolic tangent."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from returnn_lite.ops.kernels import own_form, slow_functions

LARGE = 8192  # elements from which on more passes over them, each quick, are quicker than one
LAST = 10.0  # from here on the result is 1 in float32


def tanh(x: Tensor) -> Tensor:
    """tanh(x) of each element; relative error in float32 below 2e-7."""
    if x.numel() < LARGE or x.dtype != torch.float32 or not own_form(x) or not slow_functions():
        return torch.tanh(x)
    if torch.is_grad_enabled() and x.requires_grad:
        result: Tensor = _Tanh.apply(x)  # type: ignore[no-untyped-call]
        return result
    return by_expm1(x)


def by_expm1(x: Tensor) -> Tensor:
    """(exp(2x) - 1) / (exp(2x) + 1), which is exact near 0, too."""
    more = torch.clamp_max(x, LAST)
    more.add_(more).expm1_()
    return more.div_(more + 2)


class _Tanh(torch.autograd.Function):
    """The same with the gradient of torch's own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = by_expm1(x.detach())
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        result: Tensor = torch.ops.aten.tanh_backward(grad, y)
        return result
