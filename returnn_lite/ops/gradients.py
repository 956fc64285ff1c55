"""Values whose gradient is not that of the formula that gave them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def with_gradient(x: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
    """`value`, whose derivative by `x` is said to be `gradient`.

    Shape: x and gradient (…, …), value (…): the first axes of x, or none.
    """
    result: Tensor = _Given.apply(x, value, gradient)  # type: ignore[no-untyped-call]
    return result


class _Given(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (gradient,), (grad,) = ctx.saved_tensors, grads
        missing = (1,) * (gradient.dim() - grad.dim())
        return grad.to(gradient.dtype).reshape(*grad.shape, *missing) * gradient, None, None


def reported_as(shown: Tensor, gradient_of: Tensor) -> Tensor:
    """The value of `shown` with the gradient of `gradient_of` ("straight through").  Shape: any, twice -> the same"""
    result: Tensor = _Shown.apply(gradient_of, shown)  # type: ignore[no-untyped-call]
    return result


class _Shown(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gradient_of: Tensor, shown: Tensor) -> Tensor:
        return shown.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


def scaled_gradient(
    x: Tensor,
    scale: float | Tensor,
    shift: float | Tensor = 0.0,
    sum_axis: int | None = None,
    *,
    kept: Tensor | None = None,
) -> Tensor:
    """`x` with the gradient g * scale + shift; 0 and 0 stop it.  Shape: any -> the same

    `scale`, `shift`: numbers, or tensors that broadcast; they get no gradient. `sum_axis`: the shift is multiplied
    by the sum of |g| over this axis. `kept` (broadcastable bool): entries that keep their gradient; they count in the
    sum.
    """
    scale, shift = (value.detach() if isinstance(value, Tensor) else value for value in (scale, shift))
    numbers = not isinstance(scale, Tensor) and not isinstance(shift, Tensor)
    if numbers and scale == 0 and shift == 0 and kept is None:
        return x.detach()
    result: Tensor = _Scaled.apply(x, scale, shift, sum_axis, kept)  # type: ignore[no-untyped-call]
    return result


class _Scaled(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scale: float | Tensor, shift: float | Tensor, sum_axis: int | None, kept: Tensor | None
    ) -> Tensor:
        ctx.scale, ctx.shift, ctx.axis, ctx.kept = scale, shift, sum_axis, kept
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        result = grad * ctx.scale
        if isinstance(ctx.shift, Tensor) or ctx.shift:
            total = 1.0 if ctx.axis is None else grad.abs().sum(ctx.axis, keepdim=True)
            result = result + ctx.shift * total
        if ctx.kept is not None:
            result = torch.where(ctx.kept, grad, result)
        return result, None, None, None, None


def filtered_gradient(x: Tensor, batch: int | None, limit: float) -> Tensor:
    """`x`; the gradient of a sequence passes only if its largest squared entry is below the limit.

    Shape: any, `batch` being the axis of the sequences (None: all are one) -> the same
    """
    result: Tensor = _Filtered.apply(x, batch, limit)  # type: ignore[no-untyped-call]
    return result


class _Filtered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, batch: int | None, limit: float) -> Tensor:
        ctx.batch, ctx.limit = batch, limit
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (grad,) = grads
        others = [i for i in range(grad.dim()) if i != ctx.batch]
        largest = grad.square().amax(others, keepdim=True)
        return torch.where(largest < ctx.limit, grad, torch.zeros_like(grad)), None, None
