"""Reducing axes of which only a part is valid.

`valid` is a bool mask that broadcasts against x, True = counts; None = everything does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

MODES = ("max", "min", "sum", "mean", "logsumexp", "argmax", "argmin", "any", "all")
Axes = Sequence[int]


def reduce(x: Tensor, mode: str, axes: Axes, valid: Tensor | None = None, *, keepdim: bool = False) -> Tensor:
    """One of MODES over the axes.  Shape: (…), bool -> (…)

    The mean divides by the number of valid entries (at least 1), of ints without remainder. arg*: one axis, int32.
    Where nothing is valid, max and logsumexp are the lowest finite number, min the highest one.
    """
    if not x.numel():
        x, valid = _with_a_frame(x, axes, valid)
    return _FUNCTIONS[mode](x, axes, keepdim, valid)


def _with_a_frame(x: Tensor, axes: Axes, valid: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """The tensor without a frame on some of the axes: with one that is not valid."""
    shape = [max(n, 1) if i in axes else n for i, n in enumerate(x.shape)]
    if shape == list(x.shape):
        return x, valid
    return x.new_zeros(shape), torch.zeros((1,) * x.dim(), dtype=torch.bool, device=x.device)


def count(x: Tensor, axes: Axes, valid: Tensor, *, keepdim: bool = False) -> Tensor:
    """How many valid entries go into each entry of the reduced tensor, at least 1.  -> int64, broadcastable"""
    unmasked = math.prod(x.shape[i] for i in axes if valid.shape[i] != x.shape[i])
    return (valid.sum(tuple(axes), keepdim=keepdim) * unmasked).clamp(min=1)


def moments(x: Tensor, axes: Axes, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Mean and (biased) variance, the axes kept with size 1.  Shape: (…), bool -> (…), (…)"""
    if valid is None:
        variance, mean = torch.var_mean(x, tuple(axes), correction=0, keepdim=True)
        return mean, variance
    weights, over = valid.to(x.dtype), tuple(axes)  # products with a number are faster than filling by a mask
    x = torch.where(valid, x, 0.0)
    number = count(x, axes, valid, keepdim=True).to(x.dtype)
    mean = x.sum(over, keepdim=True) / number
    return mean, ((x - mean) * weights).square().sum(over, keepdim=True) / number


def _filled(x: Tensor, valid: Tensor | None, lowest: bool) -> Tensor:
    """The smallest (largest) number of the dtype where not valid."""
    if valid is None:
        return x
    info = torch.finfo(x.dtype) if x.dtype.is_floating_point else torch.iinfo(x.dtype)
    return x.masked_fill(~valid, info.min if lowest else info.max)


def _sum(x: Tensor, axes: Axes, keepdim: bool, valid: Tensor | None) -> Tensor:
    x = x if valid is None else x.masked_fill(~valid, 0)
    return x.sum(tuple(axes), keepdim=keepdim, dtype=None if x.dtype == torch.bool else x.dtype)


def _mean(x: Tensor, axes: Axes, keepdim: bool, valid: Tensor | None) -> Tensor:
    total = _sum(x, axes, keepdim, valid)
    number: Tensor | int = math.prod(x.shape[i] for i in axes)
    if valid is not None:
        number = count(x, axes, valid, keepdim=keepdim).to(x.dtype)
    return total / number if x.dtype.is_floating_point or x.dtype.is_complex else total // number


def _max(x: Tensor, axes: Axes, keepdim: bool, valid: Tensor | None) -> Tensor:
    return _filled(x, valid, True).amax(tuple(axes), keepdim=keepdim)


def _min(x: Tensor, axes: Axes, keepdim: bool, valid: Tensor | None) -> Tensor:
    return _filled(x, valid, False).amin(tuple(axes), keepdim=keepdim)


def _logsumexp(x: Tensor, axes: Axes, keepdim: bool, valid: Tensor | None) -> Tensor:
    return _filled(x, valid, True).logsumexp(tuple(axes), keepdim=keepdim)


def _argmax(x: Tensor, axes: Axes, keepdim: bool, valid: Tensor | None) -> Tensor:
    return _filled(x, valid, True).argmax(axes[0], keepdim=keepdim).to(torch.int32)


def _argmin(x: Tensor, axes: Axes, keepdim: bool, valid: Tensor | None) -> Tensor:
    return _filled(x, valid, False).argmin(axes[0], keepdim=keepdim).to(torch.int32)


def _any(x: Tensor, axes: Axes, keepdim: bool, valid: Tensor | None) -> Tensor:
    return torch.any(x if valid is None else x & valid, tuple(axes), keepdim=keepdim)


def _all(x: Tensor, axes: Axes, keepdim: bool, valid: Tensor | None) -> Tensor:
    return torch.all(x if valid is None else x | ~valid, tuple(axes), keepdim=keepdim)


_FUNCTIONS: dict[str, Callable[[Tensor, Axes, bool, Tensor | None], Tensor]] = dict(
    zip(MODES, (_max, _min, _sum, _mean, _logsumexp, _argmax, _argmin, _any, _all), strict=True)
)
