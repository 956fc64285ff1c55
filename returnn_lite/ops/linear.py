"""Products of frames and weights: torch's own, or those of oneDNN where torch would take slow ones."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor
from torch.autograd.function import FunctionCtx

from returnn_lite.ops.kernels import own_form, slow_products

FEWEST = 8_000_000  # multiplications: below, oneDNN's code for a new shape, about a millisecond, is not worth it
FEWEST_AGAIN = 2_000_000  # where shapes repeat, as in ticks and searches
FEWEST_ROWS = 4  # as well: the weights are put in order for each call
_PLAIN = (Tensor, torch.nn.Parameter)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x weight^T + bias.  Shape: (…, K), (N, K), (N,) -> (…, N)"""
    return _linear(x, weight, bias, FEWEST if torch.is_grad_enabled() else FEWEST_AGAIN)


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None, fewest: int) -> Tensor:
    """By oneDNN if there are at least so many multiplications."""
    ours = _goes_to_onednn(x, weight, bias, fewest)
    return _computed(x, weight, bias, None) if ours else F.linear(x, weight, bias)


def added_product(sums: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """sums + x weight.  Shape: (B, N) or (N,), (B, K), (K, N) -> (B, N)"""
    if not _goes_to_onednn(x, weight, sums, FEWEST_AGAIN):
        return torch.addmm(sums, x, weight)
    alone = sums.dim() == 1
    whole = None if alone else sums.expand(x.shape[0], -1)
    return _computed(x, weight.t(), sums if alone else None, whole)


def _goes_to_onednn(x: Tensor, weight: Tensor, added: Tensor | None, fewest: int) -> bool:
    """Whether a product should; `weight` may be transposed."""
    size, inputs = x.numel(), x.shape[-1]
    if size * weight.numel() < fewest * inputs or size < FEWEST_ROWS * inputs or not slow_products():
        return False
    plain = all(t is None or (type(t) in _PLAIN and t.dtype == torch.float32) for t in (x, weight, added))
    return plain and own_form(x) and torch._C._get_mkldnn_enabled() and not torch.is_autocast_enabled("cpu")


def _computed(x: Tensor, weight: Tensor, bias: Tensor | None, sums: Tensor | None) -> Tensor:
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, weight, bias, sums)):
        made: Tensor = _Product.apply(x, weight, bias, sums)  # type: ignore[no-untyped-call]
        return made
    return _product(x, weight, bias, sums)


def _product(x: Tensor, weight: Tensor, bias: Tensor | None, sums: Tensor | None) -> Tensor:
    of_onednn = torch.ops.mkldnn._linear_pointwise
    made: Tensor = (
        of_onednn(x, weight, bias, "none", [], "") if sums is None else of_onednn.binary(x, sums, weight, bias, "add")
    )
    return made


class _Product(torch.autograd.Function):
    """x weight^T + bias + sums, with gradients that are such products again."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor | None, sums: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias, sums)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias, of_sums = ctx.needs_input_grad
        rows = grad.reshape(-1, grad.shape[-1])
        found = _of_weights(rows, x.reshape(-1, x.shape[-1]), weight.stride(0) == 1) if of_weight else None
        given = _linear(grad, weight.t(), None, FEWEST_AGAIN) if of_x else None
        return given, found, rows.sum(0) if of_bias else None, grad if of_sums else None


def _of_weights(rows: Tensor, inputs: Tensor, transposed: bool) -> Tensor:
    """rows^T inputs, in memory `transposed` or not.  Shape: (B, N), (B, K) -> (N, K)"""
    swapped = inputs.shape[1] <= rows.shape[1]  # oneDNN copies its first argument: the smaller one
    first, second = (inputs, rows) if swapped else (rows, inputs)
    found = _linear(first.t(), second.t(), None, FEWEST_AGAIN)
    found = found.t() if swapped else found
    if swapped == transposed:
        return found
    return found.t().contiguous().t() if transposed else found.contiguous()
