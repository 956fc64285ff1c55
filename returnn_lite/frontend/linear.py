"""Products with a matrix: `Linear`, and `Embedding`, which picks its rows."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from returnn_lite.frontend import init
from returnn_lite.frontend.defaults import output_keeps_dtype
from returnn_lite.frontend.dim import Dim, Dims
from returnn_lite.frontend.errors import WrongUse, kind
from returnn_lite.frontend.layout import axis_of
from returnn_lite.frontend.module import Module
from returnn_lite.frontend.parameter import Parameter
from returnn_lite.frontend.sizes import dim_match_priority_when_needed
from returnn_lite.frontend.tensor import Tensor
from returnn_lite.ops.linear import linear


class Linear(Module):
    """x W + b over an axis. Parameters: `weight` [in, out], `bias` [out]; the result has `out_dim` last."""

    def __init__(self, in_dim: Dim, out_dim: Dim, *, with_bias: bool = True) -> None:
        self.in_dim, self.out_dim = in_dim, out_dim
        self.weight = Parameter((dim_match_priority_when_needed(in_dim, out_dim), out_dim))
        self.weight.initial = init.Glorot()
        self.with_bias = with_bias
        self.bias: Any = None
        if with_bias:
            self.bias = Parameter((out_dim,))
            self.bias.initial = 0.0

    def __call__(self, source: Tensor) -> Tensor:
        """Axes: those of the source without `in_dim`, then `out_dim`, the feature axis."""
        raw, rest = moved_last(source, self.in_dim, "Linear")
        bias = self.bias
        found = product(raw, matrix(self.weight, self.in_dim), None if bias is None else bias.raw_tensor)
        return source._new(found, (*rest, self.out_dim), feature_axis=len(rest), name="linear")


class Embedding(Module):
    """The rows of `weight` [in, out] at classes. Note the order: classes, then features."""

    def __init__(self, in_dim: Dim, out_dim: Dim) -> None:
        self.in_dim, self.out_dim = in_dim, out_dim
        self.weight = Parameter((dim_match_priority_when_needed(in_dim, out_dim), out_dim))
        self.weight.initial = init.Glorot()

    def __call__(self, source: Tensor) -> Tensor:
        """Axes: those of the source, then `out_dim`, the feature axis."""
        if not isinstance(source, Tensor) or source.sparse_dim is None or source.sparse_dim != self.in_dim:
            given = source if isinstance(source, Tensor) else kind(source)
            raise WrongUse(f"Embedding needs a Tensor of classes of {self.in_dim}, but got {given}")
        weight = matrix(self.weight, self.in_dim).t()
        raw = source.raw_tensor
        try:
            found = functional.embedding(raw if raw.dtype in (torch.int32, torch.int64) else raw.int(), weight)
        except IndexError:
            low, high = int(raw.min()), int(raw.max())
            text = f"the classes must be from 0 to {weight.shape[0] - 1}, but are from {low} to {high}"
            raise WrongUse(f"Embedding of {source}: {text}") from None
        return source._new(found, (*source.dims, self.out_dim), feature_axis=len(source.dims), name="embedding")


def moved_last(x: object, dim: Dim, what: str) -> tuple[torch.Tensor, Dims]:
    """The data with an axis last, and the other axes. WrongUse if the axis is missing."""
    if not isinstance(x, Tensor):
        raise WrongUse(f"{what} needs a Tensor, but got {kind(x)}")
    dims, raw = x.dims, x.raw_tensor
    if dims and dims[-1] is dim:
        return raw, dims[:-1]
    at = axis_of(dims, dim, f"{what}: {x}")
    return raw.movedim(at, -1) if at < len(dims) - 1 else raw, dims[:at] + dims[at + 1 :]


def matrix(weight: Tensor, in_dim: Dim) -> torch.Tensor:
    """A matrix as torch wants it, (out, in), whatever the order of its axes is."""
    first = weight.dims[0]
    raw: torch.Tensor = weight.raw_tensor
    return raw.t() if first is in_dim or first == in_dim else raw


def product(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """x W' + b. In mixed precision the bias is added in its own precision. Shape: (…, in), (out, in), (out,)"""
    if bias is None or not torch.is_autocast_enabled(x.device.type):
        return linear(x, weight, bias)
    found = linear(x, weight)
    return (found + bias).to(found.dtype) if output_keeps_dtype() else found + bias
